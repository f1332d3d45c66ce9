"""Which brands a request may touch, tried on the smallest view there can be."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import RequestFactory
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from brands.access import BrandScoped
from brands.models import AppKey, Brand, KeyKind, Membership, Role
from tests.factories import make_brand, make_key

pytestmark = pytest.mark.django_db
requests = RequestFactory()


class Names(BrandScoped, APIView):
    """The names of the keys one may see; a new one's brand."""

    def get(self, request: Request) -> Response:  # noqa: ARG002
        return Response(sorted(self.scoped(AppKey.objects.all()).values_list("name", flat=True)))

    def post(self, request: Request) -> Response:  # noqa: ARG002
        return Response(self.brand_for_writing().slug)


def ask(method: str, *, user: User | None = None, key: str = "", **given: Any) -> tuple[int, Any]:
    if method == "post":
        given["content_type"] = "application/json"
    headers = {"HTTP_AUTHORIZATION": f"Bearer {key}"} if key else {}
    request = getattr(requests, method)("/", **given, **headers)
    request.user = user
    request._dont_enforce_csrf_checks = True
    answer = Names.as_view()(request)
    return answer.status_code, answer.data


def make_staff(*roles: tuple[Brand, Role], **fields: Any) -> User:
    user = User.objects.create(username=f"user-{User.objects.count()}", **fields)
    for brand, role in roles:
        Membership.objects.create(user=user, brand=brand, role=role)
    return user


def two_brands() -> tuple[Brand, Brand]:
    ours, theirs = make_brand(slug="ours"), make_brand(slug="theirs")
    for brand in (ours, theirs):
        AppKey.issue(brand=brand, kind=KeyKind.PUBLISHABLE, name=f"of {brand.slug}")
    return ours, theirs


def test_it_shows_a_server_key_its_own_brand_only() -> None:
    ours, _ = two_brands()
    assert ask("get", key=make_key(ours)) == (200, ["of ours", "test"])


def test_it_takes_the_brand_of_a_server_key_for_what_it_writes() -> None:
    ours, _ = two_brands()
    assert ask("post", key=make_key(ours)) == (200, "ours")


def test_it_gives_a_server_key_no_other_brand_though_it_asks() -> None:
    ours, _ = two_brands()
    key = make_key(ours)
    assert ask("get", key=key, data={"brand": "theirs"}) == (200, [])
    assert ask("post", key=key, data={"brand": "theirs"})[0] == 422


@pytest.mark.parametrize("role", list(Role))
def test_it_lets_every_role_read_its_brand(role: Role) -> None:
    ours, _ = two_brands()
    assert ask("get", user=make_staff((ours, role))) == (200, ["of ours"])


@pytest.mark.parametrize(
    ("role", "status"), [(Role.SUPPORT, 403), (Role.MARKETER, 200), (Role.ADMIN, 200)]
)
def test_it_lets_marketers_and_admins_write(role: Role, status: int) -> None:
    ours, _ = two_brands()
    assert ask("post", user=make_staff((ours, role)))[0] == status


def test_it_asks_which_brand_where_there_are_several() -> None:
    ours, theirs = two_brands()
    user = make_staff((ours, Role.MARKETER), (theirs, Role.MARKETER))
    assert ask("post", user=user)[0] == 422
    assert ask("post", user=user, data={"brand": "theirs"}) == (200, "theirs")
    assert ask("post", user=user, data={"brand": str(ours.pk)}) == (200, "ours")


def test_it_lets_nobody_write_where_he_may_only_read() -> None:
    ours, theirs = two_brands()
    user = make_staff((ours, Role.SUPPORT), (theirs, Role.MARKETER))
    assert ask("get", user=user) == (200, ["of ours", "of theirs"])
    assert ask("post", user=user, data={"brand": "ours"})[0] == 422


def test_it_gives_a_superuser_every_brand() -> None:
    two_brands()
    assert ask("get", user=make_staff(is_superuser=True)) == (200, ["of ours", "of theirs"])


def test_it_refuses_who_belongs_to_no_brand() -> None:
    assert ask("get", user=make_staff())[0] == 403


def test_it_refuses_whoever_left() -> None:
    ours, _ = two_brands()
    assert ask("get", user=make_staff((ours, Role.ADMIN), is_active=False))[0] == 401


def test_it_refuses_who_shows_nothing() -> None:
    assert ask("get")[0] == 401


def test_it_refuses_a_key_that_nobody_issued() -> None:
    assert ask("get", key="nc_sk_nobody")[0] == 401


def test_it_refuses_the_key_that_ships_in_apps() -> None:
    assert ask("get", key=make_key(make_brand(), KeyKind.PUBLISHABLE))[0] == 403


@pytest.mark.parametrize("brand", ["", "no-such", "0", "99999999999999999999", "a\0b", "é"])
def test_it_stays_calm_about_strange_brands(brand: str) -> None:
    ours, _ = two_brands()
    assert ask("get", key=make_key(ours), data={"brand": brand})[0] == 200

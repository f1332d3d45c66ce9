"""Keys, staff and the brand itself in the admin."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from brands.keys import keys
from brands.models import AppKey, Membership, Role
from tests.factories import make_brand
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db

SECRET = re.compile(r'<code id="secret">([^<]+)</code>')
KEYS = "admin:brands_appkey_changelist"


def make_key(client: Client, kind: str = "server") -> str:
    answer = client.post(reverse("admin:brands_appkey_add"), {"name": "Till", "kind": kind})
    found = SECRET.search(answer.content.decode())
    assert found, answer.content.decode()[:500]
    return found[1]


def test_it_shows_a_new_key_once_and_keeps_only_its_digest() -> None:
    client = logged_in(make_member(make_brand()))
    secret = make_key(client)
    key = AppKey.objects.get()
    assert key.digest == AppKey.digest_of(secret)
    for address in (reverse(KEYS), reverse("admin:brands_appkey_change", args=[key.pk])):
        assert secret not in client.get(address).content.decode()


def test_it_forbids_caches_to_keep_the_page_with_the_secret() -> None:
    client = logged_in(make_member(make_brand()))
    answer = client.post(reverse("admin:brands_appkey_add"), {"name": "a", "kind": "server"})
    assert "no-store" in answer["Cache-Control"]


def test_it_makes_keys_in_the_brand_worked_in() -> None:
    user = make_member(here := make_brand(name="A"))
    Membership.objects.create(user=user, brand=make_brand(name="B"), role=Role.ADMIN)
    client = logged_in(user)
    client.get(reverse("admin:brands_brand_work_in", args=[here.pk]))
    make_key(client)
    assert AppKey.objects.get().brand == here


def test_it_revokes_a_key_only_after_asking() -> None:
    client = logged_in(make_member(make_brand()))
    secret = make_key(client)
    key = AppKey.objects.get()
    address = reverse("admin:brands_appkey_revoke", args=[key.pk])
    client.get(address)
    assert AppKey.objects.live().exists()
    client.post(address)
    assert not AppKey.objects.live().exists()
    keys.forget(AppKey.digest_of(secret))  # what the NOTIFY does in every process
    assert keys.authenticate(secret) is None


@pytest.mark.parametrize("role", [Role.SUPPORT, Role.MARKETER])
@pytest.mark.parametrize("page", ["appkey", "membership"])
def test_it_leaves_keys_and_staff_to_admins(role: Role, page: str) -> None:
    client = logged_in(make_member(make_brand(), role))
    for name in ("changelist", "add"):
        assert client.get(reverse(f"admin:brands_{page}_{name}")).status_code == 403


def test_it_makes_an_account_for_a_new_colleague_with_a_password_shown_once() -> None:
    client = logged_in(make_member(brand := make_brand()))
    sent = {"username": "nina", "first_name": "Nina", "role": "marketer"}
    answer = client.post(reverse("admin:brands_membership_add"), sent)
    found = SECRET.search(answer.content.decode())
    assert found
    assert Client().login(username="nina", password=found[1])
    assert Membership.objects.get(user__username="nina").role == Role.MARKETER
    assert Membership.objects.get(user__username="nina").brand == brand


def test_it_takes_over_nobody_of_another_brand() -> None:
    stranger = make_member(make_brand(), username="stranger")
    client = logged_in(make_member(brand := make_brand()))
    sent = {"username": "stranger", "role": "admin"}
    answer = client.post(reverse("admin:brands_membership_add"), sent)
    assert "taken" in answer.content.decode()
    assert not Membership.objects.filter(user=stranger, brand=brand).exists()


def test_it_resets_no_password_that_opens_another_brand() -> None:
    colleague = make_member(brand := make_brand(), Role.SUPPORT)
    Membership.objects.create(user=colleague, brand=make_brand(), role=Role.SUPPORT)
    client = logged_in(make_member(brand))
    row = Membership.objects.get(user=colleague, brand=brand)
    address = reverse("admin:brands_membership_password", args=[row.pk])
    assert client.post(address).status_code == 403


def test_it_resets_a_colleagues_password() -> None:
    colleague = make_member(brand := make_brand(), Role.SUPPORT, username="sam")
    client = logged_in(make_member(brand))
    row = Membership.objects.get(user=colleague)
    answer = client.post(reverse("admin:brands_membership_password", args=[row.pk]))
    found = SECRET.search(answer.content.decode())
    assert found
    assert Client().login(username="sam", password=found[1])


def test_it_lets_nobody_change_their_own_role() -> None:
    user = make_member(make_brand())
    row = Membership.objects.get(user=user)
    address = reverse("admin:brands_membership_change", args=[row.pk])
    assert logged_in(user).post(address, {"role": "support"}).status_code == 403
    row.refresh_from_db()
    assert row.role == Role.ADMIN


def test_it_shows_accounts_to_superusers_only() -> None:
    address = reverse("admin:auth_user_changelist")
    assert logged_in(make_member(make_brand())).get(address).status_code == 403
    root = User.objects.create_superuser("root", "root@example.com", None)
    assert logged_in(root).get(address).status_code == 200


def test_it_keeps_hours_and_caps_as_the_rules_read_them() -> None:
    client = logged_in(make_member(brand := make_brand()))
    caps = [
        {"limit": 3, "window_s": 86400, "scope": "person"},
        {"limit": 1, "per": "week", "scope": "tag", "tag": "shop"},
    ]
    client.post(
        reverse("admin:brands_brand_change", args=[brand.pk]),
        {
            "name": "Renamed",
            "timezone": "Europe/Paris",
            "quiet_hours_0": "21:30",
            "quiet_hours_1": "07:00",
            "caps": json.dumps(caps),
        },
    )
    brand.refresh_from_db()
    assert brand.name == "Renamed"
    assert brand.quiet_hours == {"from": "21:30", "to": "07:00"}
    assert brand.caps == caps


@pytest.mark.parametrize(
    "caps",
    [
        "[]",
        "{}",
        '[{"limit": 0, "window_s": 60, "scope": "device"}]',
        '[{"limit": 1, "window_s": 1, "scope": "device"}]',
        '[{"limit": 1, "window_s": 60, "scope": "planet"}]',
        '[{"limit": 1, "window_s": 60, "scope": "tag"}]',
        "[3]",
        "not json",
    ],
)
def test_it_keeps_no_cap_that_means_nothing(caps: str) -> None:
    client = logged_in(make_member(brand := make_brand(caps=[])))
    sent = {"name": "Renamed", "timezone": "UTC", "caps": caps}
    client.post(reverse("admin:brands_brand_change", args=[brand.pk]), sent)
    brand.refresh_from_db()
    assert (brand.name == "Renamed") is (caps == "[]")  # none at all is fine
    assert brand.caps == []


def test_it_shows_times_in_the_brands_zone_with_utc_on_hover() -> None:
    client = logged_in(make_member(make_brand(timezone="Asia/Tokyo")))
    make_key(client)
    AppKey.objects.update(created_at="2026-01-05T20:00:00Z")
    body = client.get(reverse(KEYS)).content.decode()
    assert ">06 Jan 2026 05:00:00</time>" in body
    assert "05 Jan 2026 20:00:00 UTC" in body


def test_lists_are_called_what_they_list_and_offer_no_more_than_all_of_it() -> None:
    client = logged_in(make_member(make_brand()))
    page = client.get(reverse("admin:geofences_geofence_changelist")).content.decode()
    assert re.search(r"<title>\s*Geofences \|", page)
    assert "to change" not in page
    assert "Show all" not in page


def test_what_is_refused_or_gone_is_said_in_words_with_a_way_back() -> None:
    client = logged_in(make_member(make_brand(), Role.SUPPORT))
    for address, status, said in (
        (reverse("admin:brands_appkey_add"), 403, "You may not do this"),
        ("/admin/nowhere/", 404, "There is nothing here"),
    ):
        answer = client.get(address)
        assert answer.status_code == status
        assert said in answer.content.decode()
        assert 'href="/admin/"' in answer.content.decode()


def test_a_page_of_an_earlier_log_in_says_what_to_do() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_member(make_brand()))
    answer = client.post(reverse(KEYS), {"csrfmiddlewaretoken": "of an earlier one"})
    assert answer.status_code == 403
    assert "reload the page" in answer.content.decode()


def test_it_says_what_to_do_where_there_is_nothing() -> None:
    client = logged_in(make_member(make_brand()))
    assert "No key yet" in client.get(reverse(KEYS)).content.decode()
    assert "Three steps to the first offer" in client.get(reverse("admin:index")).content.decode()

"""Promise 7 on the admin: nobody sees or touches a row of a brand in which they have no role.

The walk takes the addresses from the admin itself, so that a page added later is walked too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

import config.urls  # noqa: F401 - registers every page, which otherwise the first request does
from brands.admin import BrandScopedAdmin
from brands.models import Membership, Role
from tests.staff import World, logged_in, make_member, make_world

pytestmark = pytest.mark.django_db

OURS, THEIRS = "Openly", "Verboten"
OWN_APPS = ("brands", "geofences", "devices", "campaigns", "notifications")


@pytest.fixture
def ours() -> World:
    return make_world(OURS)


@pytest.fixture
def theirs() -> World:
    return make_world(THEIRS)


def patterns(found: list[Any], prefix: str = "") -> Iterator[tuple[URLPattern, str]]:
    """Every address of the admin with its route."""
    for one in found:
        route = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from patterns(one.url_patterns, route)
        else:
            yield one, route


def rows_of(world: World) -> dict[str, Any]:
    """A row of the world for every model that the admin shows."""
    found: dict[type[Model], Any] = {type(row): row for row in _every(world)}
    return {model._meta.label_lower: row.pk for model, row in found.items()}


def _every(world: World) -> list[Any]:
    return [
        world.brand,
        world.geofence,
        world.device,
        world.campaign,
        world.segment,
        world.decision,
        world.delivery,
        world.key,
        world.admin,
        world.admin.memberships.get(),
        # Imports of geofences and whatever is added later: the newest row of the brand, if any.
        *(
            row
            for app in OWN_APPS
            for model in apps.get_app_config(app).get_models()
            if admin.site.is_registered(model)
            and isinstance(admin.site._registry[model], BrandScopedAdmin)
            and (row := _one(model, world)) is not None
        ),
    ]


def _one(model: type[Model], world: World) -> Any:
    field = admin.site._registry[model].brand_field  # type: ignore[attr-defined]
    return model._default_manager.filter(**{field: world.brand.pk}).first()


def addresses(world: World) -> Iterator[str]:
    """Every admin address that names a row, with the world's own rows in it."""
    ids = rows_of(world)
    for pattern, route in patterns(admin.site.urls[0]):
        if not pattern.pattern.converters.keys() & {"object_id", "brand_id"}:
            continue  # a tile of the map names a square, not a row
        parts = route.split("/")
        label = ".".join(parts[:2])
        pk = ids.get(label)
        if pk is None:
            continue
        values = {
            name: {"object_id": pk, "brand_id": world.brand.pk, "number": 1}.get(name, pk)
            for name in pattern.pattern.converters
        }
        yield (
            reverse(f"admin:{pattern.name}", kwargs=values)
            if pattern.name
            else (f"/admin/{'/'.join(parts[:2])}/{pk}/")
        )


def snapshot(world: World) -> list[list[dict[str, Any]]]:
    """Every row of the brand, to see whether one has changed."""
    rows = []
    for app in OWN_APPS:
        for model in apps.get_app_config(app).get_models():
            names = {field.name for field in model._meta.get_fields()}
            if "brand" in names or "brand_id" in names:
                mine = model._default_manager.filter(brand_id=world.brand.pk)
                rows.append([dict(row) for row in mine.order_by("pk").values()])
    members = Membership.objects.filter(brand=world.brand)
    rows.append([dict(row) for row in members.order_by("pk").values()])
    rows.append([dict(row) for row in User.objects.filter(pk=world.admin.pk).values()])
    return rows


def assert_hidden(client: Client, method: str, address: str, data: dict[str, Any]) -> None:
    answer = getattr(client, method)(address, data)
    assert answer.status_code in {302, 403, 404}, f"{method} {address}: {answer.status_code}"
    if answer.status_code == 302:  # Django's way of saying that there is no such row
        nowhere = {reverse("admin:index"), f"{address}change/", *lists()}
        assert answer.url in nowhere, f"{method} {address} leads on to {answer.url}"
    assert THEIRS not in answer.content.decode(), f"{method} {address} tells"


def test_it_walks_many_addresses(theirs: World) -> None:
    walked = list(addresses(theirs))
    pages = {address.split("/")[3] for address in walked}
    assert len(walked) > 30
    assert {"delivery", "device", "decision", "campaign", "segment", "appkey"} <= pages


def test_it_hides_every_row_of_another_brand(ours: World, theirs: World) -> None:
    client = logged_in(make_member(ours.brand, Role.ADMIN))  # who may most
    before = snapshot(theirs)
    for address in addresses(theirs):
        for method in ("get", "post"):
            assert_hidden(client, method, address, {"post": "yes", "sure": "on", "note": "x"})
    assert THEIRS not in client.get(reverse("admin:index")).content.decode()  # with all messages
    assert snapshot(theirs) == before


def lists() -> Iterator[str]:
    for model, page in admin.site._registry.items():
        if isinstance(page, BrandScopedAdmin):
            yield reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def test_it_lists_no_row_of_another_brand(ours: World, theirs: World) -> None:
    client = logged_in(ours.admin)
    asked: list[dict[str, Any]] = [
        {},
        {"q": THEIRS},
        {"q": f"{THEIRS}-person"},
        {"q": theirs.device.pk},
        {"q": theirs.delivery.pk},
        {"campaign": theirs.campaign.pk},
        {"id": theirs.campaign.pk},
        {"pk__in": f"{theirs.campaign.pk},{theirs.segment.pk}"},
        {"brand": theirs.brand.pk},
        {"brand__id__exact": theirs.brand.pk},
        {"brand__name": theirs.brand.name},
        {"name__startswith": "V"},
        {"o": "1", "p": "1"},
    ]
    for address, query in itertools.product(lists(), asked):
        answer = client.get(address, query, follow=True)
        assert answer.status_code in {200, 400, 403}, f"{address} {query}"
        body = answer.content.decode()
        for value in map(str, query.values()):  # the page may say what was asked for
            body = re.sub(rf'(="|=|%3D){re.escape(value)}(?=["&%])', "", body)
        assert THEIRS not in body, f"{address} {query} tells"


def test_it_shows_ones_own_rows_on_the_same_pages(ours: World) -> None:
    """The walk would also pass on pages that show nothing."""
    client = logged_in(ours.admin)
    for address in lists():
        assert OURS in client.get(address).content.decode(), address


def test_it_offers_no_choice_of_another_brand(ours: World, theirs: World) -> None:
    client = logged_in(ours.admin)
    autocomplete = reverse("admin:autocomplete")
    for model in admin.site._registry:
        for field in model._meta.get_fields():
            if not getattr(field, "remote_field", None) or not field.concrete:
                continue
            answer = client.get(
                autocomplete,
                {
                    "app_label": model._meta.app_label,
                    "model_name": str(model._meta.model_name),
                    "field_name": field.name,
                    "term": "",
                },
            )
            assert THEIRS not in answer.content.decode(), f"{model}.{field.name}"


def test_it_answers_the_builders_scripts_for_ones_own_brand_only(
    ours: World, theirs: World
) -> None:
    client = logged_in(ours.admin)
    for name in ("places", "shapes"):
        address = reverse(f"admin:campaigns_campaign_{name}")
        query: dict[str, Any] = {
            "brand": ours.brand.pk,
            "id": theirs.geofence.pk,
            "tag": f"{THEIRS}-tag",
        }
        answer = client.get(address, query | {"q": THEIRS})
        assert THEIRS not in answer.content.decode()
        assert client.get(address, query | {"brand": theirs.brand.pk}).status_code == 404
    preview = reverse("admin:campaigns_campaign_preview")
    sent = {"brand": theirs.brand.pk, "name": "x", "on": "entered"}
    assert client.post(preview, sent).status_code == 404
    sent = {"brand": ours.brand.pk, "name": "x", "on": "entered", "title": "a", "body": "b"}
    sent |= {
        "preview_device": theirs.device.pk,
        "places": f'{{"geofences": [{theirs.geofence.pk}]}}',
    }
    body = client.post(preview, sent).content.decode()
    assert THEIRS not in body
    assert "no such device" in body


def test_it_makes_no_campaign_in_another_brand(ours: World, theirs: World) -> None:
    before = snapshot(theirs)
    sent = {"brand": theirs.brand.pk, "name": "Trojan", "on": "entered", "save": "1"}
    answer = logged_in(ours.admin).post(reverse("admin:campaigns_campaign_add"), sent)
    assert answer.status_code == 403
    assert snapshot(theirs) == before


def test_it_moves_to_no_brand_without_a_role_in_it(ours: World, theirs: World) -> None:
    client = logged_in(ours.admin)
    client.get(reverse("admin:brands_brand_work_in", args=[theirs.brand.pk]))
    body = client.get(reverse("admin:index")).content.decode()
    assert OURS in body
    assert THEIRS not in body


def test_it_moves_to_the_brand_of_the_row_that_is_opened(ours: World, theirs: World) -> None:
    Membership.objects.create(user=ours.admin, brand=theirs.brand, role=Role.SUPPORT)
    client = logged_in(ours.admin)
    page = client.get(reverse("admin:campaigns_campaign_change", args=[theirs.campaign.pk]))
    assert f"{THEIRS} campaign" in page.content.decode()
    listed = client.get(reverse("admin:campaigns_campaign_changelist")).content.decode()
    assert f"{THEIRS} campaign" in listed
    assert f"{OURS} campaign" not in listed


def test_it_keeps_a_role_to_its_brand(ours: World, theirs: World) -> None:
    """An admin here who is support there edits nothing there."""
    Membership.objects.create(user=ours.admin, brand=theirs.brand, role=Role.SUPPORT)
    client = logged_in(ours.admin)
    address = reverse("admin:campaigns_campaign_change", args=[theirs.campaign.pk])
    sent = {"brand": theirs.brand.pk, "name": "Changed", "on": "entered", "save": "1"}
    assert client.post(address, sent).status_code == 403
    assert (
        client.get(reverse("admin:brands_appkey_change", args=[theirs.key.pk])).status_code == 403
    )
    theirs.campaign.refresh_from_db()
    assert theirs.campaign.name == f"{THEIRS} campaign"


def test_it_shows_a_superuser_every_brand(ours: World, theirs: World) -> None:
    root = User.objects.create_superuser("root", "root@example.com", "x")
    body = logged_in(root).get(reverse("admin:brands_brand_changelist")).content.decode()
    assert OURS in body
    assert THEIRS in body

"""Two people at one page of the admin: the second is told, whatever the page and the moment."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand
from campaigns import coupons, definition
from campaigns.forms import CampaignForm, initial_of
from campaigns.models import BrandGuard, Campaign, ControlGroup, CouponPool, Segment
from geofences import writing
from geofences.models import Geofence
from tests.campaigns.pages import untouched
from tests.campaigns.rows import a_definition, make_campaign
from tests.factories import make_brand, make_circle
from tests.staff import logged_in, make_member
from tests.waiting import Late

COMPLAINT = {"event": "complaint", "within_s": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A page that two people open: its row, the field they change, and all that is sent."""

    make: Callable[[Brand], Model]
    field: str
    form: dict[str, str]
    bad: dict[str, str]  # what is sent instead by who mistypes
    values: tuple[str, str] = ("Hers", "His")


PAGES = {
    "segment": Shared(
        make=lambda brand: Segment.objects.create(brand=brand, name="S", slug="s", tree={}),
        field="name",
        form={"tree": "{}"},
        bad={"tree": "no tree"},
    ),
    "rule": Shared(
        make=lambda brand: BrandGuard.objects.create(brand=brand, name="R", rule=COMPLAINT),
        field="name",
        form={"rule": json.dumps([COMPLAINT])},
        bad={"rule": "[]"},
    ),
    "pool": Shared(
        make=lambda brand: coupons.new_pool(brand, name="P", slug="p", kind="imported"),
        field="name",
        form={"kind": "imported", "warn_below": "5"},
        bad={"warn_below": "many"},
    ),
    "control group": Shared(
        make=lambda brand: ControlGroup.objects.create(brand=brand, share=0.05),
        field="salt",
        form={"percent": "5"},
        bad={"percent": "51"},
    ),
    "brand": Shared(
        make=lambda brand: brand,
        field="name",
        form={"timezone": "UTC", "caps": "[]"},
        bad={"timezone": "Moon"},
    ),
    "geofence": Shared(
        make=make_circle,
        field="name",
        form={
            "place": "",
            "tags": "[]",
            "metadata": "{}",
            "exit_buffer_m": "20",
            "confirm_fixes": "1",
            "confirm_s": "0",
        },
        bad={"confirm_s": "-1"},
    ),
}
every_page = pytest.mark.parametrize("shared", PAGES.values(), ids=PAGES.keys())


def mark_on(page: str) -> str:
    (found,) = re.findall(r'name="mark"(?: value="([^"]*)")?', page)
    return str(found)


def address(row: Model) -> str:
    return reverse(f"admin:{row._meta.label_lower.replace('.', '_')}_change", args=[row.pk])


@dataclass(frozen=True, slots=True)
class Desk:
    """Somebody at a page that they opened."""

    client: Client
    at: str
    shared: Shared

    def opened(self) -> str:
        return mark_on(self.client.get(self.at).content.decode())

    def save(self, value: str, mark: str, **fields: str) -> Any:
        sent = {**self.shared.form, self.shared.field: value, **fields, "mark": mark}
        return self.client.post(self.at, sent)


@pytest.mark.django_db
@every_page
def test_it_tells_the_second_and_keeps_what_both_have_typed(shared: Shared) -> None:
    row = shared.make(brand := make_brand())
    desk = Desk(logged_in(make_member(brand)), address(row), shared)
    opened = desk.opened()
    hers, his = shared.values

    assert desk.save(hers, opened).status_code == 302
    page = desk.save(his, opened).content.decode()

    assert f"Somebody saved this {row._meta.verbose_name}" in page
    assert f'href="{desk.at}" target="_blank"' in page
    assert f'value="{his}"' in page
    row.refresh_from_db()
    assert getattr(row, shared.field) == hers
    assert desk.save(his, mark_on(page)).status_code == 302
    row.refresh_from_db()
    assert getattr(row, shared.field) == his


@pytest.mark.django_db
@every_page
def test_who_mistypes_is_told_all_the_same(shared: Shared) -> None:
    row = shared.make(brand := make_brand())
    desk = Desk(logged_in(make_member(brand)), address(row), shared)
    opened = desk.opened()
    hers, his = shared.values

    page = desk.save(his, opened, **shared.bad).content.decode()
    assert "Somebody saved" not in page
    assert mark_on(page) == opened
    desk.save(hers, opened)

    assert "Somebody saved" in desk.save(his, mark_on(page)).content.decode()


@pytest.mark.django_db
@every_page
def test_it_tells_nobody_of_what_they_saved_themselves(shared: Shared) -> None:
    row = shared.make(brand := make_brand())
    desk = Desk(logged_in(make_member(brand)), address(row), shared)
    for value in shared.values:
        assert desk.save(value, desk.opened()).status_code == 302


@every_page
def test_it_sees_what_is_being_saved_at_this_moment(transactional_db: None, shared: Shared) -> None:
    row = shared.make(brand := make_brand())
    desk = Desk(logged_in(make_member(brand)), address(row), shared)
    opened = desk.opened()
    hers, his = shared.values
    setattr(row, shared.field, hers)

    with transaction.atomic():
        row.save()
        late = Late(lambda: desk.save(his, opened))
    page = late.answer().content.decode()

    assert "Somebody saved" in page
    row.refresh_from_db()
    assert getattr(row, shared.field) == hers


@pytest.mark.django_db
def test_to_save_without_a_change_overtakes_nobody() -> None:
    shared = PAGES["segment"]
    row = shared.make(brand := make_brand())
    desk = Desk(logged_in(make_member(brand)), address(row), shared)
    opened = desk.opened()
    assert desk.save("S", opened).status_code == 302
    assert desk.save("His", opened).status_code == 302


@pytest.mark.django_db
def test_a_geofence_that_a_colleague_retires_is_a_change_and_one_that_is_armed_is_none() -> None:
    shared = PAGES["geofence"]
    shop = make_circle(brand := make_brand())
    desk = Desk(logged_in(make_member(brand)), address(shop), shared)
    opened = desk.opened()
    make_campaign(brand, shop)
    assert Geofence.objects.get().armed_until is not None
    assert desk.opened() == opened
    writing.retire([shop.pk], now=now())
    assert "Somebody saved" in desk.save("His", opened).content.decode()


@pytest.mark.django_db
def test_a_group_that_two_make_is_made_once() -> None:
    desk = Desk(
        logged_in(make_member(make_brand())),
        reverse("admin:campaigns_controlgroup_add"),
        PAGES["control group"],
    )
    opened = desk.opened()
    assert desk.save("1", opened).status_code == 302
    page = desk.save("1", opened, percent="10").content.decode()
    assert "Somebody saved this control group" in page
    assert 'value="10"' in page
    assert ControlGroup.objects.get().share == 0.05
    assert desk.save("1", mark_on(page), percent="10").status_code == 302
    assert ControlGroup.objects.get().share == 0.1


def test_a_group_that_two_make_at_one_moment_is_made_once(transactional_db: None) -> None:
    desk = Desk(
        logged_in(make_member(brand := make_brand())),
        reverse("admin:campaigns_controlgroup_add"),
        PAGES["control group"],
    )
    opened = desk.opened()
    with transaction.atomic():
        ControlGroup.objects.create(brand=brand, share=0.05)
        late = Late(lambda: desk.save("1", opened, percent="10"))
    assert "Somebody saved this control group" in late.answer().content.decode()
    assert ControlGroup.objects.get().share == 0.05


def test_what_is_deleted_at_this_moment_is_not_made_again(transactional_db: None) -> None:
    shared = PAGES["pool"]
    pool = shared.make(brand := make_brand())
    desk = Desk(logged_in(make_member(brand)), address(pool), shared)
    opened = desk.opened()
    with transaction.atomic():
        pool.delete()
        late = Late(lambda: desk.save("His", opened))
    assert "Somebody deleted this coupon pool" in late.answer().content.decode()
    assert not CouponPool.objects.exists()


@pytest.mark.django_db
def test_the_builder_keeps_the_mark_of_the_draft_that_was_opened() -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, **(raw := a_definition(shop)))
    client, at = logged_in(make_member(brand)), address(campaign)
    form = CampaignForm(brand=brand, base=raw, initial=initial_of(definition.decode(raw), name="C"))
    sent = dict(untouched(form).lists()) | {"brand": brand.pk}
    opened = mark_on(client.get(at).content.decode())

    page = client.post(at, sent | {"name": "", "mark": opened}).content.decode()
    assert client.post(at, sent | {"name": "Hers", "mark": opened}).status_code == 302
    told = client.post(at, sent | {"name": "His", "mark": mark_on(page)}).content.decode()

    assert "saved this campaign at" in html.unescape(told)
    assert Campaign.objects.get().name == "Hers"
    assert client.post(at, sent | {"name": "His", "mark": mark_on(told)}).status_code == 302

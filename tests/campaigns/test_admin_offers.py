"""Money, coupons and experiments in the admin: what is typed is kept, what came of it is shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import coupon_imports, coupons, definition
from campaigns.differences import differences
from campaigns.evaluation import evaluate_once
from campaigns.forms import CampaignForm
from campaigns.models import Campaign, ControlGroup, Coupon, CouponImport, CouponPool
from campaigns.sentences import sentence
from geofences.models import Geofence
from notifications.models import Delivery, Feedback
from tests.campaigns.rows import a_definition, make_campaign, make_event, make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand, name="North")


@pytest.fixture
def client(brand: Brand) -> Client:
    return logged_in(make_member(brand, Role.MARKETER))


def typed(brand: Brand, **fields: Any) -> CampaignForm:
    return CampaignForm({"name": "N", "on": "entered", **fields}, brand=brand)


def test_money_is_typed_in_euros_and_kept_in_cents(brand: Brand) -> None:
    form = typed(brand, budget_1="1234.5", budget_2="100", budget_8="1.5", budget_9="eur")
    assert form.is_valid(), form.errors
    assert form.raw()["budget"] == {
        "total": {"money": 123450}, "per_day": {"sends": 100}, "cost": 150, "currency": "EUR",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"budget_1": "1.005", "budget_9": "EUR"}, "budget", "decimals"),
        ({"budget_1": "1.5", "budget_9": "JPY"}, "budget", "decimals"),
        ({"budget_0": "-1"}, "budget", "greater"),
        ({"budget_0": "1", "budget_9": "€"}, "budget", "three letters"),
        ({"budget_0": "1", "budget_10": "Mars/Base"}, "budget", "time zone"),
        ({"goal_0": "event"}, "goal", "Name the event"),
        ({"holdout": "95"}, "holdout", "90"),
        ({"variants": "{}"}, "variants", "read"),
    ],
)
def test_it_says_what_cannot_be_meant(
    brand: Brand, fields: dict[str, str], field: str, says: str
) -> None:
    form = typed(brand, **fields)
    assert not form.is_valid()
    assert says in str(form.errors[field])


def test_what_is_wrong_is_marked_at_its_field(client: Client, brand: Brand, shop: Geofence) -> None:
    answer = client.post(
        reverse("admin:campaigns_campaign_add"),
        {
            "brand": brand.pk, "name": "N", "on": "entered", "publish": "1",
            "places": f'{{"geofences": [{shop.pk}]}}', "title": "T", "body": "B",
            "budget_0": "0", "optimise": "on",
        },
    )  # fmt: skip
    page = answer.content.decode()
    assert "A budget of nothing sends nothing." in page
    assert "Optimising needs at least two variants and a goal." in page
    assert answer.context["form"].offer_groups() == {
        "budget": True, "coupons": False, "variants": True, "worth": False,
    }  # fmt: skip
    assert Campaign.objects.get().state == "draft"


def test_the_groups_stay_closed_where_nothing_is_said(client: Client) -> None:
    page = client.get(reverse("admin:campaigns_campaign_add")).content.decode()
    part = page[page.index('id="part-worth"') : page.index("nc-side")]
    assert part.count("<details") == 4
    assert '<details class="nc-more" open' not in part


def test_it_offers_the_pools_with_what_is_left(client: Client, brand: Brand) -> None:
    pool = coupons.new_pool(brand, name="Summer", slug="summer")
    coupon_imports.take(pool, [(1, "AAA")])
    coupons.new_pool(brand, name="Signed", slug="signed", kind="signed")
    coupons.new_pool(make_brand(), name="Foreign", slug="foreign")
    page = client.get(reverse("admin:campaigns_campaign_add")).content.decode()
    assert "Summer (1 left, running low)" in page
    assert "Signed (no end)" in page
    assert "Foreign" not in page


def test_words_and_differences_know_them() -> None:
    plain = definition.decode({})
    rich = definition.decode(
        {
            "budget": {"per_day": {"sends": 5}},
            "coupon_pool": "summer",
            "content": {"title": "Hi", "body": "{{ coupon.code }}"},
            "variants": [{"name": "a", "content": {"title": "A"}}, {"name": "b", "weight": 2}],
            "holdout": 0.125,
            "goal": {"tags": ["till"], "within_s": 3600},
            "optimise": {},
        }
    )
    said = sentence(rich)
    for part in (
        "with a coupon of “summer”", "spending at most 5 offers a day", "in 2 variants",
        "with 12.5 % of people left out", "so that they come to any place tagged “till” within",
    ):  # fmt: skip
        assert part in said
    titles = {change.title for change in differences(plain, rich, {})}
    assert titles >= {
        "Budget", "Coupons", "Variant a", "Variant b", "Left out, to compare", "Goal",
        "Best variant gets more",
    }  # fmt: skip


def results_of(client: Client, campaign: Campaign) -> str:
    return client.get(
        reverse("admin:campaigns_campaign_results", args=[campaign.pk])
    ).content.decode()


def test_results_begin_empty(client: Client, brand: Brand, shop: Geofence) -> None:
    assert "Nothing to show yet" in results_of(client, make_campaign(brand, shop))


def test_results_show_variants_lift_and_places(
    client: Client, brand: Brand, shop: Geofence
) -> None:
    campaign = make_campaign(
        brand,
        shop,
        holdout=0.4,
        variants=[{"name": "short"}, {"name": "long"}],
        goal={"event": "purchase", "within_s": 3600},
        budget={"total": {"money": 100_000}, "cost": 100, "currency": "EUR"},
    )
    for number in range(40):
        device = make_device(brand, external_id=f"p{number}")
        make_transition(device, shop)
    evaluate_once(now=now())
    for offer in Delivery.objects.all():
        make_event(None, brand, "purchase", external_id=offer.person, occurred_at=now())
    first = Delivery.objects.order_by("id")[0]
    Delivery.objects.update(state="sent")
    Feedback.objects.create(delivery=first, event="opened", occurred_at=now())
    page = results_of(client, campaign)
    for part in (
        "better than chance", "By variant", "short", "long", "Left out by this campaign", "North",
        "report “purchase” within 1 hour", "Newcombe", "95%", "100.0%",
        f"{Delivery.objects.count()} offers, {Delivery.objects.count()}.00 EUR",
    ):  # fmt: skip
        assert part in page, part
    stranger = logged_in(make_member(make_brand(), Role.MARKETER))
    answer = stranger.get(reverse("admin:campaigns_campaign_results", args=[campaign.pk]))
    assert answer.status_code in {302, 403, 404}


def test_results_say_what_is_missing_to_compare(
    client: Client, brand: Brand, shop: Geofence
) -> None:
    campaign = make_campaign(brand, shop)
    make_transition(make_device(brand), shop)
    evaluate_once(now=now())
    page = results_of(client, campaign)
    assert "has no goal" in page
    assert "Wilson" not in page, "no share is shown whose method could be told"
    other = make_campaign(brand, shop, goal={"feedback": "opened"}, group="x")
    make_transition(make_device(brand), shop)
    evaluate_once(now=now())
    assert "cannot react to it" in results_of(client, other)


def test_a_pool_is_made_filled_and_watched(
    client: Client, brand: Brand, settings: Any, tmp_path: Any
) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    made = client.post(
        reverse("admin:campaigns_couponpool_add"),
        {"name": "Summer sale", "kind": "imported", "warn_below": "10"},
    )
    pool = CouponPool.objects.get()
    assert made.status_code == 302
    assert (pool.slug, pool.brand, len(pool.key)) == ("summer-sale", brand, 64)
    at = reverse("admin:campaigns_couponpool_change", args=[pool.pk])
    file = SimpleUploadedFile("codes.txt", b"A1\nA2\nA1\n")
    client.post(at, {"upload": "1", "file": file})
    assert 'http-equiv="refresh"' in client.get(at).content.decode()
    job = coupon_imports.claim(now=now())
    assert job is not None
    for _ in coupon_imports.execute(job, tmp_path / (job.file.name or "")):
        pass
    coupon_imports.finish(job, now=now())
    page = client.get(at).content.decode()
    assert "2 left" in page
    assert "twice in this file" in page
    assert "running low" in page
    assert 'http-equiv="refresh"' not in page
    listed = client.get(reverse("admin:campaigns_couponpool_changelist")).content.decode()
    assert "2 left" in listed
    Coupon.objects.update(state="drawn")
    assert "refuse offers until" in client.get(at).content.decode()


def test_only_admins_see_the_key_of_signed_codes(client: Client, brand: Brand) -> None:
    pool = coupons.new_pool(brand, name="S", slug="s", kind="signed")
    at = reverse("admin:campaigns_couponpool_change", args=[pool.pk])
    assert pool.key not in client.get(at).content.decode()
    admin = logged_in(make_member(brand, Role.ADMIN))
    assert pool.key in admin.get(at).content.decode()
    support = logged_in(make_member(brand, Role.SUPPORT))
    assert support.get(at).status_code == 200
    assert support.post(at, {"name": "X", "warn_below": "1"}).status_code == 403
    file = SimpleUploadedFile("codes.txt", b"A1\n")
    assert client.post(at, {"upload": "1", "file": file}).status_code == 403
    assert not CouponImport.objects.exists()


def test_what_tills_rely_on_does_not_change(client: Client, brand: Brand, shop: Geofence) -> None:
    pool = coupons.new_pool(brand, name="S", slug="s", kind="signed")
    coupon_body = {"title": "T", "body": "{{ coupon.code }}"}
    make_campaign(brand, **a_definition(shop, coupon_pool="s", content=coupon_body))
    make_transition(make_device(brand), shop)
    evaluate_once(now=now())
    client.post(
        reverse("admin:campaigns_couponpool_change", args=[pool.pk]),
        {"name": "Renamed", "kind": "imported", "last_day": "2030-01-01", "warn_below": "5"},
    )
    pool.refresh_from_db()
    assert (pool.name, pool.kind, pool.last_day, pool.warn_below) == ("Renamed", "signed", None, 5)


def test_the_control_group_is_the_admins_to_set(client: Client, brand: Brand) -> None:
    at = reverse("admin:campaigns_controlgroup_add")
    assert client.get(at).status_code == 403
    admin = logged_in(make_member(brand, Role.ADMIN))
    assert admin.post(at, {"percent": "5", "salt": "1"}).status_code == 302
    group = ControlGroup.objects.get()
    assert (group.share, group.brand) == (0.05, brand)
    assert admin.get(at).status_code == 403
    page = reverse("admin:campaigns_controlgroup_change", args=[group.pk])
    shown = admin.get(page).content.decode()
    assert re.search(r'<input[^>]*name="percent"[^>]*value="5.0"[^>]*class="nc-input', shown)
    assert 'name="_continue"' not in shown, "none of the theme's own form"
    refused = admin.post(page, {"percent": "51", "salt": "1"}).content.decode()
    assert "less than or equal to 50" in refused
    assert client.post(page, {"percent": "1", "salt": "1"}).status_code == 403
    admin.post(page, {"percent": "7.5", "salt": "1"})
    group.refresh_from_db()
    assert group.share == 0.075
    group.share = 0.05
    group.save()
    listed = admin.get(reverse("admin:campaigns_controlgroup_changelist")).content.decode()
    assert "5.0% of people" in listed

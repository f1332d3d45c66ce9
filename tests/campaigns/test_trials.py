"""An offer looked at before it is published, and sent to one phone by hand."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import previews, publishing, trials
from campaigns.definition import decode
from campaigns.evaluation import evaluate_once
from campaigns.models import Campaign, CampaignLog, Decision
from campaigns.previews import Stage
from campaigns.standing import still_live
from devices.models import Profile
from geofences.models import Geofence
from notifications import leases
from notifications.models import Delivery
from notifications.push import payload_bytes
from tests.campaigns.rows import a_definition, make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device, make_key
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db
TEXTS = {
    "title": "Hi {{ device.attributes.first_name }}",
    "body": "At {{ place.name }}",
    "locales": {"fr": {"title": "Salut {{ device.attributes.first_name }}"}},
    "push": {"apns_badge": 3, "android_channel_id": "offers", "ttl_s": 60},
}


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand, name="Kallio")


@pytest.fixture
def draft(brand: Brand, shop: Geofence) -> Campaign:
    raw = a_definition(shop) | {"content": TEXTS}
    return publishing.create(brand=brand, name="Coffee", raw=raw, actor=None)


def stage(draft: Campaign, who: str = "", place: str = "") -> Stage:
    wanted = decode(draft.draft)
    return Stage(
        brand_name=draft.brand.name,
        name=draft.name,
        wanted=wanted,
        who=previews.person(draft.brand, who),
        place=previews.place(draft.brand, wanted, place),
    )


def send(draft: Campaign, device: str, **fields: Any) -> Delivery:
    asked = {"raw": draft.draft, "actor": None, "now": now()} | fields
    return Delivery.objects.get(pk=trials.send(draft, device=device, **asked))


def test_it_shows_every_language_to_a_real_person(draft: Campaign) -> None:
    device = make_device(draft.brand, external_id="anna", locale="fr-CA")
    Profile.objects.create(brand=draft.brand, external_id="anna", attributes={"first_name": "Anna"})
    for asked in ("anna", str(device.pk)):
        seen = {one.locale: one.made["title"] for one in previews.previews(stage(draft, asked))}
        assert seen == {"fr": "Salut Anna", "": "Hi Anna"}


def test_it_shows_it_to_a_person_without_a_device(draft: Campaign) -> None:
    Profile.objects.create(
        brand=draft.brand, external_id="bo", attributes={"first_name": "Bo", "locale": "fr"}
    )
    who = previews.person(draft.brand, "bo")
    assert who is not None
    assert who.locale == "fr"
    assert previews.person(make_brand(), "bo") is None


@pytest.mark.parametrize("asked", ["Harbour", "harbour", "h-1"])
def test_it_shows_it_at_a_chosen_place(draft: Campaign, asked: str) -> None:
    make_circle(draft.brand, name="Harbour", external_id="h-1")
    shown = [one.made["body"] for one in previews.previews(stage(draft, place=asked))]
    assert set(shown) == {"At Harbour"}


def test_it_counts_the_bytes_that_are_sent(draft: Campaign) -> None:
    one = previews.previews(stage(draft))[0]
    assert one.size == payload_bytes(previews.push_of(one.made, decode(draft.draft)))


def test_it_shows_what_each_platform_is_sent(draft: Campaign) -> None:
    one = previews.previews(stage(draft))[0]
    sent = dict(previews.messages(one.made, decode(draft.draft)))
    assert set(sent) == {"ios", "android", "web"}
    assert '"badge": 3' in sent["ios"]
    assert '"android"' not in sent["ios"]
    assert '"channel_id": "offers"' in sent["android"]
    assert '"TTL": "60"' in sent["web"]


def test_it_sends_one_marked_logged_test(draft: Campaign) -> None:
    device = make_device(draft.brand, external_id="anna", consent_marketing=False)
    actor = make_member(draft.brand)

    sent = send(draft, "anna", actor=actor)

    assert (sent.device_id, sent.moment_kind, sent.campaign_name) == (
        device.pk,
        "test",
        "Test of Coffee",
    )
    assert sent.content["data"] == {"test": "true"}
    assert sent.content["body"] == "At Kallio"
    logged = sent.actions.get()
    assert (logged.action, logged.actor, logged.note) == ("test", actor, "to anna")
    assert CampaignLog.objects.filter(campaign=draft, action="tested", actor=actor).exists()
    assert not Decision.objects.exists()


def test_a_test_counts_for_no_cap(brand: Brand, shop: Geofence) -> None:
    scopes = ("device", "person", "campaign", "brand")
    caps = [{"limit": 1, "per": "day", "scope": scope} for scope in scopes]
    live = make_campaign(brand, shop, caps=caps)
    device = make_device(brand, external_id="anna")
    for _ in range(3):
        send(live, "anna")

    make_transition(device, shop)
    evaluate_once(now=now())

    assert Decision.objects.get().verdict == "send"


def test_a_test_goes_out_though_its_campaign_rests(brand: Brand, shop: Geofence) -> None:
    live = make_campaign(brand, shop)
    make_device(brand, external_id="anna", push_token="token")
    publishing.pause(live, actor=None)
    send(live, "anna")
    claimed = leases.claim(limit=10, lease_s=60, now=now())
    assert [one.moment_kind for one in claimed] == ["test"]
    assert still_live(claimed, now=now()) == {}


@pytest.mark.parametrize(
    ("device", "fields", "why"),
    [
        ("nobody", {}, "no such device"),
        ("", {}, "no such device"),
        ("bo", {}, "no such device"),  # a person without one
        ("anna", {"raw": {}}, "no offer"),
        ("anna", {"raw": {"content": {"title": "{{ x", "body": "y"}}}, "title: "),
    ],
)
def test_it_says_why_it_cannot_be_sent(
    draft: Campaign, device: str, fields: dict[str, Any], why: str
) -> None:
    make_device(draft.brand, external_id="anna")
    Profile.objects.create(brand=draft.brand, external_id="bo")
    with pytest.raises(trials.TrialError, match=why):
        send(draft, device, **fields)
    assert not Delivery.objects.exists()


def test_a_back_office_looks_and_tests(draft: Campaign, client: Client) -> None:
    make_device(draft.brand, external_id="anna", attributes={"first_name": "Anna"})
    key = {"authorization": f"Bearer {make_key(draft.brand)}"}
    at = f"/v1/campaigns/{draft.pk}"

    seen = client.post(
        f"{at}/preview", {"device": "anna"}, content_type="application/json", headers=key
    ).json()
    assert (seen["device"], seen["place"]) == ("anna", "Kallio")
    assert [one["content"]["title"] for one in seen["previews"]] == ["Salut Anna", "Hi Anna"]
    assert seen["previews"][0]["platforms"]["ios"]["apns"]["payload"]["aps"]["badge"] == 3
    wrong = client.post(
        f"{at}/preview", {"place": "nowhere"}, content_type="application/json", headers=key
    )
    assert (wrong.status_code, list(wrong.json()["fields"])) == (422, ["place"])

    sent = client.post(
        f"{at}/test", {"device": "anna"}, content_type="application/json", headers=key
    )
    assert sent.status_code == 201
    assert Delivery.objects.get().pk == sent.json()["delivery_id"]
    found = client.get(at, headers=key).json()
    assert (found["missing"], [one["code"] for one in found["warnings"]]) == ([], ["half_a_locale"])


def test_a_strangers_key_sends_nothing(draft: Campaign, client: Client) -> None:
    make_device(draft.brand, external_id="anna")
    key = {"authorization": f"Bearer {make_key(make_brand())}"}
    for path in ("preview", "test"):
        answer = client.post(
            f"/v1/campaigns/{draft.pk}/{path}",
            {"device": "anna"},
            content_type="application/json",
            headers=key,
        )
        assert answer.status_code == 404
    assert not Delivery.objects.exists()


def test_support_may_not_send_tests(draft: Campaign) -> None:
    make_device(draft.brand, external_id="anna")
    support = logged_in(make_member(draft.brand, Role.SUPPORT))
    at = reverse("admin:campaigns_campaign_test", args=[draft.pk])
    assert support.post(at, {"preview_device": "anna"}).status_code == 403

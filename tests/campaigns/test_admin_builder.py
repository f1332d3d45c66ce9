"""The campaign builder: what is filled in is what is kept, and nothing typed is lost."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from brands.models import Brand, Role
from campaigns import definition, publishing, sentences
from campaigns.definition import readable
from campaigns.forms import CampaignForm, initial_of
from campaigns.models import (
    Campaign,
    CampaignAction,
    CampaignState,
    CampaignVersion,
)
from notifications.models import Delivery
from tests.campaigns.pages import untouched
from tests.campaigns.rows import a_definition
from tests.factories import make_brand, make_circle, make_device
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db


ADD = "admin:campaigns_campaign_add"


def a_post(brand: Brand, raw: dict[str, Any], **fields: Any) -> dict[str, Any]:
    form = CampaignForm(
        brand=brand, base=raw, initial=initial_of(definition.decode(raw), name="Coffee")
    )
    return dict(untouched(form).lists()) | {"brand": brand.pk} | fields


@pytest.fixture
def brand() -> Brand:
    return make_brand(timezone="Europe/Helsinki")


@pytest.fixture
def marketer(brand: Brand) -> Client:
    return logged_in(make_member(brand, Role.MARKETER, username="maria"))


def change(campaign: Campaign, page: str = "change") -> str:
    return reverse(f"admin:campaigns_campaign_{page}", args=[campaign.pk])


def published(brand: Brand, marketer: Client, **fields: Any) -> Campaign:
    shop = make_circle(brand)
    marketer.post(reverse(ADD), a_post(brand, a_definition(shop, **fields), publish="1"))
    return Campaign.objects.get()


def test_it_saves_a_draft_in_the_name_of_the_marketer(brand: Brand, marketer: Client) -> None:
    marketer.post(reverse(ADD), a_post(brand, {}, save="1"))
    campaign = Campaign.objects.get()
    assert (campaign.name, campaign.state) == ("Coffee", CampaignState.DRAFT)
    entry = campaign.log.get()
    assert entry.action == CampaignAction.CREATED
    assert entry.actor is not None
    assert entry.actor.username == "maria"


def test_it_publishes_from_the_first_page(brand: Brand, marketer: Client) -> None:
    campaign = published(brand, marketer)
    assert campaign.state == CampaignState.LIVE
    assert campaign.live_version is not None
    assert campaign.live_version.definition["trigger"]["geofences"]


def test_it_keeps_the_draft_and_marks_what_is_missing(brand: Brand, marketer: Client) -> None:
    raw = {"trigger": {"on": "entered"}, "content": {"title": "Hi", "body": ""}}
    body = marketer.post(reverse(ADD), a_post(brand, raw, publish="1")).content.decode()
    campaign = Campaign.objects.get()
    assert campaign.state == CampaignState.DRAFT
    assert campaign.draft["content"]["title"] == "Hi"
    assert f'action="{change(campaign)}"' in body, "what is sent next is the same campaign"
    assert '<p class="nc-error">The offer needs a body.</p>' in body
    assert '<p class="nc-error">Choose geofences, or tags of geofences.</p>' in body


def test_it_keeps_what_was_typed_where_it_cannot_be_saved(brand: Brand, marketer: Client) -> None:
    sent = a_post(brand, {"content": {"title": "Keep me", "body": "And me"}}, save="1")
    sent["dayparts"] = json.dumps([{"days": ["mon"], "from": "09:00", "to": "09:00"}])
    body = marketer.post(reverse(ADD), sent).content.decode()
    assert not Campaign.objects.exists()
    assert "Keep me" in body
    assert "And me" in body
    assert "Row 1: It ends when it begins." in body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audience", '{"all": [{"attribute": "", "op": "eq"}]}'),
        ("audience", "[1]"),
        ("audience", "{"),
        ("places", "[]"),
        ("places", '{"geofences": [{}]}'),
        ("caps", '[{"limit": "x"}]'),
        ("locales", '{"fr": {"subtitle": "x"}}'),
        ("extras", '{"a": {"b": 1}}'),
        ("starts_at", "tomorrow"),
        ("priority", "99999999"),
        ("expires_after_0", "-1"),
        ("on", "teleported"),
        ("where", "[]"),
        ("steps", "{}"),
        ("unless", "[1"),
        ("nth", "0"),
        ("name", ""),
    ],
)
def test_it_answers_nonsense_with_a_mark_beside_the_field(
    brand: Brand, marketer: Client, field: str, value: str
) -> None:
    sent = a_post(brand, {"trigger": {"on": "entered"}}, save="1") | {field: value}
    answer = marketer.post(reverse(ADD), sent)
    assert answer.status_code == 200
    assert "nc-error" in answer.content.decode()
    assert not Campaign.objects.exists()


DAY = "Step 1: &#x27;x&#x27; is not a day"


@pytest.mark.parametrize(
    ("sent", "field", "said"),
    [
        ({"steps": [{"on": "entered"}, {"on": "event"}]}, "steps", "Step 2: Name the event."),
        ({"steps": [{"on": "event", "event": "a", "times": 21}]}, "steps", "Step 1: Expected int"),
        ({"steps": [{"on": "exited", "tags": ["a"], "days": ["x"]}]}, "steps", DAY),
        ({"steps": [1]}, "steps", "Step 1: Expected object"),
        ({"steps": []}, "steps", "A sequence needs steps."),
        ({"steps_within_0": 9999, "steps_within_1": 86_400}, "steps_within", "Expected int"),
        ({"unless": [{"on": "event", "event": "a"}]}, "unless_for", "Say both what calls it off"),
        ({"unless_for_0": 5, "unless_for_1": 60}, "unless", "Say both what calls it off"),
        ({"unless": [1]}, "unless", "Expected object"),
        ({"again_after_0": 9999, "again_after_1": 86_400}, "again_after", "Expected int"),
    ],
)
def test_it_puts_what_is_wrong_with_a_sequence_beside_its_field(
    brand: Brand, marketer: Client, sent: dict[str, Any], field: str, said: str
) -> None:
    raw = {"trigger": {"on": "sequence", "steps": [{"on": "event", "event": "low"}]}}
    whole = a_post(brand, raw | {"content": {"title": "a", "body": "b"}}, publish="1")
    typed = {name: json.dumps(one) if isinstance(one, list) else one for name, one in sent.items()}
    body = marketer.post(reverse(ADD), whole | typed).content.decode()
    beside = body.partition(f'data-field="{field}"')[2].partition("data-field=")[0]
    assert f'<p class="nc-error">{said}' in beside
    assert not CampaignVersion.objects.exists()


def test_it_names_the_places_of_a_sequence(brand: Brand, marketer: Client) -> None:
    shop, till = make_circle(brand, name="Kallio"), make_circle(brand, name="The till")
    raw = {
        "trigger": {
            "on": "sequence",
            "steps": [{"on": "entered", "geofences": [shop.pk]}],
            "unless": {"on": "entered", "geofences": [till.pk, shop.pk]},
            "for_s": 60,
        }
    }
    marketer.post(reverse(ADD), a_post(brand, raw, save="1"))
    campaign = Campaign.objects.get()
    named = marketer.get(change(campaign)).context["data"]["named"]
    assert [(one["key"], one["name"]) for one in named] == [
        (shop.pk, "Kallio"),
        (till.pk, "The till"),
    ]
    said = preview(marketer, brand, raw)
    assert "enters “Kallio”, unless a device enters “The till” or “Kallio”" in said["sentence"]


def test_it_reads_times_in_the_brands_zone(brand: Brand, marketer: Client) -> None:
    sent = a_post(brand, {}, save="1") | {"starts_at": "2026-07-01T12:00"}
    marketer.post(reverse(ADD), sent)
    draft = readable(Campaign.objects.get().draft)
    assert draft.starts_at == datetime(2026, 7, 1, 9, tzinfo=UTC)


def test_it_leaves_what_is_live_alone_until_published(brand: Brand, marketer: Client) -> None:
    campaign = published(brand, marketer)
    raw = campaign.draft | {"content": {"title": "New", "body": "New"}}
    answer = marketer.post(change(campaign), a_post(brand, raw, save="1"), follow=True)
    assert "What is live has not changed" in answer.content.decode()
    assert "This draft differs from what is live" in answer.content.decode()
    campaign.refresh_from_db()
    assert campaign.live_version is not None
    assert campaign.live_version.definition["content"]["title"] == "Coffee"


def test_it_shows_what_a_version_changed_and_goes_back(brand: Brand, marketer: Client) -> None:
    campaign = published(brand, marketer)
    raw = campaign.draft | {"content": {"title": "Tea", "body": "Green"}}
    marketer.post(change(campaign), a_post(brand, raw, publish="1"))
    body = marketer.get(change(campaign, "versions")).content.decode()
    assert "<del>Coffee</del><ins>Tea</ins>" in body
    back = reverse("admin:campaigns_campaign_roll_back", args=[campaign.pk, 1])
    marketer.get(back)
    campaign.refresh_from_db()
    assert campaign.draft["content"]["title"] == "Tea", "asking changes nothing"
    marketer.post(back)
    campaign.refresh_from_db()
    assert campaign.live_version is not None
    assert campaign.live_version.number == 3
    assert campaign.draft["content"]["title"] == "Coffee"


def test_it_pauses_resumes_ends_and_duplicates(brand: Brand, marketer: Client) -> None:
    campaign = published(brand, marketer)

    def state_after(step: str, method: str = "post") -> str:
        getattr(marketer, method)(change(campaign, step))
        campaign.refresh_from_db()
        return campaign.state

    assert state_after("pause", "get") == CampaignState.LIVE
    assert state_after("pause") == CampaignState.PAUSED
    assert state_after("resume") == CampaignState.LIVE
    assert state_after("end", "get") == CampaignState.LIVE
    assert state_after("end") == CampaignState.ENDED
    assert state_after("resume") == CampaignState.ENDED
    assert state_after("duplicate") == CampaignState.ENDED
    copy = Campaign.objects.exclude(pk=campaign.pk).get()
    assert (copy.name, copy.state) == ("Coffee (copy)", CampaignState.DRAFT)
    assert copy.draft == campaign.draft


def test_it_lets_support_look_and_touch_nothing(brand: Brand, marketer: Client) -> None:
    campaign = published(brand, marketer)
    sam = logged_in(make_member(brand, Role.SUPPORT))
    page = sam.get(change(campaign))
    assert page.status_code == 200
    assert 'name="publish"' not in page.content.decode()
    assert sam.post(change(campaign), a_post(brand, campaign.draft, save="1")).status_code == 403
    for step in ("pause", "resume", "end", "duplicate"):
        assert sam.post(change(campaign, step)).status_code == 403
    assert sam.get(reverse(ADD)).status_code == 403
    campaign.refresh_from_db()
    assert campaign.state == CampaignState.LIVE


def test_it_deletes_only_what_was_never_live(brand: Brand, marketer: Client) -> None:
    campaign = published(brand, marketer)
    marketer.post(reverse(ADD), a_post(brand, {}, save="1"))
    draft = Campaign.objects.exclude(pk=campaign.pk).get()
    assert marketer.post(change(campaign, "delete"), {"post": "yes"}).status_code == 403
    marketer.post(change(draft, "delete"), {"post": "yes"})
    assert list(Campaign.objects.all()) == [campaign]


def preview(client: Client, brand: Brand, raw: dict[str, Any], **fields: Any) -> dict[str, Any]:
    sent = a_post(brand, raw, **fields)
    answer = client.post(reverse("admin:campaigns_campaign_preview"), sent)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_it_shows_the_offer_as_a_device_would_get_it(brand: Brand, marketer: Client) -> None:
    shop = make_circle(brand, name="Kallio")
    make_device(brand, external_id="anna", locale="fr-CA", attributes={"first_name": "Anna"})
    content = {
        "title": "Hi {{ device.attributes.first_name }}",
        "body": "At {{ place.name }}",
        "locales": {"fr": {"title": "Salut {{ device.attributes.first_name }}"}},
    }
    raw = a_definition(shop) | {"content": content}
    phones = preview(marketer, brand, raw, preview_device="anna")["phones"]
    assert "Salut Anna" in phones
    assert "At Kallio" in phones


def test_it_says_the_whole_campaign_and_what_is_missing(brand: Brand, marketer: Client) -> None:
    shop = make_circle(brand, name="Kallio")
    said = preview(marketer, brand, {"trigger": {"on": "entered", "geofences": [shop.pk]}})
    assert "Kallio" in said["sentence"]
    assert {"field": "title", "text": "Say what the offer is.", "level": "error"} in said[
        "checklist"
    ]


def test_it_previews_what_is_kept_and_not_only_what_is_shown(
    brand: Brand, marketer: Client
) -> None:
    raw = {"trigger": {"on": "entered", "tags": ["shop"]}, "starts_at": "2030-01-01T09:30:45Z"}
    campaign = Campaign.objects.create(brand=brand, name="N", draft=raw)
    page = marketer.get(change(campaign))
    with timezone.override(brand.timezone):
        sent = a_post(brand, raw)
    said = marketer.post(page.context["data"]["preview"], sent).json()
    assert said["sentence"] == page.context["sentence"]
    elsewhere = Campaign.objects.create(brand=make_brand(), name="N", draft={"priority": 77})
    address = reverse("admin:campaigns_campaign_preview") + f"?campaign={elsewhere.pk}"
    sent = a_post(brand, raw) | {"priority": "77"}
    assert "priority 77" in marketer.post(address, sent).json()["sentence"]
    assert "priority 77" not in marketer.post(address, a_post(brand, raw)).json()["sentence"]


def test_it_sets_since_when_somebody_must_have_been_there(brand: Brand, marketer: Client) -> None:
    raw = {
        "trigger": {"on": "schedule", "tags": ["stadium"], "at": "2030-06-01T09:00:00Z"},
        "content": {"title": "a", "body": "b"},
    }
    sent = a_post(brand, raw, publish="1") | {
        "since": "2030-05-30T12:00",
        "been_within_0": "2",
        "been_within_1": "3600",
    }
    body = marketer.post(reverse(ADD), sent).content.decode()
    beside = body.partition('data-field="since"')[2].partition("data-field=")[0]
    assert "Either since an instant, or within so long." in beside
    campaign = Campaign.objects.get()
    assert campaign.draft["trigger"]["since"] == "2030-05-30T12:00:00+03:00"
    said = sentences.sentence(readable(campaign.draft))
    assert "since 30 May 2030 12:00" in said


@pytest.mark.parametrize(
    ("field", "sent", "said"),
    [
        ("score_by", {"speed": 1}, "speed: Must be dwell_s, distance_m or attribute."),
        ("score_by", {"dwell_s": "much"}, "Expected float"),
        ("guards", [{"event": "purchase", "times": 0}], "Row 1: Expected int"),
        ("guards", [{"event": "purchase", "same": {"sku": "moon"}}], "Row 1: Must be place.name"),
        ("guards", [{"event": "purchase", "where": [1]}], "Row 1: Expected object"),
    ],
)
def test_it_puts_what_is_wrong_with_a_rule_or_a_score_beside_it(
    brand: Brand, marketer: Client, field: str, sent: Any, said: str
) -> None:
    whole = a_post(brand, {"trigger": {"on": "entered"}}, save="1")
    body = marketer.post(reverse(ADD), whole | {field: json.dumps(sent)}).content.decode()
    beside = body.partition(f'data-field="{field}"')[2].partition("data-field=")[0]
    assert f'<p class="nc-error">{said}' in beside
    assert not Campaign.objects.exists()


def test_it_runs_no_script_of_an_offer(brand: Brand, marketer: Client) -> None:
    raw = {"content": {"title": "<script>alert(1)</script>", "body": "{{ '<img>' }}"}}
    said = preview(marketer, brand, raw)
    assert "<script>" not in said["phones"]
    assert "<img>" not in said["phones"]
    marketer.post(reverse(ADD), a_post(brand, raw, save="1"))
    page = marketer.get(change(Campaign.objects.get())).content.decode()
    assert "<script>alert" not in page


def test_it_survives_a_template_that_does_not_parse(brand: Brand, marketer: Client) -> None:
    raw = {"content": {"title": "{{ place.name", "body": "{% for x in y %}"}}
    said = preview(marketer, brand, raw)
    assert "nc-error" in said["phones"]
    assert any(one["field"] == "title" for one in said["checklist"])


def test_it_keeps_push_options_that_the_page_does_not_show(brand: Brand, marketer: Client) -> None:
    raw = {"content": {"title": "a", "body": "b", "push": {"android_channel_id": "offers"}}}
    marketer.post(reverse(ADD), a_post(brand, {}, save="1"))
    campaign = Campaign.objects.get()
    Campaign.objects.filter(pk=campaign.pk).update(draft=raw)
    marketer.post(change(campaign), a_post(brand, raw, save="1"))
    campaign.refresh_from_db()
    assert campaign.draft["content"]["push"] == {"android_channel_id": "offers"}


def test_it_sets_what_each_platform_does(brand: Brand, marketer: Client) -> None:
    raw = {"content": {"title": "a", "body": "b", "push": {"android_channel_id": "offers"}}}
    marketer.post(reverse(ADD), a_post(brand, raw, save="1"))
    campaign = Campaign.objects.get()
    sent = a_post(brand, raw, save="1") | {
        "push_urgency": "normal",
        "push_ttl_s_0": "2",
        "push_ttl_s_1": "3600",
        "push_apns_badge": "0",
        "push_apns_sound": "",
        "push_android_color": "#0f766e",
        "push_web_require_interaction": "on",
    }
    marketer.post(change(campaign), sent)
    campaign.refresh_from_db()
    assert campaign.draft["content"]["push"] == {
        "urgency": "normal",
        "ttl_s": 7200,
        "android_channel_id": "offers",
        "apns_badge": 0,
        "apns_sound": None,
        "android_color": "#0f766e",
        "web_require_interaction": True,
    }


def test_it_sends_the_form_as_it_stands_to_one_phone(brand: Brand, marketer: Client) -> None:
    make_device(brand, external_id="anna")
    marketer.post(reverse(ADD), a_post(brand, {}, save="1"))
    campaign = Campaign.objects.get()
    at = reverse("admin:campaigns_campaign_test", args=[campaign.pk])
    raw = {"content": {"title": "Just typed", "body": "b"}}
    wrong = marketer.post(at, a_post(brand, raw, preview_device="nobody"))
    assert (wrong.status_code, "no such device" in wrong.json()["problem"]) == (422, True)
    sent = marketer.post(at, a_post(brand, raw, preview_device="anna")).json()
    delivery = Delivery.objects.get()
    assert str(delivery.pk) in sent["url"]
    assert delivery.content["title"] == "Just typed"


def test_it_tells_warnings_from_what_is_missing(brand: Brand, marketer: Client) -> None:
    shop = make_circle(brand)
    said = preview(marketer, brand, a_definition(shop))
    assert [one["level"] for one in said["checklist"]] == ["warning"]
    page = marketer.get(reverse(ADD)).content.decode()
    assert '<li class="error">' in page


def test_it_does_not_take_back_what_a_colleague_has_saved_meanwhile(
    brand: Brand, marketer: Client
) -> None:
    marketer.post(reverse(ADD), a_post(brand, {}, save="1"))
    campaign = Campaign.objects.get()
    at = reverse("admin:campaigns_campaign_change", args=[campaign.pk])
    colleague = logged_in(make_member(brand, Role.MARKETER, username="mona"))

    def mark(page: str) -> str:
        (found,) = re.findall(r'name="mark" value="(\w+)"', page)
        return str(found)

    opened = mark(marketer.get(at).content.decode())
    hers = {"content": {"title": "Hers", "body": "b"}}
    his = {"content": {"title": "His", "body": "b"}}
    colleague.post(at, a_post(brand, hers, save="1", mark=opened))
    page = marketer.post(at, a_post(brand, his, save="1", mark=opened)).content.decode()
    campaign.refresh_from_db()
    assert campaign.draft["content"]["title"] == "Hers"
    assert "mona saved this campaign at" in page
    assert 'value="His"' in page

    marketer.post(at, a_post(brand, his, save="1", mark=mark(page)))
    campaign.refresh_from_db()
    assert campaign.draft["content"]["title"] == "His"


def test_pausing_is_no_change_that_a_draft_would_take_back(brand: Brand, marketer: Client) -> None:
    campaign = published(brand, marketer)
    opened = publishing.mark_of(campaign)
    publishing.pause(campaign, actor=None)
    at = reverse("admin:campaigns_campaign_change", args=[campaign.pk])
    raw = {"content": {"title": "Later", "body": "b"}}
    marketer.post(at, a_post(brand, raw, save="1", mark=opened))
    campaign.refresh_from_db()
    assert campaign.draft["content"]["title"] == "Later"

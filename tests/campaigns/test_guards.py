"""Relevance: what is known and makes an offer absurd; pure tables, then rows, doors and trials."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Brand, Role
from campaigns import guards, publishing, sentences, words
from campaigns.behaviour import Measure, Need
from campaigns.definition import DefinitionError, decode
from campaigns.differences import differences
from campaigns.evaluation import evaluate_once
from campaigns.models import BrandGuard, Campaign, CampaignState, Decision
from campaigns.places import Place
from campaigns.reasons import Decision as Verdict
from campaigns.reasons import Reason
from campaigns.restraint import decide
from devices.models import Device, Profile
from geofences.models import Geofence
from notifications.models import Delivery
from tests.campaigns.rows import a_definition, make_campaign, make_event, make_transition
from tests.campaigns.values import NOON_MS, a_campaign, a_history, a_moment, a_subject, an_offer
from tests.factories import make_brand, make_circle, make_device, make_key
from tests.staff import logged_in, make_member

HOUR_S = 3_600
DAY_S = 86_400
MARSEILLE = Place(
    5, 1, "st-charles", "Saint-Charles", ("station", "city:Marseille"), {"city": "Marseille"}, None,
    43.3, 5.4,
)  # fmt: skip


def read(*rules: dict[str, Any], **data: str) -> guards.Guards:
    return guards.compiled(msgspec.convert(rules, tuple[guards.GuardText, ...]), data)


def known(city: Any, *, source: str = "crm", age_s: int = 60) -> dict[str, Any]:
    facts = {"city": {"source": source, "at_ms": NOON_MS - age_s * 1000}}
    return {"attributes": {"city": city}, "facts": facts}


def judged(asked: guards.Guards, *offers: Any, marks: Any = None, **subject: Any) -> Verdict:
    history = a_history(*offers)
    history.marks = marks or {}
    moment = a_moment(subject=a_subject(**subject), place=MARSEILLE, properties={"from": "Lyon"})
    return decide(a_campaign(guards=asked), moment, history)


PARIS = {"attribute": "city", "value": "Paris"}


@pytest.mark.parametrize(
    ("rule", "subject", "refused"),
    [
        (PARIS, known("Marseille"), True),
        (PARIS, known("Paris"), False),
        (PARIS, {}, False),  # of whom nothing is known
        (PARIS, {"attributes": {"city": None}}, False),
        (PARIS | {"source": "crm"}, known("Marseille"), True),
        (PARIS | {"source": "crm"}, known("Marseille", source="app"), False),
        (PARIS | {"max_age_s": 60}, known("Marseille", age_s=60), True),
        (PARIS | {"max_age_s": 60}, known("Marseille", age_s=61), False),
        (PARIS | {"max_age_s": 60}, {"attributes": {"city": "Marseille"}}, False),  # since when?
        (PARIS | {"op": "ne"}, known("Paris"), True),
        (PARIS | {"op": "ne"}, known("Marseille"), False),
        (PARIS | {"op": "in", "value": ["Paris", "Lyon"]}, known("Marseille"), True),
        (PARIS | {"op": "in", "value": ["Paris", "Lyon"]}, known("Lyon"), False),
        (PARIS, known(["Paris", "Nice"]), False),
        (PARIS, known(["Nice"]), True),
        ({"attribute": "city", "op": "missing"}, known("Nice"), True),
        ({"attribute": "city", "op": "missing"}, {}, False),
        ({"attribute": "city", "op": "gte", "value": 18}, known(17), True),
        ({"attribute": "city", "op": "gte", "value": 18}, known(18), False),
        ({"attribute": "city", "against": "place.metadata.city"}, known("Marseille"), False),
        ({"attribute": "city", "against": "place.metadata.city"}, known("Paris"), True),
        ({"attribute": "city", "against": "place.metadata.land"}, known("Paris"), False),
        ({"attribute": "city", "against": "place.tags.city:"}, known("Paris"), True),
        ({"attribute": "city", "against": "place.tags.city:"}, known("Marseille"), False),
        ({"attribute": "city", "against": "place.tags.land:"}, known("Paris"), False),
        ({"attribute": "city", "against": "place.name"}, known("Saint-Charles"), False),
        ({"attribute": "city", "against": "place.external_id"}, known("x"), True),
        ({"attribute": "city", "against": "event.from"}, known("Paris"), True),
        ({"attribute": "city", "against": "event.from"}, known("Lyon"), False),
        ({"attribute": "city", "against": "event.to"}, known("Lyon"), False),
        ({"attribute": "city", "against": "offer.departs_from"}, known("Marseille"), True),
        ({"attribute": "city", "against": "offer.departs_from"}, known("Paris"), False),
        ({"attribute": "city", "op": "ne", "against": "offer.departs_from"}, known("Paris"), True),
    ],
)
def test_it_refuses_what_contradicts_an_attribute(
    rule: dict[str, Any], subject: dict[str, Any], refused: bool
) -> None:
    verdict = judged(read(rule, departs_from="Paris"), **subject)
    assert verdict.reason is (Reason.CONTRADICTS_ATTRIBUTE if refused else Reason.MATCHED)


def test_it_says_what_it_saw_in_two_languages() -> None:
    rule = PARIS | {"name": "Trains", "source": "crm"}
    verdict = judged(read(rule), **known("Marseille", age_s=7_200))
    assert verdict.trace == {
        "rule": "Trains",
        "attribute": "city",
        "seen": "Marseille",
        "op": "eq",
        "wanted": "Paris",
        "source": "crm",
        "age_s": 7_200,
    }
    assert words.message(verdict.reason, verdict.trace) == (
        "It contradicts what is known: city is Marseille (told by crm, 2 hours ago), "
        "the offer supposes that it is Paris."
    )
    assert words.message(verdict.reason, verdict.trace, "fr") == (
        "Cela contredit ce que l’on sait : city vaut Marseille (dit par crm il y a 2 heures), "
        "l’offre suppose que cela est Paris."
    )


def bought(seen: float | None, *, count: bool = False, **where: Any) -> dict[Need, float | None]:
    measure = Measure.COUNT if count else Measure.RECENCY_S
    return {
        Need(
            kind="event",
            name="purchase",
            within_s=DAY_S,
            measure=measure,
            where=tuple(sorted(where.items())),
        ): seen
    }


BOUGHT = {"event": "purchase", "within_s": DAY_S}


@pytest.mark.parametrize(
    ("rule", "measures", "trace"),
    [
        (BOUGHT, bought(None), None),
        (BOUGHT, bought(3_600.0), {"event": "purchase", "ago_s": 3_600, "within_s": DAY_S}),
        (BOUGHT | {"times": 2}, bought(1, count=True), None),
        (BOUGHT | {"times": 2}, bought(2, count=True), {"seen": 2}),
        (BOUGHT | {"where": {"what": "shoes"}}, bought(5.0), None),
        (BOUGHT | {"where": {"what": "shoes"}}, bought(5.0, what="shoes"), {"ago_s": 5}),
        (BOUGHT | {"same": {"sku": "offer.sku"}}, bought(5.0, sku="A1"), {"where": {"sku": "A1"}}),
        (BOUGHT | {"same": {"at": "place.external_id"}}, bought(5.0, at="st-charles"), {}),
        (BOUGHT | {"same": {"at": "place.metadata.none"}}, bought(5.0), None),  # says nothing
    ],
)
def test_it_refuses_what_an_event_contradicts(
    rule: dict[str, Any], measures: dict[Need, float | None], trace: dict[str, Any] | None
) -> None:
    verdict = judged(read(rule, sku="A1"), measures=measures)
    assert verdict.reason is (Reason.MATCHED if trace is None else Reason.CONTRADICTS_EVENT)
    assert trace is None or {**verdict.trace, **trace} == verdict.trace


MARKS = {8: guards.marks_of(8, "rail", ["opening", "trains"]), 9: guards.marks_of(9, "", [])}


@pytest.mark.parametrize(
    ("offer", "campaign_id", "ago_s", "refused"),
    [
        ({"label": "trains"}, 8, HOUR_S - 1, True),
        ({"label": "trains"}, 8, HOUR_S, False),
        ({"label": "trains"}, 9, 60, False),
        ({"label": "rail"}, 8, 60, False),
        ({"group": "rail"}, 8, 60, True),
        ({"campaign": 9}, 9, 60, True),
        ({"campaign": 10}, 10, 60, True),  # one that is not live any more
        ({"campaign": 9}, 8, 60, False),
        ({"label": "trains"}, 8, -60, True),  # promised for later
    ],
)
def test_it_refuses_what_was_said_otherwise(
    offer: dict[str, Any], campaign_id: int, ago_s: int, refused: bool
) -> None:
    made = an_offer(NOON_MS - ago_s * 1000, campaign_id=campaign_id, device_id=2)
    verdict = judged(read({"offer": offer, "within_s": HOUR_S}), made, marks=MARKS)
    assert verdict.reason is (Reason.CONTRADICTS_OFFER if refused else Reason.MATCHED)
    if refused:
        assert verdict.trace["next_at"] == NOON_MS + (HOUR_S - ago_s) * 1000
        assert verdict.trace["campaign_id"] == campaign_id


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({}, "guards[0]"),
        (PARIS | {"event": "purchase"}, "guards[0]"),
        ({"attribute": "city"}, "guards[0].value"),
        (PARIS | {"against": "place.name"}, "guards[0].value"),
        ({"attribute": "city", "against": "weather"}, "guards[0].against"),
        ({"attribute": "city", "against": "place.colour"}, "guards[0].against"),
        ({"attribute": "city", "against": "place.metadata"}, "guards[0].against"),
        ({"attribute": "city", "op": "exists"}, "guards[0].op"),
        ({"attribute": "city", "op": "in", "value": "x"}, "guards[0].value"),
        (PARIS | {"within_s": 60}, "guards[0].within_s"),
        (BOUGHT | {"value": 3}, "guards[0].value"),
        (BOUGHT | {"same": {"sku": "place.tags"}}, "guards[0].same.sku"),
        ({"offer": {}}, "guards[0].offer"),
        ({"offer": {"label": "a", "group": "b"}}, "guards[0].offer"),
        ({"offer": {"label": "a"}, "times": 2}, "guards[0].times"),
        ({"attribute": ""}, "guards[0].attribute"),
        ({"colour": "red"}, "guards[0]"),
    ],
)
def test_it_names_what_makes_no_sense(rule: dict[str, Any], path: str) -> None:
    with pytest.raises(DefinitionError) as error:
        decode({"guards": [rule]})
    assert list(error.value.fields) == [path]


def test_it_reads_as_a_sentence() -> None:
    wanted = decode(
        {
            "guards": [
                PARIS | {"source": "crm", "max_age_s": 90 * DAY_S},
                BOUGHT | {"same": {"sku": "offer.sku"}},
                {"offer": {"label": "opening"}, "within_s": HOUR_S},
            ]
        }
    )
    said = sentences.sentence(wanted)
    assert (
        "never where it is known otherwise than that city is Paris (from crm) (at most 90 days "
        "old), “purchase” was reported with the same sku as the offer’s sku in the last 1 day or "
        "an offer of the kind “opening” was made in the last 1 hour"
    ) in said
    [change] = differences(decode({}), wanted, {})
    assert change.title == "Never where"


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def ann(brand: Brand) -> Device:
    return make_device(brand, external_id="ann")


@pytest.fixture
def station(brand: Brand) -> Geofence:
    return make_circle(brand, tags=["station"], metadata={"city": "Marseille"})


def settle() -> list[str]:
    before = set(Decision.objects.values_list("id", flat=True))
    while evaluate_once(now=now()):
        pass
    fresh = Decision.objects.exclude(pk__in=before)
    return list(fresh.order_by("id").values_list("reason", flat=True))


@pytest.mark.django_db
def test_a_train_from_paris_is_not_offered_to_who_lives_in_marseille(
    brand: Brand, ann: Device, station: Geofence
) -> None:
    content = {"title": "Nice in June", "body": "From Paris", "data": {"departs_from": "Paris"}}
    rule = {"attribute": "home", "against": "offer.departs_from", "source": "crm"}
    make_campaign(brand, station, content=content, guards=[rule])
    Profile.objects.create(
        brand=brand,
        external_id="ann",
        attributes={"home": "Marseille"},
        attribute_facts={"home": {"source": "crm", "at": now().isoformat()}},
    )
    make_transition(ann, station)
    make_transition(make_device(brand), station)  # of whom nothing is known
    assert sorted(settle()) == ["contradicts_attribute", "matched"]
    trace = Decision.objects.get(reason="contradicts_attribute").trace
    assert (trace["seen"], trace["wanted"], trace["source"]) == ("Marseille", "Paris", "crm")


@pytest.mark.django_db
def test_what_was_bought_is_not_offered_again(brand: Brand, ann: Device, station: Geofence) -> None:
    content = {"title": "Shoes", "body": "Half price", "data": {"sku": "A1"}}
    rule = {"event": "purchase", "same": {"sku": "offer.sku"}, "within_s": 30 * DAY_S}
    make_campaign(brand, station, content=content, guards=[rule])
    make_event(None, brand, "purchase", external_id="ann", properties={"sku": "B2"})
    make_transition(ann, station)
    assert settle() == ["matched"]
    make_event(None, brand, "purchase", external_id="ann", properties={"sku": "A1"})
    make_transition(ann, station)
    assert settle() == ["contradicts_event"]


@pytest.mark.django_db
def test_who_was_told_the_opposite_an_hour_ago_is_left_alone(
    brand: Brand, ann: Device, station: Geofence
) -> None:
    shut = make_campaign(
        brand, name="Shut", labels=["closing"], trigger={"on": "event", "event": "ask"}
    )
    rule = {"offer": {"label": "closing"}, "within_s": HOUR_S}
    make_campaign(brand, station, name="Come in", guards=[rule])
    make_event(ann, brand, "ask")
    assert settle() == ["matched"]
    publishing.pause(shut, actor=None)  # what it said stands all the same
    make_transition(make_device(brand, external_id="ann"), station)  # on her other phone
    make_transition(make_device(brand), station)
    assert sorted(settle()) == ["contradicts_offer", "matched"]
    Delivery.objects.filter(campaign_id=shut.pk).update(
        due_at=now() - timedelta(hours=1, seconds=1)
    )
    make_transition(ann, station)
    assert settle() == ["matched"]


@pytest.mark.django_db
def test_every_campaign_keeps_the_brands_rules_but_service_messages(
    brand: Brand, ann: Device, station: Geofence
) -> None:
    rule = {"event": "complaint", "within_s": HOUR_S}
    BrandGuard.objects.create(brand=brand, name="Upset", rule=rule)
    make_campaign(brand, station)
    make_campaign(brand, station, name="Your parcel", transactional=True)
    make_event(ann, brand, "complaint", processed_at=now())
    make_transition(ann, station)
    assert sorted(settle()) == ["contradicts_event", "matched"]
    assert Decision.objects.get(reason="contradicts_event").trace["rule"] == "Upset"
    BrandGuard.objects.all().delete()
    make_transition(ann, station)
    assert settle() == ["matched", "matched"]  # at once, without publishing anew


@pytest.mark.django_db
def test_a_broken_rule_of_the_brand_silences_it_and_says_why(
    brand: Brand, ann: Device, station: Geofence
) -> None:
    make_campaign(brand, station)
    BrandGuard.objects.create(brand=brand, name="Broken", rule={"colour": "red"})
    make_transition(ann, station)
    assert settle() == ["malformed"]
    assert "rules" in Decision.objects.get().trace["problem"]


@pytest.mark.django_db
def test_a_campaign_that_is_refused_beats_nobody(
    brand: Brand, ann: Device, station: Geofence
) -> None:
    ann.attributes = {"city": "Paris"}
    ann.save()
    rule = {"attribute": "city", "against": "place.metadata.city"}
    make_campaign(brand, station, name="First", priority=9, guards=[rule])
    make_campaign(brand, station, name="Second")
    make_transition(ann, station)
    assert sorted(settle()) == ["contradicts_attribute", "matched"]


@pytest.mark.django_db
def test_it_cannot_go_live_with_a_rule_about_data_that_the_offer_has_not(brand: Brand) -> None:
    rules = [{"attribute": "city", "against": "offer.city"}]
    raw = a_definition(None, guards=rules)
    assert "guards[0].against" in {one.field for one in publishing.check(brand.pk, raw, now=now())}
    raw["content"] = raw["content"] | {"data": {"city": "{{ place.name }}"}}
    assert "guards[0].against" in {one.field for one in publishing.check(brand.pk, raw, now=now())}
    raw["content"] = raw["content"] | {"data": {"city": "Paris"}}
    assert not {"guards[0].against"} & {
        one.field for one in publishing.check(brand.pk, raw, now=now())
    }


@pytest.mark.django_db
def test_a_back_office_keeps_the_brands_rules(client: Client, brand: Brand) -> None:
    auth = {"headers": {"Authorization": f"Bearer {make_key(brand)}"}}
    json = {"content_type": "application/json"}
    body = {"name": "Upset", "rule": {"event": "complaint", "within_s": HOUR_S}}
    made = client.post("/v1/guards", body, **json, **auth)  # type: ignore[arg-type]
    assert made.status_code == 201, made.content
    [listed] = client.get("/v1/guards", **auth).json()["results"]  # type: ignore[arg-type]
    assert (listed["name"], listed["rule"]) == (body["name"], body["rule"])
    path = f"/v1/guards/{listed['id']}"
    wrong = {"rule": {"event": "a", "attribute": "b"}}
    answer = client.patch(path, wrong, **json, **auth)  # type: ignore[arg-type]
    assert answer.status_code == 422
    assert "one of" in str(answer.json()["fields"]["rule"])
    other = {"headers": {"Authorization": f"Bearer {make_key(make_brand())}"}}
    assert client.get(path, **other).status_code == 404  # type: ignore[arg-type]
    assert client.delete(path, **auth).status_code == 204  # type: ignore[arg-type]


@pytest.mark.django_db
def test_a_marketer_keeps_them_in_a_form(brand: Brand) -> None:
    client = logged_in(make_member(brand, Role.MARKETER))
    page = reverse("admin:campaigns_brandguard_add")
    assert b'data-component="guards"' in client.get(page).content
    answer = client.post(page, {"name": "Upset", "rule": "[]"})
    assert b"Say what the rule is." in answer.content
    rule = '[{"event": "complaint", "within_s": 3600}]'
    assert client.post(page, {"name": "Upset", "rule": rule}).status_code == 302
    guard = BrandGuard.objects.get()
    assert (guard.brand, guard.rule) == (brand, {"event": "complaint", "within_s": HOUR_S})
    listed = client.get(reverse("admin:campaigns_brandguard_changelist"))
    assert "“complaint” was reported in the last 1 hour" in listed.content.decode()
    change = reverse("admin:campaigns_brandguard_change", args=[guard.pk])
    assert "complaint" in client.get(change).content.decode()
    assert logged_in(make_member(brand, Role.SUPPORT)).get(page).status_code == 403


@pytest.mark.django_db
def test_a_campaign_over_the_api_has_rules(client: Client, brand: Brand) -> None:
    auth = {"headers": {"Authorization": f"Bearer {make_key(brand)}"}}
    body = a_definition(None, name="Trains", guards=[PARIS], labels=["trains"])
    made = client.post("/v1/campaigns", body, content_type="application/json", **auth)  # type: ignore[arg-type]
    assert made.status_code == 201, made.content
    assert made.json()["guards"] == [PARIS]
    assert "never where" in made.json()["sentence"]
    assert Campaign.objects.get().state == CampaignState.DRAFT

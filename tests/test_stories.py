"""Stories that marketers ask for, through the public doors: real HTTP, PostGIS and workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from django.utils.timezone import now

from brands.models import KeyKind
from tests.factories import make_brand, make_key
from tests.live_server import LiveWeb
from tests.places import ACROSS_TOWN, AT_THE_DOOR, DOWN_THE_ROAD, SHOP, SHOP_RADIUS_M, Place
from tests.processes import until, workers

pytestmark = pytest.mark.django_db(transaction=True)

DAY_S = 86_400
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Office:
    """A brand's back office and the phones of its customers: all they know is the wire."""

    def __init__(self, web: LiveWeb) -> None:
        brand = make_brand(timezone="Europe/Helsinki")
        self.app_key = make_key(brand, KeyKind.PUBLISHABLE)
        self.api = httpx.Client(base_url=web.base_url)
        self.headers = {"Authorization": f"Bearer {make_key(brand)}"}

    def send(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.api.request(method, path, headers=self.headers, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def place(self, name: str, place: Place, tag: str, **properties: Any) -> None:
        self.send(
            "POST",
            "/v1/geofences",
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [place.lng, place.lat]},
                "properties": {"name": name, "radius_m": SHOP_RADIUS_M, "tags": [tag]} | properties,
            },
        )

    def publish(self, **campaign: Any) -> None:
        body = {"name": "Story", "content": {"title": "Hello", "body": "At {{ place.name }}"}}
        made = self.send("POST", "/v1/campaigns", body | campaign)
        self.send("POST", f"/v1/campaigns/{made['id']}/publish")

    def decisions(self, phone: Phone) -> list[dict[str, Any]]:
        path = f"/v1/decisions?device_id={phone.device_id}"
        found: list[dict[str, Any]] = self.send("GET", path)["results"]
        return found

    def decided(self, phone: Phone) -> dict[str, Any]:
        """The only decision about a phone, once there is one."""
        [found] = until(lambda: self.decisions(phone), "something is decided")
        return found


class Phone:
    """One customer's phone."""

    def __init__(self, office: Office, name: str) -> None:
        answer = office.api.post(
            "/v1/devices",
            headers={"Authorization": f"Bearer {office.app_key}"},
            json={
                "installation_id": name,
                "external_id": name,
                "platform": "android",
                "timezone": "Europe/Helsinki",
                "consent": {"location": True, "marketing": True, "version": "1"},
            },
        )
        assert answer.status_code == 201, answer.text
        self.office, self.device_id = office, answer.json()["device_id"]
        self.headers = {"Authorization": f"Bearer {answer.json()['token']}"}

    def knows(self, place: Place, count: int) -> Phone:
        """Wait until the doors watch so many places."""

        def nearby() -> bool:
            at = {"lat": place.lat, "lng": place.lng}
            answer = self.office.api.get(
                "/v1/geofences/nearby", headers=self.headers, params=at
            ).json()
            return len(answer["geofences"]) >= count

        until(nearby, "the places are armed where the doors match")
        return self

    def was_at(self, place: Place, at: datetime) -> None:
        fix = {
            "lat": place.lat,
            "lng": place.lng,
            "recorded_at": at.isoformat(),
            "accuracy_m": 8,
        }
        answer = self.office.api.post("/v1/locations", headers=self.headers, json=fix)
        assert answer.json() == {"accepted": 1, "rejected": []}, answer.text

    def goes_to(self, place: Place, at: datetime | None = None) -> None:
        """Come from down the road, as walkers do."""
        at = at or datetime.now(UTC) - timedelta(seconds=5)
        self.was_at(DOWN_THE_ROAD, at - timedelta(seconds=60))
        self.was_at(place, at)

    def offers(self) -> list[dict[str, Any]]:
        answer = self.office.api.get("/v1/offers", headers=self.headers).json()
        found: list[dict[str, Any]] = answer["results"]
        return found


@pytest.fixture
def office(live_web: LiveWeb) -> Iterator[Office]:
    made = Office(live_web)
    with made.api, workers("evaluate", "clock", "schedules"):
        yield made


def test_the_prepaid_balance_falls_low_then_the_phone_passes_a_top_up_shop(office: Office) -> None:
    office.place("Kiosk", SHOP, "topup")
    office.publish(
        trigger={
            "on": "sequence",
            "steps": [
                {"on": "event", "event": "balance_low"},
                {"on": "entered", "tags": ["topup"]},
            ],
            "within_s": 3 * DAY_S,
        }
    )
    ann, bob = Phone(office, "ann").knows(SHOP, 1), Phone(office, "bob")
    low = {"name": "balance_low", "occurred_at": now().isoformat(), "external_id": "ann"}
    office.send("POST", "/v1/gateway/events", {"events": [low]})
    ann.goes_to(AT_THE_DOOR, datetime.now(UTC) + timedelta(seconds=1))
    bob.goes_to(AT_THE_DOOR)
    assert office.decided(ann)["reason"] == "matched"
    [offer] = ann.offers()
    assert offer["body"] == "At Kiosk"
    why_not = office.decided(bob)
    assert (why_not["reason"], why_not["trace"]["matched"]) == ("sequence_incomplete", 1)


def test_twice_at_a_rivals_then_with_us_and_nothing_bought_in_a_day(office: Office) -> None:
    office.place("Rival", ACROSS_TOWN, "rival")
    office.place("Ours", SHOP, "ours")
    came_at = datetime.now(UTC) - timedelta(hours=24, minutes=5)
    today = came_at.astimezone(ZoneInfo("Europe/Helsinki")).weekday()
    office.publish(
        trigger={
            "on": "sequence",
            "steps": [
                {"on": "entered", "tags": ["rival"], "times": 2},
                {"on": "entered", "tags": ["ours"], "days": [DAYS[today]]},
            ],
            "within_s": 14 * DAY_S,
            "unless": {"on": "event", "event": "purchase"},
            "for_s": DAY_S,
        },
        max_age_s=2 * 3_600,
    )
    ann = Phone(office, "ann").knows(SHOP, 2)
    bob, cat = Phone(office, "bob"), Phone(office, "cat")
    for phone in (ann, bob):
        for days in (9, 3):
            phone.goes_to(ACROSS_TOWN, came_at - timedelta(days=days))
    cat.goes_to(ACROSS_TOWN, came_at - timedelta(days=3))
    bought = {"name": "purchase", "external_id": "bob"}
    bought["occurred_at"] = (came_at + timedelta(hours=20)).isoformat()
    office.send("POST", "/v1/gateway/events", {"events": [bought]})
    for phone in (ann, bob, cat):
        phone.goes_to(AT_THE_DOOR, came_at)
    assert office.decided(ann)["reason"] == "matched"
    assert office.decided(ann)["moment"]["kind"] == "timer"
    assert office.decided(bob)["reason"] == "called_off"
    assert office.decided(cat)["verdict"] == "refuse"  # she had been there once
    assert [len(phone.offers()) for phone in (ann, bob, cat)] == [1, 0, 0]


def test_a_train_from_paris_is_not_offered_to_who_lives_in_marseille(office: Office) -> None:
    office.place("Gare de Lyon", SHOP, "station", metadata={"city": "Paris"})
    profiles = [
        {"external_id": "ann", "attributes": {"home_city": "Marseille"}},
        {"external_id": "bob", "attributes": {"home_city": "Paris"}},
    ]
    office.send("PUT", "/v1/gateway/profiles", {"profiles": profiles})
    office.publish(
        trigger={"on": "entered", "tags": ["station"]},
        guards=[{"attribute": "home_city", "against": "place.metadata.city"}],
    )
    ann = Phone(office, "ann").knows(SHOP, 1)
    phones = {"ann": ann, "bob": Phone(office, "bob"), "cat": Phone(office, "cat")}
    for phone in phones.values():
        phone.goes_to(AT_THE_DOOR)
    reasons = {name: office.decided(phone)["reason"] for name, phone in phones.items()}
    assert reasons == {"ann": "contradicts_attribute", "bob": "matched", "cat": "matched"}
    refused = office.decided(ann)
    assert (refused["trace"]["seen"], refused["trace"]["wanted"]) == ("Marseille", "Paris")
    assert "home_city is Marseille" in refused["message"]
    assert ann.offers() == []


def test_everybody_who_is_inside_hears_of_it_at_its_time(office: Office) -> None:
    office.place("Stadium", SHOP, "stadium", track_visits=True)
    inside, outside = Phone(office, "ann").knows(SHOP, 1), Phone(office, "bob")
    inside.goes_to(AT_THE_DOOR)
    outside.was_at(DOWN_THE_ROAD, datetime.now(UTC) - timedelta(seconds=5))
    at = datetime.now(UTC) + timedelta(seconds=15)  # as long as publishing may take
    office.publish(trigger={"on": "schedule", "tags": ["stadium"], "at": at.isoformat()})
    decision = office.decided(inside)
    assert (decision["reason"], decision["moment"]["kind"]) == ("matched", "schedule")
    assert datetime.fromisoformat(decision["decided_at"]) >= at
    assert [offer["body"] for offer in inside.offers()] == ["At Stadium"]
    assert office.decisions(outside) == []


def last_reason(office: Office, phone: Phone) -> str:
    """What was decided when the phone came in last."""
    path = f"/v1/transitions?device_id={phone.device_id}"
    came = max(
        (row for row in office.send("GET", path)["results"] if row["kind"] == "entered"),
        key=lambda row: row["occurred_at"],
    )

    def told() -> list[str]:
        rows = office.decisions(phone)
        return [row["reason"] for row in rows if row["moment"]["id"] == came["id"]]

    [reason] = until(told, "the last visit is decided")
    return reason


def test_three_visits_within_a_week_are_rewarded_and_slower_ones_are_not(office: Office) -> None:
    office.place("Gym", SHOP, "gym")
    office.publish(
        trigger={
            "on": "sequence",
            "steps": [{"on": "entered", "tags": ["gym"], "times": 3}],
            "within_s": 7 * DAY_S,
            "again_after_s": 7 * DAY_S,
        }
    )
    ann, bob = Phone(office, "ann").knows(SHOP, 1), Phone(office, "bob")
    today = datetime.now(UTC) - timedelta(seconds=5)
    for phone, days in ((ann, (5, 2, 0)), (bob, (9, 2, 0))):
        for day in days:
            phone.goes_to(AT_THE_DOOR, today - timedelta(days=day))
            if day:
                phone.was_at(ACROSS_TOWN, today - timedelta(days=day, minutes=-10))
    assert last_reason(office, ann) == "matched"
    assert last_reason(office, bob) == "sequence_incomplete"
    assert [len(phone.offers()) for phone in (ann, bob)] == [1, 0]


def test_who_comes_back_after_a_long_time_is_welcomed(office: Office) -> None:
    office.place("Shop", SHOP, "ours")
    office.publish(
        trigger={
            "on": "sequence",
            "steps": [{"on": "entered", "tags": ["ours"]}],
            "absent_s": 5 * DAY_S,
        }
    )
    ann, bob = Phone(office, "ann").knows(SHOP, 1), Phone(office, "bob")
    cat, today = Phone(office, "cat"), datetime.now(UTC) - timedelta(seconds=5)
    for phone, days in ((ann, 9), (bob, 2)):
        phone.goes_to(AT_THE_DOOR, today - timedelta(days=days))
        phone.was_at(ACROSS_TOWN, today - timedelta(days=days, minutes=-10))
    for phone in (ann, bob, cat):
        phone.goes_to(AT_THE_DOOR, today)
    assert last_reason(office, ann) == "matched"
    assert last_reason(office, bob) == "sequence_incomplete"
    assert last_reason(office, cat) == "sequence_incomplete"  # who was never here cannot come back


def test_only_the_order_that_was_left_behind_is_remembered(office: Office) -> None:
    office.publish(
        trigger={
            "on": "sequence",
            "steps": [{"on": "event", "event": "cart"}],
            "unless": {"on": "event", "event": "purchase"},
            "for_s": 4,
            "key": "order",
        },
        content={"title": "Forgotten?", "body": "Order {{ event.properties.order }}"},
    )
    ann, at = Phone(office, "ann"), now() - timedelta(seconds=2)
    events = [
        {
            "name": name,
            "occurred_at": (at + timedelta(seconds=after)).isoformat(),
            "external_id": "ann",
            "properties": {"order": order},
        }
        for name, order, after in (("cart", 1, 0), ("cart", 2, 0), ("purchase", 1, 1))
    ]
    office.send("POST", "/v1/gateway/events", {"events": events})

    def told() -> list[str]:
        found = sorted(row["reason"] for row in office.decisions(ann))
        return found if len(found) == 2 else []

    assert until(told, "both orders are decided") == ["called_off", "matched"]
    assert [offer["body"] for offer in ann.offers()] == ["Order 2"]

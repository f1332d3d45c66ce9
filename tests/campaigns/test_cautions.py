"""What stops a draft from going live, and what may surprise whoever publishes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.gis.geos import Polygon
from django.db import connection
from django.test.utils import CaptureQueriesContext

from brands.models import Brand
from campaigns import cautions, past, publishing
from campaigns.models import Segment
from geofences.models import Geofence
from tests.campaigns.rows import a_definition, make_event, make_transition
from tests.factories import make_brand, make_circle, make_device

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)  # a Friday


@pytest.fixture
def brand() -> Brand:
    return make_brand(timezone="Europe/Paris")


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand, name="Kallio", tags=["shop"])


def errors(brand: Brand, raw: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one.field, one.code) for one in publishing.check(brand.pk, raw, now=NOON)]


def warnings(brand: Brand, raw: dict[str, Any]) -> dict[str, str]:
    found = publishing.warnings(brand.pk, raw, name="Coffee", now=NOON)
    return {one.code: one.message for one in found}


def says(**content: Any) -> dict[str, Any]:
    return {"content": {"title": "Coffee", "body": "One for you"} | content}


def test_it_has_nothing_to_say_of_a_plain_campaign(brand: Brand, shop: Geofence) -> None:
    make_device(brand, locale="en")
    assert errors(brand, a_definition(shop)) == []
    assert warnings(brand, a_definition(shop)) == {}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"dayparts": [{"from": "23:00", "to": "02:00"}]}, [("dayparts", "unreachable")]),
        ({"dayparts": [{"from": "21:00", "to": "02:00"}]}, []),
        ({"dayparts": [{"from": "23:00", "to": "02:00"}], "transactional": True}, []),
        (
            {
                "dayparts": [{"days": ["mon"], "from": "10:00", "to": "11:00"}],
                "ends_at": "2026-05-02T12:00:00Z",
            },
            [("dayparts", "unreachable")],
        ),
        (  # Saturday morning has come to some phones before the end, and to those in Paris
            {
                "dayparts": [{"days": ["sat"], "from": "10:00", "to": "11:00"}],
                "ends_at": "2026-05-02T12:00:00Z",
            },
            [],
        ),
    ],
)
def test_it_stops_what_could_never_speak(
    brand: Brand, shop: Geofence, fields: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    brand.quiet_hours = {"from": "22:00", "to": "07:00"}
    brand.save()
    assert errors(brand, a_definition(shop, **fields)) == found


def test_it_warns_where_only_phones_elsewhere_would_hear_of_it(
    brand: Brand, shop: Geofence
) -> None:
    make_device(brand)
    fields = {
        "dayparts": [{"days": ["sat"], "from": "10:00", "to": "11:00"}],
        "ends_at": "2026-05-02T02:00:00Z",
    }
    assert errors(brand, a_definition(shop, **fields)) == []
    assert set(warnings(brand, a_definition(shop, **fields))) == {"unreachable_here"}


def test_it_stops_what_a_real_place_breaks(brand: Brand, shop: Geofence) -> None:
    raw = a_definition(shop) | says(
        deep_link="{{ place.metadata.link | default: 'app://shops' }}",
        locales={"fr": {"body": "{{ place.name }}" * 200}},
    )
    assert errors(brand, raw) == []
    make_circle(brand, name="Mall", tags=["shop"], metadata={"link": "no address"})
    long = make_circle(brand, name="x" * 60, tags=["shop"])
    raw["trigger"] = {"on": "entered", "tags": ["shop"]}

    found = publishing.check(brand.pk, raw, now=NOON)

    assert {(one.field, one.code) for one in found} == {
        ("content.deep_link", "content_error"),
        ("content.locales.fr.deep_link", "content_error"),
        ("content.locales.fr.body", "content_error"),
    }
    assert any(one.message.startswith(f"At {long.name}") for one in found)
    assert any(one.message.startswith("At Mall") for one in found)


def test_it_stops_what_fcm_would_refuse_at_a_real_place(brand: Brand) -> None:
    shop = make_circle(brand, name="Ä" * 180)
    raw = a_definition(shop) | says(body="{{ place.name }} " * 10, data={"again": "x" * 900})
    assert errors(brand, raw) == [("content.body", "payload_too_large")]


def test_it_warns_of_an_empty_audience(brand: Brand, shop: Geofence) -> None:
    Segment.objects.create(
        brand=brand, name="Gold", slug="gold", tree={"attribute": "tier", "value": "gold"}
    )
    raw = a_definition(shop, audience={"segment": "gold"})
    assert set(warnings(brand, raw)) == {"no_devices"}
    make_device(brand, attributes={"tier": "silver"})
    assert "none of the only device fits" in warnings(brand, raw)["empty_audience"]
    make_device(brand, attributes={"tier": "gold"})
    assert warnings(brand, raw) == {}


def test_it_warns_where_nobody_has_agreed(brand: Brand, shop: Geofence) -> None:
    make_device(brand, consent_marketing=False)
    assert "marketing" in warnings(brand, a_definition(shop))["no_consent"]
    assert warnings(brand, a_definition(shop, transactional=True)) == {}


def test_it_warns_of_places_that_overlap(brand: Brand, shop: Geofence) -> None:
    make_device(brand)
    make_circle(brand, name="Next door", tags=["shop"])  # the same spot
    raw = a_definition() | {"trigger": {"on": "entered", "tags": ["shop"]}}
    assert "Kallio and Next door" in warnings(brand, raw)["overlapping_geofences"]


def test_it_knows_neighbours_from_places_that_overlap(brand: Brand) -> None:
    make_device(brand)
    for number, west in enumerate((24.90, 24.91, 24.9195)):
        square = Polygon.from_bbox((west, 60.17, west + 0.01, 60.18))
        square.srid = 4326
        make_circle(brand, name=f"Q{number}", tags=["quarter"], geometry=square, radius_m=None)
    raw = a_definition() | {"trigger": {"on": "entered", "tags": ["quarter"]}}
    said = warnings(brand, raw)["overlapping_geofences"]
    assert "Q1 and Q2" in said
    assert "Q0" not in said


def test_it_warns_of_places_that_end_first(brand: Brand) -> None:
    make_device(brand)
    gone = make_circle(brand, name="Market", ends_at=datetime(2026, 4, 1, tzinfo=UTC))
    assert "Market" in warnings(brand, a_definition(gone))["places_ended"]


def test_it_warns_of_a_language_that_people_speak(brand: Brand, shop: Geofence) -> None:
    for locale in ("fi", "fi", "fi", "sv-FI", "fr-CA"):
        make_device(brand, locale=locale)
    raw = a_definition(shop) | says(locales={"fr": {"title": "Café"}})
    found = warnings(brand, raw)
    assert "20% of phones speak “sv”" in found["missing_locale"]
    assert "no body" in found["half_a_locale"]


def test_it_warns_of_variants_that_read_alike(brand: Brand, shop: Geofence) -> None:
    make_device(brand, locale="en")
    raw = a_definition(
        shop,
        variants=[{"name": "a"}, {"name": "b", "content": {"title": "Tea"}}],
    ) | says(locales={"fr": {"title": "Café", "body": "Pour vous"}})
    assert "same title and body in every variant" in warnings(brand, raw)["same_in_every_variant"]


def test_it_warns_of_what_phones_cut(brand: Brand, shop: Geofence) -> None:
    make_device(brand)
    raw = a_definition(shop) | says(title="{{ place.name }} " + "x" * 60)
    assert "67 characters at Kallio" in warnings(brand, raw)["cut"]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("Hi {{ device.attributes.first_name }}", True),
        ("Hi {{ device.attributes.first_name | default: 'you' }}", False),
        ("{{ place.metadata.hall }}", True),
        ("{{ device.attributes.tier }} {{ place.name }}", False),
    ],
)
def test_it_warns_of_holes_in_a_text(brand: Brand, shop: Geofence, text: str, warned: bool) -> None:
    make_device(brand, attributes={"tier": "gold"})
    found = warnings(brand, a_definition(shop) | says(body=f"A {text}"))
    assert ("blank" in found) is warned


def test_it_reads_a_draft_that_says_nothing_yet(brand: Brand) -> None:
    assert warnings(brand, {}) == {}
    assert warnings(brand, {"nonsense": 1}) == {}


BOUGHT = {"event": "purchase", "value": 2, "within_s": 86_400}
CAME = {"visits": {"tags": ["shop"]}, "value": 1}


@pytest.mark.parametrize("audience", [BOUGHT, CAME, {"all": [CAME, BOUGHT]}])
def test_it_warns_that_nobody_did_what_the_audience_asks(
    brand: Brand, shop: Geofence, audience: dict[str, Any]
) -> None:
    ann = make_device(brand, locale="en")
    raw = a_definition(shop, audience=audience)
    assert "So far nobody" in warnings(brand, raw)["empty_audience"]
    for hours in (1, 2):
        at = NOON - timedelta(hours=hours)
        make_event(ann, brand, "purchase", occurred_at=at)
        make_transition(ann, shop, occurred_at=at)
    assert "empty_audience" not in warnings(brand, raw)


def test_it_leaves_out_what_depends_on_the_moment(brand: Brand, shop: Geofence) -> None:
    make_device(brand, locale="en")
    first = {"visits": "here", "op": "eq", "value": 1}
    assert warnings(brand, a_definition(shop, audience=first)) == {}
    nobody = {"all": [first, {"platform": "web"}]}
    assert "empty_audience" in warnings(brand, a_definition(shop, audience=nobody))


def test_it_asks_as_often_for_many_people_as_for_one(brand: Brand, shop: Geofence) -> None:
    raw = a_definition(shop, audience={"all": [CAME, BOUGHT]})

    def queries(count: int) -> int:
        for _ in range(count):
            make_device(brand, locale="en")
        with CaptureQueriesContext(connection) as seen:
            warnings(brand, raw)
        return len(seen)

    queries(1)
    assert queries(1) == queries(30)


def test_it_says_nothing_rather_than_let_somebody_wait(
    brand: Brand, shop: Geofence, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_device(brand, locale="en")

    def slow(_asked: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")

    monkeypatch.setattr(past, "measure_each", slow)
    monkeypatch.setattr(cautions, "LOOKS_FOR_MS", 20)
    assert warnings(brand, a_definition(shop, audience=BOUGHT)) == {}
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)

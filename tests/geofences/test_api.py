"""`/v1/geofences`: GeoJSON in and out, each brand its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.test import AsyncClient, Client
from django.utils.timezone import now

from brands.models import Brand, KeyKind, Membership, Role
from geofences import upserts, writing
from geofences.models import Geofence, GeofenceCover
from geofences.upserts import Wanted
from tests.factories import make_brand, make_circle, make_key, make_polygon
from tests.places import SHOP
from tests.waiting import Late

pytestmark = pytest.mark.django_db

Call = Callable[..., Any]
RING = [[24.93, 60.16], [24.95, 60.16], [24.95, 60.17], [24.93, 60.17], [24.93, 60.16]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}
POINT = {"type": "Point", "coordinates": [SHOP.lng, SHOP.lat]}
BOW_TIE = {
    "type": "Polygon",
    "coordinates": [
        [[24.93, 60.16], [24.95, 60.17], [24.95, 60.16], [24.93, 60.17], [24.93, 60.16]]
    ],
}


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture
def call(brand: Brand) -> Call:
    return caller(make_key(brand))


def caller(secret: str) -> Call:
    client = Client(headers={"authorization": f"Bearer {secret}"})

    def call(method: str, path: str, body: Any = None, **extra: Any) -> Any:
        return client.generic(
            method, path, "" if body is None else as_json(body), "application/json", **extra
        )

    return call


BEYOND = 1.25e99
"""Stands for a number that JSON can write and a double cannot hold."""


def as_json(body: Any) -> str:
    return json.dumps(body).replace(repr(BEYOND), "1e999")


def feature(geometry: Any = POLYGON, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"name": "Market square"} | properties,
    }


def test_it_creates_a_polygon_and_answers_its_cover(call: Call, brand: Brand) -> None:
    answer = call("POST", "/v1/geofences", feature(tags=["market"], external_id="m1"))

    assert answer.status_code == 201
    body = answer.json()
    stored = Geofence.objects.get(pk=body["id"])
    assert (stored.brand, stored.tags, stored.external_id) == (brand, ["market"], "m1")
    assert body["geometry"]["type"] == "Polygon"
    assert 0 < body["boundary_cells"] <= body["cells"]
    assert body["resolution"] == stored.cover.resolution == body["properties"]["resolution"]


def test_it_creates_a_circle(call: Call) -> None:
    answer = call("POST", "/v1/geofences", feature(POINT, radius_m=120, track_visits=True))

    assert answer.status_code == 201
    assert answer.json()["properties"]["radius_m"] == 120
    assert answer.json()["geometry"] == POINT


def test_it_keeps_a_backslash_for_what_it_is(call: Call) -> None:
    answer = call("POST", "/v1/geofences", feature(metadata={"path": "\\u0000"}))

    assert answer.status_code == 201
    assert answer.json()["properties"]["metadata"] == {"path": "\\u0000"}


def test_it_updates_what_has_the_same_external_id(call: Call) -> None:
    first = call("POST", "/v1/geofences", feature(external_id="m1", tags=["a"]))
    second = call("POST", "/v1/geofences", feature(external_id="m1", name="New name"))

    assert second.status_code == 200
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["properties"]["name"] == "New name"
    assert second.json()["properties"]["tags"] == ["a"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (feature(BOW_TIE) | {"geometry": {"type": "LineString", "coordinates": RING}}, "geometry"),
        (feature({"type": "Polygon", "coordinates": [RING[:3]]}), "geometry"),
        (feature({"type": "Polygon", "coordinates": []}), "geometry"),
        (feature({"type": "Point", "coordinates": []}, radius_m=5), "geometry"),
        (feature({"type": "Point", "coordinates": [BEYOND, 1]}, radius_m=5), "geometry"),
        (feature({"type": "Point", "coordinates": [24.9, 91]}, radius_m=5), "geometry"),
        (feature("POINT(1 2)"), "geometry"),
        (feature(None), "geometry"),
        (feature(POINT), "radius_m"),
        (feature(POINT, radius_m=-5), "radius_m"),
        (feature(POINT, radius_m=1e9), "radius_m"),
        (feature(POLYGON, radius_m=5), "radius_m"),
        (feature(name=""), "name"),
        (feature(name="x" * 201), "name"),
        (feature(name="nul\x00"), "name"),
        (feature(tags="market"), "tags"),
        (feature(tags=["x" * 65]), "tags"),
        (feature(metadata=[1]), "metadata"),
        (feature(metadata={"a": "\x00"}), "metadata"),
        (feature(metadata={"a": ["\ud800"]}), "metadata"),
        (feature(metadata={"\ud800": 1}), "metadata"),
        (feature(metadata={"a": "é" * 8_192}), "metadata"),
        (feature(metadata={"a": BEYOND}), "metadata"),
        (feature(dwell_s=-1), "dwell_s"),
        (feature(dwell_s=10**12), "dwell_s"),
        (feature(confirm_fixes=10**6), "confirm_fixes"),
        (feature(exit_buffer_m=BEYOND), "exit_buffer_m"),
        (feature(exit_buffer_m=-3), "exit_buffer_m"),
        (feature(starts_at="2024-05-02T00:00Z", ends_at="2024-05-01T00:00Z"), "ends_at"),
        ({"type": "Point", "coordinates": [1, 2]}, "type"),
        (["no", "feature"], "type"),
    ],
)
def test_it_refuses_a_bad_feature_and_names_the_field(call: Call, body: Any, field: str) -> None:
    answer = call("POST", "/v1/geofences", body)

    assert answer.status_code == 422, answer.content
    assert answer.json()["code"] == "invalid"
    assert field in answer.json()["fields"]
    assert not Geofence.objects.exists()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"type": NaN}', "\xff"])
def test_it_answers_400_to_what_is_no_json(brand: Brand, text: str) -> None:
    answer = Client().post(
        "/v1/geofences",
        text.encode("latin-1"),
        content_type="application/geo+json",
        headers={"authorization": f"Bearer {make_key(brand)}"},
    )

    assert answer.status_code == 400


def test_it_repairs_a_ring_that_crosses_itself_where_that_is_safe(call: Call) -> None:
    spike = [*RING[:2], [24.95, 60.165], [24.96, 60.165], [24.95, 60.165], *RING[2:]]

    answer = call("POST", "/v1/geofences", feature({"type": "Polygon", "coordinates": [spike]}))

    assert answer.status_code == 201


def test_it_refuses_a_figure_of_eight(call: Call) -> None:
    answer = call("POST", "/v1/geofences", feature(BOW_TIE))

    assert answer.status_code == 422
    assert "Self-intersection" in answer.json()["fields"]["geometry"][0]


def test_it_answers_per_row_of_a_collection(call: Call) -> None:
    call("POST", "/v1/geofences", feature(external_id="known"))
    body = {
        "type": "FeatureCollection",
        "features": [
            feature(external_id="new"),
            feature(external_id="known", name="Other"),
            feature(external_id="known", name="Third"),
            feature(BOW_TIE, external_id="bad"),
            {"type": "Feature"},
        ],
    }

    answer = call("POST", "/v1/geofences", body)

    assert answer.status_code == 200
    rows = answer.json()["results"]
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    verdicts = [row["verdict"] for row in rows]
    assert verdicts == ["created", "updated", "refused", "refused", "refused"]
    assert answer.json()["counts"] == {"created": 1, "updated": 1, "unchanged": 0, "refused": 3}
    assert rows[0]["cells"] > 0
    assert rows[2]["code"] == "repeated_id"
    assert rows[3]["code"] == "self_crossing"
    assert "name" in rows[4]["fields"]


def test_it_says_unchanged_when_nothing_differs(call: Call) -> None:
    body = {"type": "FeatureCollection", "features": [feature(external_id="m1", tags=["a"])]}
    call("POST", "/v1/geofences", body)

    answer = call("POST", "/v1/geofences", body)

    assert answer.json()["results"][0]["verdict"] == "unchanged"


def test_it_refuses_more_features_than_a_request_may_carry(call: Call, settings: Any) -> None:
    settings.MAX_ITEMS = 2
    body = {"type": "FeatureCollection", "features": [feature()] * 3}

    assert call("POST", "/v1/geofences", body).status_code == 413


def test_it_refuses_a_body_that_is_too_large(call: Call, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 1000

    assert call("POST", "/v1/geofences", feature(metadata={"a": "x" * 1000})).status_code == 413


def test_it_reads_replaces_changes_and_retires_one(call: Call) -> None:
    pk = call("POST", "/v1/geofences", feature(tags=["a"], dwell_s=60)).json()["id"]
    path = f"/v1/geofences/{pk}"

    assert call("GET", path).json()["properties"]["dwell_s"] == 60
    replaced = call("PUT", path, feature(name="Replaced"))
    assert (
        replaced.json()["properties"] | {"name": "Replaced", "tags": [], "dwell_s": None}
        == (replaced.json()["properties"])
    )
    changed = call("PATCH", path, {"properties": {"name": "Changed"}})
    assert changed.json()["properties"]["name"] == "Changed"
    moved = call("PATCH", path, {"geometry": POINT, "properties": {"radius_m": 50}})
    assert moved.json()["geometry"] == POINT
    back = call("PATCH", path, {"geometry": POLYGON})
    assert back.json()["properties"]["radius_m"] is None
    assert call("DELETE", path).status_code == 204
    assert call("GET", path).status_code == 404
    assert Geofence.objects.get(pk=pk).retired_at is not None


def test_it_keeps_the_cover_in_step_with_a_change(call: Call) -> None:
    pk = call("POST", "/v1/geofences", feature()).json()["id"]
    before = bytes(GeofenceCover.objects.get(pk=pk).blocks)

    call("PATCH", f"/v1/geofences/{pk}", {"geometry": POINT, "properties": {"radius_m": 50}})

    assert bytes(GeofenceCover.objects.get(pk=pk).blocks) != before


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("PATCH", {"properties": {"name": "Changed"}}),
        ("PUT", feature(POINT, radius_m=80, name="Changed", tags=["mine"])),
    ],
)
def test_it_changes_what_a_colleague_has_just_written(
    transactional_db: None, call: Call, brand: Brand, method: str, body: Any
) -> None:
    shop = make_circle(brand, dwell_s=60, external_id="m1")
    upsert = [Wanted(number=1, external_id="m1", geometry=None, tags=("hers",))]

    with transaction.atomic():
        upserts.upsert(brand.pk, upsert)
        late = Late(lambda: call(method, f"/v1/geofences/{shop.pk}", body))

    assert late.answer().status_code == 200
    shop.refresh_from_db()
    kept = {"PATCH": (["hers"], 60), "PUT": (["mine"], None)}[method]
    assert (shop.name, shop.tags, shop.dwell_s) == ("Changed", *kept)


def test_it_waits_for_who_publishes_with_no_row_in_hand(
    transactional_db: None, call: Call, brand: Brand
) -> None:
    shop = make_circle(brand)

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('geofences_arming'), 0)")
        body = {"properties": {"name": "Changed"}}
        late = Late(lambda: call("PATCH", f"/v1/geofences/{shop.pk}", body))
        cursor.execute("UPDATE geofences_geofence SET tags = tags WHERE id = %s", [shop.pk])

    assert late.answer().status_code == 200


def test_it_changes_nothing_that_is_being_retired(
    transactional_db: None, call: Call, brand: Brand
) -> None:
    shop = make_circle(brand)

    with transaction.atomic():
        writing.retire([shop.pk], now=now())
        body = {"properties": {"name": "Changed"}}
        late = Late(lambda: call("PATCH", f"/v1/geofences/{shop.pk}", body))

    assert late.answer().status_code == 404
    shop.refresh_from_db()
    assert shop.retired_at is not None
    assert shop.name != "Changed"


def test_it_refuses_an_external_id_that_another_has(call: Call) -> None:
    call("POST", "/v1/geofences", feature(external_id="a"))
    pk = call("POST", "/v1/geofences", feature(external_id="b")).json()["id"]

    answer = call("PATCH", f"/v1/geofences/{pk}", {"properties": {"external_id": "a"}})

    assert answer.status_code == 422
    assert "external_id" in answer.json()["fields"]


def test_it_lists_in_cursor_pages(call: Call, brand: Brand) -> None:
    ids = {make_circle(brand).pk for _ in range(5)}

    first = call("GET", "/v1/geofences?limit=3").json()
    second = call("GET", f"/v1/geofences?limit=3&cursor={first['next']}").json()

    assert len(first["results"]) == 3
    assert second["next"] is None
    assert {row["id"] for row in first["results"] + second["results"]} == ids


def test_it_filters_by_tag_box_arming_and_text(call: Call, brand: Brand) -> None:
    shop = make_circle(brand, tags=["shop"], name="Corner shop", external_id="S-1")
    market = make_polygon(brand, json.dumps(POLYGON), name="Market", track_visits=False)
    square = [[25.0, 60.2], [25.1, 60.2], [25.1, 60.3], [25.0, 60.2]]
    far = make_polygon(
        brand, json.dumps({"type": "Polygon", "coordinates": [square]}), name="Far away"
    )

    def found(query: str) -> set[int]:
        return {row["id"] for row in call("GET", f"/v1/geofences?{query}").json()["results"]}

    assert found("tag=shop") == {shop.pk}
    assert found("armed=true") == {shop.pk, far.pk}
    assert found("armed=false") == {market.pk}
    assert found("armed=1") == found("armed=True") == {shop.pk, far.pk}
    assert found("armed=") == {shop.pk, far.pk, market.pk}
    refused = call("GET", "/v1/geofences?armed=maybe")
    assert (refused.status_code, [*refused.json()["fields"]]) == (422, ["armed"])
    assert found("search=corner") == {shop.pk}
    assert found("search=S-1") == {shop.pk}
    assert found("bbox=24.9,60.1,24.96,60.2") == {shop.pk, market.pk}
    assert found("bbox=25.05,60.25,25.06,60.26") == {far.pk}


def test_it_finds_a_circle_whose_edge_reaches_into_the_box(call: Call, brand: Brand) -> None:
    circle = make_circle(brand, radius_m=1000.0)

    def found(west: float) -> int:
        box = f"{west},{SHOP.lat - 0.001},{west + 0.01},{SHOP.lat + 0.001}"
        return len(call("GET", f"/v1/geofences?bbox={box}").json()["results"])

    assert circle.pk is not None
    assert found(SHOP.lng + 0.017) == 1  # some 940 m east of the centre
    assert found(SHOP.lng + 0.019) == 0  # some 1050 m


@pytest.mark.parametrize("query", ["bbox=1,2,3", "bbox=a,b,c,d", "bbox=0,50,10,40"])
def test_it_refuses_a_box_that_is_none(call: Call, query: str) -> None:
    assert call("GET", f"/v1/geofences?{query}").status_code == 422


def test_it_answers_the_cells_of_the_cover(call: Call) -> None:
    body = call("POST", "/v1/geofences", feature()).json()

    cells = call("GET", f"/v1/geofences/{body['id']}/cells").json()

    assert len(cells["features"]) == body["cells"]
    kinds = [cell["properties"]["kind"] for cell in cells["features"]]
    assert kinds.count("boundary") == body["boundary_cells"]
    assert all(cell["geometry"]["coordinates"][0][0][0] > 24 for cell in cells["features"])


@pytest.mark.parametrize("form", ["geojson", "gpkg"])
def test_it_gives_the_list_as_a_file(call: Call, brand: Brand, form: str) -> None:
    make_circle(brand)

    answer = call("GET", f"/v1/geofences?format={form}")

    assert answer.status_code == 200
    assert f"geofences.{form}" in answer["Content-Disposition"]
    content = b"".join(answer.streaming_content)
    assert content[:4] == (b"SQLi" if form == "gpkg" else b'{"ty')


@pytest.mark.parametrize("form", ["geojson", "gpkg", "json", "other"])
def test_an_error_is_json_whatever_file_was_asked_for(call: Call, form: str) -> None:
    answer = call("GET", f"/v1/geofences?format={form}&bbox=1")
    assert answer.status_code == (404 if form == "other" else 422)
    assert answer["Content-Type"] == "application/json"
    assert {"code", "message", "fields"} <= set(answer.json())


@pytest.mark.django_db(transaction=True)
async def test_it_gives_the_file_over_asgi(brand: Brand) -> None:
    secret = await sync_to_async(make_key)(brand)
    await sync_to_async(make_circle)(brand)

    answer: Any = await AsyncClient().get(
        "/v1/geofences?format=geojson", headers={"authorization": f"Bearer {secret}"}
    )

    content = b"".join([block async for block in answer.streaming_content])
    await sync_to_async(connections.close_all)()  # that thread's own
    assert len(json.loads(content)["features"]) == 1


def test_it_hides_the_geofences_of_another_brand(call: Call) -> None:
    theirs = make_circle(make_brand(), external_id="theirs")
    path = f"/v1/geofences/{theirs.pk}"

    assert call("GET", "/v1/geofences").json()["results"] == []
    for method, at in [
        ("GET", path),
        ("PUT", path),
        ("PATCH", path),
        ("DELETE", path),
        ("GET", f"{path}/cells"),
    ]:
        assert call(method, at, feature()).status_code == 404
    assert call("GET", f"/v1/geofences?brand={theirs.brand.slug}").json()["results"] == []
    theirs.refresh_from_db()
    assert theirs.retired_at is None


def test_it_never_touches_another_brand_by_external_id(call: Call, brand: Brand) -> None:
    theirs = make_circle(make_brand(), external_id="7", name="Theirs")

    assert call("POST", "/v1/geofences", feature(external_id="7")).status_code == 201

    theirs.refresh_from_db()
    assert theirs.name == "Theirs"
    assert Geofence.objects.filter(external_id="7").count() == 2


def test_it_writes_to_no_brand_that_the_body_names(call: Call) -> None:
    other = make_brand()

    answer = call("POST", "/v1/geofences", feature() | {"brand": other.slug})

    assert answer.status_code in {403, 422}
    assert not Geofence.objects.exists()


def test_it_refuses_strangers_and_app_keys(brand: Brand) -> None:
    assert Client().get("/v1/geofences").status_code == 401
    assert caller("nc_sk_wrong")("GET", "/v1/geofences").status_code == 401
    publishable = caller(make_key(brand, KeyKind.PUBLISHABLE))
    assert publishable("GET", "/v1/geofences").status_code == 403


@pytest.mark.parametrize(
    ("role", "status"), [(Role.SUPPORT, 403), (Role.MARKETER, 201), (Role.ADMIN, 201)]
)
def test_it_lets_staff_write_by_role(brand: Brand, role: Role, status: int) -> None:
    user = User.objects.create_user("kim", password="pw", is_staff=True)
    Membership.objects.create(user=user, brand=brand, role=role)
    client = Client()
    client.force_login(user)

    answer = client.post("/v1/geofences", json.dumps(feature()), content_type="application/json")

    assert answer.status_code == status
    assert client.get("/v1/geofences").status_code == 200


def test_it_asks_for_the_csrf_token_of_a_session(brand: Brand) -> None:
    user = User.objects.create_user("kim", password="pw", is_staff=True)
    Membership.objects.create(user=user, brand=brand, role=Role.ADMIN)
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)

    answer = client.post("/v1/geofences", json.dumps(feature()), content_type="application/json")

    assert answer.status_code == 403


def test_it_reads_a_page_in_a_bounded_number_of_queries(
    call: Call, brand: Brand, django_assert_max_num_queries: Any
) -> None:
    for _ in range(5):
        make_circle(brand)
    call("GET", "/v1/geofences")  # the key is remembered

    with django_assert_max_num_queries(3):
        page = call("GET", "/v1/geofences").json()
    assert len(page["results"]) == 5


def test_it_places_a_geofence_across_the_antimeridian(call: Call) -> None:
    ring = [[179, -17], [181, -17], [181, -16], [179, -16], [179, -17]]

    body = call("POST", "/v1/geofences", feature({"type": "Polygon", "coordinates": [ring]})).json()

    assert body["geometry"]["type"] == "MultiPolygon"
    assert len(call("GET", "/v1/geofences?bbox=179.5,-17,-179.5,-16").json()["results"]) == 1
    assert len(call("GET", "/v1/geofences?bbox=-179.9,-17,-179.5,-16").json()["results"]) == 1


def test_it_lists_retired_geofences_never(call: Call, brand: Brand) -> None:
    shop = make_circle(brand, external_id="7")
    call("DELETE", f"/v1/geofences/{shop.pk}")

    assert call("GET", "/v1/geofences").json()["results"] == []
    revived = call("POST", "/v1/geofences", feature(external_id="7"))
    assert (revived.status_code, revived.json()["id"]) == (201, shop.pk)


@pytest.mark.parametrize("many", [False, True])
def test_what_was_deleted_leaves_nothing_to_its_successor(call: Call, many: bool) -> None:
    settings = {"tags": ["old"], "metadata": {"a": 1}, "track_visits": True, "dwell_s": 60}
    times = {"ends_at": "2026-01-02T00:00:00Z", "confirm_fixes": 3, "exit_buffer_m": 99}
    old = call("POST", "/v1/geofences", feature(external_id="7", **settings, **times)).json()
    call("DELETE", f"/v1/geofences/{old['id']}")
    body = feature(external_id="7", starts_at="2026-02-01T00:00:00Z")
    if many:
        answer = call("POST", "/v1/geofences", {"type": "FeatureCollection", "features": [body]})
        assert answer.json()["counts"]["created"] == 1
    else:
        assert call("POST", "/v1/geofences", body).status_code == 201
    made = call("GET", f"/v1/geofences/{old['id']}").json()["properties"]
    fresh = call("POST", "/v1/geofences", feature(external_id="8")).json()["properties"]
    own = {"external_id", "created_at", "updated_at", "starts_at"}
    assert {name for name in made if made[name] != fresh[name]} <= own


def test_it_says_that_a_deleted_geofence_keeps_its_external_id(call: Call) -> None:
    old = call("POST", "/v1/geofences", feature(external_id="7")).json()
    call("DELETE", f"/v1/geofences/{old['id']}")
    other = call("POST", "/v1/geofences", feature()).json()
    path = f"/v1/geofences/{other['id']}"
    refused = call("PATCH", path, {"properties": {"external_id": "7"}})
    assert refused.status_code == 422
    assert "deleted" in refused.json()["fields"]["external_id"][0]


@pytest.mark.parametrize(
    "place",
    [
        *({}, {"type": "Polygon"}, {"type": "Shape"}, {"type": "Polygon", "coordinates": "x"}),
        *({"type": kind, "coordinates": [[[1, 2]]]} for kind in ("Point", "Polygon")),
    ],
)
def test_it_says_in_its_own_words_that_a_geometry_is_none(call: Call, place: Any) -> None:
    refused = call("POST", "/v1/geofences", feature(place))
    assert refused.status_code == 422
    (said,) = refused.json()["fields"]["geometry"]
    assert not any(word in said for word in ("Exception", "json.", "Error", "argument"))

"""The admin of geofences: pages by role, tiles, forms, imports, and drawing in a real browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.gis.geos import Point
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django.utils.timezone import now
from playwright.sync_api import Browser, expect

from brands import filejobs
from brands.filejobs import ImportState
from brands.models import Brand, Role
from geofences import imports, tiles, writing
from geofences.admin.uploads import GeofenceImportAdmin
from geofences.models import Arming, Geofence, GeofenceCover, GeofenceImport
from tests.browser import PASSWORD, SLOW_MS, log_in
from tests.factories import make_brand, make_circle, make_polygon
from tests.live_server import LiveWeb
from tests.places import SHOP
from tests.staff import logged_in, make_member
from tests.waiting import Late

LIST = "/admin/geofences/geofence/"
IMPORTS = "/admin/geofences/geofenceimport/"
RING = [[24.93, 60.16], [24.95, 60.16], [24.95, 60.17], [24.93, 60.17], [24.93, 60.16]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}
BOW_TIE = {"type": "Polygon", "coordinates": [[RING[0], RING[2], RING[1], RING[3], RING[0]]]}
CIRCLE = {"geometry": {"type": "Point", "coordinates": [24.94, 60.17]}, "radius_m": 80}


@pytest.fixture
def brand(db: None) -> Brand:
    return make_brand()


@pytest.fixture
def marketer(brand: Brand) -> Client:
    return logged_in(make_member(brand, Role.MARKETER))


@pytest.fixture
def support(brand: Brand) -> Client:
    return logged_in(make_member(brand, Role.SUPPORT))


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def form(**fields: Any) -> dict[str, Any]:
    """What the drawing page sends."""
    return {
        "place": json.dumps({"geometry": POLYGON, "radius_m": None}),
        "name": "Market",
        "tags": '["shop"]',
        "metadata": "{}",
        "exit_buffer_m": "20",
        "confirm_fixes": "1",
        "confirm_s": "0",
    } | fields


def test_it_makes_a_geofence_of_a_drawing(marketer: Client, brand: Brand) -> None:
    answer = marketer.post(f"{LIST}add/", form(dwell_minutes="5", external_id=" "))

    assert answer.status_code == 302, answer.context["form"].errors
    made = Geofence.objects.get()
    assert (made.brand, made.name, made.tags, made.dwell_s) == (brand, "Market", ["shop"], 300)
    assert made.external_id is None
    assert GeofenceCover.objects.filter(geofence=made).exists()


def test_it_does_not_take_back_what_a_colleague_has_saved_meanwhile(
    marketer: Client, brand: Brand
) -> None:
    shop = make_circle(brand, name="Shop")
    at = f"/admin/geofences/geofence/{shop.pk}/change/"

    def mark(page: str) -> str:
        (found,) = re.findall(r'name="mark" value="([^"]+)"', page)
        return str(found)

    opened = mark(marketer.get(at).content.decode())
    assert marketer.post(at, form(name="Hers", place="", mark=opened)).status_code == 302
    page = marketer.post(at, form(name="His", place="", mark=opened)).content.decode()
    assert "Somebody saved this geofence at" in page
    assert 'value="His"' in page
    shop.refresh_from_db()
    assert shop.name == "Hers"
    assert marketer.post(at, form(name="His", place="", mark=mark(page))).status_code == 302
    shop.refresh_from_db()
    assert shop.name == "His"


def test_a_nul_that_is_asked_for_counts_for_nothing(marketer: Client) -> None:
    for list_of in (
        "geofences/geofence/?tag",
        "campaigns/campaign/?state",
        "devices/profile/?older",
    ):
        answer = marketer.get(f"/admin/{list_of}=%00", follow=True)
        assert answer.status_code == 200, list_of


def test_it_makes_a_circle(marketer: Client) -> None:
    marketer.post(f"{LIST}add/", form(place=json.dumps(CIRCLE)))

    made = Geofence.objects.get()
    assert (made.radius_m, made.geometry.coords) == (80, (24.94, 60.17))


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"place": ""}, "place", "Draw the place"),
        ({"place": "{"}, "place", "cannot be read"),
        ({"place": '{"geometry": null}'}, "place", "cannot be read"),
        ({"place": json.dumps({"geometry": BOW_TIE})}, "place", "crosses itself"),
        ({"place": json.dumps(CIRCLE | {"radius_m": -1})}, "place", "radius"),
        ({"place": json.dumps(CIRCLE | {"radius_m": None})}, "place", "radius"),
        ({"place": json.dumps(CIRCLE).replace("80", "1e999")}, "place", "radius"),
        ({"name": ""}, "name", "required"),
        ({"tags": '{"a": 1}'}, "tags", "cannot be read"),
        ({"tags": json.dumps(["x" * 65])}, "tags", "64 characters"),
        ({"tags": '["half a \\ud800"]'}, "tags", "surrogate"),
        ({"metadata": "[1]"}, "metadata", "cannot be read"),
        ({"metadata": '{"a": "\\u0000"}'}, "metadata", "NUL"),
        ({"metadata": '{"a": NaN}'}, "metadata", "finite"),
        ({"metadata": '{"a": ' + "[" * 5_000 + "]" * 5_000 + "}"}, "metadata", "deep"),
        ({"exit_buffer_m": "-1"}, "exit_buffer_m", "greater than or equal to 0"),
        ({"starts_at": "2024-05-02T10:00", "ends_at": "2024-05-01T10:00"}, "ends_at", "before"),
        ({"dwell_minutes": "0"}, "dwell_minutes", "greater than or equal"),
    ],
)
def test_it_says_in_words_what_is_wrong(
    marketer: Client, fields: dict[str, str], field: str, says: str
) -> None:
    answer = marketer.post(f"{LIST}add/", form(**fields))

    assert answer.status_code == 200
    assert says in " ".join(answer.context["form"].errors[field])
    assert not Geofence.objects.exists()


def test_it_keeps_the_drawing_when_the_page_comes_back(marketer: Client) -> None:
    drawn = form(name="", place=json.dumps(CIRCLE))

    answer = marketer.post(f"{LIST}add/", drawn)

    assert answer.context["options"]["drawn"] == CIRCLE


def test_it_refuses_an_id_that_another_place_has(marketer: Client, brand: Brand) -> None:
    make_circle(brand, external_id="7")
    make_circle(make_brand(), external_id="8")

    taken = marketer.post(f"{LIST}add/", form(external_id="7"))
    free = marketer.post(f"{LIST}add/", form(external_id="8"))

    assert taken.status_code == 200
    assert "already exists" in str(taken.context["form"].errors)
    assert free.status_code == 302


def test_it_leaves_the_shape_alone_when_only_the_name_changes(
    marketer: Client, brand: Brand
) -> None:
    market = make_polygon(brand, json.dumps(POLYGON), metadata={"opens": 7, "deep": {"a": 1}})
    page = f"{LIST}{market.pk}/change/"

    marketer.post(page, form(place="", name="Other", metadata='{"opens": "7"}'))

    market.refresh_from_db()
    assert (market.name, market.shape_version) == ("Other", 1)
    assert market.metadata == {"opens": 7, "deep": {"a": 1}}


def test_it_changes_the_cover_with_the_shape(marketer: Client, brand: Brand) -> None:
    market = make_polygon(brand, json.dumps(POLYGON))
    before = bytes(GeofenceCover.objects.get(geofence=market).blocks)

    marketer.post(f"{LIST}{market.pk}/change/", form(place=json.dumps(CIRCLE)))

    market.refresh_from_db()
    assert (market.radius_m, market.shape_version) == (80, 2)
    assert bytes(GeofenceCover.objects.get(geofence=market).blocks) != before


def test_it_says_how_surely_a_place_notices_who_goes_through(
    marketer: Client, brand: Brand
) -> None:
    small, market = make_circle(brand, radius_m=20), make_polygon(brand, json.dumps(POLYGON))
    shown = {
        each: marketer.get(f"{LIST}{each.pk}/change/").context["noticing"]["rows"]
        for each in (small, market)
    }
    on_foot, _, by_car = ([one["share"] for one in row["shares"]] for row in shown[small])
    assert on_foot[0] > by_car[0]
    assert by_car[-1] == "0%"
    assert shown[market] != shown[small]
    assert "on foot" in marketer.get(f"{LIST}{market.pk}/change/").content.decode()
    assert "noticing" not in marketer.get(f"{LIST}add/").content.decode()


def test_it_retires_and_brings_back(marketer: Client, brand: Brand) -> None:
    market = make_polygon(brand, json.dumps(POLYGON))
    page = f"{LIST}{market.pk}/retire/"

    assert "live campaign" not in marketer.get(page).content.decode()
    for campaign_id in (1, 1, 2):
        Arming.objects.create(brand=brand, campaign_id=campaign_id, geofence=market)
    assert "2 live campaigns name it" in marketer.get(page).content.decode()
    marketer.post(page)
    market.refresh_from_db()
    assert market.retired_at is not None
    assert "was retired" in marketer.get(f"{LIST}{market.pk}/change/").content.decode()

    marketer.post(page)
    market.refresh_from_db()
    assert market.retired_at is not None, "a second click retires it no less"

    for _ in range(2):
        marketer.post(page, {"bring_back": "1"})
        market.refresh_from_db()
        assert market.retired_at is None


def test_it_saves_beside_what_a_colleague_has_just_written(
    transactional_db: None, marketer: Client, brand: Brand
) -> None:
    market = make_polygon(brand, json.dumps(POLYGON))
    page = f"{LIST}{market.pk}/change/"

    with transaction.atomic():
        writing.lock(brand.pk)
        theirs = Geofence.objects.get(pk=market.pk)
        theirs.geometry, theirs.radius_m = Point(24.94, 60.165, srid=4326), 80
        writing.save([theirs])
        late = Late(lambda: marketer.post(page, form(place="", name="Changed")))

    assert late.answer().status_code == 302
    market.refresh_from_db()
    assert (market.name, market.radius_m) == ("Changed", 80)


def test_it_brings_back_what_a_colleague_has_just_renamed(
    transactional_db: None, marketer: Client, brand: Brand
) -> None:
    market = make_polygon(brand, json.dumps(POLYGON))
    writing.retire([market.pk], now=now())

    with transaction.atomic():
        writing.lock(brand.pk)
        theirs = Geofence.objects.get(pk=market.pk)
        theirs.name = "Renamed"
        writing.save([theirs])
        late = Late(lambda: marketer.post(f"{LIST}{market.pk}/retire/", {"bring_back": "1"}))

    assert late.answer().status_code == 302
    market.refresh_from_db()
    assert (market.name, market.retired_at) == ("Renamed", None)


def test_it_lets_support_look_and_change_nothing(support: Client, brand: Brand) -> None:
    market = make_polygon(brand, json.dumps(POLYGON), name="Market")
    page = f"{LIST}{market.pk}/change/"

    shown = support.get(page)

    assert "Market" in shown.content.decode()
    assert shown.context["options"]["readonly"]
    assert support.get(LIST).status_code == 200
    assert support.get(f"{LIST}map/").status_code == 200
    assert support.get(f"{LIST}add/").status_code == 403
    assert support.post(page, form(name="Mine")).status_code == 403
    assert support.post(f"{LIST}{market.pk}/retire/").status_code == 403
    assert support.get(f"{IMPORTS}add/").status_code == 403
    retire = {"action": "retire", "_selected_action": [market.pk]}
    support.post(LIST, retire)
    market.refresh_from_db()
    assert (market.name, market.retired_at) == ("Market", None)


def test_it_hides_the_places_and_imports_of_another_brand(marketer: Client) -> None:
    other = make_brand()
    theirs = make_circle(other, name="Theirs")
    job = GeofenceImport.objects.create(brand=other, file_name="theirs.csv")

    assert "Theirs" not in marketer.get(LIST).content.decode()
    assert marketer.get(f"{LIST}map.json").json()["bounds"] is None
    assert marketer.get(f"{LIST}tiles/0/0/0.mvt").content == b""
    download = marketer.get(f"{LIST}download/?format=geojson")
    assert b"Theirs" not in b"".join(download)
    for page in (f"{LIST}{theirs.pk}/change/", f"{LIST}{theirs.pk}/retire/"):
        assert marketer.get(page).status_code in {302, 403, 404}
        assert marketer.post(page, form()).status_code in {302, 403, 404}
    for page in ("change/", "progress.json", "remarks.csv", "cancel/"):
        assert marketer.post(f"{IMPORTS}{job.pk}/{page}").status_code in {302, 403, 404}
    theirs.refresh_from_db()
    job.refresh_from_db()
    assert (theirs.name, theirs.retired_at, job.state) == ("Theirs", None, ImportState.DRAFT)


def test_it_shows_strangers_the_log_in(client: Client, db: None) -> None:
    for page in (LIST, f"{LIST}map/", f"{LIST}map.json", f"{LIST}tiles/0/0/0.mvt", IMPORTS):
        assert client.get(page).status_code == 302


def test_it_filters_the_list(marketer: Client, brand: Brand) -> None:
    make_circle(brand, name="Corner shop", tags=["shop"])
    make_polygon(brand, json.dumps(POLYGON), name="Market", track_visits=False)

    def names(query: str) -> list[str]:
        page = marketer.get(f"{LIST}?{query}")
        return [row.name for row in page.context["cl"].result_list]

    assert names("") == ["Corner shop", "Market"]
    assert names("tag=shop") == ["Corner shop"]
    assert names("state=armed") == ["Corner shop"]
    assert names("state=idle") == ["Market"]
    assert names("state=retired") == []
    assert names("shape=area") == ["Market"]
    assert names("q=corn") == ["Corner shop"]


@pytest.mark.parametrize("action", ["as_geojson", "as_geopackage"])
def test_it_downloads_what_is_chosen(marketer: Client, brand: Brand, action: str) -> None:
    chosen = make_circle(brand)
    make_circle(brand)

    answer = marketer.post(LIST, {"action": action, "_selected_action": [chosen.pk]})

    assert brand.slug in answer["Content-Disposition"]
    content = b"".join(answer)
    if action == "as_geojson":
        assert len(json.loads(content)["features"]) == 1


def test_it_draws_shapes_near_and_counts_far(brand: Brand) -> None:
    for number in range(20):
        make_circle(brand, name=f"Shop {number}", radius_m=50.0)
    geofences = Geofence.objects.present().filter(brand=brand)

    far = tiles.tile(geofences, z=3, x=4, y=2)
    near = tiles.tile(geofences, z=14, x=9326, y=4742)

    assert b"dots" in far
    assert b"shapes" not in far
    assert b"shapes" in near
    assert tiles.tile(geofences, z=14, x=0, y=0) == b""


@pytest.mark.parametrize("at", [(0, 0, 1), (17, 0, 0), (2, 4, 0)])
def test_it_knows_no_tile_beyond_the_world(
    marketer: Client, brand: Brand, at: tuple[int, int, int]
) -> None:
    z, x, y = at

    assert marketer.get(f"{LIST}tiles/{z}/{x}/{y}.mvt").status_code == 404


def test_it_makes_tiles_of_the_poles_and_the_antimeridian(brand: Brand) -> None:
    antarctica = [[-180, -90], [180, -90], [180, -70], [-180, -70], [-180, -90]]
    fiji = [[179, -17], [181, -17], [181, -16], [179, -16], [179, -17]]
    for ring in (antarctica, fiji):
        make_polygon(brand, json.dumps({"type": "Polygon", "coordinates": [ring]}))

    north_west, south_east, south_west = (
        tiles.tile(Geofence.objects.present(), z=1, x=x, y=y) for x, y in ((0, 0), (1, 1), (0, 1))
    )
    assert not north_west
    assert south_east
    assert south_west


def test_it_previews_the_cells_of_a_drawing(marketer: Client, brand: Brand) -> None:
    def preview(body: str) -> Any:
        return marketer.post(f"{LIST}preview/", body, content_type="application/json").json()

    area = preview(json.dumps({"geometry": POLYGON, "radius_m": None}))
    assert area["features"]
    assert area["area_m2"] == pytest.approx(1_240_000, rel=0.01)
    assert "crosses itself" in preview(json.dumps({"geometry": BOW_TIE}))["error"]
    assert "cannot be read" in preview("nonsense")["error"]


def upload(client: Client, text: str, name: str = "shops.csv") -> GeofenceImport:
    client.post(f"{IMPORTS}add/", {"file": SimpleUploadedFile(name, text.encode())})
    return GeofenceImport.objects.latest("pk")


def work() -> None:
    job = filejobs.claim(GeofenceImport, now=GeofenceImport.objects.latest("created_at").created_at)
    assert job is not None
    filejobs.execute(job, imports.do, stop=threading.Event())


TABLE = "shop_id,name,lat,lng\n1,A,60.17,24.94\n2,B,,24.94\n3,=HYPERLINK(1),91,24.94\n"
PLAN = {"external_id": "shop_id", "name": "name", "lat": "lat", "lng": "lng", "radius_m": "50"}


def test_it_imports_an_uploaded_file(marketer: Client, brand: Brand) -> None:
    job = upload(marketer, TABLE)
    page = f"{IMPORTS}{job.pk}/change/"

    confirm = marketer.get(page)
    assert confirm.context["form"]["lat"].initial == "lat"
    assert confirm.context["table"]["rows"][0][:2] == ["A", "60.17"]
    marketer.post(page, PLAN | {"tags": '["list"]', "keep_metadata": "on", "start": ""})
    assert marketer.get(f"{IMPORTS}{job.pk}/progress.json").json()["under_way"]
    work()

    made = Geofence.objects.get()
    assert (made.brand, made.external_id, made.tags, made.radius_m) == (brand, "1", ["list"], 50)
    assert marketer.get(f"{IMPORTS}{job.pk}/progress.json").json() == {
        "state": "done",
        "under_way": False,
        "rows_done": 3,
        "rows_total": 3,
        "counts": {"created": 1, "refused": 2},
        "overdue": False,
    }
    shown = marketer.get(page).content.decode()
    assert "no latitude" in shown
    remarks = marketer.get(f"{IMPORTS}{job.pk}/remarks.csv").content.decode()
    assert "2,2,B,refused,no latitude" in remarks
    assert "'=HYPERLINK(1)" in remarks


def test_a_double_click_starts_an_import_once(marketer: Client) -> None:
    job = upload(marketer, TABLE)
    page = admin.site.get_model_admin(GeofenceImport)
    assert isinstance(page, GeofenceImportAdmin)
    one, two = (GeofenceImport.objects.get(pk=job.pk) for _ in range(2))

    page.start(one, {}, 3)
    claimed = filejobs.claim(GeofenceImport, now=now())
    assert claimed is not None
    filejobs.advance(claimed, rows_done=2)
    page.start(two, {}, 3)

    job.refresh_from_db()
    assert (job.state, job.rows_done) == (ImportState.RUNNING, 2)


def test_it_asks_for_what_is_missing_before_it_starts(marketer: Client) -> None:
    job = upload(marketer, "shop,street\n1,High Street\n")
    page = f"{IMPORTS}{job.pk}/change/"

    shown = marketer.get(page)
    assert shown.status_code == 200
    answer = marketer.post(page, {"tags": "[]", "start": ""})

    assert "latitude" in str(answer.context["form"].errors)
    job.refresh_from_db()
    assert job.state == ImportState.DRAFT


@pytest.mark.shared_data
def test_it_shows_why_a_file_in_a_wrong_system_is_refused(
    marketer: Client, shared_data: Path
) -> None:
    path = shared_data / "austin" / "airport_zoning.WRONG_CRS_epsg2277.geojson"
    job = upload(marketer, path.read_text(), path.name)
    page = f"{IMPORTS}{job.pk}/change/"

    assert "outside degrees" in marketer.get(page).content.decode()
    refused = marketer.post(page, {"tags": "[]", "start": ""})
    assert refused.status_code == 200
    answer = marketer.post(page, {"tags": "[]", "crs": "EPSG:2277", "start": ""})

    assert answer.status_code == 302
    work()
    job.refresh_from_db()
    assert job.counts == {"created": 4}


def test_it_ends_an_import_whose_file_cannot_be_read(marketer: Client) -> None:
    job = upload(marketer, "not json", "areas.geojson")

    answer = marketer.get(f"{IMPORTS}{job.pk}/change/", follow=True)

    assert "cannot be read" in answer.content.decode()
    job.refresh_from_db()
    assert job.state == ImportState.FAILED


def test_it_takes_no_file_of_another_kind(marketer: Client) -> None:
    answer = marketer.post(f"{IMPORTS}add/", {"file": SimpleUploadedFile("a.exe", b"MZ")})

    assert "cannot be read" in answer.content.decode()
    assert not GeofenceImport.objects.exists()


def test_it_discards_a_draft(marketer: Client) -> None:
    job = upload(marketer, TABLE)

    marketer.post(f"{IMPORTS}{job.pk}/cancel/")

    job.refresh_from_db()
    assert job.state == ImportState.CANCELLED
    assert filejobs.claim(GeofenceImport, now=job.created_at) is None


@pytest.fixture
def live_brand(chromium: Browser, transactional_db: None, live_web: LiveWeb) -> Brand:
    brand = make_brand()
    make_circle(brand, name="Corner shop")  # the map begins where the brand is
    make_member(brand, Role.MARKETER, username="maria", password=PASSWORD)
    return brand


class Desk:
    """The drawing page in a browser: clicks are in pixels of the map."""

    def __init__(self, browser: Browser, web: LiveWeb) -> None:
        self.page = log_in(browser, web, "maria", timeout_ms=SLOW_MS)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(f"{web.base_url}{LIST}add/")
        expect(self.page.locator("#hint")).to_contain_text("Choose Area or Circle", timeout=SLOW_MS)
        box = self.page.locator("#map").bounding_box()
        assert box is not None
        self.left, self.top = box["x"], box["y"]

    def click(self, x: float, y: float) -> None:
        """Move there first, as a hand does; one frame lets the map follow."""
        self.page.mouse.move(self.left + x, self.top + y, steps=3)
        self.page.evaluate("new Promise(requestAnimationFrame)")
        self.page.mouse.click(self.left + x, self.top + y)
        self.page.evaluate("new Promise(requestAnimationFrame)")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(self.left + start[0], self.top + start[1])
        self.page.mouse.down()
        self.page.mouse.move(self.left + end[0], self.top + end[1], steps=10)
        self.page.mouse.up()

    def drawn(self) -> Any:
        value = self.page.input_value("[name=place]")
        return json.loads(value) if value else None

    def wait_until(self, condition: str) -> None:
        """`place` is what has been drawn, or null."""
        self.page.wait_for_function(
            "condition => { const value = document.querySelector('[name=place]').value;"
            " return new Function('place', `return ${condition}`)(value && JSON.parse(value)); }",
            arg=condition,
            timeout=SLOW_MS,
        )

    def save(self) -> None:
        self.page.fill("[name=name]", "Drawn by hand")
        self.page.click("[name=_save]")
        self.page.wait_for_url(re.compile(f"{LIST}$"))


@pytest.fixture
def desk(live_brand: Brand, live_web: LiveWeb, chromium: Browser) -> Iterator[Desk]:
    desk = Desk(chromium, live_web)
    yield desk
    desk.page.context.close()
    assert desk.problems == []


@pytest.mark.browser
@pytest.mark.timeout(240)
def test_it_draws_an_area_by_hand_and_saves_it_with_its_cover(
    desk: Desk, live_brand: Brand
) -> None:
    desk.page.click("[data-tool=polygon]")
    for corner in ((200, 150), (400, 150), (400, 300), (200, 300), (200, 150)):
        desk.click(*corner)
    desk.wait_until("place?.geometry.coordinates[0].length === 5")
    drawn = desk.drawn()

    there = json.dumps(drawn["geometry"]["coordinates"][0][2])
    desk.drag((400, 300), (450, 360))
    desk.wait_until(f"String(place.geometry.coordinates[0][2]) !== String({there})")
    desk.page.click("[data-act=undo]")
    desk.wait_until(f"String(place.geometry.coordinates[0][2]) === String({there})")
    desk.page.click("[data-act=cells]")
    expect(desk.page.locator("#status")).to_contain_text("H3 cells", timeout=SLOW_MS)
    desk.save()

    made = Geofence.objects.get(name="Drawn by hand")
    assert made.brand == live_brand
    assert made.geometry.geom_type == "Polygon"
    west, south, east, north = made.geometry.extent
    assert west < east < SHOP.lng + 0.1
    assert south < north
    cover = GeofenceCover.objects.get(geofence=made)
    assert len(cover.blocks) > 0


@pytest.mark.browser
@pytest.mark.timeout(240)
def test_it_keeps_circle_and_radius_field_in_step(desk: Desk) -> None:
    desk.page.fill("#search", f"{SHOP.lat}, {SHOP.lng}")
    desk.page.press("#search", "Enter")
    desk.page.click("[data-tool=circle]")
    desk.click(300, 200)
    desk.click(360, 200)
    desk.wait_until("place?.radius_m > 5")
    drawn = desk.drawn()

    assert float(desk.page.input_value("#radius")) == pytest.approx(drawn["radius_m"], abs=1)
    desk.page.fill("#radius", "75")
    desk.wait_until("place.radius_m === 75")
    handle = desk.page.locator(".gf-handle-edge").bounding_box()
    assert handle is not None
    x = handle["x"] + handle["width"] / 2 - desk.left
    y = handle["y"] + handle["height"] / 2 - desk.top
    desk.drag((x, y), (x + 80, y))
    desk.wait_until("place.radius_m > 75")
    pulled = desk.drawn()["radius_m"]
    assert float(desk.page.input_value("#radius")) == pytest.approx(pulled, abs=1)
    desk.save()

    made = Geofence.objects.get(name="Drawn by hand")
    assert made.radius_m == pulled
    assert GeofenceCover.objects.filter(geofence=made).exists()


@pytest.mark.browser
@pytest.mark.timeout(240)
def test_it_cuts_a_hole_and_adds_a_second_area(desk: Desk) -> None:
    desk.page.click("[data-tool=polygon]")
    for corner in ((150, 100), (350, 100), (350, 320), (150, 320), (150, 100)):
        desk.click(*corner)
    desk.wait_until("place?.geometry.type === 'Polygon'")
    desk.page.click("[data-tool=hole]")
    for corner in ((200, 150), (300, 150), (300, 250), (200, 250), (200, 150)):
        desk.click(*corner)
    desk.wait_until("place.geometry.coordinates.length === 2")
    desk.page.click("[data-tool=polygon]")
    for corner in ((420, 120), (520, 120), (520, 240), (420, 120)):
        desk.click(*corner)
    desk.wait_until("place.geometry.type === 'MultiPolygon'")
    desk.save()

    made = Geofence.objects.get(name="Drawn by hand").geometry
    assert made.geom_type == "MultiPolygon"
    assert [len(part) for part in made] == [2, 1]

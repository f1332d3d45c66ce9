"""Takes the pictures of README and guides from a running demo (`make run` in another terminal).

    .venv/bin/python docs/screenshots.py              # all of them
    .venv/bin/python docs/screenshots.py guide-hours  # only these

The marketer's guide needs campaigns with everything in them: three drafts and six people are added.
Logs in with the demo's own log-ins, waits until each page shows something, writes `docs/images`.
Where no tile server can be reached the pictures show the demo city's own map, so block it:
they then look the same everywhere.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
LIMIT_BYTES = 300_000
WIDE, MAP, NARROW = (1120, 700), (1000, 600), (390, 780)
PATIENCE_MS = 90_000
# Software rendering where there is no graphics card: maps need WebGL.
BROWSER_ARGUMENTS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture: where to go, as whom, and what must be there before the shutter."""

    name: str
    path: str
    ready: Callable[[Page], object]
    username: str = "marketer"
    size: tuple[int, int] = WIDE
    of: str = ""  # only this part of the page


def map_is_drawn(page: Page) -> None:
    page.wait_for_selector(".maplibregl-canvas")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2_500)  # the map fades in after its last answer


def live_is_busy(page: Page) -> None:
    page.wait_for_function("document.querySelectorAll('#live-feed li').length > 12")
    page.wait_for_function("document.querySelector('#live-feed li.offer') !== null")
    page.wait_for_timeout(9_000)  # trails grow


def settled(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2_000)  # small maps


def open_map_of(name: str) -> Callable[[Page], None]:
    def ready(page: Page) -> None:
        page.click(f"#result_list a:has-text('{name}')")
        map_is_drawn(page)

    return ready


def opened(page: Page) -> None:
    page.evaluate(
        "document.querySelectorAll('.nc-builder > :not(.nc-side) details.nc-more')"
        ".forEach(one => one.open = true)"
    )
    settled(page)


GUIDE: dict[str, Any] = {
    "trigger": {"on": "dwelled", "tags": ["own"], "dwell_s": 300},
    "audience": {
        "all": [
            {"attribute": "tier", "op": "eq", "value": "gold"},
            {"event": "purchase", "op": "gte", "value": 2, "within_s": 30 * 86_400},
        ]
    },
    "guards": [{"name": "bought it already", "event": "purchase", "within_s": 86_400}],
    "content": {
        "title": "A coffee at {{ place.name }}?",
        "body": "{{ device.attributes.first_name | default: 'Hello' }}, one euro off until noon.",
        "deep_link": "bara://offers/one-euro?place={{ place.external_id }}",
        "locales": {
            "fr": {"title": "Un café à {{ place.name }} ?", "body": "Un euro de moins avant midi."}
        },
        "push": {"android_channel_id": "offers", "apns_badge": 1},
    },
    "dayparts": [
        {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "07:30", "to": "11:30"},
        {"days": ["sat", "sun"], "from": "09:00", "to": "12:00"},
    ],
    "caps": [
        {"limit": 1, "per": "day", "scope": "person"},
        {"limit": 3, "window_s": 7 * 86_400, "scope": "place"},
    ],
    "priority": 10,
    "group": "coffee",
    "budget": {"total": {"sends": 20_000}, "per_day": {"sends": 1_000}, "even": True},
    "variants": [{"name": "plain", "weight": 2}, {"name": "warm", "weight": 1}],
    "goal": {"event": "purchase", "within_s": 86_400},
    "holdout": 0.1,
}
SEQUENCE: dict[str, Any] = {
    "trigger": {
        "on": "sequence",
        "steps": [
            {"on": "event", "event": "balance_low"},
            {"on": "entered", "tags": ["own"]},
        ],
        "within_s": 3 * 86_400,
        "unless": {"on": "event", "event": "purchase"},
        "for_s": 1_800,
    },
    "content": {"title": "Top up here", "body": "{{ place.name }} is a step away."},
}

SCHEDULE: dict[str, Any] = {
    "trigger": {
        "on": "schedule",
        "tags": ["own"],
        "times": ["17:30", "21:00"],
        "days": ["fri", "sat"],
        "zone": "brand",
        "within_s": 7_200,
    },
    "content": {"title": "Home by tram", "body": "The next one leaves in ten minutes."},
}


def prepare(demo: dict[str, Any]) -> dict[str, int]:
    """Add what the guide shows, once; answers the ids of its campaigns by name."""
    with httpx.Client(
        base_url=demo["base_url"],
        headers={"Authorization": f"Bearer {demo['server_key']}"},
        timeout=60,
    ) as client:
        known = {
            one["name"]: one["id"]
            for one in client.get("/v1/campaigns", params={"limit": 200}).json()["results"]
        }
        wanted = {
            "Coffee for regulars": GUIDE,
            "Top up on the way": SEQUENCE,
            "Home by tram": SCHEDULE,
        }
        for name, definition in wanted.items():
            if name not in known:
                answer = client.post("/v1/campaigns", json={"name": name, **definition})
                known[name] = answer.raise_for_status().json()["id"]
        people = [
            {"external_id": f"member-{number}", "attributes": {"tier": tier, "points": 40 * number}}
            for number, tier in enumerate(("gold", "silver", "gold", "none", "silver", "gold"), 1)
        ]
        client.put("/v1/gateway/profiles", json=people).raise_for_status()
        live = known["A coffee on your way"]
        if client.get(f"/v1/campaigns/{live}/backtest").status_code == httpx.codes.NOT_FOUND:
            client.post(f"/v1/campaigns/{live}/backtest", json={}).raise_for_status()
    return known


def guide(known: dict[str, int]) -> tuple[Shot, ...]:
    """The pictures of the marketer's guide."""
    campaigns = "/admin/campaigns/campaign"
    drawn, live = known["Coffee for regulars"], known["A coffee on your way"]
    parts = {
        "trigger": "#part-where",
        "audience": "[data-field=audience]",
        "relevance": "[data-field=guards]",
        "content": "#part-what",
        "preview": ".nc-card:has(#phones)",
        "checks": ".nc-card:has(#checklist)",
        "hours": "#part-when",
        "caps": "#part-often",
        "budget": "#part-worth details:nth-of-type(1)",
        "coupons": "#part-worth details:nth-of-type(2)",
        "variants": "#part-worth details:nth-of-type(3)",
        "worth": "#part-worth details:nth-of-type(4)",
    }
    return (
        *(
            Shot(
                name=f"guide-{name}",
                path=f"{campaigns}/{drawn}/change/",
                ready=opened,
                # The column at the side moves with the page: all of it must be in view.
                size=(1280, 1800) if name in {"preview", "checks"} else (1280, 900),
                of=part,
            )
            for name, part in parts.items()
        ),
        Shot(
            name="guide-sequence",
            path=f"{campaigns}/{known['Top up on the way']}/change/",
            ready=settled,
            of=".nc-builder-says",
        ),
        Shot(
            name="guide-steps",
            path=f"{campaigns}/{known['Top up on the way']}/change/",
            ready=settled,
            size=(1280, 900),
            of="#part-where",
        ),
        Shot(
            name="guide-schedule",
            path=f"{campaigns}/{known['Home by tram']}/change/",
            ready=settled,
            of="#part-where",
        ),
        Shot(name="guide-segment", path="/admin/campaigns/segment/", ready=settled),
        Shot(name="guide-people", path="/admin/devices/profile/?q=member", ready=settled),
        Shot(name="guide-versions", path=f"{campaigns}/{live}/versions/", ready=settled),
        Shot(name="guide-backtest", path=f"{campaigns}/{live}/backtest/", ready=settled),
        Shot(name="guide-results", path=f"{campaigns}/{live}/results/", ready=settled),
        Shot(
            name="guide-why", path="/admin/campaigns/decision/", ready=settled, username="support"
        ),
    )


def shots(story: dict[str, Any]) -> tuple[Shot, ...]:
    """The pictures; `story` is a delivery that somebody opened."""
    live, campaign = "/admin/live/", story["campaign"]["id"]
    return (
        Shot(name="live", path=live, ready=live_is_busy, username="support", size=MAP),
        Shot(name="live-phone", path=live, ready=live_is_busy, username="support", size=NARROW),
        Shot(name="today", path="/admin/", ready=settled),
        Shot(
            name="geofence",
            path="/admin/geofences/geofence/?q=Grand+Large+shopping",
            ready=open_map_of("Grand Large shopping centre"),
        ),
        Shot(name="campaign", path=f"/admin/campaigns/campaign/{campaign}/change/", ready=settled),
        Shot(
            name="delivery",
            path=f"/admin/notifications/delivery/{story['id']}/change/",
            ready=settled,
            username="support",
        ),
        Shot(
            name="device",
            path=f"/admin/devices/device/{story['device_id']}/change/",
            ready=settled,
            username="support",
        ),
    )


def a_story(demo: dict[str, Any]) -> dict[str, Any]:
    """The newest delivery that was opened."""
    answer = httpx.get(
        f"{demo['base_url']}/v1/deliveries",
        params={"limit": 200, "state": "sent"},
        headers={"Authorization": f"Bearer {demo['server_key']}"},
        timeout=60,
    )
    found: dict[str, Any] = next(
        each
        for each in answer.json()["results"]
        if any(said["event"] == "opened" for said in each["feedback"])
    )
    return found


class Camera:
    """One browser; it logs in once for each person and size, and stays where it is if it can."""

    def __init__(self, browser: Browser, demo: dict[str, Any]) -> None:
        self._browser = browser
        self._base_url = demo["base_url"]
        self._passwords = {person["username"]: person["password"] for person in demo["staff"]}
        self._pages: dict[tuple[str, tuple[int, int]], tuple[Page, str]] = {}

    def take(self, shot: Shot) -> None:
        """Go there, wait, press."""
        page, before = self._pages.get((shot.username, shot.size)) or (self._log_in(shot), "")
        if before != shot.path or not shot.of:
            page.goto(self._base_url + shot.path)
            shot.ready(page)
        self._pages[shot.username, shot.size] = page, shot.path
        target = IMAGES / f"{shot.name}.png"
        if shot.of:
            page.locator(shot.of).first.screenshot(path=target)
        else:
            page.screenshot(path=target)
        size = target.stat().st_size
        remark = "" if size < LIMIT_BYTES else f", more than {LIMIT_BYTES}"
        print(f"{target.relative_to(ROOT)}: {size} bytes{remark}")

    def _log_in(self, shot: Shot) -> Page:
        width, height = shot.size
        page = self._browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.route("**/tile.openstreetmap.org/**", lambda route: route.abort())
        page.goto(f"{self._base_url}/admin/login/")
        page.fill("input[name=username]", shot.username)
        page.fill("input[name=password]", self._passwords[shot.username])
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")
        return page


def main() -> None:
    """Take every picture."""
    demo = json.loads((ROOT / ".nearcast" / "demo.json").read_text())
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(
            executable_path=installed, args=["--no-sandbox", *BROWSER_ARGUMENTS]
        )
        asked = frozenset(sys.argv[1:])
        wanted = [one for one in guide(prepare(demo)) if not asked or one.name in asked]
        if not asked or asked - {one.name for one in wanted}:
            wanted += [one for one in shots(a_story(demo)) if not asked or one.name in asked]
        camera = Camera(browser, demo)
        for shot in wanted:
            camera.take(shot)
        browser.close()


if __name__ == "__main__":
    main()

"""Takes the pictures of the README from a running demo (`make run` in another terminal).

    .venv/bin/python docs/screenshots.py

Logs in with the demo's own log-ins, waits until each page shows something, writes `docs/images`.
Where no tile server can be reached the pictures show the demo city's own map, so block it:
they then look the same everywhere.
"""

from __future__ import annotations

import json
import shutil
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


def take(browser: Browser, shot: Shot, base_url: str, password: str) -> None:
    """Log in, go there, wait, press."""
    width, height = shot.size
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.route("**/tile.openstreetmap.org/**", lambda route: route.abort())
    page.goto(f"{base_url}/admin/login/")
    page.fill("input[name=username]", shot.username)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_load_state("networkidle")
    page.goto(base_url + shot.path)
    shot.ready(page)
    target = IMAGES / f"{shot.name}.png"
    page.screenshot(path=target)
    context.close()
    size = target.stat().st_size
    remark = "" if size < LIMIT_BYTES else f", more than {LIMIT_BYTES}"
    print(f"{target.relative_to(ROOT)}: {size} bytes{remark}")


def main() -> None:
    """Take every picture."""
    demo = json.loads((ROOT / ".nearcast" / "demo.json").read_text())
    passwords = {person["username"]: person["password"] for person in demo["staff"]}
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(
            executable_path=installed, args=["--no-sandbox", *BROWSER_ARGUMENTS]
        )
        for shot in shots(a_story(demo)):
            take(browser, shot, demo["base_url"], passwords[shot.username])
        browser.close()


if __name__ == "__main__":
    main()

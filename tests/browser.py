"""The browser of tests that must see a page as people do: Chromium, with maps drawn in software."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from django.db import connections
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.live_server import LiveWeb

PASSWORD = "correct horse battery staple"
FLAGS = [
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-gl=angle"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SLOW_MS = 60_000  # a map drawn without a GPU on a busy machine
expect.set_options(timeout=15_000)  # as what a page is asked to do; playwright's own is 5 s


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, else the one that playwright installed."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright keeps an event loop in this thread; rows asked for here are none of its.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
        connections.close_all()  # this context's own, which nobody reaches from outside


def log_in(
    browser: Browser,
    web: LiveWeb,
    username: str,
    *,
    width: int = 1280,
    locale: str = "en-US",
    timeout_ms: int = 15_000,
) -> Page:
    """A page of somebody whose password is PASSWORD, on the dashboard."""
    viewport: ViewportSize = {"width": width, "height": 900}
    page = browser.new_context(viewport=viewport, locale=locale).new_page()
    page.set_default_timeout(timeout_ms)
    page.goto(f"{web.base_url}/admin/")
    page.fill("[name=username]", username)
    page.fill("[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url(re.compile(r"/admin/$"))
    return page

"""The admin in a real browser: a marketer publishes, support resends, a phone shows it all.

Nobody in here reads or writes JSON.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.gis.geos import Point
from playwright.sync_api import Browser, Dialog, Page, expect

from brands.models import Role
from campaigns.models import Campaign, CampaignState, Decision
from devices.models import Device
from geofences.models import Geofence
from notifications.models import Delivery, DeliveryActionLog, DeliveryState
from tests.browser import PASSWORD, SLOW_MS, log_in
from tests.factories import make_circle
from tests.live_server import LiveWeb
from tests.staff import World, make_member, make_world

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def world(chromium: Browser, transactional_db: None, live_web: LiveWeb) -> World:
    return make_world("Bara")


def test_it_lets_a_marketer_publish_a_campaign(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.MARKETER, username="maria", password=PASSWORD)
    page = log_in(chromium, live_web, "maria")
    page.click("#nav-sidebar >> text=Campaigns")
    page.click("a[href$='/campaigns/campaign/add/']")

    page.fill("[name=name]", "Espresso on the house")
    page.click("text=stays a while")
    page.fill("[name=dwell_0]", "5")
    page.click("[placeholder^='Search a place']")
    page.fill("[placeholder^='Search a place']", "Bara sh")
    page.click(".nc-result >> text=Bara shop")
    expect(page.locator(".nc-chip", has_text="Bara shop")).to_be_visible()

    page.click("#part-who >> text=+ Add a condition")
    page.fill("#part-who [aria-label=attribute]", "tier")
    page.fill("#part-who [aria-label=value]", "gold")

    page.fill("[name=title]", "Espresso on us")
    page.fill("[name=body]", "Welcome to ")
    page.click("#variables >> text=place.name")
    expect(page.locator("#phones .ios")).to_contain_text("Welcome to Bara shop")
    page.select_option("#languages select", "fr")
    page.fill("#locale-title", "Un espresso offert")

    page.click("#part-when >> text=+ Add hours")
    page.click("#part-often >> text=+ Add a limit")
    expect(page.locator("#sentence")).to_contain_text("Espresso on us")
    expect(page.locator("#checklist")).to_contain_text("it can go live")
    page.click("[name=publish]")
    expect(page.locator("text=is live, as version 1")).to_be_visible()

    campaign = Campaign.objects.exclude(pk=world.campaign.pk).get()
    assert campaign.state == CampaignState.LIVE
    assert campaign.live_version is not None
    assert campaign.live_version.definition == {
        "trigger": {"on": "dwelled", "geofences": [world.geofence.pk], "dwell_s": 300},
        "audience": {"all": [{"attribute": "tier", "op": "eq", "value": "gold"}]},
        "content": {
            "title": "Espresso on us",
            "body": "Welcome to {{ place.name }}",
            "locales": {"fr": {"title": "Un espresso offert"}},
        },
        "dayparts": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "18:00"}],
        "caps": [{"limit": 1, "window_s": 86_400, "scope": "person"}],
    } | {
        key: campaign.live_version.definition[key]
        for key in ("expires_after_s", "max_age_s")
        if key in campaign.live_version.definition
    }


def test_it_lets_a_marketer_say_several_things_after_each_other(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.MARKETER, username="maria", password=PASSWORD)
    page = log_in(chromium, live_web, "maria")
    page.goto(f"{live_web.base_url}/admin/campaigns/campaign/add/")
    page.fill("[name=name]", "Top up on the way")
    page.click("text=does several things")
    steps = page.locator("[data-field=steps]")

    steps.get_by_text("+ Add a step").click()
    visit = steps.get_by_role("group", name="Step 1")
    visit.get_by_placeholder("Search a place").fill("Bara sh")
    visit.locator(".nc-result", has_text="Bara shop").click()
    visit.get_by_label("how many times").fill("2")
    visit.get_by_label("sun").click()

    steps.get_by_text("+ Add a step").click()
    event = steps.get_by_role("group", name="Step 2")
    event.get_by_label("what happens").select_option("event")
    event.get_by_label("event", exact=True).fill("balance_low")
    event.get_by_text("+ Add a value").click()
    event.get_by_label("name", exact=True).fill("plan")
    event.get_by_label("value", exact=True).fill("prepaid")
    event.get_by_label("Move step 2 up").click()
    expect(visit.get_by_label("event", exact=True)).to_have_value("balance_low")
    expect(event.locator(".nc-chip", has_text="Bara shop")).to_be_visible()

    steps.get_by_text("+ Add a step").click()
    steps.get_by_label("Remove step 3").click()
    page.fill("[name=steps_within_0]", "3")
    page.click("text=+ Add what calls it off")
    page.fill("[data-field=unless] [aria-label=event]", "purchase")
    page.fill("[name=unless_for_0]", "30")
    page.click("text=Which time, and when again")
    page.fill("[name=nth]", "2")
    page.check("[name=every]")
    page.fill("[name=again_after_0]", "7")
    page.fill("[name=title]", "Top up here")
    page.fill("[name=body]", "One step away")
    expect(page.locator("#sentence")).to_contain_text(
        "When “balance_low” is reported with plan prepaid and then a device enters “Bara shop”"
    )
    expect(page.locator("#sentence")).to_contain_text("all within 3 days, every 2 times")
    expect(page.locator("#checklist")).to_contain_text("it can go live")
    page.click("[name=publish]")
    expect(page.locator("text=is live, as version 1")).to_be_visible()

    def published() -> object:
        campaign = Campaign.objects.exclude(pk=world.campaign.pk).get()
        assert campaign.live_version is not None
        return campaign.live_version.definition["trigger"]

    said = published()
    assert said == {
        "on": "sequence",
        "steps": [
            {"on": "event", "event": "balance_low", "where": {"plan": "prepaid"}},
            {
                "on": "entered",
                "geofences": [world.geofence.pk],
                "times": 2,
                "days": ["mon", "tue", "wed", "thu", "fri", "sat"],
            },
        ],
        "within_s": 3 * 86_400,
        "unless": {"on": "event", "event": "purchase"},
        "for_s": 1_800,
        "nth": 2,
        "every": True,
        "again_after_s": 7 * 86_400,
    }

    expect(steps.locator(".nc-chip", has_text="Bara shop")).to_be_visible()
    expect(page.locator("[name=again_after_0]")).to_be_visible()
    page.fill("[name=title]", "Top up there")
    page.click("[name=publish]")
    expect(page.locator("text=is live, as version 2")).to_be_visible()
    assert published() == said


def test_it_draws_a_sequence_on_the_map_by_the_numbers_of_its_steps(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.MARKETER, username="maria", password=PASSWORD)
    till = make_circle(world.brand, name="The till", geometry=Point(24.95, 60.17, srid=4326))
    world.campaign.draft = {
        "trigger": {
            "on": "sequence",
            "steps": [
                {"on": "entered", "geofences": [world.geofence.pk]},
                {"on": "event", "event": "balance_low"},
                {"on": "exited", "geofences": [world.geofence.pk]},
            ],
            "unless": {"on": "entered", "geofences": [till.pk]},
            "for_s": 60,
        }
    }
    world.campaign.save(update_fields=["draft"])
    page = log_in(chromium, live_web, "maria", timeout_ms=SLOW_MS)
    page.goto(f"{live_web.base_url}/admin/campaigns/campaign/{world.campaign.pk}/change/")

    legend = page.locator("#steps-legend li")
    expect(legend).to_have_text(
        [
            "1comes in: Bara shop",
            "2does balance_low in the app, wherever they are",
            "3leaves: Bara shop",
            "✕then nobody comes in: The till",
        ]
    )
    box = legend.first.locator(".nc-mark").bounding_box()
    assert box is not None
    assert box["height"] >= 20, "large enough to read"
    marks = page.locator("#steps-map .nc-marks")
    expect(marks).to_have_count(2, timeout=SLOW_MS)
    expect(page.locator("#steps-map [title='Bara shop']")).to_have_text("13")
    expect(page.locator("#steps-map [title='The till']")).to_have_text("✕")

    page.get_by_label("Remove step 1").click()
    expect(page.locator("#steps-map [title='Bara shop']")).to_have_text("2", timeout=SLOW_MS)


def test_it_edits_what_once_only_the_api_could_say(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.MARKETER, username="maria", password=PASSWORD)
    guard = {
        "name": "Has some",
        "event": "purchase",
        "where": {"kind": "shoes", "pairs": 2},
        "same": {"sku": "offer.sku"},
        "times": 3,
        "within_s": 604_800,
    }
    kept = {
        "trigger": {"on": "entered", "geofences": [world.geofence.pk]},
        "guards": [guard],
        "score_by": {"dwell_s": 0.5, "attribute.affinity": 2},
        "caps": [{"limit": 1, "scope": "person"}],
        "content": {"title": "a", "body": "b", "data": {"sku": "x"}},
    }
    world.campaign.draft = kept
    world.campaign.save(update_fields=["draft"])
    page = log_in(chromium, live_web, "maria")
    page.goto(f"{live_web.base_url}/admin/campaigns/campaign/{world.campaign.pk}/change/")
    rule = page.get_by_role("group", name="Rule 1")
    expect(rule.get_by_label("how many times")).to_have_value("3")
    expect(rule.get_by_label("offer.sku")).to_have_value("offer.sku")
    expect(rule.get_by_label("what the rule is called")).to_have_value("Has some")
    rule.get_by_label("value", exact=True).nth(1).fill("3")
    rule.get_by_label("how many times").fill("2")
    part = page.get_by_role("group", name="Part 2 of the score")
    part.get_by_label("how much").fill("-1.5")
    part.get_by_label("how much").press("Tab")
    expect(page.locator("#sentence")).to_contain_text("0.5 × dwell_s + -1.5 × attribute.affinity")
    expect(page.locator("#sentence")).to_contain_text("the same sku as the offer’s sku 2 times")
    page.click("[name=save]")
    expect(page.locator("text=What is live has not changed")).to_be_visible()

    world.campaign.refresh_from_db()
    assert world.campaign.draft == kept | {
        "guards": [guard | {"where": {"kind": "shoes", "pairs": 3}, "times": 2}],
        "score_by": {"dwell_s": 0.5, "attribute.affinity": -1.5},
    }


def test_it_lets_a_marketer_say_a_variant_in_another_language(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.MARKETER, username="maria", password=PASSWORD)
    page = log_in(chromium, live_web, "maria")
    page.goto(f"{live_web.base_url}/admin/campaigns/campaign/{world.campaign.pk}/change/")
    page.click("summary:text-is('Variants')")
    variants = page.locator("[data-field=variants]")
    for _ in range(2):
        variants.get_by_text("+ Add a variant").click()
    variants.get_by_label("Title of B", exact=True).fill("Warm up")
    variants.get_by_label("Add a language to B").select_option("fr")
    variants.get_by_label("Add a language to B").select_option("de")
    variants.get_by_label("Title of B, French").fill("Au chaud")
    variants.get_by_label("Remove German of B").click()
    expect(variants.get_by_label("Title of B, German")).to_have_count(0)
    page.click("[name=publish]")
    expect(page.locator("text=is live, as version")).to_be_visible()
    live = Campaign.objects.get(pk=world.campaign.pk).live_version
    assert live is not None
    assert live.definition["variants"][1]["content"] == {
        "title": "Warm up",
        "locales": {"fr": {"title": "Au chaud"}},
    }


def test_it_leads_from_what_is_missing_to_its_field(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.MARKETER, username="maria", password=PASSWORD)
    page = log_in(chromium, live_web, "maria")
    page.goto(f"{live_web.base_url}/admin/campaigns/campaign/add/")
    page.fill("[name=name]", "Half done")
    page.fill("[name=title]", "Only a title")
    page.click("[name=publish]")
    expect(page.locator("[data-field=body] .nc-error")).to_have_text("The offer needs a body.")
    expect(page.locator("[name=title]")).to_have_value("Only a title")
    page.click("#checklist >> text=The offer needs a body.")
    expect(page.locator("[name=body]")).to_be_focused()


def test_it_lets_support_read_a_delivery_and_send_it_again(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.SUPPORT, username="sam", password=PASSWORD)
    page = log_in(chromium, live_web, "sam")
    page.click("#nav-sidebar >> text=Deliveries")
    page.fill("[name=q]", "Bara-person")
    page.click("button >> text=Search")
    page.click("text=Bara offer")
    for told in ("Entered Bara shop", "Bara campaign: send", "The push service took it", "opened"):
        expect(page.locator(".nc-timeline", has_text=told)).to_be_visible()
    page.click("text=Send it again…")
    page.fill("[name=note]", "The customer asked.")
    page.click("button >> text=Send it again")
    expect(page.locator(".nc-timeline", has_text="The customer asked.")).to_be_visible()

    assert Delivery.objects.get(pk=world.delivery.pk).state == DeliveryState.PENDING
    log = DeliveryActionLog.objects.get()
    assert log.actor is not None
    assert (log.actor.username, log.action) == ("sam", "resend")


def test_it_answers_why_on_one_screen(world: World, live_web: LiveWeb, chromium: Browser) -> None:
    make_member(world.brand, Role.SUPPORT, username="sam", password=PASSWORD)
    page = log_in(chromium, live_web, "sam")
    page.goto(f"{live_web.base_url}/admin/devices/device/{world.device.pk}/change/")
    page.select_option("#why-campaign", label="Bara campaign")
    page.click("button >> text=Why?")
    expect(page.locator("#why")).to_contain_text("the offer was made")


def test_a_french_browser_reads_english_pages_and_reasons_in_the_language_it_chooses(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    Decision.objects.update(verdict="refuse", reason="no_marketing_consent", trace={})
    make_member(world.brand, Role.SUPPORT, username="sam", password=PASSWORD)
    page = log_in(chromium, live_web, "sam", locale="fr-FR")
    page.goto(f"{live_web.base_url}/admin/devices/device/{world.device.pk}/change/")
    page.select_option("#why-campaign", str(world.campaign.pk))
    page.click("text=Why?")
    french = page.locator("#why [lang=fr]", has_text="n’a pas accepté la prospection")
    expect(french).to_be_visible()
    expect(page.get_by_text("Déconnexion")).to_have_count(0)

    page.locator("#why").get_by_role("button", name="English").click()
    expect(page.locator("#why", has_text="has not agreed to marketing")).to_be_visible()
    expect(french).to_have_count(0)
    page.goto(f"{live_web.base_url}/admin/campaigns/decision/{world.decision.pk}/change/")
    expect(page.locator("h2", has_text="has not agreed to marketing")).to_be_visible()
    page.get_by_role("button", name="Français").click()
    expect(page.locator("h2", has_text="n’a pas accepté")).to_be_visible()


def test_a_second_click_makes_no_second_campaign(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    make_member(world.brand, Role.MARKETER, username="maria", password=PASSWORD)
    page = log_in(chromium, live_web, "maria")
    page.goto(f"{live_web.base_url}/admin/campaigns/campaign/add/")
    page.fill("[name=name]", "Only once")
    page.evaluate("""() => {
        const button = document.querySelector("#campaign-form [name=save]");
        button.click();
        button.click();
    }""")
    expect(page.locator("text=Draft saved")).to_be_visible()
    assert Campaign.objects.filter(name="Only once").count() == 1


def test_leaving_asks_where_something_typed_is_not_saved(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    page = log_in(chromium, live_web, world_admin(world))
    asked = agree_to_leave(page)
    for address, typed in (("geofences/geofence/add/", "Kiosk"), ("campaigns/segment/add/", "")):
        page.goto(f"{live_web.base_url}/admin/{address}")
        if typed:
            page.locator("[name=name]").press_sequentially(typed)
        page.click("#nav-sidebar >> text=Devices")
        page.wait_for_url("**/devices/device/")
    assert asked == ["beforeunload"]


def test_leaving_a_builder_asks_for_what_is_typed_or_came_back_but_not_for_its_preview(
    world: World, live_web: LiveWeb, chromium: Browser
) -> None:
    page = log_in(chromium, live_web, world_admin(world))
    asked = agree_to_leave(page)

    def leave_after(action: Callable[[], object]) -> list[str]:
        asked.clear()
        page.goto(f"{live_web.base_url}/admin/campaigns/campaign/add/")
        action()
        page.click("#nav-sidebar >> text=Devices")
        page.wait_for_url("**/devices/device/")
        return list(asked)

    def save_nameless() -> None:
        page.click("#campaign-form [name=save]")
        expect(page.locator(".nc-errornote")).to_be_visible()

    typed = page.locator("[name=name]")
    preview = page.locator("[name=preview_device]")
    assert leave_after(lambda: typed.press_sequentially("Kiosk")) == ["beforeunload"]
    assert leave_after(save_nameless) == ["beforeunload"]
    assert leave_after(lambda: preview.press_sequentially("anna")) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_whatever_can_be_pressed_or_filled_in_has_a_name(
    world: World, live_web: LiveWeb, chromium: Browser, width: int
) -> None:
    """As a screen reader says it: an icon's own letters are no name."""
    page = log_in(chromium, live_web, world_admin(world), width=width)
    for address in ("", "campaigns/campaign/", "campaigns/campaign/add/", "devices/device/"):
        page.goto(f"{live_web.base_url}/admin/{address}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate(NAMELESS) == [], address
    page.locator("[role=button][aria-label=Menu]:visible").first.focus()
    before = page.locator("#nav-sidebar").is_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#nav-sidebar")).to_be_visible(visible=not before)


def agree_to_leave(page: Page) -> list[str]:
    """Say yes whenever the page asks; what it asked is added to the list."""
    asked: list[str] = []

    def agree(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", agree)
    return asked


def world_admin(world: World) -> str:
    world.admin.set_password(PASSWORD)
    world.admin.save()
    return world.admin.username


NAMELESS = """() => {
    const said = (one) => {
        const copy = one.cloneNode(true);
        for (const icon of copy.querySelectorAll(".material-symbols-outlined")) icon.remove();
        return copy.textContent.trim();
    };
    const named = (one) =>
        one.getAttribute("aria-label") || one.title || one.labels?.length || said(one);
    const pressed = "a[href], button, input:not([type=hidden]), select, textarea, [x-on\\\\:click]";
    return [...document.querySelectorAll(pressed)]
        .filter((one) => one.offsetParent !== null && !named(one))
        .map((one) => one.outerHTML.slice(0, 160));
}"""


def test_it_fits_a_phone(world: World, live_web: LiveWeb, chromium: Browser) -> None:
    make_member(world.brand, Role.ADMIN, username="ada", password=PASSWORD)
    page = log_in(chromium, live_web, "ada", width=390)
    for address in (
        "",
        "campaigns/campaign/",
        "campaigns/campaign/add/",
        f"campaigns/campaign/{world.campaign.pk}/change/",
        f"campaigns/campaign/{world.campaign.pk}/versions/",
        f"campaigns/segment/{world.segment.pk}/change/",
        "notifications/delivery/",
        f"notifications/delivery/{world.delivery.pk}/change/",
        "devices/device/",
        f"devices/device/{world.device.pk}/change/?why={world.campaign.pk}",
        "campaigns/decision/",
        f"campaigns/decision/{world.decision.pk}/change/",
        "brands/appkey/",
        "brands/appkey/add/",
        "brands/membership/",
        f"brands/brand/{world.brand.pk}/change/",
    ):
        page.goto(f"{live_web.base_url}/admin/{address}")
        page.wait_for_load_state("networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 1, f"{address} is {wide} px wider than the phone"


CUT_OFF = """() => [...document.querySelectorAll("td, th, dd, dt, p, .nc-line, .nc-card")]
    .filter((one) => one.offsetParent && getComputedStyle(one).overflow !== "auto")
    .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0)
    .map((one) => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_name_without_a_space_in_it_fits_too(
    world: World, live_web: LiveWeb, chromium: Browser, width: int
) -> None:
    """German has such words, and people paste addresses."""
    long = "Donaudampfschifffahrtsgesellschaft" * 5
    Campaign.objects.update(name=long)
    Geofence.objects.update(name=long)
    Device.objects.update(attributes={long[:60]: {"value": long, "source": "crm"}})
    Decision.objects.update(
        verdict="refuse", reason="contradicts_offer", trace={"kind": "campaign", "offer": long}
    )
    page = log_in(chromium, live_web, world_admin(world), width=width)
    for address in (
        "",
        "campaigns/campaign/",
        "campaigns/decision/",
        f"campaigns/decision/{world.decision.pk}/change/",
        f"devices/device/{world.device.pk}/change/?why={world.campaign.pk}",
        f"notifications/delivery/{world.delivery.pk}/change/",
    ):
        page.goto(f"{live_web.base_url}/admin/{address}")
        page.wait_for_load_state("networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 1, f"{address} is {wide} px too wide"
        assert page.evaluate(CUT_OFF) == [], address

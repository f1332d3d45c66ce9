"""What becomes of an offer at the wrong hour: against a clock read minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils.timezone import now
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns.definition import HoursPolicy
from campaigns.evaluation import evaluate_once
from campaigns.hours import Daypart, is_open, is_quiet
from campaigns.reasons import Reason
from campaigns.restraint import decide, expires_ms
from notifications.models import Delivery
from tests.campaigns.rows import make_campaign, make_transition
from tests.campaigns.values import a_campaign, a_history, a_moment
from tests.factories import make_brand, make_circle, make_device

MINUTE_MS = 60_000
ZONES = ["Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
# The days around the weekends on which clocks jump, in 2026.
JUMPS = ["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31"]

clock = st.integers(0, 1439)
parts = st.builds(Daypart, st.just(frozenset(range(7))), clock, clock).filter(
    lambda part: part.start_min != part.end_min
)


@settings(max_examples=200)
@given(
    day=st.sampled_from(JUMPS),
    minute=st.integers(0, 3 * 1440),
    tz=st.sampled_from(ZONES),
    dayparts=st.lists(parts, max_size=2).map(tuple),
    quiet=st.none() | parts,
    outside=st.sampled_from(HoursPolicy),
    in_quiet=st.sampled_from(HoursPolicy),
    good_min=st.integers(1, 900),
)
def test_it_holds_drops_or_waits_through_every_change_of_the_clock(
    day: str,
    minute: int,
    tz: str,
    dayparts: tuple[Daypart, ...],
    quiet: Daypart | None,
    outside: HoursPolicy,
    in_quiet: HoursPolicy,
    good_min: int,
) -> None:
    place = ZoneInfo(tz)
    start = datetime.fromisoformat(f"{day}T00:00:00+00:00") + timedelta(minutes=minute)
    now_ms = round(start.timestamp() * 1000)

    def state(after: int) -> tuple[bool, bool]:
        wall = (start + timedelta(minutes=after)).astimezone(place)
        at = (wall.weekday(), wall.hour * 60 + wall.minute)
        return is_open(*at, dayparts), is_quiet(*at, quiet)

    wait = next((n for n in range(3 * 1440) if state(n) == (True, False)), None)
    is_opened, is_silent = state(0)
    objection = None
    for wrong, policy, reason in (
        (not is_opened, outside, Reason.OUTSIDE_DAYPART),
        (is_silent, in_quiet, Reason.QUIET_HOURS),
    ):
        too_long = wait is None or wait >= good_min
        drops = policy is HoursPolicy.DROP or (policy is HoursPolicy.WHILE_GOOD and too_long)
        if wrong and drops:
            objection = objection or reason
    campaign = a_campaign(
        dayparts=dayparts,
        quiet=quiet,
        outside_dayparts=outside,
        quiet_policy=in_quiet,
        expires_after_ms=good_min * MINUTE_MS,
    )
    moment = a_moment(now_ms=now_ms, occurred_ms=now_ms, tz=place)
    found = decide(campaign, moment, a_history())
    if objection is not None:
        assert found.reason is objection
    elif wait is not None:
        assert found.reason is (Reason.HELD if wait else Reason.MATCHED)
        assert found.due_ms == now_ms + wait * MINUTE_MS
        assert expires_ms(campaign, moment, found.due_ms) > found.due_ms


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("policy", "good_for_h", "sent", "expires_h"),
    [("drop", 24, 0, 0), ("hold", 1, 1, 11), ("while_good", 9, 0, 0), ("while_good", 12, 1, 12)],
)
def test_an_offer_of_the_evening_waits_for_the_morning_as_it_is_told(
    policy: str, good_for_h: int, sent: int, expires_h: int
) -> None:
    brand = make_brand(quiet_hours={"from": "21:00", "to": "08:00"})
    shop = make_circle(brand)
    device = make_device(brand, timezone="Europe/Helsinki")
    make_campaign(brand, shop, quiet_hours=policy, expires_after_s=good_for_h * 3_600)
    evening = datetime(now().year + 1, 1, 15, 20, 0, tzinfo=UTC)  # 22:00 in Helsinki
    make_transition(device, shop, occurred_at=evening)
    evaluate_once(now=evening)
    assert Delivery.objects.count() == sent
    for delivery in Delivery.objects.all():
        assert delivery.due_at == evening + timedelta(hours=10)
        assert delivery.expires_at == evening + timedelta(hours=expires_h)
        assert delivery.gates["quiet_hours"]["policy"] == "hold"

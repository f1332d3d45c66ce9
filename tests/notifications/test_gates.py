"""What is looked at again before sending: a table, and quiet hours on real wall clocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.gates import (
    TOKEN_IDLE_AFTER,
    Facts,
    Gates,
    Go,
    Hold,
    InboxOnly,
    QuietHours,
    Stop,
    Verdict,
    look_again,
    quiet_until,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALL_WELL = Facts(
    push_token="token-1", consent_location=True, consent_marketing=True, inside=frozenset({7})
)
NIGHT = {"from": "22:00", "to": "07:00"}
LUNCH = {"from": "11:30", "to": "12:30"}
HELD_LUNCH = LUNCH | {"policy": "hold"}


@pytest.mark.parametrize(
    ("gates", "facts", "options", "expected"),
    [
        # nothing against it
        ({}, ALL_WELL, {}, Go(token="token-1")),
        ({"only_while_inside": 7}, ALL_WELL, {}, Go(token="token-1")),
        ({"quiet_hours": NIGHT}, ALL_WELL, {}, Go(token="token-1")),
        # its time is over, to the instant
        ({}, ALL_WELL, {"expires_at": NOON}, Stop(reason="expired")),
        # whoever asked to be forgotten is
        ({}, None, {}, Stop(reason="device_gone")),
        # consent, taken back since
        (
            {},
            replace(ALL_WELL, consent_location=False),
            {},
            Stop(reason="no_location_consent"),
        ),
        (
            {},
            replace(ALL_WELL, consent_marketing=False),
            {},
            Stop(reason="no_marketing_consent"),
        ),
        # … an event needs no location, a transactional message no marketing
        (
            {},
            replace(ALL_WELL, consent_location=False),
            {"by_location": False},
            Go(token="token-1"),
        ),
        (
            {},
            replace(ALL_WELL, consent_marketing=False),
            {"transactional": True},
            Go(token="token-1"),
        ),
        # walked on
        ({"only_while_inside": 8}, ALL_WELL, {}, Stop(reason="left_the_geofence")),
        # quiet now: dropped, or held where that is asked for and the offer lasts
        ({"quiet_hours": LUNCH}, ALL_WELL, {}, Stop(reason="quiet_hours")),
        (
            {"quiet_hours": HELD_LUNCH},
            ALL_WELL,
            {},
            Hold(until=NOON + timedelta(minutes=30), reason="quiet_hours"),
        ),
        (
            {"quiet_hours": HELD_LUNCH},
            ALL_WELL,
            {"expires_at": NOON + timedelta(minutes=30)},
            Stop(reason="quiet_hours"),
        ),
        # noon in London is night in Auckland (01:00, quiet until 07:00, six hours on)
        (
            {"quiet_hours": NIGHT | {"policy": "hold"}, "timezone": "Pacific/Auckland"},
            ALL_WELL,
            {},
            Hold(until=NOON + timedelta(hours=6), reason="quiet_hours"),
        ),
        # nobody to push to: the inbox has it; but not against a gate
        ({}, replace(ALL_WELL, push_token=None), {}, InboxOnly(reason="no_push_token")),
        # … nor to a phone that was silent for as long as a token lives
        ({}, replace(ALL_WELL, heard_at=NOON - TOKEN_IDLE_AFTER), {}, Go(token="token-1")),
        (
            {},
            replace(ALL_WELL, heard_at=NOON - TOKEN_IDLE_AFTER - timedelta(seconds=1)),
            {},
            InboxOnly(reason="push_token_idle"),
        ),
        (
            {"only_while_inside": 8},
            replace(ALL_WELL, push_token=None),
            {},
            Stop(reason="left_the_geofence"),
        ),
        # the first reason wins
        (
            {"only_while_inside": 8, "quiet_hours": LUNCH},
            replace(ALL_WELL, consent_location=False, consent_marketing=False),
            {"expires_at": NOON},
            Stop(reason="expired"),
        ),
    ],
)
def test_it_decides_as_the_table_says(
    gates: dict[str, Any], facts: Facts | None, options: dict[str, Any], expected: Verdict
) -> None:
    assert (
        look_again(
            msgspec.convert(gates, Gates),
            facts,
            by_location=options.get("by_location", True),
            transactional=options.get("transactional", False),
            expires_at=options.get("expires_at", NOON + timedelta(hours=8)),
            now=NOON,
        )
        == expected
    )


def test_it_knows_no_gate_that_it_does_not_name() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"only_when_raining": True}, Gates)


HELSINKI = ZoneInfo("Europe/Helsinki")


@pytest.mark.parametrize(
    ("quiet", "local", "expected"),
    [
        (NIGHT, "2026-05-01T21:59", None),
        (NIGHT, "2026-05-01T22:00", "2026-05-02T07:00"),
        (NIGHT, "2026-05-02T06:59", "2026-05-02T07:00"),
        (NIGHT, "2026-05-02T07:00", None),
        ({"from": "20:00", "to": "24:00"}, "2026-05-01T23:59", "2026-05-02T00:00"),
        ({"from": "00:00", "to": "06:00"}, "2026-05-01T00:00", "2026-05-01T06:00"),
        # the night of 29 March is an hour shorter: 03:00 is 04:00, and 03:30 never comes
        (NIGHT, "2026-03-28T22:00", "2026-03-29T07:00"),
        ({"from": "22:00", "to": "03:30"}, "2026-03-29T02:59", "2026-03-29T04:00"),
        # the night of 25 October has 03:00 to 04:00 twice, and is quiet in both
        ({"from": "22:00", "to": "03:30"}, "2026-10-25T03:15", "2026-10-25T03:30"),
    ],
)
def test_it_reads_quiet_hours_off_the_wall(
    quiet: dict[str, str], local: str, expected: str | None
) -> None:
    now = datetime.fromisoformat(local).replace(tzinfo=HELSINKI).astimezone(UTC)

    until = quiet_until(msgspec.convert(quiet, QuietHours), HELSINKI, now)

    shown = until.astimezone(HELSINKI).strftime("%Y-%m-%dT%H:%M") if until else None
    assert shown == expected


@given(
    start=st.integers(0, 1439),
    length=st.integers(1, 1439),
    since_s=st.integers(0, 366 * 86_400),
    name=st.sampled_from(["Europe/Helsinki", "America/St_Johns", "Pacific/Apia", "UTC"]),
)
def test_it_ends_quiet_time_where_the_wall_clock_does(
    start: int, length: int, since_s: int, name: str
) -> None:
    end = (start + length) % 1440
    quiet = QuietHours(
        start=f"{start // 60:02}:{start % 60:02}", to=f"{end // 60:02}:{end % 60:02}"
    )
    tz, now = ZoneInfo(name), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=since_s)

    def is_quiet(instant: datetime) -> bool:
        wall = instant.astimezone(tz)
        since_start = (wall.hour * 60 + wall.minute - start) % 1440
        return since_start < length

    until = quiet_until(quiet, tz, now)

    if until is None:
        assert not is_quiet(now)
    else:
        assert is_quiet(now)
        assert is_quiet(until - timedelta(seconds=1))
        assert not is_quiet(until)

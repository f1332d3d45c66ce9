"""What may have changed between deciding on an offer and sending it. Decides only.

The snapshot in `Delivery.gates` says what to look at again; the facts are read by the worker. What
needs a campaign (is it still live, is the cap still free) comes in from above as `Gate`s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

import msgspec

from brands.wallclock import DAY_MINUTES, minutes, zone

# Quiet hours last less than a day; the clock's own changes add an hour or two.
LONGEST_QUIET_MINUTES = DAY_MINUTES + 180

# Firebase lets an Android token die when its phone was silent for so long, an iPhone's never: those
# are left to us. What reports where it is has an app that runs, whenever it last sent its token.
# https://firebase.google.com/docs/cloud-messaging/manage-tokens
TOKEN_IDLE_AFTER = timedelta(days=270)

NO_PUSH_TOKEN = "no_push_token"  # noqa: S105 - a reason, not a secret
PUSH_TOKEN_IDLE = "push_token_idle"  # noqa: S105


class QuietHours(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"start": "from"}
):
    """From one reading of the device's wall clock to another; across midnight where they cross."""

    start: str  # 22:00
    to: str  # 07:00, or 24:00
    policy: Literal["hold", "drop"] = "drop"


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of `Delivery.gates`."""

    only_while_inside: int | None = None  # a geofence
    quiet_hours: QuietHours | None = None
    timezone: str = ""
    # Neither inbox nor socket shows it before it is sent: what it carries may still be taken back.
    shown_when_sent: bool = False
    # It rests on where somebody was, though it is about no place by now.
    by_location: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of a device now."""

    push_token: str | None
    heard_at: datetime | None = None  # last: of its token, or of where it is
    consent_location: bool
    consent_marketing: bool
    inside: frozenset[int] = frozenset()  # of the geofences that were asked about
    timezone: str = ""  # where it is by now


class Refused(StrEnum):
    """Why an offer is not sent after all."""

    EXPIRED = "expired"
    DEVICE_GONE = "device_gone"
    NO_LOCATION_CONSENT = "no_location_consent"
    NO_MARKETING_CONSENT = "no_marketing_consent"
    LEFT_THE_GEOFENCE = "left_the_geofence"
    QUIET_HOURS = "quiet_hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """Send it to this token."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxOnly:
    """No push reaches this device: the inbox and an open socket are how it gets the offer."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Not now, but then."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Not any more. `reason` is a `Refused`, or a word from the gate of an app above.

    `seen` are the values that the gate objects to.
    """

    reason: str
    seen: Mapping[str, Any] = field(default_factory=dict)


Verdict = Go | InboxOnly | Hold | Stop


class Subject(Protocol):
    """What a gate may know of a delivery."""

    @property
    def id(self) -> int: ...
    @property
    def brand_id(self) -> int: ...
    @property
    def device_id(self) -> int: ...
    @property
    def campaign_id(self) -> int: ...
    @property
    def moment_kind(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def due_at(self) -> datetime: ...


class Gate(Protocol):
    """A look by an app above; returns what it stops or holds, by delivery id, and nothing else.

    It gets a whole batch, so that it asks the database once.
    """

    def __call__(
        self, deliveries: Sequence[Subject], /, *, now: datetime
    ) -> Mapping[int, Hold | Stop]: ...


def look_again(
    gates: Gates,
    facts: Facts | None,
    *,
    by_location: bool,
    transactional: bool,
    expires_at: datetime,
    now: datetime,
) -> Verdict:
    """Return what to do with an offer that is due; the first reason that applies wins.

    `by_location`: it is about a place, or a transition set it off: it rests on consent to
    location, whatever told of it (a sequence's timer, a schedule, an event).
    """
    if now >= expires_at:
        return Stop(reason=Refused.EXPIRED)
    if facts is None:
        return Stop(reason=Refused.DEVICE_GONE)
    if by_location and not facts.consent_location:
        return Stop(reason=Refused.NO_LOCATION_CONSENT)
    if not transactional and not facts.consent_marketing:
        return Stop(reason=Refused.NO_MARKETING_CONSENT)
    if gates.only_while_inside is not None and gates.only_while_inside not in facts.inside:
        return Stop(reason=Refused.LEFT_THE_GEOFENCE)
    if gates.quiet_hours:
        until = quiet_until(gates.quiet_hours, zone(facts.timezone, gates.timezone), now)
        if until and gates.quiet_hours.policy == "hold" and until < expires_at:
            return Hold(until=until, reason=Refused.QUIET_HOURS)
        if until:
            return Stop(reason=Refused.QUIET_HOURS)
    return _push_or_inbox(facts, now)


def _push_or_inbox(facts: Facts, now: datetime) -> Go | InboxOnly:
    if not facts.push_token:
        return InboxOnly(reason=NO_PUSH_TOKEN)
    if facts.heard_at is not None and now - facts.heard_at > TOKEN_IDLE_AFTER:
        return InboxOnly(reason=PUSH_TOKEN_IDLE)
    return Go(token=facts.push_token)


def quiet_until(quiet: QuietHours, tz: ZoneInfo, now: datetime) -> datetime | None:
    """Return when the quiet time that holds now ends, or None where none holds.

    Minute by minute on the wall clock: an hour that the clock skips never comes, one that it
    repeats counts twice, and no arithmetic has to know of it.
    """
    start, end = minutes(quiet.start), minutes(quiet.to)
    at = now
    for _ in range(LONGEST_QUIET_MINUTES):
        wall = at.astimezone(tz)
        if not _holds(start, end, wall.hour * 60 + wall.minute):
            return None if at == now else at
        at = at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return at  # quiet all day: look again tomorrow


def _holds(start: int, end: int, minute: int) -> bool:
    return start <= minute < end if start < end else minute >= start or minute < end

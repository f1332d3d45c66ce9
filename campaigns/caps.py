"""How often is too often: rolling and calendar caps, exact. It counts, others gather and lock.

A rolling cap of n in w holds when no span shorter than w ever contains more than n offers: two
offers exactly w apart are fine. Offers held back for later count at the time they are due.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from campaigns import hours

Key = tuple[object, ...]


class CapScope(StrEnum):
    """Whom a cap counts for. On a campaign it counts that campaign's offers, on a brand all."""

    DEVICE = "device"
    PERSON = "person"  # all devices of one external id
    PLACE = "place"  # this person at this geofence
    TAG = "tag"  # this person at geofences with `tag`, over all campaigns
    CHANNEL = "channel"  # this person by `channel` (push or inbox), over all campaigns
    CAMPAIGN = "campaign"  # everybody together; on a brand: this person, per campaign
    BRAND = "brand"  # on a campaign: this person, over all campaigns; on a brand: everybody


class Period(StrEnum):
    """A calendar window, in the device's time zone."""

    HOUR = "hour"  # as the clock on the wall shows it; one that it repeats is two
    DAY = "day"
    WEEK = "week"  # from Monday, ISO 8601
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """At most `limit` offers in a rolling `window_ms`, a calendar `period`, or ever (neither)."""

    limit: int
    scope: CapScope
    window_ms: int | None = None
    period: Period | None = None
    tag: str = ""
    channel: str = ""
    of_brand: bool = False

    @property
    def is_shared(self) -> bool:
        """Counted over everybody: exact only under a lock that all evaluators take."""
        return self.scope is (CapScope.BRAND if self.of_brand else CapScope.CAMPAIGN)


class Offer(NamedTuple):
    """One past or promised offer, as caps see it."""

    at_ms: int
    device_id: int
    person: str
    campaign_id: int
    geofence_id: int | None
    tags: tuple[str, ...]
    channel: str = "push"


class Full(NamedTuple):
    """A cap that is reached: how many there were, and when one more would fit."""

    cap: Cap
    seen: int
    next_ms: int | None


class Counts:
    """The offers that caps look at; grows as a batch decides. Times by key are made when asked."""

    __slots__ = ("_devices", "_persons", "_times", "brand_id", "totals")

    def __init__(self, brand_id: int) -> None:
        self.brand_id = brand_id
        # Times of the offers to everybody, for ("campaign", id) and ("brand", id): only there
        # where the sum was read under its lock.
        self.totals: dict[Key, list[int]] = {}
        self._devices: dict[int, list[Offer]] = defaultdict(list)
        self._persons: dict[str, list[Offer]] = defaultdict(list)
        self._times: dict[Key, list[int]] = {}

    def add(self, offer: Offer) -> None:
        """Remember an offer that was just decided."""
        self.recall(offer)
        for total in (("campaign", offer.campaign_id), ("brand", self.brand_id)):
            if total in self.totals:
                insort(self.totals[total], offer.at_ms)

    def recall(self, offer: Offer) -> None:
        """Remember an offer of the past; sums over everybody were read as such."""
        self._devices[offer[1]].append(offer)
        self._persons[offer[2]].append(offer)
        if self._times:
            self._times.clear()

    def made_to(self, person: str, device_id: int) -> set[tuple[int, int]]:
        """When a person was offered something, on whichever phone, and by which campaign."""
        offers = (*self._persons.get(person, ()), *self._devices.get(device_id, ()))
        return {(offer.at_ms, offer.campaign_id) for offer in offers}

    def times(self, key: Key) -> Sequence[int]:
        """When the offers under a key were made, sorted."""
        found = self._times.get(key)
        if found is None:
            kind = key[0]
            if kind in {"campaign", "brand"}:
                return self.totals.get(key, ())
            found = self._times[key] = sorted(offer.at_ms for offer in self._under(key))
        return found

    def at_most(self, key: Key) -> int:
        """How many offers there are under a key, or more: what is cheap to know."""
        kind, owner, *_ = key
        if kind in {"campaign", "brand"}:
            return len(self.totals.get(key, ()))
        offers = self._devices if kind == "device" else self._persons
        return len(offers.get(owner, ()))  # type: ignore[call-overload]

    def _under(self, key: Key) -> Iterator[Offer]:
        kind, owner, *rest = key
        offers = self._devices if kind == "device" else self._persons
        for offer in offers.get(owner, ()):  # type: ignore[call-overload]
            if kind == "tag":
                if rest[0] in offer.tags:
                    yield offer
            elif kind == "channel":
                if rest[0] == offer.channel:
                    yield offer
            elif kind == "place":
                if rest == [offer.geofence_id, offer.campaign_id][: len(rest)]:
                    yield offer
            elif not rest or rest[0] == offer.campaign_id:
                yield offer


def key_of(cap: Cap, offer: Offer, brand_id: int) -> Key | None:
    """What a cap counts by for this offer; None where it does not concern it."""
    _, device_id, person, campaign_id, geofence_id, tags, channel = offer
    mine: tuple[int, ...] = () if cap.of_brand else (campaign_id,)
    scope = cap.scope
    if scope is CapScope.DEVICE:
        return ("device", device_id, *mine)
    if scope is CapScope.PERSON:
        return ("person", person, *mine)
    if scope is CapScope.PLACE:
        return None if geofence_id is None else ("place", person, geofence_id, *mine)
    if scope is CapScope.TAG:
        return ("tag", person, cap.tag) if cap.tag in tags else None
    if scope is CapScope.CHANNEL:
        return ("channel", person, channel) if cap.channel == channel else None
    if scope is CapScope.CAMPAIGN:
        return ("person", person, campaign_id) if cap.of_brand else ("campaign", campaign_id)
    return ("brand", brand_id) if cap.of_brand else ("person", person)


def reached(caps: Sequence[Cap], offer: Offer, counts: Counts, tz: ZoneInfo) -> Full | None:
    """The first cap that forbids this offer, or None."""
    for cap in caps:
        key = key_of(cap, offer, counts.brand_id)
        if key is None or counts.at_most(key) < cap.limit:
            continue
        full = check(cap, counts.times(key), offer.at_ms, tz)
        if full is not None:
            return full
    return None


def check(cap: Cap, times_ms: Sequence[int], at_ms: int, tz: ZoneInfo) -> Full | None:
    """Whether one more offer at `at_ms` beside the sorted `times_ms` would break the cap."""
    if cap.window_ms is not None:
        if cap.limit and len(times_ms) < cap.limit:
            return None
        return _check_rolling(cap, cap.window_ms, times_ms, at_ms)
    if cap.period is Period.HOUR:
        begins_ms, ends_ms = hours.hour_of(at_ms, tz)
        seen = bisect_left(times_ms, ends_ms) - bisect_left(times_ms, begins_ms)
        return None if seen < cap.limit else Full(cap, seen, ends_ms if cap.limit else None)
    if cap.period is not None:
        start, end = span_of(at_ms, cap.period, tz)
        seen = sum(start <= hours.local_date(at, tz) < end for at in times_ms)
        if seen < cap.limit:
            return None
        return Full(cap, seen, hours.first_instant_ms(end, tz) if cap.limit else None)
    return None if len(times_ms) < cap.limit else Full(cap, len(times_ms), None)


def _check_rolling(cap: Cap, window_ms: int, times_ms: Sequence[int], at_ms: int) -> Full | None:
    crowd = _crowd(cap.limit, window_ms, times_ms, at_ms)
    if crowd is None:
        return None
    if cap.limit == 0:
        return Full(cap, crowd, None)
    # One more fits a window after some offer that is there: try those, earliest first.
    tries = (at + window_ms for at in times_ms if at + window_ms > at_ms)
    fits = (at for at in tries if _crowd(cap.limit, window_ms, times_ms, at) is None)
    return Full(cap, crowd, next(fits, None))


def _crowd(limit: int, window_ms: int, times_ms: Sequence[int], at_ms: int) -> int | None:
    """How many offers share an overfull window with `at_ms`; None where no window overflows."""
    low = bisect_right(times_ms, at_ms - window_ms)
    high = bisect_left(times_ms, at_ms + window_ms)
    near = times_ms[low:high]
    if len(near) < limit:
        return None
    if limit == 0:
        return len(near)
    place = bisect_right(near, at_ms)
    for first in range(max(0, place - limit), place + 1):
        # `limit` neighbours beginning at `first`, and ourselves, in less than a window?
        last = first + limit - 1
        if last < len(near):
            span = max(near[last], at_ms) - min(near[first], at_ms)
            if span < window_ms:
                return limit
    return None


def span_of(at_ms: int, period: Period, tz: ZoneInfo) -> tuple[date, date]:
    """The local dates [first, end) of the calendar period that an instant lies in."""
    today = hours.local_date(at_ms, tz)
    if period is Period.DAY:
        return today, today + timedelta(days=1)
    if period is Period.WEEK:
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=7)
    first = today.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)

"""Figures about past events and visits that an audience may ask for. Pure: it reads no rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeGuard

MAX_WITHIN_S = 400 * 86_400  # behaviour is kept for about a year


class Measure(StrEnum):
    COUNT = "count"
    SUM = "sum"
    RECENCY_S = "recency_s"
    DWELL_S = "dwell_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One figure about past behaviour that a leaf asks for; the shell gathers it per batch."""

    kind: str  # event, visits, home, usual
    name: str = ""
    tags: tuple[str, ...] = ()
    geofences: tuple[int | str, ...] = ()
    within_s: int | None = None
    measure: Measure = Measure.COUNT
    property: str = ""
    where: tuple[tuple[str, Any], ...] = ()
    here: bool = False  # at the place of the moment itself, whichever that is

    def at(self, geofence_id: int) -> Need:
        """The figure about one place, for a moment there."""
        return replace(self, here=False, geofences=(geofence_id,))


def need_of(leaf: Mapping[str, Any]) -> Need:
    """The figure a behaviour leaf asks for."""
    here = any(leaf.get(name) == "here" for name in ("visits", "places"))
    if "area" in leaf:
        places = {} if here else leaf["places"]
        return Need(
            kind=leaf["area"],
            tags=tuple(sorted(places.get("tags", ()))),
            geofences=tuple(places.get("geofences", ())),
            within_s=leaf.get("max_age_s"),
            measure=Measure.RECENCY_S,
            here=here,
        )
    places = {} if here else leaf.get("visits") or {}
    return Need(
        kind="event" if "event" in leaf else "visits",
        name=leaf.get("event", ""),
        tags=tuple(sorted(places.get("tags", ()))),
        geofences=tuple(places.get("geofences", ())),
        within_s=leaf.get("within_s"),
        measure=Measure(leaf.get("measure", Measure.COUNT)),
        property=leaf.get("property", ""),
        where=tuple(sorted(leaf.get("where", {}).items())),
        here=here,
    )


class PastEvent(NamedTuple):
    name: str
    at_ms: int
    properties: Mapping[str, Any]


class PastVisit(NamedTuple):
    """One visit; `left_ms` is None while it lasts."""

    geofence_id: int
    external_id: str | None
    tags: Sequence[str]
    entered_ms: int
    left_ms: int | None


class PastArea(NamedTuple):
    """A geofence that a home or a usual area touches, and when the person was last seen there."""

    kind: str
    geofence_id: int
    external_id: str | None
    tags: Sequence[str]
    last_ms: int


def area_age_s(need: Need, areas: Iterable[PastArea], *, now_ms: int) -> float | None:
    """How long ago somebody was in such an area of theirs; None: they live or are elsewhere."""
    ages = [
        max(0, now_ms - area.last_ms) / 1000
        for area in areas
        if area.kind == need.kind and _is_at(area, need)
    ]
    age_s = min(ages, default=None)
    return None if age_s is None or age_s > (need.within_s or age_s) else age_s


def measure(
    need: Need, events: Iterable[PastEvent], visits: Iterable[PastVisit], *, now_ms: int
) -> float | None:
    """The figure that `need` asks for, over what happened in (now - within, now]."""
    since_ms = -1 if need.within_s is None else now_ms - need.within_s * 1000
    if need.kind == "event":
        matching = [
            event
            for event in events
            if event.name == need.name
            and since_ms < event.at_ms <= now_ms
            and all(typed(event.properties.get(k)) == typed(v) for k, v in need.where)
        ]
        if need.measure is Measure.SUM:
            figures: Iterable[object] = (event.properties.get(need.property) for event in matching)
            return sum(figure for figure in figures if _is_number(figure))
        return _count_or_recency(need, [event.at_ms for event in matching], now_ms)
    stays = [visit for visit in visits if _is_at(visit, need) and visit.entered_ms <= now_ms]
    if need.measure is Measure.DWELL_S:
        spans = (
            min(now_ms if visit.left_ms is None else visit.left_ms, now_ms)
            - max(visit.entered_ms, since_ms)
            for visit in stays
        )
        return sum(span for span in spans if span > 0) / 1000
    return _count_or_recency(
        need, [visit.entered_ms for visit in stays if visit.entered_ms > since_ms], now_ms
    )


def _count_or_recency(need: Need, times_ms: Sequence[int], now_ms: int) -> float | None:
    if need.measure is Measure.RECENCY_S:
        return (now_ms - max(times_ms)) / 1000 if times_ms else None
    return len(times_ms)


def _is_at(visit: PastVisit | PastArea, need: Need) -> bool:
    return (
        visit.geofence_id in need.geofences
        or (visit.external_id is not None and visit.external_id in need.geofences)
        or not set(need.tags).isdisjoint(visit.tags)
    )


def typed(value: Any) -> tuple[bool, Any]:
    """So that true is not 1: Python thinks they are equal, a marketer does not."""
    return isinstance(value, bool), value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

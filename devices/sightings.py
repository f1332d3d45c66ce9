"""A batch of fixes against the armed geofences, device by device: pure arrays, then walks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from devices.judgement import whole
from devices.presence import Belief, PresenceState, Rules, Sighting, classify
from devices.walks import Footprint, Stop, walk
from geofences.compiled import compiled
from geofences.matching import Index, Sightings
from geofences.ragged import spread

Beliefs = Mapping[int, Mapping[int, Belief]]
"""By device id, then geofence id."""

_SIGHTINGS = tuple(Sighting)
_LOOKS = 4  # fixes of a run looked at one by one: most are across with the first


class RulesBook(dict[int, Rules]):
    """The presence rules of armed geofences by id, made on demand: most are never asked for."""

    def __init__(
        self, index: Index, dwells: Mapping[int, tuple[int, ...]], *, silence_ms: int
    ) -> None:
        self.silence_ms = silence_ms
        self._index, self._dwells = index, dwells

    def __missing__(self, geofence_id: int) -> Rules:
        self.look_up(self._index.ordinals(np.array([geofence_id])))
        return self[geofence_id]

    def look_up(self, ordinals: NDArray[np.int32]) -> None:
        """Make the rules of many at once: each by itself costs a dozen array calls."""
        index, dwells = self._index, self._dwells
        for geofence_id, fixes, seconds, version in zip(
            index.geofence_id[ordinals].tolist(),
            index.settings["confirm_fixes"][ordinals].tolist(),
            index.settings["confirm_s"][ordinals].tolist(),
            index.version[ordinals].tolist(),
            strict=True,
        ):
            self[geofence_id] = Rules(
                confirm_fixes=fixes,
                confirm_ms=seconds * 1000,
                dwell_thresholds=dwells.get(geofence_id, ()),
                silence_ms=self.silence_ms,
                shape_version=version,
            )


class Told(msgspec.Struct, frozen=True, gc=False):
    """A footprint with whose it is and which row of the batch told it (-1: time alone)."""

    device_id: int
    brand_id: int
    footprint: Footprint
    row: int = -1


@dataclass(slots=True)
class Outcome:
    """What a batch changes: beliefs before and after of the devices that walked, and the tale."""

    before: dict[int, Mapping[int, Belief]] = field(default_factory=dict)
    after: dict[int, dict[int, Belief]] = field(default_factory=dict)
    seen_ms: dict[int, int] = field(default_factory=dict)  # the device's clock at its last fix
    heard_ms: dict[int, int] = field(default_factory=dict)  # ours, when that fix came
    told: list[Told] = field(default_factory=list)


def follow(
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    states: NDArray[np.void],
    stored: Beliefs,
    index: Index,
    book: RulesBook,
    *,
    now_ms: int,
) -> Outcome:
    """Match all used fixes at once, then walk every device that is or was anywhere.

    `fixes` are by device and time, `device[i]` is the place of fix i's device in `states`. Stored
    beliefs in geofences that are no longer armed are left alone: the clock ends those visits.
    """
    found = index.match(lat=fixes["lat"], lng=fixes["lng"], brand=fixes["brand_id"])
    outcome = Outcome()
    somewhere = np.zeros(len(states["device_id"]), dtype=bool)
    somewhere[device] = states["presences"][device] > 0
    somewhere[device[found.fix]] = True
    walkers = np.flatnonzero(somewhere)
    if not len(walkers):
        return outcome
    candidates = _candidates(walkers, device, states, stored, index, found)
    book.look_up(np.unique(candidates.ordinal))
    heard = _heard(fixes, device, states, book.silence_ms)
    judged = _judge(fixes, device, walkers, candidates, heard, index, found)
    initial = _armed_around(device, states, stored, index, found)
    gone = candidates.gone
    known = states[["device_id", "brand_id", "recorded_ms"]].tolist()
    for which, first, stops in judged.walks():
        device_id, brand_id, seen_ms = known[which]
        before = stored.get(device_id, {})
        lasting = {each: before[each] for each in before.keys() - gone} if gone else before
        after, prints = walk(
            device_id,
            stops,
            lasting,
            rules_of=book.__getitem__,
            seen_ms=seen_ms,
            initial=initial.get(which, frozenset()),
        )
        if len(lasting) < len(before):
            after |= {each: before[each] for each in before.keys() & gone}
        outcome.before[device_id], outcome.after[device_id] = before, after
        outcome.seen_ms[device_id], outcome.heard_ms[device_id] = stops[-1].at_ms, now_ms
        outcome.told += [
            Told(device_id, brand_id, each, first + each.stop if each.stop >= 0 else -1)
            for each in prints
        ]
    return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidates:
    """Which geofences matter to which walker, unique, by walker then ordinal."""

    which: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    outside: NDArray[np.bool_]  # nothing is believed of it before the batch
    inside: NDArray[np.bool_]  # believed inside of it, in today's shape
    gone: frozenset[int]  # ids of geofences believed in that are no longer armed


def _candidates(
    walkers: NDArray[np.int64],
    device: NDArray[np.int64],
    states: NDArray[np.void],
    stored: Beliefs,
    index: Index,
    found: Sightings,
) -> _Candidates:
    """All that a walker is believed in, and all that any of its fixes is inside of."""
    believed = [stored.get(each, {}) for each in states["device_id"][walkers].tolist()]
    beliefs = [belief for each in believed for belief in each.values()]
    count = len(beliefs)
    ids = np.fromiter((geofence_id for each in believed for geofence_id in each), "i8", count)
    inside = np.fromiter((each.state is PresenceState.INSIDE for each in beliefs), "?", count)
    version = np.fromiter((each.shape_version for each in beliefs), "i8", count)
    which = np.repeat(walkers, [len(each) for each in believed])
    ordinal = index.ordinals(ids).astype(np.int64)
    armed = ordinal >= 0
    stride = len(index.geofence_id) + 1  # ordinals count what is gone, too
    held = (which * stride + ordinal)[armed]
    current = inside[armed] & (version[armed] == index.version[ordinal[armed]])
    keys = np.unique(np.concatenate((held, device[found.fix] * stride + found.ordinal)))
    outside = np.ones(len(keys), dtype=bool)
    outside[np.searchsorted(keys, held)] = False
    return _Candidates(
        which=keys // stride,
        ordinal=keys % stride,
        outside=outside,
        inside=_among(np.sort(held[current]), keys),
        gone=frozenset(ids[~armed].tolist()),
    )


def _among(ascending: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which values are there: what np.isin does, without sorting them as well."""
    at = np.searchsorted(ascending, values)
    found = np.zeros(len(values), dtype=bool)
    there = at < len(ascending)
    found[there] = ascending[at[there]] == values[there]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """The (fix, candidate) that may change a belief, for one that is outside and one inside."""

    row: list[int]
    geofence_id: list[int]
    if_outside: list[int]
    if_inside: list[int]
    at_ms: list[int]
    spans: list[tuple[int, int, int]]  # walker, its first row, one past its last

    def walks(self) -> Iterator[tuple[int, int, list[Stop]]]:
        """Walker, its first row and its stops; rows come in the order of the spans."""
        at, count = 0, len(self.row)
        for which, first, past in self.spans:
            stops = []
            for row in range(first, past):
                seen = {}
                while at < count and self.row[at] == row:
                    seen[self.geofence_id[at]] = (
                        _SIGHTINGS[self.if_outside[at]],
                        _SIGHTINGS[self.if_inside[at]],
                    )
                    at += 1
                stops.append(Stop(self.at_ms[row], seen))
            yield which, first, stops


def _heard(
    fixes: NDArray[np.void], device: NDArray[np.int64], states: NDArray[np.void], silence_ms: int
) -> NDArray[np.bool_]:
    """Per fix whether the silence before it was bearable: what was believed goes on."""
    before = np.roll(fixes["recorded_ms"], 1)
    first = np.append(True, device[1:] != device[:-1])[: len(device)]
    before[first] = states["recorded_ms"][device[first]]
    heard: NDArray[np.bool_] = fixes["recorded_ms"] - before <= silence_ms
    return heard


def _judge(
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    walkers: NDArray[np.int64],
    candidates: _Candidates,
    heard: NDArray[np.bool_],
    index: Index,
    found: Sightings,
) -> _Judged:
    """Every fix of a walker against its candidates, where that may change a belief.

    In a crowded city a walk has dozens of candidates and is in few of them at a time. A run of
    fixes on one side of an edge changes something once: what comes after that, and a run on the
    side that is believed already, is neither measured nor walked.
    """
    starts = np.searchsorted(device, walkers)
    pasts = np.searchsorted(device, walkers, side="right")
    place = np.searchsorted(walkers, candidates.which)
    pair, row = spread(starts[place], (pasts - starts)[place])
    ordinal = candidates.ordinal[pair]
    stride = len(index.geofence_id) + 1  # ordinals count what is gone, too
    inside = _among(
        np.sort(found.fix.astype(np.int64) * stride + found.ordinal), row * stride + ordinal
    )
    first = np.append(True, pair[1:] != pair[:-1])[: len(pair)]
    begins = first | ~heard[row]
    begins[1:] |= inside[1:] != inside[:-1]
    at = np.flatnonzero(begins)
    past = np.append(at[1:], len(row))
    idle = first[at] & np.where(
        inside[at], candidates.inside[pair[at]] & heard[row[at]], candidates.outside[pair[at]]
    )
    sides = _Sides(fixes, row, ordinal.astype(np.int32), inside, index)
    matters = sides.until_crossed(at[~idle], past[~idle])

    order = matters[np.argsort(row[matters], kind="stable")]
    outside = np.zeros(len(order), dtype=bool)
    return _Judged(
        row=row[order].tolist(),
        geofence_id=index.geofence_id[ordinal[order]].tolist(),
        if_outside=sides.sightings(order, outside).tolist(),
        if_inside=sides.sightings(order, ~outside).tolist(),
        at_ms=fixes["recorded_ms"].tolist(),
        spans=list(zip(walkers.tolist(), starts.tolist(), pasts.tolist(), strict=True)),
    )


class _Sides:
    """On which side of an edge each (fix, candidate) is, measured only where that is asked."""

    def __init__(
        self,
        fixes: NDArray[np.void],
        row: NDArray[np.int64],
        ordinal: NDArray[np.int32],
        inside: NDArray[np.bool_],
        index: Index,
    ) -> None:
        self._lat, self._lng = fixes["lat"][row], fixes["lng"][row]
        self._accuracy_m = fixes["accuracy_m"][row]
        self._ordinal, self._inside, self._index = ordinal, inside, index
        self._buffer_m = index.settings["exit_buffer_m"][ordinal].astype(np.float64)
        self._at_once = (index.settings["confirm_fixes"][ordinal] <= 1) & (
            index.settings["confirm_s"][ordinal] == 0
        )
        self._distance_m = np.where(inside, np.inf, -np.inf)

    def until_crossed(self, at: NDArray[np.int64], past: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of runs at … past - 1, the places up to the one that is surely across; measured."""
        looked: list[NDArray[np.int64]] = []
        for _ in range(_LOOKS):
            if not len(at):
                break
            looked.append(at)
            self._measure(at)
            inside = self._inside[at]
            crossed = self._at_once[at] & (
                self.sightings(at, ~inside) == np.where(inside, Sighting.INSIDE, Sighting.OUTSIDE)
            )
            at, past = at[~crossed] + 1, past[~crossed]
            at, past = at[at < past], past[at < past]
        rest = spread(at, past - at)[1]
        self._measure(rest)
        return np.concatenate((*looked, rest))

    def _measure(self, at: NDArray[np.int64]) -> None:
        """To leave, and to enter with a known accuracy. The exact test keeps the last word."""
        at = at[~(self._inside[at] & np.isnan(self._accuracy_m[at]))]
        edge_m = np.abs(
            self._index.distance_m(ordinal=self._ordinal[at], lat=self._lat[at], lng=self._lng[at])
        )
        self._distance_m[at] = np.where(self._inside[at], edge_m, -np.maximum(edge_m, 1e-9))

    def sightings(self, at: NDArray[np.int64], believed: NDArray[np.bool_]) -> NDArray[np.int8]:
        return classify(self._distance_m[at], self._accuracy_m[at], self._buffer_m[at], believed)


def _armed_around(
    device: NDArray[np.int64],
    states: NDArray[np.void],
    stored: Beliefs,
    index: Index,
    found: Sightings,
) -> dict[int, frozenset[int]]:
    """Geofences armed since a device was last heard of, around the place where it then was."""
    which = device[found.fix]
    newer = index.settings["armed_ms"][found.ordinal] > states["received_ms"][which]
    rows = np.flatnonzero(newer & ~np.isnan(states["lat"][which]))
    around: dict[int, set[int]] = {}
    if len(rows):
        was_m = index.distance_m(
            ordinal=found.ordinal[rows],
            lat=states["lat"][which[rows]],
            lng=states["lng"][which[rows]],
        )
        for row in rows[was_m >= 0].tolist():
            geofence_id = int(index.geofence_id[found.ordinal[row]])
            if geofence_id not in stored.get(int(states["device_id"][which[row]]), {}):
                around.setdefault(int(which[row]), set()).add(geofence_id)
    return {key: frozenset(value) for key, value in around.items()}


def advanced(
    states: NDArray[np.void],
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    outcome: Outcome,
    jumps: NDArray[np.float64],
    *,
    now_ms: int,
) -> NDArray[np.void]:
    """The hot rows after a batch: last used fix, presences, places that may have been jumped to.

    `jumps` as `judge` has them. The version stays: it says what the rows were made from.
    """
    after = whole(states).copy().view(states.dtype)
    _advance(after, fixes, device, jumps, now_ms)
    count_presences(after, outcome)
    return after


@compiled
def _advance(
    states: NDArray[np.void],
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    jumps: NDArray[np.float64],
    now_ms: int,
) -> None:
    for which in range(len(states)):
        states[which]["jump_lat"], states[which]["jump_lng"] = jumps[which]
    for row in range(len(fixes)):
        fix, state = fixes[row], states[device[row]]
        state["recorded_ms"], state["received_ms"] = fix["recorded_ms"], now_ms
        state["lat"], state["lng"] = fix["lat"], fix["lng"]
        state["accuracy_m"], state["speed_mps"] = fix["accuracy_m"], fix["speed_mps"]


def count_presences(states: NDArray[np.void], outcome: Outcome) -> None:
    """Add to the hot rows, in place, by how many presences each device now has more."""
    if not outcome.after:
        return
    walked = np.array(list(outcome.after), dtype=np.int64)
    grown = [len(after) - len(outcome.before[each]) for each, after in outcome.after.items()]
    states["presences"][np.searchsorted(states["device_id"], walked)] += np.array(
        grown, dtype=np.int32
    )

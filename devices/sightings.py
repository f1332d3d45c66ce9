"""A batch of fixes against the armed geofences, all devices at once: pure arrays, then the walk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from devices.judgement import firsts, merged, whole
from devices.presence import BELIEF_DTYPE, CHANGE_DTYPE, STATES, PresenceState, Sighting, classify
from devices.walks import RULES_DTYPE, SEEN_DTYPE, WALKER_DTYPE, due_ms, walk
from geofences.compiled import compiled
from geofences.matching import Index, Sightings
from geofences.ragged import spread

_OUTSIDE, _INSIDE = map(STATES.index, (PresenceState.OUTSIDE, PresenceState.INSIDE))
_LOOKS = 4  # fixes of a run looked at one by one: most are across with the first


@dataclass(frozen=True, slots=True)
class RulesBook:
    """The presence rules of armed geofences."""

    index: Index
    dwells: Mapping[int, tuple[int, ...]]  # thresholds in seconds, of those that have any
    silence_ms: int

    def look_up(self, ordinals: NDArray[np.int32]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """RULES_DTYPE of each, and the thresholds that they point to."""
        settings = self.index.settings
        rules = np.zeros(len(ordinals), RULES_DTYPE)
        rules["confirm_fixes"] = settings["confirm_fixes"][ordinals]
        rules["confirm_ms"] = settings["confirm_s"][ordinals].astype(np.int64) * 1000
        rules["shape_version"] = self.index.version[ordinals]
        thresholds: list[int] = []
        if self.dwells:
            ids = self.index.geofence_id[ordinals]
            distinct, which = np.unique(ids, return_inverse=True)
            spans = np.zeros((len(distinct), 2), np.int64)
            for place, geofence_id in enumerate(distinct.tolist()):
                spans[place, 0] = len(thresholds)
                thresholds += self.dwells.get(geofence_id, ())
                spans[place, 1] = len(thresholds)
            rules["dwell"], rules["past_dwell"] = spans[which].T
        return rules, np.array(thresholds, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a batch changes: slots before and after, ascending by device and geofence, and the tale.

    A slot in which nothing is believed, before or after, has the state OUTSIDE.
    """

    before: NDArray[np.void]
    after: NDArray[np.void]
    due_ms: NDArray[np.int64]  # per slot, on our clock: when the clock must look at what is after
    told: NDArray[np.void]
    others: NDArray[np.void] = field(default_factory=lambda: np.empty(0, BELIEF_DTYPE))
    """Stored beliefs of the batch's devices that have no slot."""

    def beliefs(self) -> NDArray[np.void]:
        """All that is believed afterwards of the batch's devices, ascending by device."""
        after = self.after.compress(self.after["state"] != _OUTSIDE)
        if not len(self.others):
            return after
        return merged(self.others, after)


def unmoved(stored: NDArray[np.void]) -> Outcome:
    """Nothing changes of what is believed."""
    slots, due = np.empty(0, BELIEF_DTYPE), np.empty(0, np.int64)
    told = np.empty(0, CHANGE_DTYPE)
    return Outcome(before=slots, after=slots, due_ms=due, told=told, others=stored)


def follow(
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    states: NDArray[np.void],
    stored: NDArray[np.void],
    book: RulesBook,
    *,
    now_ms: int,
) -> Outcome:
    """Match all used fixes at once, then walk every device that is or was anywhere.

    `fixes` are by device and time, `device[i]` is the place of fix i's device in `states`;
    `stored` are the beliefs of the batch's devices. Those in geofences that are no longer armed are
    left alone: the clock ends those visits.
    """
    index = book.index
    found = index.match(lat=fixes["lat"], lng=fixes["lng"], brand=fixes["brand_id"])
    somewhere = np.zeros(len(states), dtype=bool)
    somewhere[device] = states["presences"][device] > 0
    somewhere[device[found.fix]] = True
    walkers = np.flatnonzero(somewhere)
    if not len(walkers):
        return unmoved(stored)
    slots = _Slots.of(walkers, device, states, stored, index, found)
    rules, thresholds_s = book.look_up(slots.ordinal)
    heard = _heard(fixes, device, states, book.silence_ms)
    spans = np.zeros(len(walkers), WALKER_DTYPE)
    spans["slot"], spans["past_slot"] = _bounds(slots.which, walkers)
    spans["row"], spans["past_row"] = _bounds(device, walkers)
    spans["seen_ms"] = states["recorded_ms"][walkers]
    after = slots.before.copy()
    told = walk(
        after,
        rules,
        thresholds_s,
        spans,
        np.ascontiguousarray(fixes["recorded_ms"]),
        _seen(fixes, slots, rules["shape_version"], spans, heard, index, found),
        _armed_around(device, states, slots, index, found),
        silence_ms=book.silence_ms,
    )
    count = spans["past_slot"] - spans["slot"]
    last_ms = np.repeat(fixes["recorded_ms"][spans["past_row"] - 1], count)
    due = due_ms(after, rules, thresholds_s, last_ms, silence_ms=book.silence_ms)
    return Outcome(
        before=slots.before,
        after=after,
        due_ms=due + now_ms - last_ms,
        told=told,
        others=slots.others,
    )


def _bounds(
    ascending: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each value begins, and one past its last."""
    return np.searchsorted(ascending, values), np.searchsorted(ascending, values, side="right")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slots:
    """Which geofences matter to which walker: all it is believed in, all its fixes are inside of.

    Each pair once, by walker, then geofence id.
    """

    which: NDArray[np.int64]  # place in `states`
    ordinal: NDArray[np.int32]
    before: NDArray[np.void]
    others: NDArray[np.void]  # stored beliefs that have no slot: not armed, or nobody walks
    _keys: NDArray[np.int64]  # ascending
    _place: NDArray[np.int64]  # of each key
    stride: int  # more than any ordinal: a number times it, and an ordinal, are one key

    @classmethod
    def of(
        cls,
        walkers: NDArray[np.int64],
        device: NDArray[np.int64],
        states: NDArray[np.void],
        stored: NDArray[np.void],
        index: Index,
        found: Sightings,
    ) -> _Slots:
        believer = np.searchsorted(states["device_id"], stored["device_id"])
        believed = index.ordinals(stored["geofence_id"])
        matters = among(walkers, believer) & (believed >= 0)
        held = np.flatnonzero(matters)
        stride = len(index.geofence_id) + 1  # ordinals count what is gone, too
        held_keys = believer[held] * stride + believed[held]
        keys = np.unique(np.concatenate((held_keys, device[found.fix] * stride + found.ordinal)))
        which, ordinal = keys // stride, (keys % stride).astype(np.int32)
        order = np.lexsort((index.geofence_id[ordinal], which))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        before = np.zeros(len(keys), BELIEF_DTYPE)
        before["device_id"] = states["device_id"][which]
        before["geofence_id"] = index.geofence_id[ordinal[order]]
        whole(before)[place[np.searchsorted(keys, held_keys)]] = whole(stored)[held]
        return cls(
            which=which,  # the same walker where geofences change places
            ordinal=ordinal[order],
            before=before,
            others=stored.compress(~matters),
            _keys=keys,
            _place=place,
            stride=stride,
        )

    def places(self, which: NDArray[np.int64], ordinal: NDArray[np.int32]) -> NDArray[np.int64]:
        """The slots of such pairs, each of which is there."""
        return self._place[np.searchsorted(self._keys, which * self.stride + ordinal)]


def among(ascending: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which values are there: what np.isin does, without sorting them as well."""
    at = np.searchsorted(ascending, values)
    found = np.zeros(len(values), dtype=bool)
    there = at < len(ascending)
    found[there] = ascending[at[there]] == values[there]
    return found


def _heard(
    fixes: NDArray[np.void], device: NDArray[np.int64], states: NDArray[np.void], silence_ms: int
) -> NDArray[np.bool_]:
    """Per fix whether the silence before it was bearable: what was believed goes on."""
    before = np.roll(fixes["recorded_ms"], 1)
    first = firsts(device)
    before[first] = states["recorded_ms"][device[first]]
    heard: NDArray[np.bool_] = fixes["recorded_ms"] - before <= silence_ms
    return heard


def _seen(
    fixes: NDArray[np.void],
    slots: _Slots,
    version: NDArray[np.int64],
    walkers: NDArray[np.void],
    heard: NDArray[np.bool_],
    index: Index,
    found: Sightings,
) -> NDArray[np.void]:
    """Every fix of a walker against its slots (SEEN_DTYPE), where that may change a belief.

    In a crowded city a walk has dozens of slots and is in few of them at a time. A run of fixes on
    one side of an edge changes something once: what comes after that, and a run on the side that
    is believed already, is neither measured nor walked.
    """
    owner = np.repeat(np.arange(len(walkers)), walkers["past_slot"] - walkers["slot"])
    slot, row = spread(walkers["row"][owner], (walkers["past_row"] - walkers["row"])[owner])
    ordinal = slots.ordinal[slot]
    inside = among(
        np.sort(found.fix.astype(np.int64) * slots.stride + found.ordinal),
        row * slots.stride + ordinal,
    )
    first = firsts(slot)
    begins = first | ~heard[row]
    begins[1:] |= inside[1:] != inside[:-1]
    at = np.flatnonzero(begins)
    past = np.append(at[1:], len(row))
    state = slots.before["state"][slot[at]]
    current = slots.before["shape_version"][slot[at]] == version[slot[at]]
    idle = first[at] & np.where(
        inside[at], (state == _INSIDE) & current & heard[row[at]], state == _OUTSIDE
    )
    sides = _Sides(fixes, row, ordinal, inside, index)
    matters = sides.until_crossed(at[~idle], past[~idle])
    matters = matters[np.lexsort((slot[matters], row[matters]))]
    seen = np.empty(len(matters), SEEN_DTYPE)
    seen["row"], seen["slot"] = row[matters], slot[matters]
    outside = np.zeros(len(matters), dtype=bool)
    seen["if_outside"] = sides.sightings(matters, outside)
    seen["if_inside"] = sides.sightings(matters, ~outside)
    return seen


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
    slots: _Slots,
    index: Index,
    found: Sightings,
) -> NDArray[np.bool_]:
    """Slots of geofences armed since a device was last heard of, around where it then was."""
    around = np.zeros(len(slots.which), dtype=bool)
    which = device[found.fix]
    newer = index.settings["armed_ms"][found.ordinal] > states["received_ms"][which]
    rows = np.flatnonzero(newer & ~np.isnan(states["lat"][which]))
    if len(rows):
        which, ordinal = which[rows], found.ordinal[rows]
        was_m = index.distance_m(
            ordinal=ordinal, lat=states["lat"][which], lng=states["lng"][which]
        )
        around[slots.places(which, ordinal)[was_m >= 0]] = True
    around &= slots.before["state"] == _OUTSIDE
    return around


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
    more = (outcome.after["state"] != _OUTSIDE).astype(np.int32)
    more -= outcome.before["state"] != _OUTSIDE
    at = np.flatnonzero(more)
    place = np.searchsorted(states["device_id"], outcome.after["device_id"][at])
    np.add.at(states["presences"], place, more[at])

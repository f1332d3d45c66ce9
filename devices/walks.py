"""How sightings and time move beliefs: the rules of presence. Pure, no rows, no clock of its own.

A device's fixes in event time against every geofence it may be in. A *slot* is what is believed of
one device and one geofence, or that nothing is; slots are moved in place. The same rules serve a
fix that arrives after a gap and the server's clock when none arrives, so both tell the same story.

Order on one fix, always: what time did since the last fix, then exits, then entries, each by
geofence id.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.presence import (
    CHANGE_DTYPE,
    KINDS,
    REASONS,
    STATES,
    TABLE,
    Move,
    PresenceState,
    Sighting,
    TransitionKind,
    TransitionReason,
)
from geofences.compiled import compiled

RULES_DTYPE = np.dtype(
    [
        ("confirm_fixes", "i8"),
        ("confirm_ms", "i8"),
        ("shape_version", "i8"),
        ("dwell", "i8"),  # its thresholds are thresholds_s[dwell:past_dwell]
        ("past_dwell", "i8"),
    ]
)
"""How one geofence wants its presence judged. Thresholds are seconds, ascending."""

WALKER_DTYPE = np.dtype(
    [
        ("slot", "i8"),  # its slots are slots[slot:past_slot], by geofence id
        ("past_slot", "i8"),
        ("row", "i8"),  # its fixes are rows row:past_row of the batch
        ("past_row", "i8"),
        ("seen_ms", "i8"),  # its last fix before them (on a first walk, anything)
    ]
)
"""One device of a batch. Its fixes and its slots follow those of the one before."""

SEEN_DTYPE = np.dtype(
    [
        ("row", "i8"),
        ("slot", "i8"),
        ("if_outside", "i1"),  # the Sighting if the device is believed outside,
        ("if_inside", "i1"),  # and if inside
        ("believed", "?"),  # which of them counts: found when the walk comes there
    ]
)
"""What a fix shows of a slot, by row, then slot. Slots it does not name stay as they are."""

_OUTSIDE, _ENTERING, _INSIDE, _LEAVING = map(STATES.index, PresenceState)
_ENTERED, _DWELLED, _EXITED = map(KINDS.index, TransitionKind)
_CROSSED = REASONS.index(TransitionReason.CROSSED)
_INITIAL = REASONS.index(TransitionReason.INITIAL)
_SILENCE = REASONS.index(TransitionReason.SILENCE)
_MOVED = REASONS.index(TransitionReason.GEOFENCE_MOVED)
_NOTHING, _BEGIN, _AGREE, _FORGET, _DOUBT, _RETURN = (int(move) for move in Move)
_MOVES = np.array([[TABLE[state, sighting] for sighting in Sighting] for state in STATES], np.int8)
_MANY = 32_767  # agreeing fixes: as many as a row holds


def walk(
    slots: NDArray[np.void],
    rules: NDArray[np.void],
    thresholds_s: NDArray[np.int64],
    walkers: NDArray[np.void],
    at_ms: NDArray[np.int64],
    seen: NDArray[np.void],
    initial: NDArray[np.bool_],
    *,
    silence_ms: int,
) -> NDArray[np.void]:
    """Move the slots through all fixes, in place; the changes on the way (CHANGE_DTYPE).

    `rules` and `initial` are of the slots: an initial one was armed around the device's last known
    place. `at_ms` are the times of the batch's fixes. Per walker the changes stand in the order
    they happened.
    """
    # A visit is entered, dwelled in once a threshold and left; a slot holds it, or a fix begins it.
    room = rules["past_dwell"] - rules["dwell"] + 2
    most = int(room[slots["state"] != _OUTSIDE].sum() + room[seen["slot"]].sum())
    told = np.empty(most, CHANGE_DTYPE)
    args = (slots, rules, thresholds_s, silence_ms, walkers, at_ms, seen, initial, told)
    return told[: _walk(*args)]


def elapse(
    slots: NDArray[np.void],
    rules: NDArray[np.void],
    thresholds_s: NDArray[np.int64],
    seen_ms: NDArray[np.int64],
    until_ms: NDArray[np.int64],
    *,
    silence_ms: int,
) -> NDArray[np.void]:
    """What time alone does until `until_ms` to devices last heard of at `seen_ms`, slot by slot.

    Dwells fire at their exact due time while the device is believed inside and its silence is
    bearable; past that the visit ends at the moment the silence became too long.
    """
    told = np.empty(int((rules["past_dwell"] - rules["dwell"] + 1).sum()), CHANGE_DTYPE)
    args = (slots, rules, thresholds_s, silence_ms, seen_ms, until_ms, told)
    return told[: _elapse_all(*args)]


def end(
    slots: NDArray[np.void], at_ms: NDArray[np.int64], reasons: NDArray[np.int8]
) -> NDArray[np.void]:
    """End visits that something other than a crossing ends; `reasons` are places in REASONS."""
    told = np.empty(len(slots), CHANGE_DTYPE)
    return told[: _end_all(slots, at_ms, reasons, told)]


def due_ms(
    slots: NDArray[np.void],
    rules: NDArray[np.void],
    thresholds_s: NDArray[np.int64],
    seen_ms: NDArray[np.int64],
    *,
    silence_ms: int,
) -> NDArray[np.int64]:
    """When `elapse` would next change each belief if nothing more is heard of its device."""
    due = np.empty(len(slots), np.int64)
    _find_due(slots, rules, thresholds_s, silence_ms, seen_ms, due)
    return due


@compiled
def _walk(
    slots: NDArray[np.void],
    rules: NDArray[np.void],
    thresholds_s: NDArray[np.int64],
    silence_ms: int,
    walkers: NDArray[np.void],
    at_ms: NDArray[np.int64],
    seen: NDArray[np.void],
    initial: NDArray[np.bool_],
    told: NDArray[np.void],
) -> int:
    """Fills `told`; answers how far."""
    count = at = 0
    for walker in walkers:
        seen_ms = walker["seen_ms"]
        for row in range(walker["row"], walker["past_row"]):
            begun = count
            for slot in range(walker["slot"], walker["past_slot"]):
                count = _wait(
                    slots[slot], rules[slot], thresholds_s, silence_ms, seen_ms, at_ms[row],
                    told, count,
                )  # fmt: skip
            _sort_by_time(told, begun, count)
            seen_ms = at_ms[row]
            past = at
            while past < len(seen) and seen[past]["row"] == row:
                seen[past]["believed"] = slots[seen[past]["slot"]]["state"] >= _INSIDE
                past += 1
            for believed in (True, False):  # those who may leave, then those who may come
                for one in seen[at:past]:
                    if one["believed"] == believed:
                        slot = one["slot"]
                        count = _move(
                            slots[slot], one["if_inside"] if believed else one["if_outside"],
                            at_ms[row], rules[slot], thresholds_s, initial[slot], row, told, count,
                        )  # fmt: skip
            at = past
    return count


@compiled
def _wait(
    slot: np.void,
    rule: np.void,
    thresholds_s: NDArray[np.int64],
    silence_ms: int,
    seen_ms: int,
    until_ms: int,
    told: NDArray[np.void],
    count: int,
) -> int:
    """Up to the next fix: a geofence that moved ends its visits, else time passes."""
    if slot["state"] == _OUTSIDE:
        return count
    if slot["shape_version"] != rule["shape_version"]:
        return _end(slot, until_ms, _MOVED, -1, told, count)
    return _elapse(slot, rule, thresholds_s, silence_ms, seen_ms, until_ms, told, count)


@compiled
def _elapse(
    slot: np.void,
    rule: np.void,
    thresholds_s: NDArray[np.int64],
    silence_ms: int,
    seen_ms: int,
    until_ms: int,
    told: NDArray[np.void],
    count: int,
) -> int:
    given_up_ms = seen_ms + silence_ms
    if slot["state"] == _INSIDE:
        count = _dwell(slot, rule, thresholds_s, min(until_ms, given_up_ms), -1, told, count)
    if until_ms > given_up_ms and slot["state"] != _OUTSIDE:
        count = _end(slot, given_up_ms, _SILENCE, -1, told, count)
    return count


@compiled
def _dwell(
    slot: np.void,
    rule: np.void,
    thresholds_s: NDArray[np.int64],
    until_ms: int,
    row: int,
    told: NDArray[np.void],
    count: int,
) -> int:
    """Report the thresholds that were passed by then and not reported yet."""
    for threshold_s in thresholds_s[rule["dwell"] : rule["past_dwell"]]:
        passed_ms = slot["entered_ms"] + threshold_s * 1000
        if threshold_s > slot["dwelled_s"] and passed_ms <= until_ms:
            slot["dwelled_s"] = threshold_s
            count = _tell(slot, _DWELLED, passed_ms, threshold_s, _CROSSED, row, told, count)
    return count


@compiled
def _move(
    slot: np.void,
    sighting: int,
    now_ms: int,
    rule: np.void,
    thresholds_s: NDArray[np.int64],
    initial: bool,
    row: int,
    told: NDArray[np.void],
    count: int,
) -> int:
    """Move one belief by one sighting, up to whose time `_wait` has run."""
    move = _MOVES[slot["state"], sighting]
    if move == _NOTHING:
        return count
    if move == _FORGET:
        slot["state"] = _OUTSIDE
        return count
    if move == _AGREE:
        slot["agreeing"] = min(slot["agreeing"] + 1, _MANY)
    else:
        slot["since_ms"], slot["agreeing"] = now_ms, 1
        if move == _RETURN:
            slot["state"] = _INSIDE
            return count
        if move == _DOUBT:
            slot["state"] = _LEAVING
        else:
            slot["state"], slot["entered_ms"], slot["dwelled_s"] = _ENTERING, now_ms, 0
            slot["visit_id"] = _visit_id(slot["device_id"], slot["geofence_id"], now_ms)
            slot["shape_version"] = rule["shape_version"]
    return _confirm(slot, now_ms, rule, thresholds_s, initial, row, told, count)


@compiled
def _confirm(
    slot: np.void,
    now_ms: int,
    rule: np.void,
    thresholds_s: NDArray[np.int64],
    initial: bool,
    row: int,
    told: NDArray[np.void],
    count: int,
) -> int:
    """Finish the change under way once enough fixes agree for long enough."""
    if (
        slot["agreeing"] < rule["confirm_fixes"]
        or now_ms - slot["since_ms"] < rule["confirm_ms"]
    ):  # fmt: skip
        return count
    if slot["state"] == _LEAVING:
        return _end(slot, now_ms, _CROSSED, row, told, count)
    slot["state"], slot["since_ms"], slot["agreeing"] = _INSIDE, now_ms, 1
    reason = _INITIAL if initial else _CROSSED
    count = _tell(slot, _ENTERED, now_ms, 0, reason, row, told, count)
    # It may be confirmed later than the dwell that is counted from the visit's first fix.
    return _dwell(slot, rule, thresholds_s, now_ms, row, told, count)


@compiled
def _end(
    slot: np.void, at_ms: int, reason: int, row: int, told: NDArray[np.void], count: int
) -> int:
    """Nothing is believed any more; what was a visit is left."""
    if slot["state"] >= _INSIDE:
        occurred_ms = max(at_ms, slot["entered_ms"])
        count = _tell(slot, _EXITED, occurred_ms, 0, reason, row, told, count)
    slot["state"] = _OUTSIDE
    return count


@compiled
def _tell(
    slot: np.void,
    kind: int,
    occurred_ms: int,
    dwell_s: int,
    reason: int,
    row: int,
    told: NDArray[np.void],
    count: int,
) -> int:
    change = told[count]
    change["device_id"], change["geofence_id"] = slot["device_id"], slot["geofence_id"]
    change["visit_id"], change["entered_ms"] = slot["visit_id"], slot["entered_ms"]
    change["kind"], change["occurred_ms"], change["dwell_s"] = kind, occurred_ms, dwell_s
    change["reason"], change["row"] = reason, row
    return count + 1


@compiled
def _sort_by_time(told: NDArray[np.void], first: int, past: int) -> None:
    """Of one wait, and mostly none or one: insert each where it belongs, equals as they come."""
    for at in range(first + 1, past):
        moved = told[at : at + 1].copy()
        place = at
        while place > first and told[place - 1]["occurred_ms"] > moved[0]["occurred_ms"]:
            told[place] = told[place - 1]
            place -= 1
        told[place] = moved[0]


@compiled
def _visit_id(device_id: int, geofence_id: int, entered_ms: int) -> int:
    """A positive 63-bit id that depends on nothing but the visit: a replay finds the same one.

    The finaliser of splitmix64 (Steele, Lea, Flood 2014) over the three numbers. Uniqueness is
    per device in the database, so a collision needs two visits of one device.
    """
    mixed = np.uint64(0)
    for part in (device_id, geofence_id, entered_ms):
        mixed += np.uint64(part) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return int(mixed >> np.uint64(1))


@compiled
def _elapse_all(
    slots: NDArray[np.void],
    rules: NDArray[np.void],
    thresholds_s: NDArray[np.int64],
    silence_ms: int,
    seen_ms: NDArray[np.int64],
    until_ms: NDArray[np.int64],
    told: NDArray[np.void],
) -> int:
    count = 0
    for at in range(len(slots)):
        count = _elapse(
            slots[at], rules[at], thresholds_s, silence_ms, seen_ms[at], until_ms[at], told, count
        )
    return count


@compiled
def _end_all(
    slots: NDArray[np.void],
    at_ms: NDArray[np.int64],
    reasons: NDArray[np.int8],
    told: NDArray[np.void],
) -> int:
    count = 0
    for at in range(len(slots)):
        count = _end(slots[at], at_ms[at], reasons[at], -1, told, count)
    return count


@compiled
def _find_due(
    slots: NDArray[np.void],
    rules: NDArray[np.void],
    thresholds_s: NDArray[np.int64],
    silence_ms: int,
    seen_ms: NDArray[np.int64],
    due: NDArray[np.int64],
) -> None:
    for at in range(len(slots)):
        slot, rule = slots[at], rules[at]
        due[at] = seen_ms[at] + silence_ms + 1
        if slot["state"] == _INSIDE:
            for threshold_s in thresholds_s[rule["dwell"] : rule["past_dwell"]]:
                if threshold_s > slot["dwelled_s"]:
                    due[at] = min(due[at], slot["entered_ms"] + threshold_s * 1000)
                    break

"""Which fixes of a batch are taken, which may change what we believe, and which are only history.

Pure arrays. A batch here is sorted by device, then by time of recording.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from devices.fixes import MAX_ACCURACY_M, MAX_SPEED_MPS, MIN_TELEPORT_M, FixVerdict, RejectCode
from geofences.compiled import compiled
from geofences.geometry import EARTH_RADIUS_M

ACCEPTED = -1
_CODES = list(RejectCode)
_UNKNOWN = _CODES.index(RejectCode.UNKNOWN_DEVICE)
_NO_CONSENT = _CODES.index(RejectCode.CONSENT_WITHDRAWN)
_USED, _LATE, _MOCKED, _TELEPORT, _INACCURATE = (int(each) for each in FixVerdict)

STATE_DTYPE = np.dtype(
    [
        ("device_id", "i8"),
        ("version", "i8"),  # counts the writes of the row
        ("brand_id", "i8"),
        ("serial", "i4"),
        ("consent", "?"),
        ("presences", "i4"),
        ("received_ms", "i8"),  # arrays.NEVER: not heard of
        ("recorded_ms", "i8"),  # of the last used fix
        ("lat", "f8"),  # NaN: unknown, here and below
        ("lng", "f8"),
        ("accuracy_m", "f8"),
        ("speed_mps", "f8"),
        ("jump_lat", "f8"),  # the last place that was too far to be believed
        ("jump_lng", "f8"),
        ("tid", "i8"),  # where the row lies (arrays.read_tids); 0: unknown
    ]
)
"""Hot rows: what is known of the devices of a batch before it, ascending by device id."""


def whole(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The same rows of a structured array, without their fields: to copy and to put in one piece.

    numpy moves rows field by field, at ten times the price; `take` and `compress` do not.
    """
    return rows.view(np.dtype((np.void, rows.dtype.itemsize)))


def merged(some: NDArray[np.void], others: NDArray[np.void]) -> NDArray[np.void]:
    """Rows of one structured type, ascending by device; of one device as they come."""
    both = np.concatenate((whole(some), whole(others))).view(some.dtype)
    return both.take(np.argsort(both["device_id"], kind="stable"))


def firsts(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value stands that is not the one before."""
    found = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=found[1:])
    return found


def admit(
    fixes: NDArray[np.void], states: NDArray[np.void]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Per fix ACCEPTED or the index into `list(RejectCode)`; and its device's place in `states`.

    Accepted: the device exists in the sender's brand, its token is not revoked, its person agreed.
    """
    verdicts, device = np.empty(len(fixes), np.int8), np.empty(len(fixes), np.int64)
    _admit(fixes, states, verdicts, device)
    return verdicts, device


@compiled
def _admit(
    fixes: NDArray[np.void],
    states: NDArray[np.void],
    verdicts: NDArray[np.int8],
    device: NDArray[np.int64],
) -> None:
    at = 0
    for row in range(len(fixes)):
        fix = fixes[row]
        while at < len(states) and states[at]["device_id"] < fix["device_id"]:
            at += 1
        device[row] = at
        verdicts[row] = _UNKNOWN
        if at < len(states):
            state, serial = states[at], fix["serial"]
            if (
                state["device_id"] == fix["device_id"]
                and state["brand_id"] == fix["brand_id"]
                and (serial == 0 or serial == state["serial"])
            ):
                verdicts[row] = ACCEPTED if state["consent"] else _NO_CONSENT


def repeats(fixes: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which fixes have the device and the key of an earlier one of the batch."""
    repeated = np.empty(len(fixes), np.bool_)
    room = 1 << (2 * len(fixes)).bit_length()
    _find_repeats(fixes, np.full(room, -1, np.int64), repeated)
    return repeated


@compiled
def _find_repeats(
    fixes: NDArray[np.void], slots: NDArray[np.int64], repeated: NDArray[np.bool_]
) -> None:
    """`slots`: a hash table of rows, -1 where empty, at most half full; its size a power of two."""
    last = len(slots) - 1
    for row in range(len(fixes)):
        key, device_id = fixes[row]["key"], fixes[row]["device_id"]
        slot = (key ^ (device_id * 0x9E3779B97F4A7C1 >> 16)) & last
        while slots[slot] >= 0 and (
            fixes[slots[slot]]["key"] != key or fixes[slots[slot]]["device_id"] != device_id
        ):
            slot = (slot + 1) & last
        repeated[row] = slots[slot] >= 0
        if not repeated[row]:
            slots[slot] = row


def judge(
    fixes: NDArray[np.void], device: NDArray[np.int64], last: NDArray[np.void]
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """A FixVerdict per fix, and per row of `last` where its device may have jumped to (lat, lng).

    `device[i]` is the index of fix i's device in `last`. A fix is late when it is not newer than
    the one before it; of fixes with the same instant the first stands. A jump is not believed
    until a second fix confirms the far place.
    """
    verdicts, jumps = np.empty(len(fixes), np.int8), np.empty((len(last), 2))
    jumps[:, 0], jumps[:, 1] = last["jump_lat"], last["jump_lng"]
    _judge(fixes, device, last, verdicts, jumps)
    return verdicts, jumps


@compiled
def _judge(
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    last: NDArray[np.void],
    verdicts: NDArray[np.int8],
    jumps: NDArray[np.float64],
) -> None:
    believed = last[:1].copy() if len(last) else last  # where the device is, as far as we believe
    for row in range(len(fixes)):
        fix, which = fixes[row], device[row]
        first = row == 0 or device[row - 1] != which
        if first:
            believed[0] = last[which]
        place, doubt_m = believed[0], _known(fix["accuracy_m"])
        again = not first and fixes[row - 1]["recorded_ms"] == fix["recorded_ms"]
        if again or fix["recorded_ms"] <= last[which]["recorded_ms"]:
            verdicts[row] = _LATE
        elif fix["mock"]:
            verdicts[row] = _MOCKED
        elif fix["accuracy_m"] > MAX_ACCURACY_M:
            verdicts[row] = _INACCURATE
        elif _too_far(
            _metres(place["lat"], place["lng"], fix["lat"], fix["lng"])
            - (_known(place["accuracy_m"]) + doubt_m),
            fix["recorded_ms"] - place["recorded_ms"],
        ) and not (
            _metres(jumps[which, 0], jumps[which, 1], fix["lat"], fix["lng"])
            <= MIN_TELEPORT_M + doubt_m
        ):
            verdicts[row] = _TELEPORT
            jumps[which, 0], jumps[which, 1] = fix["lat"], fix["lng"]
        else:
            verdicts[row] = _USED
            jumps[which, 0] = jumps[which, 1] = math.nan
            place["lat"], place["lng"] = fix["lat"], fix["lng"]
            place["accuracy_m"], place["recorded_ms"] = fix["accuracy_m"], fix["recorded_ms"]


@compiled
def _known(accuracy_m: float) -> float:
    return 0.0 if math.isnan(accuracy_m) else accuracy_m


@compiled
def _too_far(surely_m: float, elapsed_ms: int) -> bool:
    """Farther than anything flies in that time; unknown (NaN) is never too far."""
    return surely_m > MIN_TELEPORT_M and (surely_m > MAX_SPEED_MPS * max(elapsed_ms, 1000) / 1000)


@compiled
def _metres(lat: float, lng: float, to_lat: float, to_lng: float) -> float:
    """`great_circle_m` of two places."""
    phi, to_phi = math.radians(lat), math.radians(to_lat)
    north, east = (to_phi - phi) / 2, math.radians(to_lng - lng) / 2
    h = math.sin(north) ** 2 + math.cos(phi) * math.cos(to_phi) * math.sin(east) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(1.0 if h > 1 else h))

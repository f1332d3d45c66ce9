"""What a fix is: its wire shape, the bounds of a plausible one and its place in a batch. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from geofences.compiled import compiled

MAX_SPEED_MPS = 360.0  # no airliner in a jet stream was measured above 801 mph (358 m/s)
MIN_TELEPORT_M = 2_000.0  # shorter jumps are noise of clock or receiver: hysteresis handles them
MAX_ACCURACY_M = 2_000.0  # a cell tower's reach in a city; beyond it no geofence can be judged
ANYWHERE_M = 20_037_508.0  # half of the equator: who knows a place no better knows nothing
MAX_AHEAD_MS = 120_000  # a phone's clock may be this far ahead of ours
MAX_AGE_MS = 30 * 86_400_000  # phones that were offline dump weeks, not months
EPOCH_MS_FROM = 100_000_000_000  # smaller numbers are epoch seconds sent by mistake (year 5138)


class FixVerdict(IntEnum):
    """What became of an accepted fix; stored in history."""

    USED = 0
    LATE = 1  # not newer than the last one: history only
    MOCKED = 2
    TELEPORT = 3
    INACCURATE = 4


class RejectCode(StrEnum):
    """Why a fix is not accepted; the message is for the developer of the app."""

    INVALID = "invalid"
    LAT_OUT_OF_RANGE = "lat_out_of_range"
    LNG_OUT_OF_RANGE = "lng_out_of_range"
    NULL_ISLAND = "null_island"
    RECORDED_IN_FUTURE = "recorded_in_future"
    TOO_OLD = "too_old"
    UNKNOWN_DEVICE = "unknown_device"
    CONSENT_WITHDRAWN = "consent_withdrawn"


MESSAGES: dict[RejectCode, str] = {
    RejectCode.INVALID: "The item is not a fix.",
    RejectCode.LAT_OUT_OF_RANGE: "lat must be between -90 and 90 degrees.",
    RejectCode.LNG_OUT_OF_RANGE: "lng must be between -180 and 180 degrees.",
    RejectCode.NULL_ISLAND: "lat and lng are both exactly 0: a position that was never fixed.",
    RejectCode.RECORDED_IN_FUTURE: "recorded_at is more than 120 s ahead of the server's clock.",
    RejectCode.TOO_OLD: "recorded_at is more than 30 days ago.",
    RejectCode.UNKNOWN_DEVICE: "No such device of this brand.",
    RejectCode.CONSENT_WITHDRAWN: "The person has not agreed to the use of their location.",
}


class FixIn(msgspec.Struct):
    """One fix on the wire (CONTRACT): degrees, metres, metres per second; unknown is absent."""

    lat: float
    lng: float
    recorded_at: datetime | int | float
    accuracy_m: float | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None
    altitude_m: float | None = None
    id: str | int | None = None
    mock: bool | None = False
    battery: float | None = None


class GatewayFixIn(FixIn, kw_only=True):
    """A fix of a device that the brand's back office names."""

    device_id: int | None = None
    external_id: str | None = None


FIX_DTYPE = np.dtype(
    [
        ("device_id", "i8"),
        ("brand_id", "i8"),
        ("serial", "i4"),  # of the token that sent it; 0: no token (gateway)
        ("recorded_ms", "i8"),
        ("key", "i8"),
        ("named", "?"),  # key comes from an id: repeats may carry another time
        ("lat", "f8"),
        ("lng", "f8"),
        ("accuracy_m", "f8"),  # NaN: unknown, here and below
        ("speed_mps", "f4"),
        ("heading_deg", "f4"),
        ("altitude_m", "f4"),
        ("battery", "f4"),
        ("mock", "?"),
    ]
)
"""A batch of fixes, of one or many devices, is one array of this."""

_NAN, _INFINITE = float("nan"), float("inf")
_NO_TIME_MS = 1 << 53  # farther from 1970 than any calendar: out of bounds, and still an int64
_MASK63 = (1 << 63) - 1


def to_epoch_ms(at: datetime | float) -> int:
    """Epoch milliseconds of a wire time: ISO 8601 (no offset: UTC), epoch ms, or epoch seconds."""
    if type(at) is int and EPOCH_MS_FROM <= at <= _NO_TIME_MS:
        return at  # as most phones send it: a fifth of what a fix costs the door otherwise
    if isinstance(at, datetime):
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    ms = at if abs(at) >= EPOCH_MS_FROM else at * 1000
    return int(max(-_NO_TIME_MS, min(_NO_TIME_MS, ms)))


def key_of_id(fix_id: str | int) -> int:
    """63-bit key of a fix's own id."""
    digest = hashlib.blake2b(str(fix_id).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & _MASK63


FixRow = tuple[Any, ...]
"""One fix in the order of FIX_DTYPE, as sent: None where unknown, key 0 where it has no id."""


def row_of(item: FixIn, *, device_id: int, brand_id: int, serial: int) -> FixRow:
    """The fix as a FixRow; turning many requests' rows into one array is what makes them cheap."""
    fix_id = item.id
    return (
        device_id,
        brand_id,
        serial,
        to_epoch_ms(item.recorded_at),
        0 if fix_id is None else key_of_id(fix_id),
        fix_id is not None,
        item.lat,
        item.lng,
        item.accuracy_m,
        item.speed_mps,
        item.heading_deg,
        item.altitude_m,
        item.battery,
        item.mock,
    )


def assemble(rows: Sequence[FixRow]) -> NDArray[np.void]:
    """Rows of any devices as one array of FIX_DTYPE, in the order given, not yet bounded.

    Absent, 0 or negative accuracy is unknown, never perfect (home-assistant#1957); so is a
    negative speed, heading or battery (iOS says -1), and what single precision cannot hold.
    """
    with np.errstate(over="ignore"):  # it makes such a number infinite
        fixes = np.array(rows, dtype=FIX_DTYPE)
    lat_bits, lng_bits = (
        np.ascontiguousarray(fixes[name]).view(np.uint64) for name in ("lat", "lng")
    )
    _tidy(fixes, lat_bits, lng_bits)
    return fixes


@compiled
def _tidy(
    fixes: NDArray[np.void], lat_bits: NDArray[np.uint64], lng_bits: NDArray[np.uint64]
) -> None:
    for row in range(len(fixes)):
        fix = fixes[row]
        if fix["accuracy_m"] <= 0:
            fix["accuracy_m"] = _NAN
        elif fix["accuracy_m"] > ANYWHERE_M:
            fix["accuracy_m"] = ANYWHERE_M
        if not 0 <= fix["speed_mps"] < _INFINITE:
            fix["speed_mps"] = _NAN
        if not 0 <= fix["heading_deg"] < _INFINITE:
            fix["heading_deg"] = _NAN
        if not 0 <= fix["battery"] < _INFINITE:
            fix["battery"] = _NAN
        if not abs(fix["altitude_m"]) < _INFINITE:
            fix["altitude_m"] = _NAN
        if not fix["named"]:
            fix["key"] = _key_of_place(np.uint64(fix["recorded_ms"]), lat_bits[row], lng_bits[row])


@compiled
def _key_of_place(mixed: np.uint64, lat_bits: np.uint64, lng_bits: np.uint64) -> np.int64:
    """63-bit key from time and place, for a fix that carries no id."""
    for part in (lat_bits, lng_bits):
        mixed = (mixed ^ part) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return np.int64(mixed >> np.uint64(1))


def bounds(fixes: NDArray[np.void], *, now_ms: int) -> NDArray[np.int8]:
    """Per fix the index into list(RejectCode) of why it is implausible, or -1. NaN is out."""
    found = np.empty(len(fixes), dtype=np.int8)
    _bound(fixes, now_ms, found)
    return found


_CODES = list(RejectCode)
_LAT, _LNG = (
    _CODES.index(each) for each in (RejectCode.LAT_OUT_OF_RANGE, RejectCode.LNG_OUT_OF_RANGE)
)
_NULL_ISLAND, _FUTURE, _OLD = (
    _CODES.index(each)
    for each in (RejectCode.NULL_ISLAND, RejectCode.RECORDED_IN_FUTURE, RejectCode.TOO_OLD)
)


@compiled
def _bound(fixes: NDArray[np.void], now_ms: int, found: NDArray[np.int8]) -> None:
    for row in range(len(fixes)):
        lat, lng, at_ms = fixes[row]["lat"], fixes[row]["lng"], fixes[row]["recorded_ms"]
        if not abs(lat) <= 90:
            found[row] = _LAT
        elif not abs(lng) <= 180:
            found[row] = _LNG
        elif lat == 0 and lng == 0:
            found[row] = _NULL_ISLAND
        elif at_ms > now_ms + MAX_AHEAD_MS:
            found[row] = _FUTURE
        elif at_ms < now_ms - MAX_AGE_MS:
            found[row] = _OLD
        else:
            found[row] = -1

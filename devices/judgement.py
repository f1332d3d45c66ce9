"""Which fixes of a batch may change what we believe, and which are only history: pure arrays.

A batch here is sorted by device, then by time of recording.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.fixes import MAX_ACCURACY_M, MAX_SPEED_MPS, MIN_TELEPORT_M, FixVerdict
from geofences.geometry import great_circle_m

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
    ]
)
"""Hot rows: what is known of the devices of a batch before it, ascending by device id."""


def judge(
    fixes: NDArray[np.void], device: NDArray[np.int64], last: NDArray[np.void]
) -> tuple[NDArray[np.int8], dict[int, tuple[float, float]]]:
    """A FixVerdict per fix, and per device (index into `last`) the place it may have jumped to.

    `device[i]` is the index of fix i's device in `last`. A fix is late when it is not newer than
    the one before it; of fixes with the same instant the first stands.
    """
    verdicts = np.full(len(fixes), FixVerdict.USED, dtype=np.int8)
    at = fixes["recorded_ms"]
    same_device = np.zeros(len(fixes), dtype=bool)
    same_device[1:] = device[1:] == device[:-1]
    repeated = same_device.copy()
    repeated[1:] &= at[1:] == at[:-1]
    verdicts[fixes["accuracy_m"] > MAX_ACCURACY_M] = FixVerdict.INACCURATE
    verdicts[fixes["mock"]] = FixVerdict.MOCKED
    verdicts[(at <= last["recorded_ms"][device]) | repeated] = FixVerdict.LATE
    return verdicts, _judge_jumps(fixes, device, last, verdicts)


def _judge_jumps(
    fixes: NDArray[np.void],
    device: NDArray[np.int64],
    last: NDArray[np.void],
    verdicts: NDArray[np.int8],
) -> dict[int, tuple[float, float]]:
    """Mark teleports in `verdicts`; only impossibly fast devices are looked at one by one."""
    used = np.flatnonzero(verdicts == FixVerdict.USED)
    if not len(used):
        return {}
    fix, of = fixes[used], device[used]
    follows = np.zeros(len(used), dtype=bool)
    follows[1:] = of[1:] == of[:-1]
    before = np.maximum(np.arange(len(used)) - 1, 0)
    from_lat = np.where(follows, fix["lat"][before], last["lat"][of])
    from_lng = np.where(follows, fix["lng"][before], last["lng"][of])
    from_ms = np.where(follows, fix["recorded_ms"][before], last["recorded_ms"][of])
    from_accuracy = np.where(follows, fix["accuracy_m"][before], last["accuracy_m"][of])
    far = _too_far(
        great_circle_m(from_lat, from_lng, fix["lat"], fix["lng"]),
        np.nan_to_num(from_accuracy) + np.nan_to_num(fix["accuracy_m"]),
        fix["recorded_ms"] - from_ms,
    )
    # Most batches hold one fix of a device: those are judged at once.
    alone = ~follows
    alone[:-1] &= of[1:] != of[:-1]
    confirmed = great_circle_m(
        last["jump_lat"][of], last["jump_lng"][of], fix["lat"], fix["lng"]
    ) <= MIN_TELEPORT_M + np.nan_to_num(fix["accuracy_m"])
    astray = far & alone & ~confirmed
    verdicts[used[astray]] = FixVerdict.TELEPORT
    jumps = {
        which: (lat, lng)
        for which, lat, lng in zip(
            of[astray].tolist(),
            fix["lat"][astray].tolist(),
            fix["lng"][astray].tolist(),
            strict=True,
        )
    }
    for which in np.unique(of[far & ~alone]):
        rows = used[of == which]
        jump = _walk_jumps(fixes, rows, int(which), last, verdicts)
        if jump is not None:
            jumps[int(which)] = jump
    return jumps


def _too_far(
    metres: NDArray[np.float64], doubt_m: NDArray[np.float64], elapsed_ms: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Farther than anything flies in that time; unknown (NaN) is never too far."""
    surely_m = metres - doubt_m
    with np.errstate(invalid="ignore"):
        return (surely_m > MIN_TELEPORT_M) & (
            surely_m > MAX_SPEED_MPS * np.maximum(elapsed_ms, 1000) / 1000
        )


def _walk_jumps(
    fixes: NDArray[np.void],
    rows: NDArray[np.int64],
    which: int,
    last: NDArray[np.void],
    verdicts: NDArray[np.int8],
) -> tuple[float, float] | None:
    """One device in order: a jump is not believed until a second fix confirms the far place."""
    place = (
        last["lat"][which],
        last["lng"][which],
        last["recorded_ms"][which],
        np.nan_to_num(last["accuracy_m"][which]),
    )
    jump = (last["jump_lat"][which], last["jump_lng"][which])
    for row in rows:
        fix = fixes[row]
        lat, lng, accuracy_m = fix["lat"], fix["lng"], np.nan_to_num(fix["accuracy_m"])
        metres = great_circle_m(place[0], place[1], lat, lng)
        away = _too_far(metres, place[3] + accuracy_m, fix["recorded_ms"] - place[2])
        confirmed = great_circle_m(jump[0], jump[1], lat, lng) <= MIN_TELEPORT_M + accuracy_m
        if away and not confirmed:
            verdicts[row] = FixVerdict.TELEPORT
            jump = (lat, lng)
        else:
            place, jump = (lat, lng, fix["recorded_ms"], accuracy_m), (np.nan, np.nan)
    return None if np.isnan(jump[0]) else (float(jump[0]), float(jump[1]))

"""A batch in a crowded place against every fix measured to every geofence, one walk at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from devices.arrays import NEVER
from devices.fixes import FIX_DTYPE
from devices.judgement import STATE_DTYPE
from devices.presence import BELIEF_DTYPE, Sighting, classify
from devices.sightings import RulesBook, follow
from geofences.geometry import Circle
from geofences.matching import Index
from tests.devices.clerk import Belief, Footprint, Rules, Stop, walk
from tests.devices.walking import beliefs_of, prints_of
from tests.geofences.shapes import columns_of

LAT, LNG = 60.17, 24.94
STEP = 0.0002  # degrees: 22 m north, 11 m east
SILENCE_MS = 600_000
DWELLS = {2: (30, 120)}
NOW_MS = 1_800_000_000_000


def crowded() -> Index:
    """Four that overlap: plain, with dwells, after two fixes, after a minute and a half."""
    shapes = [
        shapely.box(LNG, LAT, LNG + 0.002, LAT + 0.001),
        shapely.box(LNG + 0.001, LAT - 0.0005, LNG + 0.003, LAT + 0.0008),
        Circle(lat=LAT, lng=LNG, radius_m=60.0),
        Circle(lat=LAT + 0.0005, lng=LNG + 0.001, radius_m=50.0),
    ]
    columns = columns_of(shapes)
    chosen: dict[str, NDArray[Any]] = {
        "exit_buffer_m": np.full(4, 20, np.float32),
        "confirm_fixes": np.array([1, 1, 2, 1], np.int16),
        "confirm_s": np.array([0, 0, 0, 90], np.int32),
        "armed_ms": np.array([NOW_MS + 1, 0, 0, NOW_MS + 1]),  # two since anybody was heard of
        "campaign": np.ones(4, np.bool_),
    }
    return Index.build([dataclasses.replace(columns, settings=chosen)])


INDEX = crowded()
BOOK = RulesBook(INDEX, DWELLS, SILENCE_MS)
RULES = {
    key: Rules(
        confirm_fixes=fixes,
        confirm_ms=seconds * 1000,
        dwell_thresholds=DWELLS.get(key, ()),
        silence_ms=SILENCE_MS,
    )
    for key, fixes, seconds in zip(
        INDEX.geofence_id.tolist(),
        INDEX.settings["confirm_fixes"].tolist(),
        INDEX.settings["confirm_s"].tolist(),
        strict=True,
    )
}

Move = tuple[int, int, int, float]
moves = st.lists(
    st.tuples(
        st.integers(-4, 18),
        st.integers(-4, 18),
        st.sampled_from([1, 20, 45, 100, SILENCE_MS // 1000, SILENCE_MS // 1000 + 1]),
        st.sampled_from([float("nan"), 5.0, 40.0, 90.0]),
    ),
    min_size=1,
    max_size=14,
)


def batch_of(device_id: int, walked: Sequence[Move], *, since_ms: int) -> NDArray[np.void]:
    batch = np.zeros(len(walked), dtype=FIX_DTYPE)
    batch["device_id"], batch["brand_id"] = device_id, 1
    for row, (north, east, after_s, accuracy_m) in zip(batch, walked, strict=True):
        since_ms += after_s * 1000
        row["lat"], row["lng"] = LAT + north * STEP / 2, LNG + east * STEP
        row["recorded_ms"], row["accuracy_m"] = since_ms, accuracy_m
    return batch


def measured_to_all(
    fixes: NDArray[np.void], beliefs: Mapping[int, Belief], state: np.void
) -> tuple[dict[int, Belief], list[Footprint]]:
    """The slow, obvious way."""
    ordinals, stops = np.arange(4, dtype=np.int32), []
    was_m = INDEX.distance_m(
        ordinal=ordinals, lat=np.full(4, state["lat"]), lng=np.full(4, state["lng"])
    )
    around = (was_m >= 0) & (INDEX.settings["armed_ms"] > state["received_ms"])
    initial = frozenset(INDEX.geofence_id[around].tolist()) - beliefs.keys()
    for fix in fixes:
        lat, lng = np.full(4, fix["lat"]), np.full(4, fix["lng"])
        distance_m = INDEX.distance_m(ordinal=ordinals, lat=lat, lng=lng)
        inside = np.isin(ordinals, INDEX.match(lat=lat[:1], lng=lng[:1], brand=1).ordinal)
        distance_m = np.where(inside, np.abs(distance_m), -np.maximum(np.abs(distance_m), 1e-9))
        accuracy_m = np.full(4, fix["accuracy_m"])
        buffer_m = INDEX.settings["exit_buffer_m"][ordinals].astype(float)
        either = [
            classify(distance_m, accuracy_m, buffer_m, np.full(4, believed))
            for believed in (False, True)
        ]
        seen = {
            int(INDEX.geofence_id[at]): (Sighting(int(either[0][at])), Sighting(int(either[1][at])))
            for at in ordinals
        }
        stops.append(Stop(int(fix["recorded_ms"]), seen))
    return walk(
        int(fixes["device_id"][0]),
        stops,
        beliefs,
        rules_of=RULES.__getitem__,
        seen_ms=int(state["recorded_ms"]),
        initial=initial,
    )


@given(
    walks=st.lists(st.lists(moves, min_size=1, max_size=3), min_size=1, max_size=3),
    moved=st.lists(st.frozensets(st.integers(1, 4), max_size=2), min_size=3, max_size=3),
)
@settings(max_examples=300)
def test_it_tells_what_measuring_every_fix_to_every_geofence_tells(
    walks: list[list[list[Move]]], moved: list[frozenset[int]]
) -> None:
    """Each device in up to three batches, so that later ones start from beliefs.

    Some geofences `moved` before a batch, as far as beliefs know.
    """
    states = np.zeros(len(walks), dtype=STATE_DTYPE)
    states["device_id"], states["brand_id"] = np.arange(1, len(walks) + 1), 1
    states["recorded_ms"] = states["received_ms"] = NEVER
    states["lat"] = states["lng"] = np.nan
    stored = np.empty(0, BELIEF_DTYPE)
    for turn in range(3):
        walking = [number for number, batches in enumerate(walks) if turn < len(batches)]
        if not walking:
            break
        fixes = np.concatenate(
            [
                batch_of(
                    number + 1,
                    walks[number][turn],
                    since_ms=max(int(states["recorded_ms"][number]), NOW_MS),
                )
                for number in walking
            ]
        )
        device = fixes["device_id"] - 1
        stored["shape_version"][np.isin(stored["geofence_id"], [*moved[turn]])] = 0
        # The beliefs of others do not go with the batch.
        here = np.isin(stored["device_id"], fixes["device_id"])
        outcome = follow(fixes, device, states, stored[here], BOOK, now_ms=NOW_MS)
        believed = np.concatenate((stored[~here], outcome.beliefs()))
        for number in walking:
            own = fixes[device == number]
            before = beliefs_of(stored[stored["device_id"] == number + 1])
            after, prints = measured_to_all(own, before, states[number])
            told = outcome.told[outcome.told["device_id"] == number + 1]
            told["row"][told["row"] >= 0] -= np.flatnonzero(device == number)[0]
            assert beliefs_of(believed[believed["device_id"] == number + 1]) == after
            assert prints_of(told) == prints
            states["presences"][number] = len(after)
            states["recorded_ms"][number] = own["recorded_ms"][-1]
            states["received_ms"][number] = NOW_MS
            states["lat"][number], states["lng"][number] = own["lat"][-1], own["lng"][-1]
        stored = believed[np.lexsort((believed["geofence_id"], believed["device_id"]))]

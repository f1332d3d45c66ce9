"""Index columns of the benchmarks' world, kept between runs: covers cost a millisecond each."""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import world
from geofences import cells, packing
from geofences.geometry import normalise
from geofences.matching import Columns, Pieces

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".nearcast" / "bench"
SEED = 1
_AT_ONCE = 2_000
_MADE_BY = ("cells", "reach", "lattice", "icosahedron", "packing", "geometry")


def shapes(count: int, home: str, vertices: tuple[int, int] = (6, 200)) -> NDArray[Any]:
    """The polygons themselves."""
    return world.polygons(count, home=home, seed=SEED, vertices=vertices)


def columns(count: int, home: str, vertices: tuple[int, int] = (6, 200)) -> Columns:
    """The same as stored covers and outlines, all of brand 1."""
    name = f"{home}-{count}-{vertices[0]}-{vertices[1]}-{_digest()}.npz"
    if not (KEPT / name).exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        made = _made(count, home, vertices)
        np.savez(KEPT / name, allow_pickle=False, **made)
    with np.load(KEPT / name) as kept:
        return Columns(
            geofence_id=np.arange(1, count + 1),
            brand_id=np.ones(count, np.int64),
            version=np.ones(count, np.int64),
            resolution=kept["resolution"],
            interior=_pieces(kept, "interior"),
            boundary=_pieces(kept, "boundary"),
            shape=_pieces(kept, "shape"),
            settings={
                "exit_buffer_m": np.full(count, 20, np.float32),
                "confirm_fixes": np.ones(count, np.int16),
                "confirm_s": np.zeros(count, np.int32),
                "armed_ms": np.zeros(count, np.int64),
                "campaign": np.ones(count, np.bool_),
            },
        )


def _digest() -> str:
    code = b"".join((ROOT / "geofences" / f"{name}.py").read_bytes() for name in _MADE_BY)
    world_code = (ROOT / "benchmarks" / "world.py").read_bytes()
    return hashlib.sha256(code + world_code).hexdigest()[:12]


def _pieces(kept: Any, name: str) -> Pieces:
    return Pieces.joined(kept[name], kept[f"{name}_size"])


def _made(count: int, home: str, vertices: tuple[int, int]) -> dict[str, NDArray[Any]]:
    all_shapes = shapes(count, home, vertices)
    jobs = (all_shapes[start : start + _AT_ONCE] for start in range(0, count, _AT_ONCE))
    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(_part, jobs))
    made: dict[str, NDArray[Any]] = {
        "resolution": np.array([each for part in parts for each in part.resolution], np.uint8)
    }
    for name in ("interior", "boundary", "shape"):
        pieces = [each for part in parts for each in getattr(part, name)]
        made[name] = np.frombuffer(b"".join(pieces), np.uint8)
        made[f"{name}_size"] = np.array([len(each) for each in pieces])
    return made


class _Part(NamedTuple):
    resolution: list[int]
    interior: list[bytes]
    boundary: list[bytes]
    shape: list[bytes]


def _part(given: NDArray[Any]) -> _Part:
    some = [normalise(one) for one in given]
    covers = cells.covers(some)
    return _Part(
        [cover.resolution for cover in covers],
        [cover.interior.tobytes() for cover in covers],
        [cover.boundary.tobytes() for cover in covers],
        [packing.pack(shape) for shape in some],
    )

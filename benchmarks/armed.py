"""Index columns of the benchmarks' world, kept between runs: covers cost milliseconds each.

They are made a part at a time. A part that is made is on disk, so a run that was interrupted goes
on where it stopped, and no process holds more than one part. `python -m benchmarks.armed country
1000000` makes those of a world ahead of its benchmark.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import shapely
from numpy.typing import NDArray

from benchmarks import world
from geofences import blocks, cells, packing
from geofences.geometry import normalise
from geofences.matching import Columns, Packed, Pieces

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".nearcast" / "bench"
SEED = 1
_AT_ONCE = 2_000
_MADE_BY = ("cells", "reach", "icosahedron", "packing", "geometry")
_PIECES = ("interior", "boundary", "shape")

Arrays = dict[str, NDArray[Any]]


def shapes(count: int, home: str, vertices: tuple[int, int] = (6, 200)) -> NDArray[Any]:
    """The polygons themselves."""
    return world.polygons(count, home=home, seed=SEED, vertices=vertices)


def columns(count: int, home: str, vertices: tuple[int, int] = (6, 200)) -> Columns:
    """The same as stored covers and outlines, all of brand 1."""
    with np.load(make(count, home, vertices)) as kept:
        return Columns(
            geofence_id=np.arange(1, count + 1),
            brand_id=np.ones(count, np.int64),
            version=np.ones(count, np.int64),
            resolution=kept["resolution"],
            cover=_folded(kept["resolution"], _pieces(kept, "interior"), _pieces(kept, "boundary")),
            shape=Packed.of(_pieces(kept, "shape")),
            settings={
                "exit_buffer_m": np.full(count, 20, np.float32),
                "confirm_fixes": np.ones(count, np.int16),
                "confirm_s": np.zeros(count, np.int32),
                "armed_ms": np.zeros(count, np.int64),
                "campaign": np.ones(count, np.bool_),
            },
        )


def _pieces(kept: Any, name: str) -> Pieces:
    return Pieces.joined(kept[name], kept[f"{name}_size"])


def _folded(resolution: NDArray[np.uint8], interior: Pieces, boundary: Pieces) -> Pieces:
    """As `geofences.writing` stores covers; some at a time, as all at once would take gigabytes."""
    parts = [
        blocks.folded(resolution[rows], interior.rows(rows), boundary.rows(rows))
        for rows in np.split(np.arange(len(resolution)), range(_AT_ONCE, len(resolution), _AT_ONCE))
    ]
    return Pieces(
        np.concatenate([part.words for part in parts]),
        np.concatenate([part.size for part in parts]),
    )


def make(
    count: int, home: str, vertices: tuple[int, int] = (6, 200), *, workers: int | None = None
) -> Path:
    """The file of a world's covers, made first where it is not there: whole or not at all."""
    file = KEPT / f"{home}-{count}-{vertices[0]}-{vertices[1]}-{_digest(home)}.npz"
    if file.exists():
        return file
    parts = file.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, _AT_ONCE)
    # The polygons of a million take gigabytes while they are made, so that is a process of its
    # own: this one, from which the others fork, stays small.
    with ProcessPoolExecutor(1) as pool:
        pool.submit(_rings, parts, count, home, vertices).result()
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(partial(_part, parts), starts), 1):
            if done % 25 == 0:
                print(f"{file.stem}: {done} of {len(starts)} parts", flush=True)
    _write(file, lambda to: _join(to, [parts / f"{start}.npz" for start in starts]))
    shutil.rmtree(parts)
    return file


def _digest(home: str) -> str:
    """Of what the covers of this home are made by and from; another home changes nothing here."""
    code = b"".join((ROOT / "geofences" / f"{name}.py").read_bytes() for name in _MADE_BY)
    drawn = inspect.getsource(world.places) + inspect.getsource(world.polygons)
    place = f"{world.HOMES[home]} {world.METRES_A_DEGREE}"
    return hashlib.sha256(code + drawn.encode() + place.encode()).hexdigest()[:12]


def _rings(parts: Path, count: int, home: str, vertices: tuple[int, int]) -> None:
    """The corners of all polygons on disk, where a worker maps the few it needs."""
    if (parts / "ends.npy").exists():
        return
    lng_lat, owner = shapely.get_coordinates(shapes(count, home, vertices), return_index=True)
    ends = np.cumsum(np.bincount(owner, minlength=count))
    _write(parts / "rings.npy", lambda to: np.save(to, lng_lat))
    _write(parts / "ends.npy", lambda to: np.save(to, ends))


def _part(parts: Path, start: int) -> None:
    """Covers and packed outlines of `_AT_ONCE` polygons, the first of them `start`, on disk."""
    if (parts / f"{start}.npz").exists():
        return
    ends = np.load(parts / "ends.npy")[: start + _AT_ONCE]
    begin = int(ends[start - 1]) if start else 0
    lng_lat = np.load(parts / "rings.npy", mmap_mode="r")[begin : int(ends[-1])]
    rings = np.split(np.asarray(lng_lat), ends[start:-1] - begin)
    some = [normalise(shapely.Polygon(ring)) for ring in rings]
    covers = cells.covers(some)
    made: Arrays = {"resolution": np.array([cover.resolution for cover in covers], np.uint8)}
    for name, pieces in zip(
        _PIECES,
        (
            [cover.interior.tobytes() for cover in covers],
            [cover.boundary.tobytes() for cover in covers],
            [packing.pack(shape) for shape in some],
        ),
        strict=True,
    ):
        made[name] = np.frombuffer(b"".join(pieces), np.uint8)
        made[f"{name}_size"] = np.array([len(each) for each in pieces])
    _write(parts / f"{start}.npz", lambda to: np.savez(to, allow_pickle=False, **made))


def _join(to: BinaryIO, parts: list[Path]) -> None:
    """One file like those of the parts, written an array and a part at a time."""
    with zipfile.ZipFile(to, "w") as whole:
        for name in ("resolution", *(n for each in _PIECES for n in (each, f"{each}_size"))):
            lengths = [len(array) for array in _each(parts, name)]
            header = {"fortran_order": False, "shape": (sum(lengths),)}
            with whole.open(f"{name}.npy", "w", force_zip64=True) as member:
                for number, array in enumerate(_each(parts, name)):
                    if number == 0:
                        described = {"descr": array.dtype.str, **header}
                        np.lib.format.write_array_header_1_0(member, described)
                    member.write(array.data)


def _each(parts: list[Path], name: str) -> Iterator[NDArray[Any]]:
    for path in parts:
        with np.load(path) as part:
            yield part[name]


def _write(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Under its name only when it is whole, whatever interrupts the writing."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    with unfinished.open("wb") as to:
        write(to)
    unfinished.replace(file)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("home", choices=list(world.HOMES))
    arguments.add_argument("count", type=int)
    arguments.add_argument("--vertices", type=int, nargs=2, default=(6, 200))
    arguments.add_argument("--workers", type=int, help="processes; one for each core if not said")
    given = arguments.parse_args()
    print(make(given.count, given.home, tuple(given.vertices), workers=given.workers))

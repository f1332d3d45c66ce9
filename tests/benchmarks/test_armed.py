"""Covers of the benchmarks' world, made a part at a time."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from benchmarks import armed
from geofences import cells, packing
from geofences.geometry import normalise

COUNT = 7


@pytest.fixture(autouse=True)
def small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(armed, "KEPT", tmp_path)
    monkeypatch.setattr(armed, "_AT_ONCE", 3)


def test_it_keeps_the_covers_of_the_worlds_own_polygons() -> None:
    some = [normalise(one) for one in armed.shapes(COUNT, "city")]
    covers = cells.covers(some)

    with np.load(armed.make(COUNT, "city", workers=1)) as kept:
        assert kept["resolution"].tolist() == [cover.resolution for cover in covers]
        assert kept["boundary"].tobytes() == b"".join(each.boundary.tobytes() for each in covers)
        assert kept["interior_size"].tolist() == [each.interior.nbytes for each in covers]
        assert kept["shape"].tobytes() == b"".join(map(packing.pack, some))


def test_it_goes_on_where_an_earlier_run_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = armed.make(COUNT, "city", workers=1)
    expected = _arrays(whole)
    whole.unlink()
    with monkeypatch.context() as disk:
        disk.setattr(armed, "_join", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            armed.make(COUNT, "city", workers=1)
    assert not whole.exists()
    parts = whole.with_suffix(".parts")
    (parts / "3.npz").unlink()
    made = _times(parts)
    removed: list[Path] = []
    monkeypatch.setattr("shutil.rmtree", removed.append)

    assert _arrays(armed.make(COUNT, "city", workers=1)) == expected

    assert removed == [parts]
    assert made.items() < _times(parts).items()


def _interrupted(to: BinaryIO, parts: list[Path]) -> None:
    to.write(parts[0].read_bytes())
    raise KeyboardInterrupt


def _arrays(file: Path) -> dict[str, bytes]:
    with np.load(file) as kept:
        return {name: kept[name].tobytes() for name in kept.files}


def _times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.np[yz]")}

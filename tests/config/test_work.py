"""The loops' keeper: starts, restarts, stops."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import work

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The search for cycles as it was: `work` has it settle, which is for a process's life.

    Searched for so seldom, cycles are found at any depth: also where JSON nested without end has
    used up the stack, and what is called for something found there fails.
    """
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_it_starts_a_failed_loop_again(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(work, "FIRST_WAIT_S", 0.0)
    runs = []

    def loop(stop: threading.Event) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("a bad row")
        stop.set()

    work.keep_running("sample", loop, stop)

    assert len(runs) == 3
    assert [record.message for record in caplog.records] == ["loop sample failed"] * 2


def test_it_waits_longer_after_each_failure(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout)
        if len(waits) == 8:
            stop.set()
        return stop.is_set()

    def loop(_stop: threading.Event) -> None:
        raise ValueError("still broken")

    monkeypatch.setattr(stop, "wait", wait)

    work.keep_running("sample", loop, stop)

    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_it_runs_loops_beside_each_other_and_ends_when_asked(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)

    def loop(stop: threading.Event) -> None:
        together.wait(timeout=10)
        stop.set()

    monkeypatch.setattr(work, "find", lambda _name: loop)

    assert work.work(["one", "two"], stop)


def test_it_reports_a_loop_that_does_not_stop(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(work, "STOPPED_WITHIN_S", 0.05)
    released = threading.Event()

    def deaf(stop: threading.Event) -> None:
        stop.set()
        released.wait(10)

    monkeypatch.setattr(work, "find", lambda _name: deaf)

    assert not work.work(["sample"], stop)
    released.set()


@pytest.mark.parametrize("name", sorted(work.LOOPS))
def test_it_finds_every_loop_it_names(name: str) -> None:
    assert callable(work.find(name))


def test_it_ends_cleanly_on_sigterm() -> None:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "work", "clock"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        while "working: clock" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 0, said

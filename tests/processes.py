"""Nearcast's other processes for tests that must cross them: workers and the FCM emulator.

They work on the test database, so rows must be committed: ask for `transactional_db`. Whatever a
test starts with `running` is gone when it ends, however it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from tests.live_server import ROOT, database_url, free_port

START_S = 40.0
T = TypeVar("T")


class Program:
    """A running process of ours; what it says is kept for the test that fails."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)

    def kill(self) -> None:
        """As a power cut would: the process and all it started, without a word."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


def until(found: Callable[[], T], what: str, *, within_s: float = 30.0) -> T:
    """The first truthy answer of `found`; fails when none comes in time."""
    deadline = time.monotonic() + within_s
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        threading.Event().wait(0.05)


@contextmanager
def running(*command: str, **environment: str) -> Iterator[Program]:
    program = Program(command, {"DATABASE_URL": database_url(), **environment})
    try:
        yield program
    finally:
        program.end()


@contextmanager
def workers(*names: str, emulator_url: str = "") -> Iterator[Program]:
    """One process with these loops, already working."""
    with running("manage.py", "work", *names, FCM_EMULATOR_URL=emulator_url) as program:
        until(
            lambda: any("working:" in line for line in program.said) or program.process.poll(),
            f"{names} are working",
            within_s=START_S,
        )
        assert program.process.poll() is None, "".join(program.said)
        yield program


class Emulator:
    """The FCM emulator as a test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url)

    def pushes(self, token: str) -> list[dict[str, Any]]:
        """What arrived for a push token, newest first."""
        found: list[dict[str, Any]] = self._messages(token=token)
        return found

    def all_pushes(self) -> dict[str, list[dict[str, Any]]]:
        """What arrived, by push token."""
        found: dict[str, list[dict[str, Any]]] = {}
        for push in self._messages():
            found.setdefault(push["token"], []).append(push)
        return found

    def in_flight(self) -> int:
        """How many requests it has taken and not answered yet."""
        stats = self._client.get("/messages", params={"limit": 0}).json()["stats"]
        found: int = stats["in_flight"]
        return found

    def _messages(self, **wanted: str) -> Any:
        return self._client.get("/messages", params=wanted).json()["results"]

    def answers(self) -> bool:
        try:
            return self._client.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self._client.close()


@contextmanager
def emulator(*, latency_ms: int = 5) -> Iterator[Emulator]:
    """An emulator on a free port, answering."""
    port = free_port()
    told = ("--port", str(port), "--latency-ms", str(latency_ms))
    with running("-m", "notifications.emulator", *told):
        found = Emulator(f"http://127.0.0.1:{port}")
        try:
            until(found.answers, "the emulator answers", within_s=START_S)
            yield found
        finally:
            found.close()

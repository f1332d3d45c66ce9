"""The emulator as a process of its own, on a free port; and an ear for what is announced."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import trustme
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEmulator:
    """An emulator that a test may push to, look into and configure."""

    url: str
    pid: int
    ca: Path | None = None

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        trusted = ssl.create_default_context(cafile=self.ca) if self.ca else True
        with httpx.Client(base_url=self.url, verify=trusted) as client:
            return client.request(method, path, **options)

    def messages(self, token: str | None = None) -> list[dict[str, Any]]:
        params = {"token": token} if token else {}
        answer: list[dict[str, Any]] = self.call("GET", "/messages", params=params).json()[
            "results"
        ]
        return answer

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", "/messages", params={"limit": 0}).json()["stats"]
        return found

    def configure(self, **settings: int) -> None:
        self.call("PUT", "/settings", json=settings).raise_for_status()

    def forget(self) -> None:
        self.call("DELETE", "/messages").raise_for_status()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_emulator(*options: str, ca: Path | None = None) -> Iterator[RunningEmulator]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "notifications.emulator", "--port", str(port), *options],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    scheme = "https" if ca else "http"
    running = RunningEmulator(url=f"{scheme}://127.0.0.1:{port}", pid=process.pid, ca=ca)
    try:
        wait_until_up(running, process)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=10)


def wait_until_up(running: RunningEmulator, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None, "the emulator ended at once"
        try:
            running.call("GET", "/healthz").raise_for_status()
            return
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the emulator does not answer"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def emulator_process() -> Iterator[RunningEmulator]:
    yield from start_emulator("--latency-ms", "5", "--slow-ms", "400", "--retry-after-s", "7")


@pytest.fixture
def emulator(emulator_process: RunningEmulator) -> Iterator[RunningEmulator]:
    while emulator_process.stats()["in_flight"]:  # what the last test gave up
        time.sleep(0.02)
    emulator_process.forget()
    yield emulator_process
    emulator_process.configure(latency_ms=5, slow_ms=400, retry_after_s=7)


@pytest.fixture(scope="session")
def tls_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEmulator]:
    """The emulator over TLS, where HTTP/2 is negotiated as with Google."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    yield from start_emulator(
        "--latency-ms",
        "5",
        "--tls-cert",
        str(folder / "cert.pem"),
        "--tls-key",
        str(folder / "key.pem"),
        ca=folder / "ca.pem",
    )


@pytest.fixture
def listening() -> Iterator[Any]:
    """What is announced from now on: a function that returns (channel, payload) pairs."""
    settings = connection.get_connection_params()
    known = {"host", "port", "user", "password", "dbname"}
    parameters = {name: value for name, value in settings.items() if name in known}
    with psycopg.connect(**parameters, autocommit=True) as raw:
        raw.execute("LISTEN nearcast_offers")
        raw.execute("LISTEN nearcast_deliveries")
        raw.execute("LISTEN the_last_word")

        def heard() -> list[tuple[str, str]]:
            # What was committed before this word is heard before it.
            raw.execute("NOTIFY the_last_word")
            notes = raw.notifies(timeout=START_TIMEOUT_S)
            before = takewhile(lambda note: note.channel != "the_last_word", notes)
            return [(note.channel, note.payload) for note in before]

        yield heard

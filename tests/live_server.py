"""A web server of its own for tests that must cross real sockets, on a free port.

`live_web` serves the test database, so a test that uses it asks for `transactional_db` as well:
rows must be committed to be seen from another process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from django.conf import settings

from config import processes

ROOT = Path(__file__).resolve().parents[1]
START_S = 90.0  # where other work keeps the machine busy
ONLY_WHEN_TOLD = "3600"  # a server that looked again by itself would hide a message that is lost


@dataclass(slots=True, kw_only=True)
class LiveWeb:
    """A running server; `database_url` is what any further process of the test should use."""

    base_url: str
    ws_url: str
    database_url: str
    process: subprocess.Popen[bytes]


def database_url() -> str:
    """The test database as an environment variable says it."""
    told = settings.DATABASES["default"]
    user, password, host = (quote(str(told[key]), safe="") for key in ("USER", "PASSWORD", "HOST"))
    return f"postgis://{user}:{password}@{host}:{told['PORT'] or 5432}/{told['NAME']}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_web(*, workers: int = 1, environment: dict[str, str] | None = None) -> LiveWeb:
    """Start a server as `make run` does and wait until it is ready; `stop_web` ends it."""
    port = free_port()
    url = database_url()
    process = subprocess.Popen(
        processes.web(host="127.0.0.1", port=port, workers=workers).command,
        cwd=ROOT,
        env=os.environ
        | {"DATABASE_URL": url, "NEARCAST_LOOK_AGAIN_S": ONLY_WHEN_TOLD}
        | (environment or {}),
    )
    web = LiveWeb(
        base_url=f"http://127.0.0.1:{port}",
        ws_url=f"ws://127.0.0.1:{port}",
        database_url=url,
        process=process,
    )
    try:
        _wait_until_ready(web)
    except BaseException:
        stop_web(web)
        raise
    return web


def _wait_until_ready(web: LiveWeb) -> None:
    until = time.monotonic() + START_S
    said = "nothing"
    with httpx.Client(base_url=web.base_url, timeout=10) as client:
        while time.monotonic() < until:
            assert web.process.poll() is None, "the server ended while starting"
            try:
                answer = client.get("/readyz")
                if answer.is_success:
                    return
                said = answer.text
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise AssertionError(f"the server was not ready within {START_S} s; it said {said}")


def stop_web(web: LiveWeb, *, how: signal.Signals = signal.SIGTERM) -> int:
    """End a server and answer its exit status; one that does not end is killed."""
    web.process.send_signal(how)
    try:
        return web.process.wait(10)
    except subprocess.TimeoutExpired:
        web.process.kill()
        return web.process.wait()


@pytest.fixture(scope="session")
def live_web(django_db_setup: None) -> Iterator[LiveWeb]:
    """One server for all tests of the session that need a real one."""
    web = start_web()
    yield web
    stop_web(web)

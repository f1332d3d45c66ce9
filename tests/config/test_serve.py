"""The web processes as a server starts them: their sockets, their ends, their successors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from uvicorn.supervisors import multiprocess

from config.serve import Workers, configuration
from tests.live_server import ROOT, database_url, free_port
from tests.processes import Program, running, until

pytestmark = pytest.mark.django_db(transaction=True)


def workers_of(web: Program) -> set[int]:
    """The processes that serve; uvicorn has one more that keeps their resources."""
    found = Path(f"/proc/{web.process.pid}/task/{web.process.pid}/children").read_text().split()
    return {int(each) for each in found if b"spawn_main" in _command(each)}


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).is_success
    except httpx.TransportError:
        return False


def test_it_gives_each_worker_a_socket_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    port = free_port()
    workers = Workers(configuration(host="127.0.0.1", port=port, workers=2), sockets=[])
    sockets = [*workers.sockets, *workers.sockets]
    assert len({each.fileno() for each in sockets}) == 2
    assert [each.getsockname() for each in sockets] == [("127.0.0.1", port)] * 2
    for each in sockets:
        each.close()


def die_when_asked(line: Connection) -> None:
    line.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_waits_for_no_answer_of_a_worker_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    workers = Workers(configuration(host="127.0.0.1", port=free_port(), workers=1), sockets=[])
    workers.config.timeout_worker_healthcheck = 3_600
    worker, successor = multiprocess.Process(workers.config, []), Mock()
    worker.process = multiprocessing.get_context("spawn").Process(
        target=die_when_asked, args=(worker.child_conn,)
    )
    worker.start()
    workers.processes = [worker]
    monkeypatch.setattr(Workers, "sockets", property(lambda _: []))
    monkeypatch.setattr(multiprocess, "Process", lambda *_: successor)

    workers.keep_subprocess_alive()

    assert workers.processes == [successor]
    assert worker.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_says_who_has_the_port(workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "config.serve", "--port", port, "--workers", workers],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database_url()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr.lower()


def test_it_replaces_a_killed_worker_and_leaves_none_behind_when_it_is_killed() -> None:
    port = free_port()
    with running("-m", "config.serve", "--port", str(port), "--workers", "2") as web:
        until(lambda: is_ready(port), "it is ready", within_s=90)
        first, other = sorted(until(lambda: workers_of(web), "it has workers"))

        os.kill(first, signal.SIGKILL)
        until(lambda: len(workers_of(web) - {first, other}) == 1, "one follows")
        assert other in workers_of(web)
        until(lambda: is_ready(port), "it goes on")

        os.kill(web.process.pid, signal.SIGKILL)
        until(lambda: not is_listening(port), "its workers ended with it")

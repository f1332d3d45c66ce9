"""A database and a server of their own for the benchmarks of the road, gone when they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

ROOT = Path(__file__).resolve().parent.parent
DATABASE = "nearcast_bench"
UP_WITHIN_S = 120.0
# A benchmark is no phone: limits for phones are out of the way, everything else is as shipped.
UNLIMITED = {"NEARCAST_RATE_PER_DEVICE": "1000000", "NEARCAST_RATE_BURST": "1000000"}


def database_url(name: str = DATABASE) -> str:
    """DATABASE_URL with another database."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    return urlunsplit(parts._replace(path=f"/{name}"))


def connect(name: str = DATABASE) -> psycopg.Connection[Any]:
    url = database_url(name).replace("postgis://", "postgresql://")
    return psycopg.connect(url, autocommit=True)


def make_database() -> None:
    """A fresh, migrated database; DATABASE_URL of this process points at it from here on."""
    home = urlsplit(os.environ["DATABASE_URL"]).path.lstrip("/")
    with connect(home) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{DATABASE}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{DATABASE}"')
    os.environ["DATABASE_URL"] = database_url()
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ.update(UNLIMITED)
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from datetime import UTC, datetime

    from devices import retention

    retention.keep(now=datetime.now(UTC))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def web(*, environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """A web server on a free port: its host:port, and the id of its (first) worker process."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "granian", "--interface", "asgi", "--loop", "uvloop"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backlog", "4096", "--no-log", "config.asgi:application"),
        ],
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        start_new_session=True,
    )
    try:
        _wait_until_ready(process, port)
        yield f"127.0.0.1:{port}", worker_of(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def workers(*loops: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`manage.py work` with the named loops."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "work", *loops], cwd=ROOT, env=os.environ | dict(environment)
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("the server ended while starting")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not get ready")


def worker_of(parent: int) -> int:
    """A child of granian's main process, or itself where it has none."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[0]) if children else parent


def memory_kb(process: int) -> int:
    """Resident memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])

"""A database and a server of their own for the benchmarks of the road, gone when they end."""

from __future__ import annotations

import hashlib
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
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from config import processes, run

ROOT = Path(__file__).resolve().parent.parent
DATABASE = "nearcast_bench"
UP_WITHIN_S = 120.0
READY_IN_A_ROW = 12
# A benchmark is no phone: limits for phones are out of the way, everything else is as shipped.
UNLIMITED = {"NEARCAST_RATE_PER_DEVICE": "1000000", "NEARCAST_RATE_BURST": "1000000"}


def database_url(name: str = DATABASE) -> str:
    """DATABASE_URL with another database."""
    parts = urlsplit(os.environ["DATABASE_URL"])
    return urlunsplit(parts._replace(path=f"/{name}"))


def connect(name: str = "") -> psycopg.Connection[Any]:
    """To the database of DATABASE_URL, or to another one of its cluster."""
    url = database_url(name) if name else os.environ["DATABASE_URL"]
    return psycopg.connect(url.replace("postgis://", "postgresql://"), autocommit=True)


def make_database(name: str = DATABASE) -> None:
    """A fresh, migrated database; DATABASE_URL of this process points at it from here on.

    It is a copy of one that is migrated once and kept until there are other migrations.
    """
    home = urlsplit(os.environ["DATABASE_URL"]).path.lstrip("/")
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    os.environ.update(UNLIMITED)
    with connect(home) as connection:
        names = "SELECT datname FROM pg_database WHERE datname = %s OR starts_with(datname, %s)"
        there = {row[0] for row in connection.execute(names, (name, f"{DATABASE}_model_"))}
        model = f"{DATABASE}_model_{_migrations()}"
        if model not in there:
            connection.execute(_sql("CREATE DATABASE {}", model))
            _migrate(model)
        for old in there - {model}:
            connection.execute(_sql("DROP DATABASE {} WITH (FORCE)", old))
        connection.execute(_sql("CREATE DATABASE {} TEMPLATE {}", name, model))
    os.environ["DATABASE_URL"] = database_url(name)
    import django

    django.setup()
    from datetime import UTC, datetime

    from devices import retention

    retention.keep(now=datetime.now(UTC))


@contextmanager
def copied_database(name: str) -> Iterator[None]:
    """A copy of the database of DATABASE_URL, gone at the end."""
    from django.db import connections

    connections.close_all()  # nobody may be connected to what is copied
    original = urlsplit(os.environ["DATABASE_URL"]).path.lstrip("/")
    with connect("postgres") as connection:
        connection.execute(_sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))
        connection.execute(_sql("CREATE DATABASE {} TEMPLATE {}", name, original))
    try:
        yield
    finally:
        drop_database(name)


@contextmanager
def pointed_at(name: str) -> Iterator[None]:
    """DATABASE_URL names another database: for servers that start now, and for `connect`."""
    before = os.environ["DATABASE_URL"]
    os.environ["DATABASE_URL"] = database_url(name)
    try:
        yield
    finally:
        os.environ["DATABASE_URL"] = before


def drop_database(name: str) -> None:
    """Drop what `make_database` made; DATABASE_URL names another one by now."""
    home = urlsplit(os.environ["DATABASE_URL"]).path.lstrip("/")
    with connect(home) as connection:
        connection.execute(_sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", name))


def _sql(statement: LiteralString, *names: str) -> sql.Composed:
    return sql.SQL(statement).format(*map(sql.Identifier, names))


def _migrations() -> str:
    """A digest of all that makes an empty database."""
    files = sorted(ROOT.glob("*/migrations/*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _migrate(name: str) -> None:
    """In a process of its own, so that no connection holds on to the model."""
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url(name)},
        check=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def web(
    *, workers: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, list[int]]]:
    """A web server on a free port: its host:port, and the ids of its worker processes.

    The command is that of `make run`, and so is the number of workers where none is given.
    """
    port, count = free_port(), workers or run.web_workers()
    process = subprocess.Popen(
        processes.web(host="127.0.0.1", port=port, workers=count).command,
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        start_new_session=True,
    )
    try:
        _wait_until_ready(process, port)
        yield f"127.0.0.1:{port}", _children(process.pid) or [process.pid]
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
        [sys.executable, "manage.py", "work", *loops],
        cwd=ROOT,
        env=os.environ | dict(environment),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Until it says so many times in a row: any of its workers may answer."""
    until, in_a_row = time.monotonic() + UP_WITHIN_S, 0
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError("the server ended while starting")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                in_a_row += 1
        except OSError:
            in_a_row = 0
            time.sleep(0.1)
        if in_a_row == READY_IN_A_ROW:
            return
    raise RuntimeError("the server did not get ready")


def _children(parent: int) -> list[int]:
    return [
        int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]


def wait_until_idle() -> None:
    """Until nothing is under way: what a load left half done is not the next one's to wait for."""
    busy = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state <> 'idle'"
    )
    until, in_a_row = time.monotonic() + UP_WITHIN_S, 0
    with connect() as connection:
        while in_a_row < READY_IN_A_ROW and time.monotonic() < until:
            found = connection.execute(busy).fetchone()
            in_a_row = in_a_row + 1 if found == (1,) else 0  # this one asks
            time.sleep(0.05)


def memory_kb(*processes: int) -> int:
    """Resident memory of all of them."""
    statuses = [Path(f"/proc/{each}/status").read_text() for each in processes]
    return sum(int(status.split("VmRSS:")[1].split()[0]) for status in statuses)

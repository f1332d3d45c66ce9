"""The private cluster, made for real in a throw-away checkout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from config import postgres
from config.cluster import LONGEST_SOCKET_PATH, Cluster

KEPT = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'nearcast'"
SOURCES = Path(__file__).resolve().parents[2] / "config"


class Checkout:
    """A folder with just enough of the project to have a cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "config").mkdir(parents=True)
        for name in ("__init__.py", "cluster.py", "postgres.py", "proc.py"):
            shutil.copy(SOURCES / name, folder / "config" / name)

    def order(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
        return subprocess.run(
            [sys.executable, "-m", "config.cluster", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def query(self, statement: str) -> str:
        """Ask the running cluster one value."""
        url = self.order("url").stdout.strip().replace("postgis:", "postgresql:")
        with psycopg.connect(url, autocommit=True) as connection:
            answer = connection.execute(statement.encode())
            row = answer.fetchone() if answer.description else None
        return str(row[0]) if row else ""

    def log(self) -> Path:
        return Path(self.query("SHOW data_directory")).parent / "postgres.log"

    def is_running(self) -> bool:
        return self.order("status").stdout.strip().endswith("runs")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Deep enough that its socket would not fit there, and open to root's stand-in."""
    base = tmp_path_factory.mktemp("a-checkout-in-a-folder-with-a-name-so-long-that-no-socket-fits")
    checkout = Checkout(base / "nearcast")
    yield checkout
    gone = checkout.order("destroy")
    assert gone.returncode == 0, gone.stderr


@pytest.fixture
def running(checkout: Checkout) -> Checkout:
    started = checkout.order("start")
    assert started.returncode == 0, started.stderr
    return checkout


def test_it_has_postgis(running: Checkout) -> None:
    assert running.query("SELECT ST_AsText(ST_Point(1, 2))") == "POINT(1 2)"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("listen_addresses", ""),
        ("jit", "off"),
        ("TimeZone", "UTC"),
    ],
)
def test_it_is_durable_private_and_tuned(running: Checkout, setting: str, value: str) -> None:
    assert running.query(f"SELECT current_setting('{setting}')") == value


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT %s FROM pg_sleep(2.1)", None),  # slow, with a parameter
        ("SELECT '{}' FROM pg_sleep(2.1)", None),  # slow, and written out, as Django's are
        ("SELECT '{}' FROM nowhere", psycopg.errors.UndefinedTable),
        ("SELECT %s::text::int", psycopg.errors.InvalidTextRepresentation),
        ("INSERT INTO people VALUES (%s)", psycopg.errors.UniqueViolation),
        ("INSERT INTO people VALUES (left(%s, -1))", psycopg.errors.CheckViolation),
    ],
)
def test_its_log_tells_nothing_of_people(
    running: Checkout, statement: str, error: type[Exception] | None
) -> None:
    somebody = "anna@example.org"
    log = running.log()
    url = running.order("url").stdout.strip().replace("postgis:", "postgresql:")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE people (name text UNIQUE CHECK (name LIKE '%org'))")
        connection.execute("INSERT INTO people VALUES (%s)", (somebody,))
        params = (somebody,) if "%s" in statement else None
        with pytest.raises(error) if error else nullcontext():
            connection.execute(statement.format(somebody).encode(), params)

    assert "anna" not in log.read_text()
    assert log.stat().st_size > 0


def test_its_log_tells_who_waits_for_a_lock_without_what_they_write(running: Checkout) -> None:
    url = running.order("url").stdout.strip().replace("postgis:", "postgresql:")
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url) as other:
        one.execute("CREATE TABLE waited (name text); INSERT INTO waited VALUES ('')")
        one.execute("SET lock_timeout = '2s'")
        other.execute("LOCK waited")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            one.execute("UPDATE waited SET name = 'anna@example.org'")
    running.query("DROP TABLE waited")

    told = running.log().read_text()
    assert "still waiting for RowExclusiveLock" in told
    assert "anna" not in told


def test_it_puts_a_long_log_aside(running: Checkout) -> None:
    log = running.log()
    running.order("stop")
    with log.open("a") as file:
        file.write("x" * 10_000_001)
    running.order("start")

    assert log.stat().st_size < 10_000
    assert log.with_name("postgres.old.log").stat().st_size > 10_000_000


def test_it_asks_for_the_password(running: Checkout) -> None:
    url = running.order("url").stdout.strip().replace("postgis:", "postgresql:")
    secret = url.split("@")[0].rsplit(":", 1)[1]

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(secret, "guessed"))


def test_it_keeps_its_rows_over_a_stop_and_a_kill(running: Checkout) -> None:
    running.query("COMMENT ON DATABASE nearcast IS 'kept'")
    postmaster = int(running.query("SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)"))

    os.kill(postmaster, signal.SIGKILL)
    killed = running.order("start")
    after_the_kill = running.query(KEPT)
    running.order("stop")
    stopped = running.is_running()
    running.order("start")

    assert killed.returncode == 0, killed.stderr
    assert after_the_kill == running.query(KEPT) == "kept"
    assert not stopped


def test_it_stops_with_the_last_one_who_holds_it(running: Checkout) -> None:
    running.order("stop")

    held = running.order(
        "hold", sys.executable, "-c", "import os; print(os.environ['DATABASE_URL'])"
    )

    assert held.stdout.startswith("postgis://")
    assert not running.is_running()


def test_it_stays_when_it_was_started_to_stay(running: Checkout) -> None:
    running.order("hold", "true")

    assert running.is_running()


def test_it_gives_the_status_of_what_it_held_for(checkout: Checkout) -> None:
    assert checkout.order("hold", "sh", "-c", "exit 3").returncode == 3


def test_it_leaves_the_original_alone_when_a_checkout_is_copied(
    running: Checkout, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(running.folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".s.PGSQL*"))
    twin = Checkout.__new__(Checkout)
    twin.folder = copy

    twin.order("stop")
    twin.order("destroy")

    assert running.is_running()


def test_it_starts_afresh_after_an_interrupted_making(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "interrupted")
    home = checkout.folder / ".nearcast" / "postgres"
    (home / "data.making").mkdir(parents=True)
    (home / "nearcast.json").write_text(json.dumps({"checkout": str(checkout.folder)}))

    started = checkout.order("hold", "true")
    checkout.order("destroy")

    assert started.returncode == 0, started.stderr


def test_it_never_takes_a_folder_it_did_not_make(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "foreign")
    data = checkout.folder / ".nearcast" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15")

    refused = checkout.order("start")

    assert refused.returncode == 1
    assert "is not recorded" in refused.stderr
    assert (data / "PG_VERSION").read_text() == "15"


@pytest.mark.parametrize("depth", [1, 5, 20])
def test_it_never_needs_a_socket_path_too_long_for_the_system(depth: int) -> None:
    cluster = Cluster(home=Path("/home/somebody/" + "nearcast/" * depth), password="x")

    assert len(str(cluster.socket_lock)) <= LONGEST_SOCKET_PATH


@pytest.mark.parametrize("memory_gib", [1, 2, 8, 24, 512])
def test_it_never_takes_more_than_a_quarter_of_the_memory(
    memory_gib: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(postgres, "memory_bytes", lambda: memory_gib * postgres.GIB)
    binaries = postgres.programs(tmp_path)

    settings = postgres.settings_for(binaries, tmp_path)

    shared_mb = int(settings["shared_buffers"].removesuffix("MB"))
    assert shared_mb <= memory_gib * 1024 / 4
    assert shared_mb <= 4096

"""Makes, starts and stops this checkout's private PostGIS cluster; never touches any other one.

Standard library only: it runs before the virtual environment exists.  It listens on a Unix socket
and on no port, so that checkouts never collide and nothing is reachable from the network.
"""

import argparse
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from config import proc
from config.postgres import (
    DISCREET,
    PostgresError,
    give_to_server,
    may_enter,
    programs,
    run,
    server_user,
    settings_for,
)

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".nearcast"
RECORD = STATE / "cluster.json"
LOCK = STATE / "cluster.lock"
PINNED = STATE / "cluster.pinned"
# Where root keeps the cluster when no other user may enter the checkout (one under /root).
ELSEWHERE = Path("/var/lib/nearcast")
MARKER = "nearcast.json"
ROLE = DATABASE = "nearcast"
# Only part of the socket's file name, as nothing listens on TCP.
PORT = 5432
# sockaddr_un.sun_path holds 108 bytes on Linux (104 on macOS), the closing zero included.
LONGEST_SOCKET_PATH = 103
START_TIMEOUT_S = 120
LOG_BYTES = 10_000_000  # a longer log is put aside at the next start, over the one before
KILLED_WITHIN_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One private cluster: `home` holds its data, its log and, if the path is short, its socket."""

    home: Path
    password: str

    @property
    def data(self) -> Path:
        """The data directory, as `initdb` made it."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.home / "postgres.log"

    @property
    def socket_folder(self) -> Path:
        """The folder of the socket: `home`, or a short one when `home` is too deep for a socket."""
        longest = self.home / f".s.PGSQL.{PORT}.lock"
        if len(os.fsencode(longest)) <= LONGEST_SOCKET_PATH:
            return self.home
        return Path("/run" if os.geteuid() == 0 else "/tmp") / f"nearcast-{digest(self.home)}"  # noqa: S108  its owner is checked

    @property
    def socket_lock(self) -> Path:
        """The file beside the socket that names the server's process."""
        return self.socket_folder / f".s.PGSQL.{PORT}.lock"

    @property
    def url(self) -> str:
        """The address for `DATABASE_URL`."""
        host = quote(str(self.socket_folder), safe="")
        return f"postgis://{ROLE}:{self.password}@{host}:{PORT}/{DATABASE}"


def digest(path: Path) -> str:
    """Return a short name for a path, the same at every call."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def make_home() -> Path:
    """Make the folder of a new cluster where the server's user can reach it."""
    home = STATE / "postgres"
    if (home / MARKER).exists() and not (home / "data").exists():
        shutil.rmtree(home)  # ours, and interrupted before it was ready
    if home.exists():
        raise PostgresError(f"{home} is not recorded in {RECORD}; move it away to start afresh")
    home.mkdir(mode=0o700)
    give_to_server(home)
    if may_enter(server_user(), home):
        return home
    home.rmdir()
    ELSEWHERE.mkdir(exist_ok=True)
    ELSEWHERE.chmod(0o755)
    elsewhere = ELSEWHERE / f"{digest(ROOT)}-{secrets.token_hex(3)}"
    elsewhere.mkdir(mode=0o700)
    give_to_server(elsewhere)
    return elsewhere


def make() -> Cluster:
    """Make a new, empty, tuned cluster for this checkout and record it."""
    binaries = programs(STATE / "none")
    cluster = Cluster(home=make_home(), password=secrets.token_urlsafe(24))
    mark(cluster)
    password_file = cluster.home / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(cluster.password)
    give_to_server(password_file)
    draft = cluster.data.with_suffix(".making")
    run(
        *(binaries / "initdb", "-D", draft, "-U", ROLE, "--encoding=UTF8"),
        "--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C",
        *("--auth=scram-sha-256", f"--pwfile={password_file}"),
    )
    password_file.unlink()
    lines = [f"{name} = {value}" for name, value in settings_for(binaries, draft).items()]
    lines.append(f"port = {PORT}")
    conf = draft / "postgresql.auto.conf"
    conf.write_text("\n".join([f"# Written by {Path(__file__).name}.", *lines, ""]))
    (draft / "pg_hba.conf").write_text("local all all scram-sha-256\n")
    draft.rename(cluster.data)
    remember(cluster)
    return cluster


def mark(cluster: Cluster) -> None:
    """Say beside the cluster which checkout it belongs to."""
    marker = cluster.home / MARKER
    marker.write_text(json.dumps({"checkout": str(ROOT)}))
    give_to_server(marker)


def remember(cluster: Cluster) -> None:
    """Record where the cluster is, relative to a checkout that may be moved."""
    inside = cluster.home.is_relative_to(ROOT)
    home = cluster.home.relative_to(ROOT) if inside else cluster.home
    record = asdict(cluster) | {"home": str(home)}
    draft = RECORD.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(record, indent=2) + "\n")
    draft.replace(RECORD)


def make_socket_folder(cluster: Cluster) -> None:
    """Have the socket's folder, and nobody else's of that name."""
    folder = cluster.socket_folder
    if folder == cluster.home:
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid not in {
        os.geteuid(),
        cluster.data.stat().st_uid,
    }:
        raise PostgresError(f"{folder} belongs to somebody else; remove it")
    give_to_server(folder)


def recorded() -> Cluster | None:
    """Return this checkout's cluster if there is one.  It follows a checkout that was moved."""
    try:
        record = json.loads(RECORD.read_text())
    except FileNotFoundError:
        return None
    except PermissionError as refused:
        raise PostgresError(
            f"{RECORD} belongs to another user: the cluster was made by root; "
            f"go on as root, or `sudo make clean` to start afresh"
        ) from refused
    cluster = Cluster(home=ROOT / record["home"], password=record["password"])
    if not cluster.home.exists():
        return None
    if not cluster.home.is_relative_to(ROOT):
        owner = Path(json.loads((cluster.home / MARKER).read_text())["checkout"])
        if owner != ROOT and (owner / RECORD.relative_to(ROOT)).exists():
            return None  # this checkout is a copy, and the cluster is still the original's
    return cluster


def address() -> str:
    """Return the address of this checkout's cluster, or nothing where none was made."""
    cluster = recorded()
    return cluster.url if cluster else ""


def is_running(cluster: Cluster) -> bool:
    """Say whether the cluster's server answers on its own socket."""
    client = programs(cluster.data) / "pg_isready"
    probe = run(client, "-q", "-h", cluster.socket_folder, "-p", str(PORT), check=False)
    return probe.returncode in (0, 1)


def forget_old_pid(cluster: Cluster) -> None:
    """Drop a pid file that would keep the server from starting, where that is safe."""
    pid_file = cluster.data / "postmaster.pid"
    try:
        pid, of_data = pid_file.read_text().splitlines()[:2]
    except (FileNotFoundError, ValueError):
        return
    if Path(of_data).resolve() != cluster.data.resolve():
        pid_file.unlink()  # a copied folder brought it along: it names the original's server
        return
    if proc.wait_for_end([int(pid)], within_s=KILLED_WITHIN_S):
        return  # somebody else has that number by now, PostgreSQL sees to it
    # A killed server keeps its number until init buries it, which some containers' init never does.
    # Its children must be gone too: they are the ones who would write to the same files.
    left = proc.wait_for_end(proc.working_in(cluster.data), within_s=START_TIMEOUT_S)
    if proc.is_there(int(pid)) and not left:
        pid_file.unlink()
        cluster.socket_lock.unlink(missing_ok=True)


def sql(cluster: Cluster, statement: str, *, database: str) -> str:
    """Run one statement and return its first column as text."""
    done = run(
        *(programs(cluster.data) / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1"),
        *("-h", cluster.socket_folder, "-p", str(PORT), "-U", ROLE, "-d", database),
        *("-c", statement),
        env={"PGPASSWORD": cluster.password},
    )
    return done.stdout.strip()


def start() -> tuple[Cluster, bool]:
    """Have the cluster running, made first if need be.  Also return whether it ran already."""
    STATE.mkdir(exist_ok=True)
    with exclusively(LOCK.with_suffix(".starting")):
        cluster = recorded() or make()
        if is_running(cluster):
            return cluster, True
        forget_old_pid(cluster)
        make_socket_folder(cluster)
        mark(cluster)
        if cluster.log.exists() and cluster.log.stat().st_size > LOG_BYTES:
            cluster.log.replace(cluster.log.with_suffix(".old.log"))
        discreetly = " ".join(f"-c {name}={value}" for name, value in DISCREET.items())
        try:
            run(
                *(programs(cluster.data) / "pg_ctl", "start", "-D", cluster.data, "-w", "-s"),
                *("-t", str(START_TIMEOUT_S), "-l", cluster.log),
                *("-o", f"-k '{cluster.socket_folder}' {discreetly}"),
            )
        except PostgresError as failure:
            tail = "\n".join(cluster.log.read_text(errors="replace").splitlines()[-8:])
            raise PostgresError(f"{failure}\nlast lines of {cluster.log}:\n{tail}") from failure
        if not sql(
            cluster,
            f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'",  # noqa: S608  a constant
            database="postgres",
        ):
            sql(cluster, f"CREATE DATABASE {DATABASE}", database="postgres")
        sql(cluster, "CREATE EXTENSION IF NOT EXISTS postgis", database=DATABASE)
        return cluster, False


def stop() -> bool:
    """Stop the cluster's server, letting it write what it must.  Return whether it ran."""
    PINNED.unlink(missing_ok=True)
    cluster = recorded()
    if cluster is None or not is_running(cluster):
        return False
    run(programs(cluster.data) / "pg_ctl", "stop", "-D", cluster.data, "-m", "fast", "-w", "-s")
    return True


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Hold a lock file alone; the system drops it when the process dies, however it dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def held() -> Iterator[Cluster]:
    """Use the cluster; the last one to leave stops it, unless it was started to stay."""
    STATE.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        cluster, _ = start()
        try:
            yield cluster
        finally:
            if not PINNED.exists() and is_last(lock.fileno()):
                stop()


def is_last(lock: int) -> bool:
    """Say whether nobody else holds the cluster."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def destroy() -> None:
    """Stop the cluster and delete it with everything in it."""
    stop()
    cluster = recorded()
    if cluster is not None:
        for folder in {cluster.home, cluster.socket_folder}:
            shutil.rmtree(folder, ignore_errors=True)
    RECORD.unlink(missing_ok=True)


def main() -> int:
    """Obey one order from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    orders = {
        "start": "make it if need be, start it to stay, print its address",
        "stop": "stop it",
        "status": "say whether it runs, where it is",
        "url": "print its address",
        "destroy": "stop it and delete all its data",
        "hold": "start it, run the command that follows with DATABASE_URL set, stop it again",
    }
    parser.add_argument(
        "order", choices=orders, help="; ".join(f"{name}: {what}" for name, what in orders.items())
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="for hold")
    arguments = parser.parse_args()
    try:
        return obey(arguments.order, arguments.command)
    except PostgresError as failure:
        print(f"cluster: {failure}", file=sys.stderr)
        return 1


def obey(order: str, command: list[str]) -> int:
    """Carry out one order and return the exit status."""
    if order == "start":
        began = time.monotonic()
        cluster, ran_already = start()
        PINNED.touch()
        how = "runs already" if ran_already else f"started in {time.monotonic() - began:.1f} s"
        print(f"cluster {cluster.home} {how}", file=sys.stderr)
        print(cluster.url)
        return 0
    if order == "hold":
        if os.environ.get("DATABASE_URL"):
            return subprocess.call(command)
        # A polite kill is to stop the cluster as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with held() as cluster:
            return subprocess.call(command, env=os.environ | {"DATABASE_URL": cluster.url})
    if order == "stop":
        print("cluster stopped" if stop() else "cluster did not run", file=sys.stderr)
        return 0
    if order == "destroy":
        destroy()
        return 0
    recorded_cluster = recorded()
    if recorded_cluster is None:
        print("no cluster has been made in this checkout", file=sys.stderr)
        return 1
    if order == "url":
        print(recorded_cluster.url)
    else:
        state = "runs" if is_running(recorded_cluster) else "is stopped"
        print(f"cluster {recorded_cluster.home} {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

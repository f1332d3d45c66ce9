"""`make run`: prepares this checkout, starts everything, says where it is, stops it on Ctrl-C.

What a process does is not its business; see `config.processes` for which there are.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from config import cluster, launch, proc
from config.postgres import PostgresError
from config.processes import (
    PYTHON,
    ROOT,
    Process,
    crowd,
    emulator,
    supervisor_configuration,
    web,
    workers,
)

STATE = ROOT / ".nearcast"
RUN_LOCK = STATE / "run.lock"
DEMO = STATE / "demo.json"
LOGS = STATE / "log"
READY_WITHIN_S = 300.0
STOPPED_WITHIN_S = 25.0
BEGAN = float(os.environ.get("NEARCAST_BEGAN") or time.time())


class CannotRunError(Exception):
    """Something is missing or failed; the message says what, and what to do."""


class StopRequestedError(Exception):
    """Somebody pressed Ctrl-C, closed the terminal or asked with a polite kill."""


def say(line: str) -> None:
    """Print one line of progress, with the time since the command began."""
    minutes, seconds = divmod(int(time.time() - BEGAN), 60)
    print(f"{minutes:3d}:{seconds:02d}  {line}", flush=True)


def mark() -> str:
    """Return what tells this checkout's processes from any other's."""
    folder = ROOT.stat()
    return f"{folder.st_dev}-{folder.st_ino}"


def free_port(preferred: int, *, host: str) -> int:
    """Return `preferred` or the next port that nobody listens on."""
    for port in range(preferred, preferred + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise CannotRunError(f"ports {preferred} to {preferred + 49} are all taken")


@contextmanager
def alone() -> Iterator[None]:
    """Be the only `make run` of this checkout; the lock goes when this process does."""
    STATE.mkdir(exist_ok=True)
    with RUN_LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            where = lock.read().partition("\n")[2].strip() or "starting up"
            raise CannotRunError(
                f"already running in this checkout ({where}); `make stop` stops it"
            ) from None
        write_lock(str(os.getpid()))
        yield


def write_lock(text: str) -> None:
    """Leave a note for the next `make run` or `make stop`: our process id, then where we answer."""
    RUN_LOCK.write_text(text)


def prepare(environment: Mapping[str, str]) -> None:
    """Bring the database and what it shows up to date."""
    done = subprocess.run(
        [PYTHON, "-m", "config.prepare"],
        check=False,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        tail = done.stdout.strip().splitlines()[-15:]
        raise CannotRunError("\n".join(["cannot prepare the database:", *tail]))
    applied = len(re.findall(r"\.\.\. OK$", done.stdout, re.MULTILINE))
    say(f"{applied} migrations applied" if applied else "Database schema is current")
    if not is_production():
        say("Demo city is loaded")


def start_supervisor(
    processes: list[Process], environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start the supervisor in a session of its own, so that Ctrl-C reaches only us."""
    LOGS.mkdir(exist_ok=True)
    configuration = LOGS / "supervisor.conf"
    configuration.write_text(
        supervisor_configuration(processes, logs=str(LOGS.relative_to(ROOT)), mark=mark())
    )
    return subprocess.Popen(
        [PYTHON, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(configuration)],
        cwd=ROOT,
        env={**environment, proc.MARK: f"{mark()}:supervisor"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until_ready(url: str, supervisor: subprocess.Popen[str]) -> None:
    """Wait for the readiness page; fail with the end of the web server's log."""
    until = time.monotonic() + READY_WITHIN_S
    while not launch.answers(f"{url}/readyz"):
        if supervisor.poll() is not None or time.monotonic() > until:
            log = LOGS / "web.log"
            tail = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
            raise CannotRunError("\n".join(["the web server does not get ready:", *tail]))
        time.sleep(0.1)


def watch(supervisor: subprocess.Popen[str]) -> None:
    """Report each process that crashes, until the supervisor itself ends."""
    assert supervisor.stdout is not None
    for line in supervisor.stdout:
        crashed = re.search(r"exited: (\w+) \((.+); not expected\)", line)
        if crashed:
            name, how = crashed.groups()
            say(f"{name} ended unexpectedly ({how}) and is restarted; see .nearcast/log/{name}.log")
        given_up = re.search(r"gave up: (\w+) ", line)
        if given_up:
            say(f"{given_up.group(1)} does not stay up and is left down; see its log")
    raise CannotRunError(f"the supervisor ended with status {supervisor.wait()}; all is stopped")


def stop_supervisor(supervisor: subprocess.Popen[str]) -> None:
    """End the supervisor and with it every process; then whatever is still there."""
    say("Stopping")
    if supervisor.poll() is None:
        supervisor.terminate()
        try:
            supervisor.communicate(timeout=STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            supervisor.kill()
    sweep()


def sweep() -> int:
    """End every process of this checkout that lost its supervisor; return how many there were."""
    left = list(proc.marked(lambda value: value.startswith(f"{mark()}:")))
    proc.end(left)
    return len(left)


def announce(addresses: Mapping[str, str]) -> None:
    """Write the addresses beside the demo's keys and print all of them."""
    demo = json.loads(DEMO.read_text()) if DEMO.exists() else {}
    demo.update(addresses)
    draft = DEMO.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(demo, indent=2) + "\n")
    draft.replace(DEMO)
    print()
    for label, key in (
        ("API", "base_url"),
        ("Admin", "admin_url"),
        ("Live map", "live_url"),
        ("Socket", "ws_url"),
        ("Emulator", "emulator_url"),
        ("App key", "app_key"),
        ("Server key", "server_key"),
    ):
        if demo.get(key):
            print(f"  {label:<12} {demo[key]}")
    for person in demo.get("staff", []):
        print(f"  {'Log in':<12} {person['username']} / {person['password']} ({person['role']})")
    print(
        "\n  All of this is in .nearcast/demo.json, the logs in .nearcast/log/. Ctrl-C stops.\n",
        flush=True,
    )


def web_workers() -> int:
    """Return how many processes answer requests: one a core, as far as that helps."""
    return int(os.environ.get("NEARCAST_WEB_WORKERS") or min(os.cpu_count() or 1, 4))


@contextmanager
def database() -> Iterator[str]:
    """Have a database: the one of `DATABASE_URL`, else this checkout's own, for as long as used."""
    given = os.environ.get("DATABASE_URL", "")
    if given or is_production():
        say("Using the database of DATABASE_URL")
        yield given
        return
    is_new = cluster.recorded() is None
    if is_new:
        say("Making a private PostGIS cluster")
    with cluster.held() as held:
        say(f"PostGIS is up: {held.home}")
        try:
            yield held.url
        finally:
            say("Leaving the database; everything in it is kept")


def is_production() -> bool:
    """Say whether this is the real thing: then nothing is made up, neither data nor Firebase."""
    return os.environ.get("NEARCAST_ENV") == "production"


def plan(host: str, port: int) -> tuple[list[Process], dict[str, str]]:
    """Return what to run, and the addresses it will have."""
    reached_at = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    base_url = f"http://{reached_at}:{port}"
    processes = [web(host=host, port=port, workers=web_workers()), *workers(base_url=base_url)]
    addresses = {
        "base_url": base_url,
        "ws_url": base_url.replace("http", "ws", 1) + "/v1/stream",
        "admin_url": f"{base_url}/admin/",
        "live_url": f"{base_url}/admin/live/",
    }
    if is_production():
        return processes, addresses
    emulator_url = os.environ.get("FCM_EMULATOR_URL", "")
    if not emulator_url and not os.environ.get("FIREBASE_CREDENTIALS"):
        emulator_port = free_port(9099, host="127.0.0.1")
        processes.insert(0, emulator(port=emulator_port))
        emulator_url = f"http://127.0.0.1:{emulator_port}"
    processes.append(crowd(base_url=base_url))
    addresses["emulator_url"] = emulator_url
    return processes, addresses


def run() -> None:
    """Start everything and stay until told to stop."""
    host = os.environ.get("NEARCAST_HOST", "127.0.0.1")
    with alone():
        left = sweep()
        if left:
            say(f"Ended {left} processes that an earlier, killed run left behind")
        with database() as database_url:
            environment = {**os.environ, "DATABASE_URL": database_url}
            prepare(environment)
            # Only now, as somebody else may take a port while the database is prepared.
            port = free_port(int(os.environ.get("NEARCAST_PORT") or 8000), host=host)
            processes, addresses = plan(host, port)
            addresses["database_url"] = database_url
            if addresses.get("emulator_url"):
                environment["FCM_EMULATOR_URL"] = addresses["emulator_url"]
            say(f"Starting {', '.join(process.name for process in processes)}")
            supervisor = start_supervisor(processes, environment)
            try:
                wait_until_ready(addresses["base_url"], supervisor)
                write_lock(f"{os.getpid()}\n{addresses['base_url']}\n")
                say("Ready")
                announce(addresses)
                watch(supervisor)
            finally:
                stop_supervisor(supervisor)


def stop() -> None:
    """Stop the `make run` of this checkout from elsewhere, or what is left of a killed one."""
    try:
        with alone():
            left = sweep()
        say(
            f"It does not run; ended {left} processes it had left behind" if left else "Not running"
        )
        if cluster.RECORD.exists() and cluster.stop():
            say("Stopped the database; everything in it is kept")
    except CannotRunError:
        pid = int(RUN_LOCK.read_text().split()[0])
        say(f"Stopping process {pid}")
        os.kill(pid, signal.SIGTERM)
        proc.wait_for_end([pid], within_s=STOPPED_WITHIN_S * 2)
        say("Stopped")


def request_stop(_signal: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, once: what follows is the stopping itself."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise StopRequestedError


def main() -> int:
    """Run or stop; return the exit status."""
    parser = argparse.ArgumentParser(description="Run Nearcast's demonstration in this checkout.")
    parser.add_argument("order", nargs="?", choices=("run", "stop"), default="run")
    order = parser.parse_args().order
    try:
        if order == "stop":
            stop()
            return 0
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, request_stop)
        run()
    except StopRequestedError:
        say("Stopped; `make run` goes on where it was")
    except (CannotRunError, PostgresError) as failure:
        say(str(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

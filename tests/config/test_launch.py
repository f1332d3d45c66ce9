"""What a killed supervisor leaves behind is found and ended, and nothing else is."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from supervisor.options import ServerOptions

from config import proc, work
from config.proc import MARK
from config.processes import LOOPS, Process, supervisor_configuration

ROOT = Path(__file__).resolve().parents[2]
WAIT = "import signal; print('up', flush=True); signal.pause()"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a marked process and wait until it is up."""
    with ExitStack() as stack:

        def begin(mark: str, *command: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                command or [sys.executable, "-c", WAIT],
                env=os.environ | {MARK: mark},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            return process

        yield begin


def launch_command(after: str, *command: str) -> list[str]:
    return [sys.executable, "-m", "config.launch", after, *command]


def test_it_ends_the_predecessor_of_its_own_name_only(start: Start) -> None:
    predecessor = start("checkout:web")
    neighbour = start("checkout:clock")
    elsewhere = start("other:web")

    start("checkout:web", *launch_command("", sys.executable, "-c", WAIT))

    assert predecessor.wait() == -signal.SIGTERM
    assert neighbour.poll() is None
    assert elsewhere.poll() is None


def test_it_ends_even_what_will_not_listen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "GRACE_S", 0.2)
    deaf = start(
        "checkout:deaf",
        sys.executable,
        "-c",
        f"import signal; signal.signal(15, signal.SIG_IGN); {WAIT}",
    )

    proc.end([deaf.pid])

    assert deaf.wait() == -signal.SIGKILL


def test_it_finds_every_process_of_a_checkout(start: Start) -> None:
    ours = {start("here:web").pid, start("here:clock").pid}
    start("elsewhere:web")

    assert set(proc.marked(lambda mark: mark.startswith("here:"))) == ours


def test_it_ends_with_its_supervisor(start: Start) -> None:
    command = launch_command("", sys.executable, "-c", WAIT)
    supervisor = start(
        "mortal:supervisor",
        sys.executable,
        "-c",
        f"import os, signal, subprocess; os.environ['{MARK}'] = 'mortal:web';"
        f"subprocess.Popen({command!r}); signal.pause()",
    )
    (child,) = proc.marked(lambda mark: mark == "mortal:web")

    supervisor.kill()
    supervisor.wait()

    assert proc.wait_for_end([child], within_s=10) == []


def test_it_waits_for_the_address_it_is_told_to_wait_for(start: Start) -> None:
    answers = iter([503, 200])

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(next(answers))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        ready = f"http://127.0.0.1:{server.server_port}/readyz"
        start("patient:crowd", *launch_command(ready, sys.executable, "-c", WAIT))
        server.shutdown()

    assert next(answers, None) is None


def test_it_writes_what_supervisor_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent signs, quotes and spaces are the characters that supervisor gives a meaning to."""
    monkeypatch.chdir(tmp_path)
    odd = Process(name="odd", command=["echo", 'a "quoted" 50% b'])
    configuration = tmp_path / "supervisor.conf"
    configuration.write_text(supervisor_configuration([odd], logs=".", mark="1-2"))

    options = ServerOptions()
    options.realize(["-c", str(configuration)])

    (group,) = options.process_group_configs
    (program,) = group.process_configs
    assert shlex.split(program.command)[-2:] == odd.command
    assert program.environment == {MARK: "1-2:odd"}
    assert Path(program.stdout_logfile).resolve() == tmp_path / "odd.log"
    assert program.autorestart


def test_it_runs_every_loop_once() -> None:
    assert sorted(loop for loops in LOOPS.values() for loop in loops) == sorted(work.LOOPS)

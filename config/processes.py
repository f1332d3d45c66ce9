"""Names the processes that make up Nearcast and writes their supervisor configuration.

It starts nothing: `config.run` does for `make run`; elsewhere any process manager can run the
same commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from config.proc import MARK

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One program to keep running; `after` is an address that must answer before it starts."""

    name: str
    command: Sequence[str]
    after: str = ""


def web(*, host: str, port: int, workers: int) -> Process:
    """Return the web server: the doors, the sockets, the admin."""
    return Process(
        name="web",
        command=[
            *(PYTHON, "-m", "config.serve"),
            *("--host", host, "--port", str(port), "--workers", str(workers)),
        ],
    )


# Which loops of config.work share a process: those that are busy at once have one each.
LOOPS = {
    "evaluate": ["evaluate"],
    "deliver": ["deliver"],
    "clock": [
        "clock",
        "schedules",
        "areas",
        "imports",
        "profiles",
        "backtests",
        "learning",
        "coupons",
        "retention",
    ],
}


def workers(*, base_url: str) -> list[Process]:
    """Return the loops behind the doors; they let the doors open first where cores are few."""
    return [
        Process(
            name=name,
            command=[PYTHON, "manage.py", "work", *loops],
            after=f"{base_url}/healthz",
        )
        for name, loops in LOOPS.items()
    ]


def emulator(*, port: int) -> Process:
    """Return the stand-in for Firebase."""
    return Process(
        name="emulator",
        command=[PYTHON, "-m", "notifications.emulator", "--port", str(port)],
    )


def crowd(*, base_url: str) -> Process:
    """Return the demo city's moving crowd; it comes through the public doors like any phone."""
    return Process(
        name="crowd",
        command=[PYTHON, "manage.py", "crowd", "--url", base_url],
        after=f"{base_url}/readyz",
    )


def quote(value: str) -> str:
    """Quote a value for supervisor, which reads %(names)s in values and quotes like a shell."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def supervisor_configuration(processes: Sequence[Process], *, logs: str, mark: str) -> str:
    """Return the file that makes supervisord keep `processes` running.

    `logs` is a folder, relative to where supervisord is started: it knows no way to spell a
    percent sign in the path of a log.
    """
    sections = [
        "[supervisord]",
        "nodaemon = true",
        f"logfile = {logs}/supervisor.log",
        "logfile_maxbytes = 1MB",
        f"pidfile = {logs}/supervisor.pid",
        # Root is fine for a demonstration on one's own machine; named, or supervisor warns.
        *(["user = root"] if os.geteuid() == 0 else []),
    ]
    for process in processes:
        launch = [PYTHON, "-m", "config.launch", process.after, *process.command]
        sections += [
            "",
            f"[program:{process.name}]",
            f"command = {' '.join(quote(part) for part in launch)}",
            f'environment = {MARK}="{mark}:{process.name}"',
            "autorestart = true",
            "startsecs = 2",
            "startretries = 30",
            # Long enough for a worker to finish its batch, and for web to answer what it accepted.
            "stopwaitsecs = 8",
            "killasgroup = true",
            "redirect_stderr = true",
            f"stdout_logfile = {logs}/{process.name}.log",
            "stdout_logfile_maxbytes = 5MB",
            "stdout_logfile_backups = 1",
        ]
    return "\n".join(sections) + "\n"

"""Names the processes that make up Nearcast and writes their supervisor configuration.

It starts nothing: `config.run` does for `make run`; elsewhere any process manager can run the
same commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
# Every process of this checkout carries this variable, so that what a kill -9 of the supervisor
# left behind is found again, and nothing else is.
MARK = "NEARCAST_PROCESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One program to keep running; `after` is an address that must answer before it starts."""

    name: str
    command: Sequence[str]
    after: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def web(*, host: str, port: int, workers: int) -> Process:
    """Return the web server: the doors, the sockets, the admin."""
    return Process(
        name="web",
        command=[
            *(PYTHON, "-m", "granian", "--interface", "asgi", "--loop", "uvloop"),
            *("--host", host, "--port", str(port), "--workers", str(workers)),
            *("--respawn-failed-workers", "--backlog", "4096", "config.asgi:application"),
        ],
    )


def workers() -> list[Process]:
    """Return the loops behind the doors, each alone so that none waits for another's turn."""
    return [
        Process(name=name, command=[PYTHON, "manage.py", "work", name])
        for name in ("evaluate", "deliver", "clock")
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


def supervisor_configuration(processes: Sequence[Process], *, folder: Path, mark: str) -> str:
    """Return the file that makes supervisord keep `processes` running, logging into `folder`."""
    sections = [
        "[supervisord]",
        "nodaemon = true",
        f"logfile = {folder / 'supervisor.log'}".replace("%", "%%"),
        "logfile_maxbytes = 1MB",
        f"pidfile = {folder / 'supervisor.pid'}".replace("%", "%%"),
        # Root is fine for a demonstration on one's own machine; named, or supervisor warns.
        *(["user = root"] if os.geteuid() == 0 else []),
    ]
    for process in processes:
        launch = [PYTHON, "-m", "config.launch", process.after, *process.command]
        environment = {MARK: f"{mark}:{process.name}", **process.environment}
        sections += [
            "",
            f"[program:{process.name}]",
            f"command = {' '.join(quote(part) for part in launch)}",
            f"directory = {ROOT}".replace("%", "%%"),
            f"environment = {','.join(f'{k}={quote(v)}' for k, v in environment.items())}",
            "autorestart = true",
            "startsecs = 2",
            "startretries = 30",
            # Long enough for a worker to finish its batch, and for web to answer what it accepted.
            "stopwaitsecs = 8",
            "stopasgroup = false",
            "killasgroup = true",
            "redirect_stderr = true",
            f"stdout_logfile = {folder / (process.name + '.log')}".replace("%", "%%"),
            "stdout_logfile_maxbytes = 5MB",
            "stdout_logfile_backups = 1",
        ]
    return "\n".join(sections) + "\n"

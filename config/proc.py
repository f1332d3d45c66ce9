"""Finds, awaits and ends processes of this machine; it starts none.  Standard library only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

# Every process of a checkout carries this variable, so that what a kill -9 of the supervisor
# left behind is found again, and nothing else is.
MARK = "NEARCAST_PROCESS"
GRACE_S = 8.0


def marked(is_ours: Callable[[str], bool]) -> Iterator[int]:
    """Yield the processes whose mark is ours.  Linux only; elsewhere nothing is found."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # gone meanwhile, or somebody else's
        for variable in environment:
            name, _, value = variable.partition("=")
            if name == MARK and is_ours(value) and int(folder.name) != os.getpid():
                yield int(folder.name)


def is_alive(pid: int) -> bool:
    """Say whether a process is there and not merely waiting to be buried."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def is_there(pid: int) -> bool:
    """Say whether the system still lists a process, buried or not."""
    return Path(f"/proc/{pid}").exists()


def working_in(folder: Path) -> list[int]:
    """Return the processes whose working directory is `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return found


def wait_for_end(pids: list[int], *, within_s: float) -> list[int]:
    """Wait for processes to end; return those that did not."""
    until = time.monotonic() + within_s
    while (pids := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return pids


def end(pids: list[int]) -> None:
    """End processes politely, then by force."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        pids = wait_for_end(pids, within_s=GRACE_S)

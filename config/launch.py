"""Becomes one of Nearcast's processes, cleanly: `python -m config.launch AFTER COMMAND…`.

It removes what a killed predecessor of the same name left behind, asks the system to end it with
its supervisor, waits for the address AFTER (empty: none), then replaces itself by COMMAND.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from config.processes import MARK

PR_SET_PDEATHSIG = 1
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


def die_with_parent() -> None:
    """Have the system end us when our parent dies, even of kill -9.  Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def answers(url: str, *, timeout_s: float = 2.0) -> bool:
    """Say whether an address answers with success."""
    try:
        with urlopen(url, timeout=timeout_s) as answer:  # noqa: S310  our own http address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def main() -> None:
    """Launch what the command line names."""
    after, *command = sys.argv[1:]
    own = os.environ[MARK]
    end(list(marked(lambda mark: mark == own)))
    die_with_parent()
    while after and not answers(after):
        time.sleep(0.25)
    os.execvp(command[0], command)  # noqa: S606  the command is our own


if __name__ == "__main__":
    main()

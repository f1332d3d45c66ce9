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
from urllib.error import URLError
from urllib.request import urlopen

from config import proc

PR_SET_PDEATHSIG = 1


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
    own = os.environ[proc.MARK]
    proc.end(list(proc.marked(lambda mark: mark == own)))
    die_with_parent()
    while after and not answers(after):
        time.sleep(0.25)
    os.execvp(command[0], command)  # noqa: S606  the command is our own


if __name__ == "__main__":
    main()

"""Runs the named loops behind the doors, each on a thread with its own connection.

What a loop does is its app's business: here one is started, stopped, and started again when it
fails. A loop is a function `run(stop: threading.Event)` that returns soon after `stop` is set.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from django.db import connections

from config import collector

logger = logging.getLogger(__name__)

Loop = Callable[[threading.Event], None]

LOOPS: Mapping[str, str] = {
    "evaluate": "campaigns.evaluation:run",
    "deliver": "notifications.delivering:run",
    "clock": "devices.clock:run",
    "imports": "geofences.imports:run",
    "profiles": "devices.profile_imports:run",
    "areas": "devices.homes:run",
    "schedules": "campaigns.scheduling:run",
    "backtests": "campaigns.backtests:run",
    "learning": "campaigns.learning:run",
    "retention": "config.retention:run",
    "coupons": "campaigns.coupon_imports:run",
}
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
STEADY_AFTER_S = 60.0  # a loop that ran this long is well again: the next wait is short
STOPPED_WITHIN_S = 6.0  # less than a process manager allows before it kills


def find(name: str) -> Loop:
    """The loop's function; imported only here, so that a process loads what it runs."""
    module, _, function = LOOPS[name].partition(":")
    loop: Loop = getattr(importlib.import_module(module), function)
    return loop


def keep_running(name: str, loop: Loop, stop: threading.Event) -> None:
    """Run one loop until `stop`; when it raises or returns early, again after a growing wait."""
    wait_s = FIRST_WAIT_S
    while not stop.is_set():
        began = time.monotonic()
        try:
            loop(stop)
            if not stop.is_set():
                logger.error("loop %s returned without being asked to", name)
        except Exception:
            logger.exception("loop %s failed", name)
        finally:
            connections.close_all()
        if time.monotonic() - began > STEADY_AFTER_S:
            wait_s = FIRST_WAIT_S
        stop.wait(wait_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


def work(names: Sequence[str], stop: threading.Event) -> bool:
    """Run the named loops until `stop`; whether all of them ended in time afterwards."""
    loops = {name: find(name) for name in names}
    threads = [
        # A daemon: a loop that does not stop must not keep the process.
        threading.Thread(target=keep_running, args=(name, loop, stop), name=name, daemon=True)
        for name, loop in loops.items()
    ]
    collector.settle()
    for thread in threads:
        thread.start()
    logger.info("working: %s", ", ".join(names))
    stop.wait()
    until = time.monotonic() + STOPPED_WITHIN_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = [thread.name for thread in threads if thread.is_alive()]
    for name in late:
        logger.error("loop %s did not stop within %s s", name, STOPPED_WITHIN_S)
    return not late

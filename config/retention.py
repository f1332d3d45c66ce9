"""Lets go of what is kept long enough: each kind in its own way, none in the way of another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime

from django.db import connection
from django.utils import timezone

import campaigns.retention
import devices.retention
from brands import undoing
from devices.models import ProfileImport
from geofences.models import GeofenceImport

logger = logging.getLogger(__name__)

LOOK_S = 600.0

Keep = Callable[..., object]
"""Called with `now`; true where there may be more to do at once."""


def _undoable(*, now: datetime) -> None:
    for imports in (GeofenceImport, ProfileImport):
        undoing.forget(imports, now=now)


KEEPING: Mapping[str, Keep] = {
    "history": devices.retention.keep,
    "activity": devices.retention.forget,
    "decisions": campaigns.retention.forget,
    "imports": _undoable,
}


def run(stop: threading.Event) -> None:
    """Look every ten minutes, until `stop`; what fails is tried again at the next look."""
    while not stop.is_set():
        for what, keep in KEEPING.items():
            try:
                while keep(now=timezone.now()) and not stop.is_set():
                    pass
            except Exception:  # one kind must not keep the others from being let go of
                logger.exception("the retention of %s failed", what)
                connection.close()
        stop.wait(LOOK_S)
    connection.close()

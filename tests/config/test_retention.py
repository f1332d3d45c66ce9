"""The loop that lets go of what is kept long enough."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection

from config import retention


def test_what_fails_keeps_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, done = threading.Event(), []

    def broken(**_: Any) -> None:
        raise ArithmeticError

    def twice(**_: Any) -> bool:
        done.append("twice")
        return len(done) < 2

    def last(**_: Any) -> None:
        done.append("last")
        stop.set()

    monkeypatch.setattr(retention, "KEEPING", {"first": broken, "second": twice, "third": last})
    retention.run(stop)
    assert done == ["twice", "twice", "last"]


@pytest.mark.django_db
def test_it_keeps_all_there_is(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda _: stop.set())
    monkeypatch.setattr(connection, "close", lambda: None)
    retention.run(stop)
    assert not caplog.records

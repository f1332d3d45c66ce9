"""Figures for Prometheus: counted at the doors, and read from rows at the time of a scrape.

A scrape reaches any one of several worker processes. So what a process counts goes to a file that
all workers of one server share (prometheus_client's multiprocess mode), and what rows know is
asked of the rows: each scrape tells the whole truth.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection

# Before prometheus_client is imported: it decides then whether processes share their figures.
FOLDER = Path(settings.METRICS_ROOT) / str(os.getppid())
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(FOLDER))
FOLDER.mkdir(parents=True, exist_ok=True)

import prometheus_client  # noqa: E402 - see above
from prometheus_client import CollectorRegistry, Gauge, multiprocess  # noqa: E402
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

logger = logging.getLogger(__name__)

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST
MOST_COUNTED = 100_000  # a queue longer than this is reported as this

_items = prometheus_client.Counter(
    "nearcast_items", "Items at the doors, by what became of them.", ["kind", "verdict"]
)
_refused = prometheus_client.Counter(
    "nearcast_requests_refused",
    "Requests and frames at the doors of which nothing was taken, by the code of the answer.",
    ["kind", "code"],
)
sockets_open = Gauge("nearcast_sockets_open", "Open device sockets.", multiprocess_mode="livesum")
geofences_armed = Gauge(
    "nearcast_index_geofences", "Geofences in a process's index.", multiprocess_mode="liveall"
)


def count_items(tally: Counter[tuple[str, str]]) -> None:
    """Add the items that the doors tallied since the last time, and empty the tally."""
    _add(_items, tally)


def count_refusals(tally: Counter[tuple[str, str]]) -> None:
    """The same of the requests and frames that they refused as a whole."""
    _add(_refused, tally)


def _add(counter: prometheus_client.Counter, tally: Counter[tuple[str, str]]) -> None:
    taken = dict(tally)
    tally.clear()
    for labels, count in taken.items():
        counter.labels(*labels).inc(count)


def scraped() -> bytes:
    """All figures in the text format."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Rows())
    return prometheus_client.generate_latest(registry)


def drop_stale() -> None:
    """Forget the files of servers that have ended."""
    for folder in FOLDER.parent.iterdir():
        if folder.name.isdigit() and not Path(f"/proc/{folder.name}").exists():
            shutil.rmtree(folder, ignore_errors=True)


# The statistics collector counts inserts for us; counting rows of the big tables would not do.
_WRITTEN = """
    SELECT CASE WHEN relname LIKE 'devices_fix%' THEN 'fix' ELSE split_part(relname, '_', 2) END,
           sum(n_tup_ins)::bigint
      FROM pg_stat_user_tables
     WHERE relname LIKE 'devices_fix%' OR relname IN (
           'devices_transition', 'devices_event', 'campaigns_decision', 'notifications_delivery',
           'notifications_attempt', 'notifications_feedback')
     GROUP BY 1
"""
_QUEUES = {
    "transitions": ("devices_transition", "processed_at IS NULL", "recorded_at", "id"),
    "events": ("devices_event", "processed_at IS NULL", "received_at", "id"),
    "deliveries": (
        "notifications_delivery",
        "state IN ('pending', 'sending') AND due_at <= now()",
        "due_at",
        "due_at",
    ),
}
_STATES = """
    SELECT state, count(*) FROM notifications_delivery
     WHERE id > (SELECT coalesce(max(id), 0) FROM notifications_delivery) - %s GROUP BY state
"""


class _Rows(Collector):
    def collect(self) -> Iterator[Metric]:
        try:
            yield from list(_from_rows())
        except DatabaseError as error:
            logger.warning("no figures from rows: %s", error)


def _from_rows() -> Iterator[Metric]:
    written = CounterMetricFamily("nearcast_rows_written", "Rows inserted.", labels=["table"])
    depth = GaugeMetricFamily(
        "nearcast_queue_depth", f"Rows that wait, up to {MOST_COUNTED}.", labels=["queue"]
    )
    age = GaugeMetricFamily(
        "nearcast_queue_oldest_seconds", "Age of the oldest that waits.", labels=["queue"]
    )
    states = GaugeMetricFamily(
        "nearcast_deliveries", f"The newest {MOST_COUNTED} deliveries by state.", labels=["state"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_WRITTEN)
        for table, count in cursor.fetchall():
            written.add_metric([table], count)
        for queue, (table, waits, since, order) in _QUEUES.items():
            cursor.execute(
                f"SELECT count(*), coalesce(extract(epoch FROM now() - min({since})), 0)::float"  # noqa: S608 - constants
                f" FROM (SELECT {since} FROM {table} WHERE {waits} ORDER BY {order}"
                f" LIMIT {MOST_COUNTED}) waiting"
            )
            count, oldest_s = cursor.fetchone()
            depth.add_metric([queue], count)
            age.add_metric([queue], max(0.0, oldest_s))
        cursor.execute(_STATES, (MOST_COUNTED,))
        for state, count in cursor.fetchall():
            states.add_metric([state], count)
    yield from (written, depth, age, states)

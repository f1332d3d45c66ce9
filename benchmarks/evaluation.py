"""P6: transitions a second that one evaluation worker settles, each against 20 candidates.

Every transition is claimed, judged by 20 campaigns with audiences, hours and caps over a history of
offers, and leaves 20 decisions and the deliveries that follow, committed. Every offer's texts name
the person and the place, and no two are the same. No peer does this work: Tile38 and Koncorde end
where it begins, so the rows stand beside the goal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import stage

DATABASE = "nearcast_bench_evaluation"
GOAL_PER_S = 2_000
CANDIDATES = 20
PLACES = 500
PAST_OFFERS = 5  # of each device, in the last days
NAMES = ("Aino", "Bo", "Chiara", "Dmitri", "Eun", "Fatima", "Gabriel")

Row = dict[str, Any]
Found = tuple[str, float, str]  # a case, its value, the unit


def run(quick: bool) -> list[Row]:
    """Return the rows of P6."""
    transitions, devices = (2_000, 2_000) if quick else (20_000, 10_000)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.evaluation", str(transitions), str(devices)],
        cwd=stage.ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [
        {
            "row": "P6",
            "case": case,
            "value": value,
            "unit": unit,
            "peer": "goal" if unit == "transitions/s" else None,
            "peer_value": GOAL_PER_S if unit == "transitions/s" else None,
            "ratio": round(value / GOAL_PER_S, 2) if unit == "transitions/s" else None,
        }
        for case, value, unit in json.loads(done.stdout.splitlines()[-1])
    ]


def main(transitions: int, devices: int) -> None:
    """Make a database, fill it, time the worker, drop the database."""
    os.environ["NEARCAST_LOG_LEVEL"] = "WARNING"
    home = os.environ["DATABASE_URL"]
    stage.make_database(DATABASE)
    try:
        print(json.dumps(_measure(transitions, devices)))
    finally:
        from django.db import connection

        connection.close()
        os.environ["DATABASE_URL"] = home
        stage.drop_database(DATABASE)


def _measure(transitions: int, devices: int) -> list[Found]:
    from django.db import connection

    brand_id = _people(devices)
    found: list[Found] = []
    for turn, (case, make) in enumerate(CASES.items()):
        _campaigns(brand_id, make)
        _transitions(brand_id, transitions, turn)
        found += [(f"{case}, {name}", value, unit) for name, value, unit in _timed()]
    _transitions(brand_id, transitions, len(CASES))
    found.append((f"{case}, two workers", _together(2), "transitions/s"))
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT pg_relation_size('campaigns_decision') / count(*),
                      pg_total_relation_size('campaigns_decision') / count(*)
                 FROM campaigns_decision"""
        )
        row, total = cursor.fetchone()
    found.append(("a decision with its trace", row, "bytes"))
    found.append(("a decision with its indexes", total, "bytes"))
    return found


def _timed() -> list[Found]:
    """What is settled by the clock, and the processor time each costs us and PostgreSQL."""
    from campaigns.evaluation import evaluate_once, settle_all
    from config import collector

    done = evaluate_once(now=datetime.now(UTC), limit=10)  # the catalogue, the connection
    collector.settle()  # as a worker does
    waiting, there = _waiting(), _servers_s()
    began, busy = time.perf_counter(), time.process_time()
    settle_all(threading.Event())
    took_s, busy_s = time.perf_counter() - began, time.process_time() - busy
    assert done
    assert not _waiting()
    found = [
        ("one worker", float(round(waiting / took_s)), "transitions/s"),
        ("its own processor time", round(busy_s / waiting * 1e6), "µs/transition"),
    ]
    if there is not None:
        spent_s = (_servers_s() or there) - there
        found.append(("PostgreSQL's", round(spent_s / waiting * 1e6), "µs/transition"))
    return found


def _waiting() -> int:
    from devices.models import Transition

    return Transition.objects.filter(processed_at=None).count()


def _servers_s() -> float | None:
    """The processor time of this machine's PostgreSQL, all its processes; None: it is elsewhere.

    A process that ended counts with those that its parent waited for.
    """
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        own = Path(f"/proc/{cursor.fetchone()[0]}/stat")
    if not own.exists() or "postgres" not in (text := own.read_text()):
        return None
    parent = text.rpartition(")")[2].split()[1]
    of_parent = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(map(int, of_parent[11:15]))
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == parent:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _together(count: int) -> float:
    """Transitions a second that several processes settle between them."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.evaluation", "work"],
            cwd=stage.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()  # it is ready
    waiting, began = _waiting(), time.monotonic()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    ended = max(float(worker.communicate()[0]) for worker in workers)
    return float(round(waiting / (ended - began)))


def work() -> None:
    """One of several workers: get ready, say so, wait for the word, settle what there is."""
    import django

    django.setup()
    from campaigns.evaluation import evaluate_once, settle_all
    from config import collector

    evaluate_once(now=datetime.now(UTC), limit=10)
    collector.settle()
    print("ready", flush=True)
    sys.stdin.readline()
    settle_all(threading.Event())
    print(time.monotonic())


def _people(devices: int) -> int:
    from django.contrib.gis.geos import Point
    from django.db import connection

    from brands.models import Brand
    from devices.models import Device
    from geofences.models import Geofence

    caps = [{"limit": 50, "window_s": 604_800, "scope": "person"}]
    quiet = {"from": "03:00", "to": "03:30"}
    brand = Brand.objects.create(name="Bench", slug="bench", caps=caps, quiet_hours=quiet)
    Geofence.objects.bulk_create(
        Geofence(
            brand=brand,
            name=f"Place {number}",
            geometry=Point(24.9 + number / 1000, 60.1, srid=4326),
            radius_m=100,
            tags=["shop"],
        )
        for number in range(PLACES)
    )
    zones = ["Europe/Helsinki", "America/New_York", "Asia/Kolkata", "UTC"]
    Device.objects.bulk_create(
        (
            Device(
                brand=brand,
                installation_id=str(number),
                platform=("ios", "android")[number % 2],
                external_id=f"person {number}",
                locale="en",
                timezone=zones[number % 4],
                attributes={
                    "name": f"{NAMES[number % len(NAMES)]} {number}",
                    "plan": ("prepaid", "postpaid")[number % 3 == 0],
                    "age": number % 90,
                },
                consent_location=True,
                consent_marketing=True,
            )
            for number in range(devices)
        ),
        batch_size=5_000,
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO notifications_delivery (
                 brand_id, device_id, person, campaign_id, campaign_name, campaign_version,
                 variant, moment_kind, key, channel, transactional, content, gates, state, reason,
                 priority, created_at, due_at, expires_at, attempt_count, sent_at)
               SELECT brand_id, d.id, external_id, 1000 + n %% 5, '', 1, '', 'event',
                      'past ' || n, 'push', false, '{}', '{}', 'sent', '', 0, at, at, at, 1, at
                 FROM devices_device d, generate_series(1, %s) n,
                      LATERAL (SELECT now() - n * interval '9 hours' AS at) t""",
            (PAST_OFFERS,),
        )
    return brand.pk


def _campaigns(brand_id: int, make: Callable[[int], dict[str, Any]]) -> None:
    from brands.models import Brand
    from campaigns import publishing
    from campaigns.models import Campaign

    brand = Brand.objects.get(pk=brand_id)
    for old in Campaign.objects.filter(state="live"):
        publishing.end(old, actor=None)
    for number in range(CANDIDATES):
        raw = {
            "trigger": {"on": "entered", "tags": ["shop"]},
            "content": {
                "title": "{{ device.attributes.name | default: 'You' }}, {{ place.name }} is near",
                "body": "{{ place.name }} has something for {{ device.attributes.name }} today",
            },
            "priority": number,
            **make(number),
        }
        campaign = publishing.create(brand=brand, name=f"c{number}", raw=raw, actor=None)
        publishing.publish(campaign, actor=None, now=datetime.now(UTC))


def _all_pass(number: int) -> dict[str, Any]:
    return {
        "audience": {
            "all": [
                {"attribute": "age", "op": "gte", "value": 0},
                {"platform": ["ios", "android"]},
                {"locale": "en"},
            ]
        },
        "caps": [
            {"limit": 100 + number, "window_s": 86_400, "scope": "device"},
            {"limit": 1_000, "window_s": 604_800, "scope": "person"},
        ],
        "dayparts": [{"from": "00:00", "to": "24:00"}],
    }


def _budgeted(number: int) -> dict[str, Any]:
    return {
        **_all_pass(number),
        "budget": {
            "total": {"sends": 10_000_000, "money": 10**9},
            "per_day": {"sends": 20_000_000},
            "per_place": {"sends": 100_000},
            "cost": 10,
            "currency": "EUR",
            "even": True,
        },
    }


def _mixed(number: int) -> dict[str, Any]:
    """A fifth each: not for this plan, not for this age, not now, capped, fine."""
    wanted = _all_pass(number)
    kind = number % 5
    if kind == 0:
        wanted["audience"]["all"].append({"attribute": "plan", "value": "postpaid"})
    elif kind == 1:
        wanted["audience"]["all"].append({"attribute": "age", "op": "lt", "value": 10})
    elif kind == 2:
        wanted["dayparts"] = [{"days": ["sat"], "from": "10:00", "to": "10:01"}]
    elif kind == 3:
        wanted["caps"].append({"limit": 1, "window_s": 86_400, "scope": "brand"})
    return wanted


CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    "mixed verdicts": _mixed,
    "all pass under budgets, one wins": _budgeted,
    "all pass, one wins": _all_pass,
}


def _transitions(brand_id: int, count: int, turn: int) -> None:
    """Arrivals, all waiting; nobody comes to the same place twice, not in another turn either."""
    from django.db import connection

    at = datetime.now(UTC) - timedelta(seconds=30)
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(visit_id), 0) FROM devices_transition")
        start = cursor.fetchone()[0]
        cursor.execute("SELECT min(id), count(*) FROM devices_device")
        first, devices = cursor.fetchone()
        cursor.execute(
            """INSERT INTO devices_transition (
                 brand_id, device_id, geofence_id, kind, visit_id, dwell_s, entered_at,
                 occurred_at, recorded_at, reason, lat, lng, accuracy_m, parked_reason)
               SELECT %(brand)s, d.id, g.id, 'entered', %(start)s + n, 0, at, at, at, '', 60.1,
                      24.9, 10, ''
                 FROM generate_series(1, %(count)s) n,
                      LATERAL (SELECT %(at)s + n * interval '1 millisecond' AS at) t,
                      LATERAL (SELECT %(first)s + n %% %(devices)s AS id) d,
                      LATERAL (SELECT min(id) + (n + 100 * %(turn)s + n / %(devices)s)
                                                %% %(places)s AS id
                                 FROM geofences_geofence) g""",
            {
                "brand": brand_id,
                "start": start,
                "count": count,
                "turn": turn,
                "at": at,
                "first": first,
                "devices": devices,
                "places": PLACES,
            },
        )
        cursor.execute("ANALYZE")


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work()
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))

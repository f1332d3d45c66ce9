"""P9: P2 and P3 again once there are a million devices and ten million fixes of history.

The same number of phones is active in both cases, evenly taken from all devices.
"""

from __future__ import annotations

import math
from statistics import fmean

from benchmarks import populate, road, stage, wrk
from benchmarks.report import Row, row

GEOFENCES, HOME = 10_000, "country"
ACTIVE = 10_000
DEVICES, FIXES = 1_000_000, 10_000_000
GROWN = f"{stage.DATABASE}_grown"
TURNS, SECONDS = 3, 8.0
GOAL = 0.85
# Since this morning, of every device in turn.
_HISTORY = """
    INSERT INTO devices_fix (device_id, key, received_at, recorded_at, lat, lng, accuracy_m,
                             verdict)
    SELECT 1 + i %% %s, hashint8extended(i, 0), at, at, 46 + i %% 1000 * 0.001,
           3 + i %% 999 * 0.001, 8, 0
      FROM generate_series(1::bigint, %s) i,
           LATERAL (SELECT date_trunc('day', now())
                           + i * ((now() - date_trunc('day', now())) / %s) AS at) t
"""


def run(quick: bool) -> list[Row]:
    """Rates of the small and of the grown database, side by side."""
    if quick:
        return [row("P9", "growth to a million devices", math.nan, "fixes/s", "make bench only")]
    stage.make_database()
    populate.geofences(GEOFENCES, HOME)
    few, secret = populate.devices(ACTIVE, HOME), populate.server_key()
    with stage.copied_database(GROWN):
        with stage.pointed_at(GROWN):
            _grow()
        many = populate.phones(range(1, DEVICES + 1, DEVICES // ACTIVE), HOME)
        small, grown = [], []
        for _ in range(TURNS):  # in turn: what the host's other guests do meets both
            small.append(_rates(stage.DATABASE, few, secret))
            grown.append(_rates(GROWN, many, secret))
    case = f"{DEVICES:,} devices, {FIXES:,} fixes of history"
    peer = f"{ACTIVE:,} devices (goal {GOAL} ×)"
    rows = [
        row("P9", f"{case}: {name}", fmean(after), "fixes/s", peer, fmean(before))
        for name, before, after in (
            ("one fix a POST", [each.one for each in small], [each.one for each in grown]),
            ("100 a POST", [each.many for each in small], [each.many for each in grown]),
            (road.GATEWAY, [each.gateway for each in small], [each.gateway for each in grown]),
        )
    ]
    if refused := sum(each.refused for each in (*small, *grown)):
        rows.append(row("P9", f"{case}: answers not 2xx", refused, "answers"))
    return rows


def _grow() -> None:
    populate.more_devices(ACTIVE + 1, DEVICES)
    with stage.connect() as connection:
        connection.execute(_HISTORY, (DEVICES, FIXES, FIXES))
    populate.settle("devices_fix")


def _rates(database: str, phones: list[populate.Phone], secret: str) -> road.Rates:
    with stage.pointed_at(database), wrk.listed(phones) as crowd, stage.web() as (host, _):
        # Each gateway call is of all phones that are active: two at once would only collide.
        one = road.singles(host, crowd, SECONDS, secret=secret)
        return road.with_bulk(one, host, crowd, SECONDS, secret=secret, calls=1)

"""P9: P2 and P3 again once there are a million devices and ten million fixes of history.

The same number of phones is active in both cases, evenly taken from all devices.
"""

from __future__ import annotations

import math

from benchmarks import populate, road, stage, wrk
from benchmarks.report import Row, row

GEOFENCES, HOME = 10_000, "country"
ACTIVE = 10_000
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
    devices, fixes, seconds = 1_000_000, 10_000_000, 12.0
    stage.make_database()
    populate.geofences(GEOFENCES, HOME)
    small = _rates(populate.devices(ACTIVE, HOME), seconds)
    populate.more_devices(ACTIVE + 1, devices)
    with stage.connect() as connection:
        connection.execute(_HISTORY, (devices, fixes, fixes))
        connection.execute("VACUUM ANALYZE devices_fix")
    everyone = range(1, devices + 1, devices // ACTIVE)
    grown = _rates(populate.phones(everyone, HOME), seconds)
    case = f"{devices:,} devices, {fixes:,} fixes of history"
    peer = f"{ACTIVE:,} devices (goal {GOAL} ×)"
    return [
        row("P9", f"{case}: {name}", after, "fixes/s", peer, before)
        for name, before, after in (
            ("one fix a POST", small.one, grown.one),
            ("100 a POST", small.many, grown.many),
            (road.GATEWAY, small.gateway, grown.gateway),
        )
    ]


def _rates(phones: list[populate.Phone], seconds: float) -> road.Rates:
    with wrk.listed(phones) as crowd, stage.web() as (host, _):
        return road.measured(host, crowd, seconds)

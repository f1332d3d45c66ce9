"""Locks what caps count by and reads the offers that count. It decides nothing, writes nothing.

Every evaluator takes the same locks in the same order: persons by key, then campaigns, then
brands by id. Whoever holds them reads every offer that was committed under them before, so a cap
is exact whatever runs in parallel (promise 5).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

from campaigns import caps as capping
from campaigns import restraint, rules
from campaigns.catalogue import Catalogue
from campaigns.judging import MomentKey, Offers, Pair, moment_key
from campaigns.moments import Happening
from campaigns.subjects import person_of
from notifications.arrays import array

# An offer is held for quiet hours at most this long after it was made: how far back a row may
# have been written whose due time still counts.
LONGEST_HOLD = timedelta(days=9)
# The longest that a calendar window lasts, an hour's or a day's jump of the clock included.
LASTS = {
    capping.Period.HOUR: timedelta(hours=2),
    capping.Period.DAY: timedelta(days=2),
    capping.Period.WEEK: timedelta(days=9),
    capping.Period.MONTH: timedelta(days=33),
}
# Deliveries that were not made give their place back.
COUNTED = ("pending", "sending", "sent")

_LOCK_PERSONS = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"
# NO KEY: a foreign key's check on the row need not wait.
_LOCK_CAMPAIGNS = (
    "SELECT id FROM campaigns_campaign WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_BRANDS = "SELECT id FROM brands_brand WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
_AT = "(extract(epoch FROM coalesce(d.sent_at, d.due_at)) * 1000)::bigint"
_OFFER = f"""
    SELECT d.brand_id, {_AT}, d.device_id, d.person, d.campaign_id, d.geofence_id, g.tags, d.channel
"""
_COUNTS = """
      LEFT JOIN geofences_geofence g ON %(tags)s AND g.id = d.geofence_id
     WHERE d.created_at > %(since)s AND d.state = ANY(%(states)s) AND NOT d.transactional
       AND d.moment_kind <> 'test'
"""
# By device as well: what it was offered before somebody logged in counts for it still.
_OFFERS = f"""
    WITH asked AS MATERIALIZED (
      SELECT * FROM unnest(%(brand_ids)s::bigint[], %(persons)s::text[]) AS u(brand_id, person)
    )
    {_OFFER} FROM asked u
      JOIN notifications_delivery d ON d.brand_id = u.brand_id AND d.person = u.person {_COUNTS}
     UNION ALL
    {_OFFER} FROM notifications_delivery d {_COUNTS}
       AND d.device_id = ANY(%(device_ids)s) AND d.brand_id = ANY(%(brands)s)
       AND (d.brand_id, d.person) NOT IN (SELECT brand_id, person FROM asked)
"""  # noqa: S608 - only our own SQL is put in
# What else the fix of a moment brought about, as far as it was judged before; one look each.
_SIBLINGS = """
    SELECT u.device_id, u.occurred_ms, t.id
      FROM unnest(%s::bigint[], %s::bigint[]) AS u (device_id, occurred_ms)
     CROSS JOIN LATERAL (
       SELECT t.id FROM devices_transition t
        WHERE t.device_id = u.device_id AND t.processed_at IS NOT NULL
          AND t.occurred_at > to_timestamp(u.occurred_ms / 1000.0) - interval '1 millisecond'
          AND t.occurred_at < to_timestamp(u.occurred_ms / 1000.0) + interval '1 millisecond'
          AND (extract(epoch FROM t.occurred_at) * 1000)::bigint = u.occurred_ms
       OFFSET 0) t
"""
# Who speaks at these moments already.
_WINNERS = """
    SELECT d.device_id, d.moment_kind, d.moment_id, d.campaign_id, d.campaign_name, d.priority
      FROM unnest(%(kinds)s::text[], %(devices)s::bigint[], %(moments)s::bigint[])
        AS u (kind, device_id, moment_id)
      JOIN notifications_delivery d ON d.device_id = u.device_id AND d.moment_kind = u.kind
       AND d.moment_id = u.moment_id
     WHERE d.created_at > %(since)s AND d.state = ANY(%(states)s) AND NOT d.transactional
     UNION ALL
    SELECT g.device_id, g.moment_kind, g.moment_id, g.campaign_id, c.name, 0
      FROM unnest(%(kinds)s::text[], %(devices)s::bigint[], %(moments)s::bigint[])
        AS u (kind, device_id, moment_id)
      JOIN campaigns_decision g ON g.device_id = u.device_id AND g.moment_kind = u.kind
       AND g.moment_id = u.moment_id
      JOIN campaigns_campaign c ON c.id = g.campaign_id
     WHERE g.decided_at > %(since)s AND g.reason = 'held_out'
"""
# What was held out on purpose counts like an offer: both groups meet the same caps.
_GHOSTS = """
    SELECT g.brand_id,
           coalesce((g.trace->>'due_at')::bigint,
                    (extract(epoch FROM g.decided_at) * 1000)::bigint),
           g.device_id, coalesce(d.external_id, 'device:' || d.id), g.campaign_id, g.geofence_id,
           p.tags, CASE WHEN d.push_token IS NULL THEN 'inbox' ELSE 'push' END
      FROM (
        SELECT d.id FROM unnest(%s::bigint[], %s::text[]) AS u(brand_id, person)
          JOIN devices_device d ON d.brand_id = u.brand_id AND d.external_id = u.person
         UNION SELECT unnest(%s::bigint[])
      ) mine
      JOIN campaigns_decision g ON g.device_id = mine.id
      JOIN devices_device d ON d.id = mine.id
      LEFT JOIN geofences_geofence p ON p.id = g.geofence_id
     WHERE g.reason = 'held_out' AND g.decided_at > %s
"""
_SHARED_OF_CAMPAIGNS = f"""
    SELECT u.campaign_id, d.at
      FROM unnest(%s::bigint[], %s::timestamptz[], %s::bigint[]) AS u(campaign_id, since, most)
      CROSS JOIN LATERAL (
        SELECT {_AT} AS at FROM notifications_delivery d
         WHERE d.campaign_id = u.campaign_id AND d.created_at > u.since AND d.state = ANY(%s)
           AND d.moment_kind <> 'test'
         ORDER BY d.created_at DESC LIMIT u.most) d
"""  # noqa: S608 - only names of our own columns are put in
# The newest of each of its campaigns, merged: no index has a brand's deliveries by their time.
_SHARED_OF_BRANDS = f"""
    SELECT u.brand_id, d.at
      FROM unnest(%s::bigint[], %s::timestamptz[], %s::bigint[]) AS u(brand_id, since, most)
      CROSS JOIN LATERAL (
        SELECT newest.at FROM campaigns_campaign c
         CROSS JOIN LATERAL (
           SELECT d.created_at, {_AT} AS at FROM notifications_delivery d
            WHERE d.campaign_id = c.id AND d.created_at > u.since AND d.state = ANY(%s)
              AND d.moment_kind <> 'test'
            ORDER BY d.created_at DESC LIMIT u.most) newest
         WHERE c.brand_id = u.brand_id
         ORDER BY newest.created_at DESC LIMIT u.most) d
"""  # noqa: S608 - only names of our own columns are put in


def lock_and_read(likely: Iterable[Pair], catalogue: Catalogue, now: datetime) -> Offers:
    """Take the locks for the offers that may be made, then read those that were.

    At most nine queries, none where nothing may be offered.
    """
    offers = Offers()
    offers.marks = catalogue.marks
    persons: set[tuple[int, str]] = set()
    devices: dict[int, int] = {}  # and their brands
    campaigns: dict[int, rules.Campaign] = {}
    keys: set[MomentKey] = set()
    last: Happening | None = None
    for happening, campaign in likely:
        campaigns[campaign.id] = campaign
        if happening is not last:
            last, subject = happening, happening.moment.subject
            persons.add((happening.brand.id, subject.person))
            devices[subject.device_id] = happening.brand.id
            keys.add(moment_key(happening))
    if not persons:
        return offers
    judged = [one for one in campaigns.values() if not one.transactional]
    caps = [(one, cap) for one in judged for cap in one.caps]
    for brand_id in set(devices.values()):
        offers.counts[brand_id] = capping.Counts(brand_id)
    _lock_persons(
        persons
        | {(brand_id, person_of(device_id, None)) for device_id, brand_id in devices.items()}
    )
    _read_shared(offers, [(one, cap) for one, cap in caps if cap.is_shared], now)
    ghosts = any(one.holdout or one.control[0] for one in campaigns.values())
    asked_s = max(one.guards.longest_s if one.guards else 0 for one in campaigns.values())
    since_at = min(
        since(now, (cap for _, cap in caps)), now - timedelta(seconds=asked_s) - LONGEST_HOLD
    )
    tags = any(cap.scope is capping.CapScope.TAG for _, cap in caps)
    _read_offers(offers, persons, devices, since_at, ghosts=ghosts, tags=tags)
    _read_winners(offers, keys, since_at, catalogue)
    return offers


def since(now: datetime, caps: Iterable[capping.Cap]) -> datetime:
    """From when on written offers may count for any of these caps."""
    longest = timedelta(minutes=10)  # siblings of a moment: who won it a batch ago
    for cap in caps:
        if cap.window_ms is not None:
            longest = max(longest, timedelta(milliseconds=cap.window_ms))
        elif cap.period is not None:
            longest = max(longest, LASTS[cap.period])
        else:
            return datetime(2000, 1, 1, tzinfo=UTC)
    return now - longest - LONGEST_HOLD


def person_key(brand_id: int, person: str) -> int:
    """The advisory lock of a person, 64 bits: two persons that share one only wait."""
    digest = hashlib.blake2b(f"{brand_id}:{person}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _lock_persons(persons: Iterable[tuple[int, str]]) -> None:
    keys = sorted({person_key(brand_id, person) for brand_id, person in persons})
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_PERSONS, (array(keys),))


def _read_offers(
    offers: Offers,
    persons: set[tuple[int, str]],
    devices: Mapping[int, int],
    since_at: datetime,
    *,
    ghosts: bool,
    tags: bool,
) -> None:
    brand_ids, names = zip(*persons, strict=True)
    asked: dict[str, Any] = {
        "brand_ids": array(brand_ids),
        "persons": array(names),
        "device_ids": array(devices),
        "brands": list(offers.counts),
        "since": since_at,
        "states": list(COUNTED),
        "tags": tags,
    }
    with connection.cursor() as cursor:
        cursor.execute(_OFFERS, asked)
        rows = cursor.fetchall()
        if ghosts:
            cursor.execute(_GHOSTS, (list(brand_ids), list(names), list(devices), since_at))
            rows += cursor.fetchall()
    for brand_id, at_ms, device_id, person, campaign_id, geofence_id, tagged, channel in rows:
        offers.counts[brand_id].recall(
            capping.Offer(
                *(at_ms, device_id, person, campaign_id, geofence_id),
                *(tuple(tagged) if tagged else (), channel),
            )
        )


def _read_winners(
    offers: Offers, keys: Iterable[MomentKey], since_at: datetime, catalogue: Catalogue
) -> None:
    """Who won these moments in a batch before: another transition of the same fix, for one."""
    moments = {key: key for key in keys if key[0] == "schedule"}
    crossed = [key for key in keys if key[0] == "transition"]
    with connection.cursor() as cursor:
        if crossed:
            _, devices, instants = zip(*crossed, strict=True)
            cursor.execute(_SIBLINGS, (array(devices), array(instants)))
            for device_id, occurred_ms, key in cursor.fetchall():
                moments["transition", device_id, key] = ("transition", device_id, occurred_ms)
        if not moments:
            return
        kinds, devices, ids = zip(*moments, strict=True)
        asked: dict[str, Any] = {
            "kinds": array(kinds),
            "devices": array(devices),
            "moments": array(ids),
            "since": since_at,
            "states": list(COUNTED),
        }
        cursor.execute(_WINNERS, asked)
        for device_id, kind, moment_id, campaign_id, name, priority in cursor.fetchall():
            entry = catalogue.entries.get(campaign_id)
            group = "" if entry is None else entry.campaign.group
            offers.winners[moments[kind, device_id, moment_id]][group] = restraint.Winner(
                campaign_id=campaign_id, name=name, priority=priority
            )


def _read_shared(
    offers: Offers, caps: list[tuple[rules.Campaign, capping.Cap]], now: datetime
) -> None:
    """Times of the offers to everybody, as many as the largest limit: more change no verdict."""
    by_campaign: dict[int, list[capping.Cap]] = defaultdict(list)
    by_brand: dict[int, list[capping.Cap]] = defaultdict(list)
    for campaign, cap in caps:
        if cap.of_brand:
            by_brand[campaign.brand_id].append(cap)
        else:
            by_campaign[campaign.id].append(cap)
    for kind, lock, read, owners in (
        ("campaign", _LOCK_CAMPAIGNS, _SHARED_OF_CAMPAIGNS, by_campaign),
        ("brand", _LOCK_BRANDS, _SHARED_OF_BRANDS, by_brand),
    ):
        if not owners:
            continue
        ids = sorted(owners)
        with connection.cursor() as cursor:
            cursor.execute(lock, (ids,))
            cursor.execute(
                read,
                (
                    ids,
                    [since(now, owners[key]) for key in ids],
                    [max(cap.limit for cap in owners[key]) for key in ids],
                    list(COUNTED),
                ),
            )
            times: dict[int, list[int]] = {key: [] for key in ids}
            for key, at_ms in cursor.fetchall():
                times[key].append(at_ms)
        for counts in offers.counts.values():
            for key, found in times.items():
                counts.totals[kind, key] = sorted(found)

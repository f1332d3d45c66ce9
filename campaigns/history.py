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

from django.db import connection

from campaigns import caps as capping
from campaigns import rules
from campaigns.catalogue import Catalogue
from campaigns.judging import Offers, Pair
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
# By device as well: what it was offered before somebody logged in counts for it still.
_OFFERS = f"""
    WITH mine AS (
      SELECT d.id FROM unnest(%s::bigint[], %s::text[]) AS u(brand_id, person)
        JOIN notifications_delivery d ON d.brand_id = u.brand_id AND d.person = u.person
       WHERE d.created_at > %s
       UNION
      SELECT d.id FROM notifications_delivery d
       WHERE d.device_id = ANY(%s) AND d.created_at > %s
    )
    SELECT d.brand_id, {_AT}, d.device_id, d.person, d.campaign_id, d.geofence_id,
           g.tags, d.transactional, d.campaign_name, d.priority,
           (extract(epoch FROM t.occurred_at) * 1000)::bigint, d.channel,
           CASE WHEN d.moment_kind = 'schedule' THEN d.moment_id END
      FROM mine JOIN notifications_delivery d USING (id)
      LEFT JOIN geofences_geofence g ON %s AND g.id = d.geofence_id
      LEFT JOIN devices_transition t ON d.moment_kind = 'transition' AND t.id = d.moment_id
     WHERE d.state = ANY(%s) AND d.brand_id = ANY(%s) AND d.moment_kind <> 'test'
"""  # noqa: S608 - only names of our own columns are put in
# What was held out on purpose counts like an offer: both groups meet the same caps.
_GHOSTS = """
    SELECT g.brand_id,
           coalesce((g.trace->>'due_at')::bigint,
                    (extract(epoch FROM g.decided_at) * 1000)::bigint),
           g.device_id, coalesce(d.external_id, 'device:' || d.id), g.campaign_id, g.geofence_id,
           coalesce(p.tags, '{}'), false, c.name, 0,
           (extract(epoch FROM t.occurred_at) * 1000)::bigint,
           CASE WHEN d.push_token IS NULL THEN 'inbox' ELSE 'push' END,
           CASE WHEN g.moment_kind = 'schedule' THEN g.moment_id END
      FROM (
        SELECT d.id FROM unnest(%s::bigint[], %s::text[]) AS u(brand_id, person)
          JOIN devices_device d ON d.brand_id = u.brand_id AND d.external_id = u.person
         UNION SELECT unnest(%s::bigint[])
      ) mine
      JOIN campaigns_decision g ON g.device_id = mine.id
      JOIN devices_device d ON d.id = mine.id
      JOIN campaigns_campaign c ON c.id = g.campaign_id
      LEFT JOIN geofences_geofence p ON p.id = g.geofence_id
      LEFT JOIN devices_transition t ON g.moment_kind = 'transition' AND t.id = g.moment_id
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
_SHARED_OF_BRANDS = _SHARED_OF_CAMPAIGNS.replace("campaign_id", "brand_id")


def lock_and_read(likely: Iterable[Pair], catalogue: Catalogue, now: datetime) -> Offers:
    """Take the locks for the offers that may be made, then read those that were.

    At most eight queries, none where nothing may be offered.
    """
    offers = Offers()
    offers.marks = catalogue.marks
    persons: set[tuple[int, str]] = set()
    devices: dict[int, int] = {}  # and their brands
    campaigns: dict[int, rules.Campaign] = {}
    last: Happening | None = None
    for happening, campaign in likely:
        campaigns[campaign.id] = campaign
        if happening is not last:
            last, subject = happening, happening.moment.subject
            persons.add((happening.brand.id, subject.person))
            devices[subject.device_id] = happening.brand.id
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
    _read_offers(offers, persons, devices, since_at, catalogue, ghosts=ghosts, tags=tags)
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
    catalogue: Catalogue,
    *,
    ghosts: bool,
    tags: bool,
) -> None:
    brand_ids, names = zip(*persons, strict=True)
    asked = (array(brand_ids), array(names), since_at, array(devices), since_at)
    with connection.cursor() as cursor:
        cursor.execute(_OFFERS, (*asked, tags, list(COUNTED), list(offers.counts)))
        rows = cursor.fetchall()
        if ghosts:
            cursor.execute(_GHOSTS, (list(brand_ids), list(names), list(devices), since_at))
            rows += cursor.fetchall()
        for row in rows:
            brand_id, at_ms, device_id, person, campaign_id, geofence_id, tagged = row[:7]
            transactional, name, priority, occurred_ms, channel, scheduled = row[7:]
            if transactional:
                continue
            offers.counts[brand_id].recall(
                capping.Offer(
                    *(at_ms, device_id, person, campaign_id, geofence_id),
                    *(tuple(tagged) if tagged else (), channel),
                )
            )
            kind, moment = (
                ("transition", occurred_ms) if scheduled is None else ("schedule", scheduled)
            )
            if moment is not None:
                entry = catalogue.entries.get(campaign_id)
                group = "" if entry is None else entry.campaign.group
                offers.winners[kind, device_id, moment][group] = rules.Winner(
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

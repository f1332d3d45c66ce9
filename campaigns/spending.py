"""Locks, reads and writes what campaigns have spent of their budgets; campaigns.budgets judges.

Whoever holds a campaign's lock reads every charge that was committed before: a budget is exact
whatever runs in parallel (promise 5). One lock and one read for a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction

from campaigns import budgets, catalogue, locks
from campaigns.budgets import Purse, Spent
from campaigns.history import COUNTED
from campaigns.judging import Offers, Pair, Send
from campaigns.reasons import Reason
from notifications.arrays import array
from notifications.gates import Hold, Stop, Subject

# An offer is held back by nine days at most, and zones are a day apart.
AROUND = timedelta(days=11)

_READ = """
    SELECT campaign_id, day, geofence_id, sends, money FROM campaigns_spend
     WHERE campaign_id = ANY(%s) AND (day IS NULL OR day BETWEEN %s AND %s)
       AND (geofence_id IS NULL OR geofence_id = ANY(%s))
"""
# The four sums a charge counts in; what happens nowhere counts in two.
_PARTS = """
    parts AS (
      SELECT t.campaign_id, p.day, p.geofence_id, count(*) AS sends, sum(t.money) AS money
        FROM taken t CROSS JOIN LATERAL (
          VALUES (NULL::date, NULL::bigint, true), (t.day, NULL, true),
                 (NULL, t.geofence_id, t.geofence_id IS NOT NULL),
                 (t.day, t.geofence_id, t.geofence_id IS NOT NULL)
        ) p (day, geofence_id, counts)
       WHERE p.counts GROUP BY 1, 2, 3)
"""
_ADD = f"""
    {_PARTS}
    INSERT INTO campaigns_spend AS s (campaign_id, day, geofence_id, sends, money)
    SELECT campaign_id, day, geofence_id, sends, money FROM parts
    ON CONFLICT (campaign_id, day, geofence_id)
    DO UPDATE SET sends = s.sends + excluded.sends, money = s.money + excluded.money
"""  # noqa: S608 - our own SQL
# What was parked at birth is never sent and costs nothing.
_CHARGE = f"""
    WITH taken AS (
      INSERT INTO campaigns_charge (delivery_id, campaign_id, geofence_id, day, money, returned)
      SELECT v.delivery_id, v.campaign_id, v.geofence_id, v.day, v.money, false
        FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::date[], %s::bigint[])
          AS v (delivery_id, campaign_id, geofence_id, day, money)
        JOIN notifications_delivery d ON d.id = v.delivery_id AND d.state <> 'parked'
      RETURNING campaign_id, geofence_id, day, money),
    {_ADD}
"""  # noqa: S608 - our own SQL
# What was offered while nobody counted; what is settled meanwhile would give back nothing.
_LOCK_UNSETTLED = """
    SELECT id FROM notifications_delivery
     WHERE campaign_id = %s AND state IN ('pending', 'sending') ORDER BY id FOR NO KEY UPDATE
"""
_TAKE_IN = f"""
    WITH taken AS (
      INSERT INTO campaigns_charge (delivery_id, campaign_id, geofence_id, day, money, returned)
      SELECT d.id, d.campaign_id, d.geofence_id,
             (coalesce(d.sent_at, d.due_at) AT TIME ZONE %s)::date, %s, false
        FROM notifications_delivery d
       WHERE d.campaign_id = %s AND d.state = ANY(%s) AND d.moment_kind <> 'test'
          ON CONFLICT (delivery_id) DO NOTHING
      RETURNING campaign_id, geofence_id, day, money),
    {_ADD}
"""  # noqa: S608 - our own SQL
_CHARGED = """
    SELECT delivery_id, campaign_id, geofence_id FROM campaigns_charge
     WHERE delivery_id = ANY(%s) AND returned = %s ORDER BY delivery_id
"""
_GIVE_BACK = f"""
    WITH taken AS (
      UPDATE campaigns_charge SET returned = true
       WHERE delivery_id = ANY(%s) AND NOT returned
      RETURNING campaign_id, geofence_id, day, money),
    {_PARTS}
    UPDATE campaigns_spend s SET sends = s.sends - p.sends, money = s.money - p.money
      FROM parts p
     WHERE s.campaign_id = p.campaign_id AND s.day IS NOT DISTINCT FROM p.day
       AND s.geofence_id IS NOT DISTINCT FROM p.geofence_id
"""  # noqa: S608 - our own SQL
_TAKE_AGAIN = f"""
    WITH taken AS (
      UPDATE campaigns_charge c SET returned = false, day = v.day, money = v.money
        FROM unnest(%s::bigint[], %s::date[], %s::bigint[]) AS v (delivery_id, day, money)
       WHERE c.delivery_id = v.delivery_id AND c.returned
      RETURNING c.campaign_id, c.geofence_id, c.day, c.money),
    {_ADD}
"""  # noqa: S608 - our own SQL


def lock_and_read(offers: Offers, likely: Sequence[Pair], now: datetime) -> None:
    """Put the purses of those campaigns that have a budget into `offers`: two queries, or none."""
    ids = {campaign.id for _, campaign in likely if campaign.budget is not None}
    if ids:
        locks.take("budget", ids)
        offers.purses.update(read(ids, {one.moment.geofence_id for one, _ in likely}, now))


def read(ids: Iterable[int], places: Iterable[int | None], now: datetime) -> dict[int, Purse]:
    """What campaigns have spent, as far as offers made now at these places may ask."""
    purses = {key: Purse() for key in ids}
    today = now.date()
    with connection.cursor() as cursor:
        asked = (list(purses), today - AROUND, today + AROUND, list(places))
        cursor.execute(_READ, asked)
        for campaign_id, day, geofence_id, sends, money in cursor.fetchall():
            purses[campaign_id].spent[day, geofence_id] = Spent(sends, money)
    return purses


def charge(made: Sequence[tuple[int | None, Send]]) -> None:
    """Write what deliveries that were just made cost, in the caller's transaction."""
    rows = [
        (delivery_id, send.campaign.id, send.charge.geofence_id, send.charge.day, send.charge.money)
        for delivery_id, send in made
        if send.charge is not None and delivery_id is not None
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(_CHARGE, [array(column) for column in zip(*rows, strict=True)])


def take_in(campaign_id: int, budget: budgets.Budget) -> None:
    """Charge what a campaign offered before it had a budget, as far as its deliveries are kept.

    In the transaction that publishes the budget, while nobody decides by the version before it.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_UNSETTLED, (campaign_id,))
        locks.take("budget", [campaign_id])
        cursor.execute(_TAKE_IN, (budget.tz.key, budget.cost, campaign_id, list(COUNTED)))


def give_back(delivery_ids: Sequence[int]) -> None:
    """Return what deliveries cost that will not be sent, in the caller's transaction."""
    charged = _charged(delivery_ids, returned=False)
    if charged:
        locks.take("budget", {campaign_id for _, campaign_id, _ in charged})
        with connection.cursor() as cursor:
            cursor.execute(_GIVE_BACK, ([delivery_id for delivery_id, _, _ in charged],))


def still_paid(deliveries: Sequence[Subject], *, now: datetime) -> Mapping[int, Hold | Stop]:
    """Charge anew what is sent again after its charge was given back; stop what is too dear now."""
    if not _charged([one.id for one in deliveries], returned=True):
        return {}
    stopped: dict[int, Hold | Stop] = {}
    with transaction.atomic():
        # First of all: a publication that others stand still for may want the locks below.
        entries = catalogue.current().entries
        charged = _charged([one.id for one in deliveries], returned=True)
        ids = {campaign_id for _, campaign_id, _ in charged}
        locks.take("budget", ids)
        purses = read(ids, {place for _, _, place in charged}, now)
        at_ms, again = round(now.timestamp() * 1000), []
        for delivery_id, campaign_id, geofence_id in charged:
            entry = entries.get(campaign_id)
            budget = None if entry is None else entry.campaign.budget
            if budget is None:
                continue  # nothing limits it any more
            # Somebody asked for it: its amount must hold, its pace need not.
            if budgets.short(budget, purses[campaign_id], at_ms, geofence_id, paced=False):
                stopped[delivery_id] = Stop(reason=Reason.BUDGET_SPENT)
                continue
            taken = budgets.charge_of(budget, at_ms, geofence_id)
            purses[campaign_id].take(taken)
            again.append((delivery_id, taken.day, taken.money))
        if again:
            with connection.cursor() as cursor:
                cursor.execute(_TAKE_AGAIN, [list(column) for column in zip(*again, strict=True)])
    return stopped


def _charged(delivery_ids: Sequence[int], *, returned: bool) -> list[tuple[int, int, int | None]]:
    with connection.cursor() as cursor:
        cursor.execute(_CHARGED, (list(delivery_ids), returned))
        return list(cursor.fetchall())

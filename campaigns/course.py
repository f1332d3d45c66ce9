"""How a campaign went: its offers by day and by place, and why it stayed silent. Reads only.

An offer counts on the day it was made, in the brand's zone, with all that came of it later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection

from campaigns.models import Campaign, Verdict
from geofences.models import Geofence

MOST_PLACES = 50

# Beside a delivery d: what its phone said; who redeemed it has opened and received it, too.
ANSWERS = """
      LEFT JOIN LATERAL (
        SELECT bool_or(event IN ('received', 'opened', 'redeemed')) AS received,
               bool_or(event IN ('opened', 'redeemed')) AS opened,
               bool_or(event = 'redeemed') AS redeemed
          FROM notifications_feedback f WHERE f.delivery_id = d.id) f ON true
"""
_WHAT_CAME = """
    SELECT {groups}, count(*), count(*) FILTER (WHERE d.state = 'sent'),
           count(*) FILTER (WHERE f.received), count(*) FILTER (WHERE f.opened),
           count(*) FILTER (WHERE f.redeemed)
      FROM notifications_delivery d
      {answers}
     WHERE d.campaign_id = ANY(%(campaigns)s) AND d.moment_kind <> 'test'
       AND d.created_at >= %(since)s AND d.created_at < %(until)s
     GROUP BY {groups} {order}
"""
_DAY = "(d.created_at AT TIME ZONE %(zone)s)::date"


@dataclass(slots=True)
class Came:
    """Offers made, and how many were sent, received, opened and redeemed."""

    offers: int = 0
    sent: int = 0
    received: int = 0
    opened: int = 0
    redeemed: int = 0

    def __iadd__(self, other: Came) -> Came:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self


class Period(NamedTuple):
    """Days from `first` to `last`, both of them, in a zone."""

    first: date
    last: date
    zone: ZoneInfo

    @classmethod
    def of_late(cls, days: int, zone: ZoneInfo, *, now: datetime) -> Period:
        """The last so many days, today among them."""
        today = now.astimezone(zone).date()
        return cls(today - timedelta(days=days - 1), today, zone)

    @property
    def days(self) -> list[date]:
        count = (self.last - self.first).days + 1
        return [self.first + timedelta(days=number) for number in range(count)]

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """The first moment, and the first one after."""
        return self._midnight(self.first), self._midnight(self.last + timedelta(days=1))

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What came of a campaign in a period."""

    whole: Came
    days: dict[date, Came]  # each day of the period
    places: list[tuple[int | None, str, Came]]  # the busiest; id and name, None of no place
    more_places: int
    silences: list[tuple[str, int]]  # reasons, the most frequent first


def course(campaign: Campaign, period: Period) -> Course:
    """How a campaign went in a period."""
    days = {day: Came() for day in period.days}
    whole = Came()
    for day, *counts in _rows([campaign.pk], period, _DAY):
        days[day] = Came(*counts)
        whole += days[day]
    places = list(_rows([campaign.pk], period, "d.geofence_id", "ORDER BY 2 DESC, 1"))
    names = _names(key for key, *_ in places[:MOST_PLACES])
    return Course(
        whole=whole,
        days=days,
        places=[(key, names.get(key, ""), Came(*counts)) for key, *counts in places[:MOST_PLACES]],
        more_places=max(0, len(places) - MOST_PLACES),
        silences=_silences(campaign, period),
    )


def of_each(campaign_ids: Sequence[int], period: Period) -> dict[int, Came]:
    """What came of several campaigns in a period; those that made no offer are left out."""
    rows = _rows(campaign_ids, period, "d.campaign_id")
    return {campaign_id: Came(*counts) for campaign_id, *counts in rows}


def by_day_and_place(campaign: Campaign, period: Period) -> Iterator[list[Any]]:
    """For a table: day, geofence's id and name, variant, and the counts of `Came`."""
    groups = f"{_DAY}, d.geofence_id, d.variant"
    rows = _rows([campaign.pk], period, groups, "ORDER BY 1, 2, 3")
    names = _names(key for _, key, *_ in rows)
    for day, key, variant, *counts in rows:
        yield [day.isoformat(), key or "", names.get(key, ""), variant, *counts]


def _names(geofence_ids: Iterable[int | None]) -> dict[int, str]:
    ids = {key for key in geofence_ids if key is not None}
    return dict(Geofence.objects.filter(pk__in=ids).values_list("pk", "name"))


def _rows(campaign_ids: Sequence[int], period: Period, groups: str, order: str = "") -> list[Any]:
    since, until = period.bounds
    values: dict[str, Any] = {
        "campaigns": list(campaign_ids),
        "zone": period.zone.key,
        "since": since,
        "until": until,
    }
    with connection.cursor() as cursor:
        cursor.execute(_WHAT_CAME.format(groups=groups, order=order, answers=ANSWERS), values)
        found: list[Any] = cursor.fetchall()
    return found


def _silences(campaign: Campaign, period: Period) -> list[tuple[str, int]]:
    since, until = period.bounds
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reason, count(*) FROM campaigns_decision"
            " WHERE campaign_id = %s AND verdict = %s AND decided_at >= %s AND decided_at < %s"
            " GROUP BY 1 ORDER BY 2 DESC, 1",
            (campaign.pk, Verdict.REFUSE, since, until),
        )
        found: list[tuple[str, int]] = cursor.fetchall()
    return found

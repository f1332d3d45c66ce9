"""Finds deliveries and decisions for support: newest first, page by page, by an index, uncounted.

Neither table has an index by brand, which every insert would pay for: a brand's rows are the
newest of each of its campaigns, merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import OperationalError, connection, transaction
from django.db.models import Model
from psycopg.errors import QueryCanceled

from campaigns.models import Campaign, Decision
from devices.models import Device
from notifications.models import Delivery

Row = TypeVar("Row", Delivery, Decision)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES: dict[type[Model], str] = {Delivery: "created_at", Decision: "decided_at"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page ends: rows older than this one come next."""

    at: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.at - EPOCH) // timedelta(microseconds=1)}-{self.id}"

    @classmethod
    def read(cls, text: str) -> Place:
        """Read what `str` wrote; ValueError for anything else."""
        at, _, number = text.partition("-")
        try:
            return cls(at=EPOCH + timedelta(microseconds=int(at)), id=int(number))
        except OverflowError as error:
            raise ValueError(text) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[Row]):
    """A page of rows. `since` is set where looking further back took too long."""

    rows: list[Row]
    older: Place | None
    since: datetime | None = None


def find(
    model: type[Row],
    *,
    brand_id: int,
    campaign_id: int | None = None,
    device_ids: Sequence[int] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    equal: dict[str, str] | None = None,
    older: Place | None = None,
    limit: int,
    now: datetime,
) -> Found[Row]:
    """Return up to `limit` rows of a brand. `equal` are further columns (our names) and values."""
    asked = _Question(
        model=model,
        by="campaign_id" if device_ids is None else "device_id",
        ids=_campaigns(brand_id, campaign_id) if device_ids is None else list(device_ids),
        campaign_id=None if device_ids is None else campaign_id,
        equal=equal or {},
        until=until,
        older=older,
        limit=limit + 1,
    )
    found: list[int] = []
    looked: datetime | None = None
    given_up: datetime | None = None
    for start in _starts(asked, since, now):
        try:
            with transaction.atomic():
                found, looked = asked.answer(start), start
        except OperationalError as error:
            if not found or not isinstance(error.__cause__, QueryCanceled):
                raise
            given_up = looked
            break
        if len(found) > limit:
            break
    # The ids come from the brand's own campaigns or devices; this makes sure of it.
    by_id = model._default_manager.filter(brand_id=brand_id).in_bulk(found[:limit])
    rows: list[Row] = [by_id[pk] for pk in found[:limit] if pk in by_id]
    last = rows[-1] if rows and len(found) > limit else None
    return Found(
        rows=rows,
        older=None if last is None else Place(at=getattr(last, _TIMES[model]), id=last.pk),
        since=given_up,
    )


def _campaigns(brand_id: int, campaign_id: int | None) -> list[int]:
    mine = Campaign.objects.filter(brand_id=brand_id)
    if campaign_id is not None:
        mine = mine.filter(pk=campaign_id)
    return list(mine.values_list("pk", flat=True))


def _starts(asked: _Question, since: datetime | None, now: datetime) -> Iterator[datetime | None]:
    """How far back to look, one try after the other.

    Only what is filtered needs tries: where a campaign has no row of the kind that is asked for,
    its scan would not stop at a page's length but at the campaign's first day.
    """
    if asked.equal and asked.by == "campaign_id":
        newest = min(at for at in (now, asked.until, asked.older and asked.older.at) if at)
        for span in TRIES:
            if since is None or newest - span > since:
                yield newest - span
    yield since


TRIES = (timedelta(hours=1), timedelta(days=1), timedelta(days=7))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One look at a table: an index scan for each id, each stopping at the page's length."""

    model: type[Model]
    by: str  # the column of the index: campaign_id or device_id
    ids: list[int]
    campaign_id: int | None
    equal: dict[str, str]
    until: datetime | None
    older: Place | None
    limit: int

    def answer(self, since: datetime | None) -> list[int]:
        """Return the ids of the newest rows since an instant, newest first."""
        time = _TIMES[self.model]
        conditions = [f"{self.by} = one.id"]
        given: list[Any] = []
        for name, value in self.equal.items():
            conditions.append(f"{connection.ops.quote_name(name)} = %s")
            given.append(value)
        for condition, bound in (
            ("campaign_id = %s", self.campaign_id),
            (f"{time} >= %s", since),
            (f"{time} < %s", self.until),
        ):
            if bound is not None:
                conditions.append(condition)
                given.append(bound)
        if self.older is not None:
            conditions.append(f"({time}, id) < (%s, %s)")
            given += [self.older.at, self.older.id]
        with connection.cursor() as cursor:
            # Names are ours, values are parameters.
            cursor.execute(
                f"""SELECT newest.id FROM unnest(%s::bigint[]) AS one(id)
                    CROSS JOIN LATERAL (
                      SELECT id, {time} FROM {self.model._meta.db_table}
                       WHERE {" AND ".join(conditions)}
                       ORDER BY {time} DESC, id DESC LIMIT %s) newest
                    ORDER BY newest.{time} DESC, newest.id DESC LIMIT %s""",  # noqa: S608
                [self.ids, *given, self.limit, self.limit],
            )
            return [row[0] for row in cursor.fetchall()]


def devices_named(brand_id: int, text: str) -> list[int]:
    """Return the ids of the brand's devices that a person may mean by `text`: any of their ids."""
    mine = Device.objects.filter(brand_id=brand_id)
    found = set(mine.filter(external_id=text).values_list("pk", flat=True)[:100])
    found |= set(mine.filter(installation_id=text).values_list("pk", flat=True)[:1])
    if text.isdecimal() and len(text) < 19:
        found |= set(mine.filter(pk=int(text)).values_list("pk", flat=True))
    return sorted(found)

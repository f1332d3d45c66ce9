"""Finds deliveries and decisions for support: newest first, page by page, by an index, uncounted.

Neither table has an index by brand, which every insert would pay for: a brand's rows are the
newest of each of its campaigns, merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db import connection
from django.db.models import Model

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
    rows: list[Row]
    older: Place | None


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
) -> Found[Row]:
    """Return up to `limit` rows of a brand. `equal` are further columns (our names) and values."""
    time = _TIMES[model]
    conditions: list[str] = ["brand_id = %s"]
    given: list[Any] = [brand_id]
    for name, value in (equal or {}).items():
        conditions.append(f"{connection.ops.quote_name(name)} = %s")
        given.append(value)
    if since is not None:
        conditions.append(f"{time} >= %s")
        given.append(since)
    if until is not None:
        conditions.append(f"{time} < %s")
        given.append(until)
    if older is not None:
        conditions.append(f"({time}, id) < (%s, %s)")
        given += [older.at, older.id]
    if device_ids is not None:
        column, ids = "device_id", list(device_ids)
        if campaign_id is not None:
            conditions.append("campaign_id = %s")
            given.append(campaign_id)
    elif campaign_id is not None:
        column, ids = "campaign_id", [campaign_id]
    else:
        column = "campaign_id"
        ids = list(Campaign.objects.filter(brand_id=brand_id).values_list("pk", flat=True))
    with connection.cursor() as cursor:
        # Names are ours, values are parameters. One index scan per campaign or device, each
        # stopping at the page's length.
        cursor.execute(
            f"""SELECT newest.id FROM unnest(%s::bigint[]) AS one(id)
                CROSS JOIN LATERAL (
                  SELECT id, {time} FROM {model._meta.db_table}
                   WHERE {column} = one.id AND {" AND ".join(conditions)}
                   ORDER BY {time} DESC, id DESC LIMIT %s) newest
                ORDER BY newest.{time} DESC, newest.id DESC LIMIT %s""",  # noqa: S608
            [ids, *given, limit + 1, limit + 1],
        )
        found = [row[0] for row in cursor.fetchall()]
    by_id = model._default_manager.in_bulk(found[:limit])
    rows: list[Row] = [by_id[pk] for pk in found[:limit] if pk in by_id]
    last = rows[-1] if rows and len(found) > limit else None
    return Found(
        rows=rows,
        older=None if last is None else Place(at=getattr(last, time), id=last.pk),
    )


def devices_named(brand_id: int, text: str) -> list[int]:
    """Return the ids of the brand's devices that a person may mean by `text`: any of their ids."""
    mine = Device.objects.filter(brand_id=brand_id)
    found = set(mine.filter(external_id=text).values_list("pk", flat=True)[:100])
    found |= set(mine.filter(installation_id=text).values_list("pk", flat=True)[:1])
    if text.isdecimal() and len(text) < 19:
        found |= set(mine.filter(pk=int(text)).values_list("pk", flat=True))
    return sorted(found)

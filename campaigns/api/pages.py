"""Pages of what grows by millions of rows a day: by an index, uncounted, in bounded time.

A brand's rows are the newest of each of its campaigns or places, merged: none of these tables has
an index by brand, which every insert would pay for. What no index answers in time is given up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BigIntegerField, Func, Model, OuterRef, QuerySet
from django.utils.timezone import now
from rest_framework.exceptions import APIException, NotFound
from rest_framework.filters import OrderingFilter
from rest_framework.request import Request
from rest_framework.response import Response

from brands.keyset import beyond, total
from brands.patience import TookTooLongError, patience
from campaigns.lookup import EPOCH, TRIES, Place
from geofences.api import Pages

LIMIT_MS = 5_000  # as the admin's lists (brands.admin.lists)
MAX_ID = 2**63 - 1


class TooMuchToSearch(APIException):
    status_code = 422
    default_code = "too_much_to_search"


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexes:
    """What a table's rows are found by: each of these columns has an index that ends in `time`."""

    time: str
    owner: type[Model]  # of which a brand has some, and each row is of one
    by: str  # the column that says of which
    asked: str  # the filter that names one
    alone: frozenset[str]  # filters of which each finds few rows by an index of its own


class _Unnested(Func):
    function = "unnest"
    set_returning = True
    output_field = BigIntegerField()


class HistoryPages(Pages):
    """Newest first, each page after the last row of the one before, whichever rows came since."""

    _next: str | None

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        indexes: Indexes = view.indexes
        size = self.get_page_size(request) or self.page_size
        order = (OrderingFilter().get_ordering(request, queryset, view) or view.ordering)[0]
        older, column = order.startswith("-"), order.lstrip("-")
        ordering = total((order,))
        rows = queryset.order_by(*ordering)
        place = self._place(request.query_params.get(self.cursor_query_param))
        if place is not None:
            key = [place.id] if column == "id" else [place.at, place.id]
            rows = rows.filter(beyond(ordering, key))
        if column == "id" or indexes.alone & {name for name, said in request.GET.items() if said}:
            found = _in_time(rows[: size + 1], indexes)
        else:
            owners = indexes.owner._default_manager.filter(brand_id__in=view.brand_ids)
            asked = request.GET.get(indexes.asked, "")
            owners = owners.filter(pk=int(asked)) if asked.isdecimal() else owners
            found = []
            for start in _starts(place) if older else [None]:
                some = rows if start is None else rows.filter(**{f"{column}__gte": start})
                found = _in_time(_merged(some, owners, indexes.by, size + 1), indexes)
                if len(found) > size:
                    break
        last = found[size - 1] if len(found) > size else None
        self._next = last and str(Place(at=getattr(last, indexes.time), id=last.pk))
        return found[:size]

    def _place(self, cursor: str | None) -> Place | None:
        """The row after which a page begins."""
        if not cursor:
            return None
        try:
            place = Place.read(cursor)
        except ValueError:
            raise NotFound(self.invalid_cursor_message) from None
        if not 0 <= place.id <= MAX_ID or place.at < EPOCH:
            raise NotFound(self.invalid_cursor_message)
        return place

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self._next, "results": data})


def _starts(place: Place | None) -> Iterator[datetime | None]:
    """How far back to look, one try after the other: of many owners most have nothing new."""
    newest = min(now(), place.at) if place else now()
    yield from (newest - span for span in TRIES)
    yield None


def _merged(rows: QuerySet[Any], owners: QuerySet[Any], by: str, most: int) -> QuerySet[Any]:
    """The first of these rows: those of each owner by its index, merged."""
    first = ArraySubquery(rows.filter(**{by: OuterRef("pk")}).values("pk")[:most])
    ids = owners.order_by().annotate(first=_Unnested(first)).values("first")
    return rows.filter(pk__in=ids)[:most]


def _in_time(rows: QuerySet[Any], indexes: Indexes) -> list[Any]:
    try:
        with patience(LIMIT_MS):
            return list(rows)
    except TookTooLongError as error:
        raise TooMuchToSearch(
            f"To find these takes longer than {LIMIT_MS / 1000:g} s. Ask for one `device`,"
            f" `external_id` or `{indexes.asked}`, or for less time with `after` and `before`,"
            f" and order by `{indexes.time}`."
        ) from error

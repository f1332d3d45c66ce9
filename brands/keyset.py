"""Cursor pages over a total order: no row is lost or repeated. It says nothing of answers."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

from django.core.exceptions import ValidationError as InvalidValue
from django.db.models import Model, Q
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from brands import storable

Key = list[Any]  # the values of a row by which it is ordered; its id is the last


class KeysetPagination(CursorPagination):
    """DRF's cursor pages with the id as the last column, and all columns in the cursor.

    DRF's own cursor holds the first column alone and counts rows among those that share its value:
    in no order of their own, and not beyond a thousand of them. Columns must not hold null.
    """

    _before: Key | None
    _after: Key | None

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        """The rows of the page that the request's cursor begins, in their order."""
        self.request = request
        size = self.get_page_size(request)
        if not size:
            return None  # as DRF has it: not paged
        self.ordering = total(self.get_ordering(request, queryset, view))
        key, backwards = self._asked(queryset.model)
        order = [_turned(column) for column in self.ordering] if backwards else self.ordering
        rows = queryset.order_by(*order)
        if key is not None:
            rows = rows.filter(beyond(order, key))
        found = list(rows[: size + 1])
        more, page = len(found) > size, found[:size]
        if backwards:
            page.reverse()
        self.page = page
        is_followed, is_preceded = (True, more) if backwards else (more, key is not None)
        self._after = self._key(page[-1]) if page and is_followed else None
        self._before = self._key(page[0]) if page and is_preceded else None
        return page

    def next_cursor(self) -> str | None:
        """What to send for the rows after these; None where there are none."""
        return None if self._after is None else _sealed({"p": self._after})

    def previous_cursor(self) -> str | None:
        """What to send for the rows before these; None where there are none."""
        return None if self._before is None else _sealed({"r": "1", "p": self._before})

    def get_next_link(self) -> str | None:
        return self._link(self.next_cursor())

    def get_previous_link(self) -> str | None:
        return self._link(self.previous_cursor())

    def _link(self, cursor: str | None) -> str | None:
        if cursor is None:
            return None
        address = self.request.build_absolute_uri()
        return str(replace_query_param(address, self.cursor_query_param, cursor))

    def _asked(self, model: type[Model]) -> tuple[Key | None, bool]:
        """Where the page begins, and whether it goes back from there."""
        sealed = self.request.query_params.get(self.cursor_query_param)
        if sealed is None:
            return None, False
        try:
            tokens = parse_qs(b64decode(sealed.encode()).decode(), keep_blank_values=True)
        except ValueError:
            raise NotFound(self.invalid_cursor_message) from None
        values = tokens.get("p", [])
        if len(values) != len(self.ordering):
            raise NotFound(self.invalid_cursor_message)
        columns = zip(self.ordering, values, strict=True)
        return [self._value(model, *column) for column in columns], tokens.get("r") == ["1"]

    def _value(self, model: type[Model], column: str, text: str) -> Any:
        """Refuse what is no value of the column that it is to be compared with."""
        field: Any = model._meta.get_field(column.lstrip("-"))
        try:
            value = field.to_python(text)
        except InvalidValue:
            raise NotFound(self.invalid_cursor_message) from None
        naive = isinstance(value, datetime) and value.tzinfo is None
        if value is None or naive or not storable.is_storable(text):
            raise NotFound(self.invalid_cursor_message)
        return value

    def _key(self, row: Model) -> Key:
        return [getattr(row, column.lstrip("-")) for column in self.ordering]


def total(ordering: Sequence[str]) -> tuple[str, ...]:
    """An ordering in which no two rows are equal: the id last, in the last column's direction."""
    columns = list(ordering)
    for place, column in enumerate(columns):
        if column.lstrip("-") == "id":
            return tuple(columns[: place + 1])
    return (*columns, "-id" if columns[-1].startswith("-") else "id")


def beyond(ordering: Sequence[str], key: Key) -> Q:
    """Rows after a key. The first column is bounded by itself too: an index can begin there."""
    found, tied = Q(), Q()
    for column, value in zip(ordering, key, strict=True):
        name = column.lstrip("-")
        found |= tied & Q(**{f"{name}__{_past(column)}": value})
        tied &= Q(**{name: value})
    if len(ordering) == 1:
        return found
    return Q(**{f"{ordering[0].lstrip('-')}__{_past(ordering[0])}e": key[0]}) & found


def _past(column: str) -> str:
    return "lt" if column.startswith("-") else "gt"


def _turned(column: str) -> str:
    return column[1:] if column.startswith("-") else f"-{column}"


def _sealed(tokens: dict[str, Any]) -> str:
    return b64encode(urlencode(tokens, doseq=True).encode()).decode()

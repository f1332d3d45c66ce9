"""The form fields that pages of several apps share: times, spans, caps, rows that a script edits.

Hours and caps are entered as hours and caps; nobody meets JSON.
"""

from __future__ import annotations

from datetime import datetime, time
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.timezone import get_current_timezone

from brands.storable import TOO_DEEP, flaw_of

INPUT = {"class": "nc-input"}
NUMBER = {"class": "nc-input nc-number"}
WIDE = {"class": "nc-input nc-wide"}
PERIODS = frozenset({"hour", "day", "week", "month"})  # of the calendar, in the phone's zone


class LocalTimeField(forms.DateTimeField):
    """A date and time in the brand's zone.

    An hour that comes twice there is meant the first time, one that is left out as if it were not.
    """

    widget = forms.DateTimeInput(INPUT | {"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")

    def to_python(self, value: Any) -> datetime | None:
        try:
            return super().to_python(value)
        except ValidationError as error:
            if error.code != "ambiguous_timezone":
                raise
            wall: datetime = (error.params or {})["datetime"]
        return wall.replace(tzinfo=get_current_timezone())


class HoursWidget(forms.MultiWidget):
    """Two times of day; shown as "from … to …"."""

    template_name = "admin/nearcast/widgets/hours.html"

    def __init__(self) -> None:
        attrs = {"type": "time", "class": "nc-input nc-time"}
        super().__init__([forms.TextInput(attrs | {"aria-label": end}) for end in ("from", "to")])

    def decompress(self, value: Any) -> list[str | None]:
        return [value.get("from"), value.get("to")] if value else [None, None]


class HoursField(forms.MultiValueField):
    """`{"from": "21:00", "to": "08:00"}`, or `{}` where both are empty."""

    widget = HoursWidget

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            fields=(forms.TimeField(), forms.TimeField()),
            require_all_fields=False,
            **{"required": False} | kwargs,
        )

    def compress(self, values: list[time | None]) -> dict[str, str]:
        if not values or values == [None, None]:
            return {}
        start, end = values
        if start is None or end is None:
            raise ValidationError("Give both times, or neither.")
        if start == end:
            raise ValidationError("The two times are the same: that is no span.")
        return {"from": f"{start:%H:%M}", "to": f"{end:%H:%M}"}


class SpanWidget(forms.MultiWidget):
    """A number and its unit."""

    template_name = "admin/nearcast/widgets/span.html"

    def __init__(self, units: dict[int, str]) -> None:
        self.units = units
        super().__init__(
            [
                forms.NumberInput(NUMBER | {"min": 0, "step": "any", "aria-label": "how long"}),
                forms.Select(INPUT | {"aria-label": "unit of time"}, choices=list(units.items())),
            ]
        )

    def decompress(self, value: Any) -> list[Any]:
        if value is None:
            return [None, next(iter(self.units))]
        unit = max((size for size in self.units if value % size == 0), default=min(self.units))
        return [value // unit if value % unit == 0 else value / unit, unit]


class SpanField(forms.MultiValueField):
    """Seconds, entered as a number of minutes, hours or days."""

    def __init__(self, *, units: dict[int, str] | None = None, **kwargs: Any) -> None:
        units = units or {60: "minutes", 3600: "hours", 86_400: "days"}
        super().__init__(
            fields=(
                forms.FloatField(min_value=0, required=False),
                forms.TypedChoiceField(coerce=int, choices=list(units.items()), required=False),
            ),
            widget=SpanWidget(units),
            require_all_fields=False,
            **{"required": False} | kwargs,
        )

    def compress(self, values: list[Any]) -> int | None:
        if not values or values[0] is None or not values[1]:
            return None
        number_s: int = round(values[0] * values[1])
        return number_s


class RowsWidget(forms.HiddenInput):
    """A hidden input with JSON that a script of static/nearcast/ shows as rows to fill in.

    `component` names the script, `options` is what it needs to know.
    """

    template_name = "admin/nearcast/widgets/rows.html"

    class Media:
        js = (forms.Script("nearcast/components.js", type="module"),)

    def __init__(self, component: str, options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.component = component
        self.options = options or {}

    @property
    def is_hidden(self) -> bool:
        return False  # only the input is; its label and errors show

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        return context | {"component": self.component, "options": self.options}


class JsonField(forms.JSONField):
    """JSON that a script edits and PostgreSQL can keep; nobody sees it."""

    def __init__(
        self,
        component: str,
        *,
        empty: Any,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.empty = empty
        super().__init__(widget=RowsWidget(component, options), **{"required": False} | kwargs)

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except RecursionError:
            raise ValidationError(TOO_DEEP) from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return super().bound_data(data, initial)
        except RecursionError:
            return self.empty

    def prepare_value(self, value: Any) -> str:
        # No page can hold half a surrogate pair: it comes back as a question mark.
        written: str = super().prepare_value(value)
        return written.encode(errors="replace").decode()

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        if found is None:
            return self.empty
        if not isinstance(found, type(self.empty)):
            raise ValidationError("This cannot be read.")
        if flaw := flaw_of(found):
            raise ValidationError(flaw[1])
        return found


class CapsField(JsonField):
    """`[{"limit": 3, "window_s": 86400, "scope": "device"}]`: at most 3 in a day for each device.

    Instead of `window_s` a row may say `per` hour, day, week or month; the scopes `tag` and
    `channel` name one. With `ever`, a row may say neither: at most so many for all time.
    """

    def __init__(self, *, scopes: dict[str, str], ever: bool = False, **kwargs: Any) -> None:
        self.scopes = scopes
        self.ever = ever
        options = {"scopes": scopes, "ever": ever}
        super().__init__("caps", empty=[], options=options, **kwargs)

    def clean(self, value: Any) -> list[dict[str, Any]]:
        return [self._row(row) for row in super().clean(value)]

    def _row(self, row: Any) -> dict[str, Any]:
        limit = row.get("limit") if isinstance(row, dict) else None
        least, most = (0, 10**9) if self.ever else (1, 10**6)
        if not isinstance(limit, int) or not least <= limit <= most:
            raise ValidationError(f"A limit allows from {least} to {most:,} offers.")
        found: dict[str, Any] = {"limit": limit, "scope": row.get("scope")}
        if found["scope"] not in self.scopes:
            raise ValidationError("Choose whom the limit is for.")
        if row.get("per") in PERIODS:
            found["per"] = row["per"]
        elif not self.ever or row.get("window_s") is not None:
            window_s = row.get("window_s")
            least_s = 1 if self.ever else 60
            if not isinstance(window_s, int) or not least_s <= window_s <= 366 * 86_400:
                raise ValidationError("A limit looks back from a minute to a year.")
            found["window_s"] = window_s
        if found["scope"] == "tag":
            found["tag"] = str(row.get("tag") or "").strip()
            if not found["tag"]:
                raise ValidationError("Name the tag that the limit is for.")
        if found["scope"] == "channel":
            found["channel"] = row.get("channel")
            if found["channel"] not in {"push", "inbox"}:
                raise ValidationError("Choose the channel that the limit is for.")
        return found


def listed(text: str) -> list[str]:
    """`a, b` → a and b."""
    return [one.strip() for one in text.split(",") if one.strip()]

"""Forms of a brand, its staff and keys, and the fields that campaigns share with it.

Hours and caps are entered as hours and caps; nobody meets JSON.
"""

from __future__ import annotations

from datetime import time
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.validators import UnicodeUsernameValidator
from unfold.widgets import (
    UnfoldAdminEmailInputWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from brands.models import AppKey, Brand, KeyKind, Membership, Role
from brands.rights import NOBODY, Rights

CAP_SCOPES = {
    "device": "a phone",
    "person": "a person",
    "place": "a person at one place",
    "tag": "a person at places tagged",
    "channel": "a person by",
    "campaign": "a person and one campaign",
    "brand": "everybody together",
}
"""Whom a brand's caps count for, in words."""

PERIODS = frozenset({"hour", "day", "week", "month"})  # of the calendar, in the phone's zone


class HoursWidget(forms.MultiWidget):
    """Two times of day; shown as "from … to …"."""

    template_name = "admin/nearcast/widgets/hours.html"

    def __init__(self) -> None:
        attrs = {"type": "time", "class": "nc-input nc-time"}
        super().__init__([forms.TextInput(attrs), forms.TextInput(attrs)])

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
            raise forms.ValidationError("Give both times, or neither.")
        if start == end:
            raise forms.ValidationError("The two times are the same: that is no span.")
        return {"from": f"{start:%H:%M}", "to": f"{end:%H:%M}"}


class SpanWidget(forms.MultiWidget):
    """A number and its unit."""

    template_name = "admin/nearcast/widgets/span.html"

    def __init__(self, units: dict[int, str]) -> None:
        self.units = units
        super().__init__(
            [
                forms.NumberInput({"class": "nc-input nc-number", "min": 0, "step": "any"}),
                forms.Select({"class": "nc-input"}, choices=list(units.items())),
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
    """JSON that a script edits; nobody sees it."""

    def __init__(self, component: str, *, empty: Any, **kwargs: Any) -> None:
        self.empty = empty
        super().__init__(widget=RowsWidget(component), **{"required": False} | kwargs)

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        if found is None:
            return self.empty
        if not isinstance(found, type(self.empty)):
            raise forms.ValidationError("This cannot be read.")
        return found


class CapsField(forms.JSONField):
    """`[{"limit": 3, "window_s": 86400, "scope": "device"}]`: at most 3 in a day for each device.

    Instead of `window_s` a row may say `per` hour, day, week or month; the scopes `tag` and
    `channel` name one. With `ever`, a row may say neither: at most so many for all time.
    """

    def __init__(self, *, scopes: dict[str, str], ever: bool = False, **kwargs: Any) -> None:
        self.scopes = scopes
        self.ever = ever
        super().__init__(
            widget=RowsWidget("caps", {"scopes": scopes, "ever": ever}),
            **{"required": False} | kwargs,
        )

    def clean(self, value: Any) -> list[dict[str, Any]]:
        rows = super().clean(value) or []
        if not isinstance(rows, list):
            raise forms.ValidationError("These limits cannot be read.")
        return [self._row(row) for row in rows]

    def _row(self, row: Any) -> dict[str, Any]:
        limit = row.get("limit") if isinstance(row, dict) else None
        least, most = (0, 10**9) if self.ever else (1, 10**6)
        if not isinstance(limit, int) or not least <= limit <= most:
            raise forms.ValidationError(f"A limit allows from {least} to {most:,} offers.")
        found: dict[str, Any] = {"limit": limit, "scope": row.get("scope")}
        if found["scope"] not in self.scopes:
            raise forms.ValidationError("Choose whom the limit is for.")
        if row.get("per") in PERIODS:
            found["per"] = row["per"]
        elif not self.ever or row.get("window_s") is not None:
            window_s = row.get("window_s")
            least_s = 1 if self.ever else 60
            if not isinstance(window_s, int) or not least_s <= window_s <= 366 * 86_400:
                raise forms.ValidationError("A limit looks back from a minute to a year.")
            found["window_s"] = window_s
        if found["scope"] == "tag":
            found["tag"] = str(row.get("tag") or "").strip()
            if not found["tag"]:
                raise forms.ValidationError("Name the tag that the limit is for.")
        if found["scope"] == "channel":
            found["channel"] = row.get("channel")
            if found["channel"] not in {"push", "inbox"}:
                raise forms.ValidationError("Choose the channel that the limit is for.")
        return found


class BrandForm(forms.ModelForm):  # type: ignore[type-arg]
    """A brand's name, zone, quiet hours and caps."""

    timezone = forms.ChoiceField(
        choices=lambda: [(zone, zone.replace("_", " ")) for zone in sorted(available_timezones())],
        widget=UnfoldAdminSelectWidget,
        initial="UTC",
        help_text="For the times on these pages, and for phones that have not told their own zone.",
    )
    quiet_hours = HoursField(
        help_text="No offers between these times, by the phone's own clock. Empty: no quiet hours."
    )
    caps = CapsField(
        scopes=CAP_SCOPES,
        label="At most",
        help_text="Over all campaigns of the brand together.",
    )

    class Meta:
        model = Brand
        fields = ("name", "slug", "timezone", "quiet_hours", "caps", "derive_areas")
        labels = {"slug": "Short name", "derive_areas": "Home and usual areas"}
        help_texts = {"slug": "For addresses and files; it cannot be changed later."}


class AppKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new key: what it is called and what it is for."""

    kind = forms.ChoiceField(
        label="What is it for?",
        choices=[
            (KeyKind.PUBLISHABLE.value, "An app: may only register devices, may be public"),
            (KeyKind.SERVER.value, "Your back office: locations, profiles, campaigns; keep secret"),
        ],
        initial=KeyKind.PUBLISHABLE.value,
        widget=UnfoldAdminRadioSelectWidget,
    )

    class Meta:
        model = AppKey
        fields = ("name", "kind")
        help_texts = {"name": "So that you know it again, for example “Android app”."}


ROLES = [
    (Role.SUPPORT.value, "Support: sees everything of the brand, resends and cancels deliveries"),
    (Role.MARKETER.value, "Marketer: also makes campaigns, geofences and segments"),
    (Role.ADMIN.value, "Admin: also manages staff, keys and the brand itself"),
]


class RoleForm(forms.ModelForm):  # type: ignore[type-arg]
    """Another role for somebody who works here already."""

    rights: Rights = NOBODY
    role = forms.ChoiceField(choices=ROLES, widget=UnfoldAdminRadioSelectWidget)

    class Meta:
        model = Membership
        fields = ("role",)


class MemberForm(RoleForm):
    """A new colleague: an account is made, unless a brand one administers has it already."""

    username = forms.CharField(
        max_length=150,
        label="User name",
        validators=[UnicodeUsernameValidator()],
        widget=UnfoldAdminTextInputWidget,
    )
    first_name = forms.CharField(max_length=150, required=False, widget=UnfoldAdminTextInputWidget)
    last_name = forms.CharField(max_length=150, required=False, widget=UnfoldAdminTextInputWidget)
    email = forms.EmailField(required=False, label="E-mail", widget=UnfoldAdminEmailInputWidget)
    existing: User | None = None

    def clean_username(self) -> str:
        """Accept a new name, or that of somebody this person may bring over."""
        username: str = self.cleaned_data["username"]
        found = User.objects.filter(username=username).first()
        if found is not None:
            theirs = Membership.objects.filter(user=found).values_list("brand_id", flat=True)
            if theirs.filter(brand=self.instance.brand).exists():
                raise forms.ValidationError("This person works for the brand already.")
            known = any(self.rights.may(Role.ADMIN, brand_id) for brand_id in theirs)
            if not self.rights.everywhere and not known:
                raise forms.ValidationError("This user name is taken; choose another.")
            self.existing = self.instance.user = found
        return username

    def make_user(self, *, password: str) -> User:
        """Make the account that this form describes."""
        given = self.cleaned_data
        return User.objects.create_user(
            username=given["username"],
            email=given["email"],
            password=password,
            first_name=given["first_name"],
            last_name=given["last_name"],
            is_staff=True,
        )

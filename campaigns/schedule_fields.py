"""The builder's fields for a time that comes round: between a form and CONTRACT's trigger.

When that is `campaigns.schedules` knows, what a schedule lacks `campaigns.lacks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from brands.fields import INPUT, LocalTimeField, SpanField, listed
from campaigns.definition import DAY_NAMES, Trigger, TriggerOn, weekday
from campaigns.schedules import ClockOf

WEEKDAYS = [(day, day.title()) for day in DAY_NAMES]
CLOCKS = [
    (ClockOf.DEVICE.value, "the phone's own clock"),
    (ClockOf.BRAND.value, "the brand's clock"),
]

SHOWN = {
    "at": "once_at",
    "times": "times",
    "days": "weekdays",
    "zone": "clock",
    "within_s": "been_within",
    "since": "since",
}
"""What these fields show of a schedule, by its name in a trigger; the rest stays as it is."""

FIELDS = {f"trigger.{name}": field for name, field in SHOWN.items()}
"""The fields by the paths of a definition."""


class ScheduleFields(forms.Form):
    """When it comes round, by whose clock, and who was there."""

    times = forms.CharField(
        required=False,
        max_length=400,
        label="At",
        widget=forms.TextInput(INPUT | {"placeholder": "09:00, 17:30", "size": 18}),
        help_text="One or several times of day, with commas between.",
    )
    weekdays = forms.MultipleChoiceField(
        required=False,
        choices=WEEKDAYS,
        label="On",
        widget=forms.CheckboxSelectMultiple({"class": "nc-not"}),
        help_text="None: every day.",
    )
    clock = forms.ChoiceField(
        required=False, choices=CLOCKS, label="By", widget=forms.Select(INPUT)
    )
    once_at = LocalTimeField(
        required=False, label="Or once, at", help_text="Instead of times of day."
    )
    been_within = SpanField(
        label="Also who was there in the last",
        units={3600: "hours", 60: "minutes", 86_400: "days"},
        help_text="Empty: only who is there at that time.",
    )
    since = LocalTimeField(
        required=False,
        label="Or since",
        help_text="Everybody who was there from then on, however long ago. Instead of a span.",
    )


def initial_of(trigger: Trigger | None) -> dict[str, Any]:
    """The fields' initial values; none for a trigger of another kind."""
    if trigger is None or trigger.on is not TriggerOn.SCHEDULE:
        return {}
    days = (weekday(day) for day in trigger.days)
    return {
        "times": ", ".join(trigger.times),
        "weekdays": [DAY_NAMES[day] for day in days if day is not None],
        "clock": trigger.zone.value,
        "once_at": trigger.at,
        "been_within": trigger.within_s,
        "since": trigger.since,
    }


def raw_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields say in CONTRACT's shape."""
    return {
        "at": said["once_at"] and said["once_at"].isoformat(),
        "times": listed(said["times"]),
        "days": said["weekdays"],
        "zone": said["clock"],
        "within_s": said["been_within"],
        "since": said["since"] and said["since"].isoformat(),
    }

"""The builder's fields for several things after each other: between a form and CONTRACT's trigger.

What a step may say `campaigns.definition` knows, what a sequence lacks `campaigns.lacks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from django import forms

from brands.fields import INPUT, NUMBER, JsonField, SpanField
from campaigns.definition import Trigger, TriggerOn

LONG = {86_400: "days", 3600: "hours", 60: "minutes"}

SHOWN = {
    "steps": "steps",
    "within_s": "steps_within",
    "unless": "unless",
    "for_s": "unless_for",
    "key": "shared",
    "nth": "nth",
    "every": "every",
    "absent_s": "absent",
    "once": "once",
    "again_after_s": "again_after",
}
"""What these fields show of a sequence, by its name in a trigger; the rest stays as it is."""

FIELDS = {f"trigger.{name}": field for name, field in SHOWN.items() if name != "within_s"}
"""The fields by the paths of a definition that no other kind of trigger has."""


class SequenceFields(forms.Form):
    """What happens one after the other, and then does not."""

    steps = JsonField("steps", empty=[], label="These things, one after the other")
    steps_within = SpanField(
        label="All of it within",
        units=LONG,
        help_text="From the first to the last. Empty: however long it takes.",
    )
    unless = JsonField("steps", empty=[], label="And then nothing like this")
    unless_for = SpanField(
        label="for",
        help_text="The offer waits that long after the last step, and is not sent if it happens.",
    )
    nth = forms.IntegerField(
        required=False,
        initial=1,
        min_value=1,
        max_value=1_000,
        label="Only time number",
        widget=forms.NumberInput(NUMBER | {"min": 1, "max": 1_000}),
        help_text="1: each time it happens. 3: the third time.",
    )
    every = forms.BooleanField(
        required=False, label="And again every so many times: the third, the sixth, …"
    )
    shared = forms.CharField(
        required=False,
        max_length=64,
        label="All events with the same",
        widget=forms.TextInput(INPUT | {"placeholder": "e.g. order_id", "size": 18}),
        help_text="A property of the events: each order is counted for itself.",
    )
    absent = SpanField(
        label="Only after an absence of",
        units=LONG,
        help_text="The last step happened before, but not in so long.",
    )
    once = forms.BooleanField(required=False, label="Only once ever for each person")
    again_after = SpanField(
        label="Again after", units=LONG, help_text="At the earliest. Empty: each time it happens."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        widget = self.fields["unless"].widget
        widget.options = widget.options | {"single": True}

    def more_of_sequence(self) -> bool:
        """Whether the rarer fields are shown open: where one says something, or is wrong."""
        names = ("every", "shared", "absent", "once", "again_after")
        if any(self[name].errors for name in (*names, "nth")):
            return True
        said = self.cleaned_data if self.is_bound else self.initial
        return (said.get("nth") or 1) > 1 or any(said.get(name) for name in names)


def initial_of(trigger: Trigger | None) -> dict[str, Any]:
    """The fields' initial values; none for a trigger of another kind."""
    if trigger is None or trigger.on is not TriggerOn.SEQUENCE:
        return {}
    return {
        "steps": msgspec.to_builtins(trigger.steps),
        "steps_within": trigger.within_s,
        "unless": [] if trigger.unless is None else [msgspec.to_builtins(trigger.unless)],
        "unless_for": trigger.for_s,
        "nth": trigger.nth,
        "every": trigger.every,
        "shared": trigger.key,
        "absent": trigger.absent_s,
        "once": trigger.once,
        "again_after": trigger.again_after_s or None,
    }


def raw_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields say in CONTRACT's shape; nothing for what is a default."""
    return {
        "steps": said["steps"],
        "within_s": said["steps_within"],
        "unless": said["unless"][0] if said["unless"] else None,
        "for_s": said["unless_for"],
        "nth": said["nth"] if said["nth"] != 1 else None,
        "every": said["every"],
        "key": said["shared"],
        "absent_s": said["absent"],
        "once": said["once"],
        "again_after_s": said["again_after"],
    }

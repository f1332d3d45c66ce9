"""The campaign builder's form: between a definition and the fields a marketer fills in.

It reads and writes CONTRACT's shape; what is right or missing in it, `campaigns.definition` and
`campaigns.publishing` say, and this puts their words next to the fields they concern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from django import forms

from brands.fields import (
    INPUT,
    NUMBER,
    WIDE,
    CapsField,
    JsonField,
    LocalTimeField,
    RowsWidget,
    SpanField,
    listed,
)
from brands.models import Brand
from campaigns import content_fields, offer_fields, schedule_fields, sequence_fields
from campaigns.content_fields import ContentFields
from campaigns.definition import (
    DEFAULT_EXPIRES_S,
    DEFAULT_MAX_AGE_S,
    Definition,
    HoursPolicy,
    InitialState,
    TriggerOn,
    readable,
)
from campaigns.lacks import Missing
from campaigns.offer_fields import OfferFields
from campaigns.platforms import PushFields, push_initial
from campaigns.schedule_fields import ScheduleFields
from campaigns.sequence_fields import SequenceFields
from campaigns.suggesting import suggestions
from campaigns.untouched import is_untouched

CAP_SCOPES = {
    "person": "one person",
    "device": "one phone",
    "place": "one person at one place",
    "tag": "one person at places tagged",
    "channel": "one person by",
    "campaign": "everybody together",
    "brand": "one person, over all campaigns",
}
_PLACES = {"geofences": "places", "tags": "places"}
SHOWN_OF_TRIGGER: dict[str, Mapping[str, str]] = {
    TriggerOn.ENTERED: _PLACES,
    TriggerOn.EXITED: _PLACES,
    TriggerOn.DWELLED: _PLACES | {"dwell_s": "dwell"},
    TriggerOn.EVENT: {"event": "event", "where": "where"},
    TriggerOn.SCHEDULE: _PLACES | schedule_fields.SHOWN,
    TriggerOn.SEQUENCE: sequence_fields.SHOWN,
}
"""What the page shows of each kind of trigger, and in which field; the rest stays as it is."""
TRIGGERS = [
    (TriggerOn.ENTERED.value, "comes in"),
    (TriggerOn.DWELLED.value, "stays a while"),
    (TriggerOn.EXITED.value, "leaves"),
    (TriggerOn.EVENT.value, "does something in the app"),
    (TriggerOn.SCHEDULE.value, "is there at a time"),
    (TriggerOn.SEQUENCE.value, "does several things"),
]
INITIAL_STATES = [
    (InitialState.SUPPRESS.value, "No welcome for them; their stay and their leaving count"),
    (InitialState.FIRE.value, "Treat them as if they had just come in"),
    (InitialState.REQUIRE_EXIT.value, "Nothing until they have left and come back"),
]
POLICIES = [
    (HoursPolicy.DROP.value, "stay silent"),
    (HoursPolicy.HOLD.value, "wait and send when the hour is right"),
    (HoursPolicy.WHILE_GOOD.value, "wait for it only while the offer is good"),
]


class CampaignForm(OfferFields, ScheduleFields, SequenceFields, ContentFields, PushFields):
    """Everything a marketer says about a campaign."""

    name = forms.CharField(
        max_length=200,
        widget=forms.TextInput(WIDE | {"placeholder": "e.g. Espresso on the house"}),
        help_text="For you and your colleagues; customers never see it.",
    )
    on = forms.ChoiceField(
        label="Somebody",
        choices=TRIGGERS,
        initial=TriggerOn.ENTERED.value,
        widget=forms.RadioSelect,
    )
    dwell = SpanField(label="for at least", units={60: "minutes", 3600: "hours", 1: "seconds"})
    places = JsonField("places", empty={}, label="Where")
    event = forms.CharField(
        required=False,
        max_length=128,
        label="Event",
        widget=forms.TextInput(
            INPUT | {"list": "known-events", "placeholder": "e.g. balance_low", "size": 24}
        ),
        help_text="As your app or back office reports it.",
    )
    where = JsonField("pairs", empty={}, label="Only where")
    starts_at = LocalTimeField(required=False, label="From")
    ends_at = LocalTimeField(required=False, label="Until")
    dayparts = JsonField("dayparts", empty=[], label="Hours")
    outside_dayparts = forms.ChoiceField(
        required=False,
        label="Outside these hours",
        choices=POLICIES,
        widget=forms.Select(INPUT),
    )
    quiet_hours = forms.ChoiceField(
        required=False,
        label="In the brand's quiet hours",
        choices=POLICIES,
        widget=forms.Select(INPUT),
    )
    audience = JsonField("conditions", empty={}, label="Who")
    caps = CapsField(scopes=CAP_SCOPES, ever=True, label="How often")
    guards = JsonField("guards", empty=[], label="Never where")
    labels = forms.CharField(
        required=False,
        max_length=4_000,
        label="Kinds of offer",
        widget=forms.TextInput(INPUT | {"placeholder": "opening, shoes", "size": 24}),
        help_text="Words that rules like the above may name, with commas between.",
    )
    priority = forms.IntegerField(
        required=False,
        initial=0,
        min_value=-32_768,
        max_value=32_767,
        widget=forms.NumberInput(NUMBER),
        help_text="Where several campaigns fire at one moment, the highest speaks.",
    )
    score = forms.FloatField(
        required=False,
        initial=0,
        min_value=-1e6,
        max_value=1e6,
        widget=forms.NumberInput(NUMBER | {"step": "any"}),
        help_text="Among those of one priority, the highest score speaks; then the oldest.",
    )
    score_by = JsonField("weights", empty={}, label="And so much for each")
    group = forms.CharField(
        required=False,
        max_length=64,
        label="Competes in",
        widget=forms.TextInput(INPUT | {"size": 18}),
        help_text="Only campaigns of the same group compete. Empty: with all that have none.",
    )
    expires_after = SpanField(label="Good for", initial=DEFAULT_EXPIRES_S)
    max_age = SpanField(
        label="Not for moments older than",
        initial=DEFAULT_MAX_AGE_S,
        help_text="Phones that save power report some minutes late.",
    )
    only_while_inside = forms.BooleanField(
        required=False, label="Send only while the phone is still inside"
    )
    initial_state = forms.ChoiceField(
        required=False,
        label="Those who are already there when it starts",
        choices=INITIAL_STATES,
        initial=InitialState.SUPPRESS.value,
        widget=forms.RadioSelect,
    )
    transactional = forms.BooleanField(
        required=False,
        label="This is a service message, not marketing",
        help_text="It needs no consent to marketing and knows no quiet hours and no limits.",
    )

    def __init__(
        self, *args: Any, brand: Brand, base: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.brand = brand
        self.base = base or {}
        self.shown = initial_of(readable(self.base), name="")
        self._keep_trigger()
        self.choose_pools(brand, self.base.get("coupon_pool", ""))
        for name, options in suggestions(brand).items():
            widget = self.fields[name].widget
            assert isinstance(widget, RowsWidget), name
            widget.options = widget.options | options

    def _keep_trigger(self) -> None:
        """Offer a kind of trigger that this page cannot make, where the campaign has it."""
        kind = (self.base.get("trigger") or {}).get("on")
        field = self.fields["on"]
        assert isinstance(field, forms.ChoiceField), "one of several"
        if kind and kind not in dict(TRIGGERS):
            field.choices = [*TRIGGERS, (kind, f"{kind}, as set over the API")]

    def raw(self) -> dict[str, Any]:
        """Return the definition in CONTRACT's shape; what nobody touched stays as it was kept."""
        said = self.cleaned_data
        made = _filled(
            {
                "starts_at": said["starts_at"] and said["starts_at"].isoformat(),
                "ends_at": said["ends_at"] and said["ends_at"].isoformat(),
                "dayparts": said["dayparts"],
                "outside_dayparts": said["outside_dayparts"],
                "quiet_hours": said["quiet_hours"],
                "audience": said["audience"],
                "caps": said["caps"],
                "guards": said["guards"],
                "labels": listed(said["labels"]),
                "priority": said["priority"],
                "score": said["score"],
                "score_by": said["score_by"],
                "group": said["group"],
                "expires_after_s": said["expires_after"],
                "max_age_s": said["max_age"],
                "only_while_inside": said["only_while_inside"],
                "initial_state": said["initial_state"],
                "transactional": said["transactional"],
            }
        ) | offer_fields.raw_of(said, self.base)
        found = self._over(self.base, made, _WHOLE) | {"trigger": self._trigger()}
        content = self._content()
        if content or content == self.base.get("content"):
            return found | {"content": content}
        return {name: value for name, value in found.items() if name != "content"}

    def _over(
        self, kept: Mapping[str, Any], made: Mapping[str, Any], fields: Mapping[str, str]
    ) -> dict[str, Any]:
        """What was kept, and in its place what was made of the fields that somebody touched.

        `fields` are those that show a part, by the part's name.
        """
        touched = {name for name, field in fields.items() if not self._is_untouched(field)}
        found = {name: value for name, value in kept.items() if name not in touched}
        return found | {name: made[name] for name in touched if name in made}

    def _is_untouched(self, field: str) -> bool:
        return is_untouched(self, field, self.shown.get(field))

    def _trigger(self) -> dict[str, Any]:
        said = self.cleaned_data
        before = self.base.get("trigger") or {}
        on = said["on"]
        if on not in SHOWN_OF_TRIGGER:
            return dict(before) if on == before.get("on") else {"on": on}
        is_sequence = on == TriggerOn.SEQUENCE
        made = _filled(sequence_fields.raw_of(said) if is_sequence else self._moment())
        shown = SHOWN_OF_TRIGGER[on]
        if on != before.get("on"):
            return {"on": on} | {name: made[name] for name in shown if name in made}
        return {"on": on} | self._over(before, made, shown)

    def _moment(self) -> dict[str, Any]:
        """What the fields say of any trigger that is no sequence."""
        said = self.cleaned_data
        return {
            "geofences": said["places"].get("geofences"),
            "tags": said["places"].get("tags"),
            "dwell_s": said["dwell"],
            "event": said["event"],
            "where": said["where"],
            **schedule_fields.raw_of(said),
        }

    def _content(self) -> dict[str, Any]:
        before = self.base.get("content") or {}
        made = _filled(content_fields.raw_of(self.cleaned_data))
        found = self._over(before, made, content_fields.SHOWN)
        is_shown = "push_urgency" in self.data
        if is_shown and not all(self._is_untouched(name) for name in PushFields.base_fields):
            found.pop("push", None)
            found |= {"push": push} if (push := self.push_options()) else {}
        return found

    def more_of_priority(self) -> bool:
        """Whether the rarer fields are shown open: where one says something, or is wrong."""
        names = ("priority", "score", "score_by", "group", "labels", "transactional")
        if any(self[name].errors for name in (*names, "max_age")):
            return True
        said = self.cleaned_data if self.is_bound else self.initial
        return any(said.get(name) for name in names)

    def blame(self, fields: Mapping[str, Iterable[str]]) -> None:
        """Put messages next to the fields that these paths of a definition belong to."""
        is_sequence = self.cleaned_data.get("on") == TriggerOn.SEQUENCE
        for path, texts in fields.items():
            # The one path that two kinds of trigger share and two fields show.
            is_whole_span = is_sequence and path == "trigger.within_s"
            field = "steps_within" if is_whole_span else field_of(path)
            for text in texts:
                self.add_error(field, f"{detail(path, field)}{text}")


def initial_of(definition: Definition, *, name: str) -> dict[str, Any]:
    """Return the form's initial values for a definition."""
    trigger, content = definition.trigger, definition.content
    return {
        "name": name,
        "on": trigger.on.value if trigger else TriggerOn.ENTERED.value,
        "dwell": trigger.dwell_s if trigger else None,
        "places": {
            "geofences": list(trigger.geofences) if trigger else [],
            "tags": list(trigger.tags) if trigger else [],
        },
        "event": (trigger.event or "") if trigger else "",
        "where": dict(trigger.where) if trigger else {},
        **schedule_fields.initial_of(trigger),
        **sequence_fields.initial_of(trigger),
        "starts_at": definition.starts_at,
        "ends_at": definition.ends_at,
        "dayparts": [
            {"days": list(part.days), "from": part.start, "to": part.end}
            for part in definition.dayparts
        ],
        "outside_dayparts": definition.outside_dayparts.value,
        "quiet_hours": definition.quiet_hours.value,
        "audience": definition.audience,
        "caps": [
            {
                "limit": cap.limit,
                "scope": cap.scope.value,
                **({"window_s": cap.window_s} if cap.window_s else {}),
                **({"per": cap.per.value} if cap.per else {}),
                **({"tag": cap.tag} if cap.tag else {}),
                **({"channel": cap.channel} if cap.channel else {}),
            }
            for cap in definition.caps
        ],
        "guards": msgspec.to_builtins(definition.guards),
        "labels": ", ".join(definition.labels),
        **content_fields.initial_of(content),
        **push_initial(content.push if content else None),
        "priority": definition.priority,
        "score": definition.score,
        "score_by": definition.score_by,
        "group": definition.group,
        "expires_after": definition.expires_after_s,
        "max_age": definition.max_age_s,
        "only_while_inside": definition.only_while_inside,
        "initial_state": definition.initial_state.value,
        "transactional": definition.transactional,
        **offer_fields.initial_of(definition),
    }


_FIELDS = (
    sequence_fields.FIELDS
    | schedule_fields.FIELDS
    | content_fields.FIELDS
    | {
        "trigger.dwell_s": "dwell",
        "trigger.event": "event",
        "trigger.where": "where",
        "trigger.geofences": "places",
        "trigger.tags": "places",
        "trigger": "on",
        "content.push": "push_urgency",
        "content": "title",
        "expires_after_s": "expires_after",
        "max_age_s": "max_age",
    }
)


_WHOLE = {
    name: _FIELDS.get(name, name)
    for name in Definition.__struct_fields__
    if name not in {"trigger", "content"}
}
"""What of a definition is shown in one field each; the trigger and the content have several."""


def _filled(made: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing: the default is meant."""
    return {name: value for name, value in made.items() if value}


def field_of(path: str) -> str | None:
    """Return the form's field for a path of a definition: `caps[0].limit` → caps."""
    for known, field in _FIELDS.items():
        if path == known or path.startswith((f"{known}.", f"{known}[")):
            return field
    if path.startswith("variants.") and ": " in path:
        return field_of(path.partition(": ")[2])
    head = re.split(r"[.\[]", path, maxsplit=1)[0]
    return head if head in CampaignForm.base_fields else None


def detail(path: str, field: str | None) -> str:
    """Say which row or language a message is about, counted as people count."""
    if field == "locales":
        parts = path.split(".")
        return f"{parts[2]}: " if len(parts) > 2 else ""
    numbers = [int(number) + 1 for number in re.findall(r"\[(\d+)\]", path)]
    if path.startswith("score_by."):
        return f"{path.partition('.')[2]}: "
    if field in {"caps", "dayparts", "guards"} and numbers:
        return f"Row {numbers[0]}: "
    if field == "steps" and numbers:
        return f"Step {numbers[0]}: "
    if field == "audience" and numbers:
        return f"Condition {'.'.join(map(str, numbers))}: "
    return "" if field else f"{path}: "


def checklist(missing: Iterable[Missing]) -> list[dict[str, str]]:
    """What is missing, each with the field to go to."""
    return [
        {
            "field": field_of(one.field) or "",
            "text": detail(one.field, field_of(one.field)) + one.message,
        }
        for one in missing
    ]

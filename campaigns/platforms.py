"""What each platform does with a push, as fields of the campaign builder's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from django import forms

from brands.fields import INPUT, SpanField
from notifications.push import MAX_COLLAPSE_KEY_BYTES, PushOptions, Urgency

PREFIX = "push_"


def _text(label: str, help_text: str = "", **attrs: str) -> forms.CharField:
    return forms.CharField(
        required=False,
        max_length=200,
        label=label,
        help_text=help_text,
        widget=forms.TextInput(INPUT | attrs),
    )


class PushFields(forms.Form):
    """FCM's options; each empty field is the app's own default."""

    push_urgency = forms.ChoiceField(
        required=False,
        label="Wake a sleeping phone",
        choices=[
            (Urgency.HIGH.value, "at once"),
            (Urgency.NORMAL.value, "when it wakes by itself, sparing its battery"),
        ],
        initial=Urgency.HIGH.value,
        widget=forms.Select(INPUT),
    )
    push_ttl_s = SpanField(
        required=False,
        label="Give up after",
        help_text="For phones that are off. Empty: as long as the offer is good.",
    )
    push_collapse_key = _text(
        "Replaces others marked",
        "A new offer with the same mark takes the place of the one before. Empty: none does.",
        placeholder="e.g. daily-deal",
        maxlength=str(MAX_COLLAPSE_KEY_BYTES),
    )
    push_android_channel_id = _text(
        "Channel", "As your app names it; it decides how loud it is.", placeholder="offers"
    )
    push_android_sound = _text("Sound", placeholder="default")
    push_android_icon = _text("Icon", placeholder="ic_offer")
    push_android_color = forms.RegexField(
        r"^#[0-9a-fA-F]{6}$",
        required=False,
        label="Colour",
        widget=forms.TextInput(INPUT | {"placeholder": "#0f766e", "size": "9"}),
        error_messages={"invalid": "A colour is # and six digits, such as #0f766e."},
    )
    push_apns_sound = _text("Sound", "Empty: none.", placeholder="default")
    push_apns_badge = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=99_999,
        label="Badge",
        help_text="The number on the app's icon; 0 takes it away. Empty: as it is.",
        widget=forms.NumberInput({"class": "nc-input nc-number"}),
    )
    push_apns_category = _text("Category", "Which buttons it has, as your app names them.")
    push_apns_thread_id = _text("Thread", "Offers of one thread are stacked.")
    push_web_icon = _text("Icon", placeholder="https://…")
    push_web_require_interaction = forms.BooleanField(
        required=False, label="Stays until somebody clicks"
    )

    def push_options(self) -> dict[str, Any]:
        """What was chosen, in the shape of `content.push`, the defaults left out."""
        said = {
            name.removeprefix(PREFIX): self.cleaned_data.get(name)
            for name in PushFields.base_fields
        }
        options = {
            name: value.strip() if isinstance(value, str) else value
            for name, value in said.items()
            if value not in ("", None)
        }
        # Empty is "no sound", which is not what leaving it out means.
        if "push_apns_sound" in self.data:
            options["apns_sound"] = options.get("apns_sound")
        defaults = PushOptions()
        made = msgspec.to_builtins(msgspec.convert(options, PushOptions))
        return {name: value for name, value in made.items() if value != getattr(defaults, name)}

    @property
    def by_platform(self) -> list[tuple[str, list[forms.BoundField]]]:
        """The fields under the heading they belong to."""
        headings = (("android", "Android"), ("apns", "iOS"), ("web", "Web"))
        named = [self[name] for name in PushFields.base_fields]
        return [
            (title, [field for field in named if field.name.startswith(f"{PREFIX}{platform}_")])
            for platform, title in headings
        ]


def push_initial(options: PushOptions | None) -> Mapping[str, Any]:
    """The form's initial values for some options."""
    found = options or PushOptions()
    return {f"{PREFIX}{name}": getattr(found, name) for name in found.__struct_fields__}

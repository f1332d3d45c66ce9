"""The builder's fields for what a phone shows: between a form and CONTRACT's content.

What a template may say `campaigns.templates` knows; options of the push are `campaigns.platforms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from brands.fields import WIDE, JsonField
from campaigns.definition import ContentText

MOST_TEXT = 20_000  # of a template: what it makes of a moment is much shorter

SHOWN = {
    "title": "title",
    "body": "body",
    "deep_link": "deep_link",
    "image_url": "image_url",
    "data": "extras",
    "locales": "locales",
}
"""What these fields show of a content, by its name there; the rest stays as it is."""

FIELDS = {f"content.{name}": field for name, field in SHOWN.items()}
"""The fields by the paths of a definition."""


class ContentFields(forms.Form):
    """The words of the offer, where a tap leads, and what the app gets with it."""

    title = forms.CharField(
        required=False,
        max_length=MOST_TEXT,
        strip=False,
        widget=forms.TextInput(WIDE | {"placeholder": "A line that makes one look"}),
    )
    body = forms.CharField(
        required=False,
        max_length=MOST_TEXT,
        strip=False,
        label="Text",
        widget=forms.Textarea(WIDE | {"rows": 3, "placeholder": "What is in it for them, here"}),
    )
    deep_link = forms.CharField(
        required=False,
        max_length=MOST_TEXT,
        label="Opens",
        widget=forms.TextInput(WIDE | {"placeholder": "myapp://offers/42"}),
        help_text="Where a tap leads in your app. Empty: the app's first screen.",
    )
    image_url = forms.CharField(
        required=False,
        max_length=MOST_TEXT,
        label="Image",
        widget=forms.TextInput(WIDE | {"placeholder": "https://…"}),
    )
    extras = JsonField("pairs", empty={}, label="Data for the app")
    locales = JsonField("locales", empty={}, label="Languages")


def initial_of(content: ContentText | None) -> dict[str, Any]:
    """The fields' initial values."""
    if content is None:
        return {
            **dict.fromkeys(("title", "body", "deep_link", "image_url"), ""),
            "extras": {},
            "locales": {},
        }
    return {
        "title": content.title,
        "body": content.body,
        "deep_link": content.deep_link or "",
        "image_url": content.image_url or "",
        "extras": dict(content.data),
        "locales": {
            tag: {
                field: value
                for field in ("title", "body", "deep_link", "image_url")
                if (value := getattr(local, field)) is not None
            }
            for tag, local in content.locales.items()
        },
    }


def raw_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields say in CONTRACT's shape."""
    return {
        **{name: said[name] if said[name].strip() else "" for name in ("title", "body")},
        **{name: said[name].strip() for name in ("deep_link", "image_url")},
        "data": said["extras"],
        "locales": said["locales"],
    }

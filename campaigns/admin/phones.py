"""The offer as phones would show it, to a sample or a real person; for the builder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brands.models import Brand
from campaigns import meaning, previews
from campaigns.audience import Subject
from campaigns.definition import Definition
from devices.models import Device
from notifications.push import MAX_PAYLOAD_BYTES, PushOptions


def shown_phones(
    brand: Brand, wanted: Definition, name: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The offer on every platform, to a sample or a real person, in every language."""
    asked = {
        key: str(given.get(f"preview_{key}", "")).strip()[:200]
        for key in ("locale", "device", "place", "variant")
    }
    who = previews.person(brand, asked["device"])
    where = previews.place(brand, wanted, asked["place"])
    unknown = [
        f"There is no such {kind}; this is a sample."
        for kind, found in (("device", who), ("place", where))
        if asked[kind] and found is None
    ]
    stage = previews.Stage(
        brand_name=brand.name, name=name, wanted=wanted, who=who or _sample(brand), place=where
    )
    contents = meaning.contents_of(wanted)
    said = contents.get(asked["variant"]) or next(iter(contents.values()), None)
    if said is None or not (said.title or said.body):
        return {"content": {"title": "", "body": ""}, "app": brand.name, "problems": unknown}
    shown = previews.preview(
        said, stage, locale=asked["locale"] or (who.locale if who else ""), variant=asked["variant"]
    )
    wrong = f"{shown.field_at_fault.replace('_', ' ').capitalize()} {shown.problem}"
    return {
        "content": shown.made,
        "app": brand.name,
        "problems": unknown + ([wrong] if shown.problem else []),
        "options": said.push or PushOptions(),
        "size": shown.size,
        "most": MAX_PAYLOAD_BYTES,
        "messages": [] if shown.problem else list(previews.messages(shown.made, wanted)),
        "every": previews.previews(stage) if len(said.locales) + len(contents) > 1 else [],
    }


def _sample(brand: Brand) -> Subject | None:
    """A device that has told most, so that every name in a text means something."""
    newest = Device.objects.filter(brand=brand).order_by("-pk").values_list("pk", flat=True)[:100]
    people = previews.people(list(newest), brand.pk).values()
    return max(people, key=lambda one: len(one.attributes), default=None)

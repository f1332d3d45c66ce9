"""What an offer would look like to a real person, at a real place, on each platform. Sends nothing.

The templates, their context and the messages are the road's; only the moment is made up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.db.models import Q

from brands.models import Brand
from campaigns import catalogue, content, judging, meaning
from campaigns.audience import Subject
from campaigns.definition import ContentText, Definition, StepText, Trigger
from campaigns.places import Place, known_places
from campaigns.subjects import Subjects, person_of
from devices.models import Device, Profile
from geofences.models import Geofence
from notifications import push

PLATFORMS = {"ios": "apns", "android": "android", "web": "webpush"}
TEST_ID = 2**62  # as long as the id of a delivery may become
TOKEN = "<the device's push token>"  # noqa: S105 - stands in for one


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Who sees the offer, where, and of which variant."""

    brand_name: str
    name: str  # of the campaign
    wanted: Definition
    who: Subject | None = None
    place: Place | None = None
    distance_m: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """One text as one reader gets it."""

    locale: str  # the reader's; empty: one whose language has no text of its own
    variant: str
    made: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    field_at_fault: str = ""
    size: int = 0  # bytes, as FCM counts

    @property
    def left(self) -> int:
        return push.MAX_PAYLOAD_BYTES - self.size


def person(brand: Brand, asked: str) -> Subject | None:
    """The device or person that a marketer means by an id; a person needs no device."""
    asked = asked.strip().replace("\0", "")
    if not asked:
        return None
    mine = Device.objects.filter(brand=brand)
    by_id = mine.filter(pk=int(asked)) if asked.isdecimal() and len(asked) < 19 else mine.none()
    device = by_id.first() or mine.filter(external_id=asked).order_by("-pk").first()
    if device is not None:
        return people([device.pk], brand.pk)[device.pk]
    profile = Profile.objects.filter(brand=brand, external_id=asked).first()
    if profile is None:
        return None
    return Subject(
        device_id=0,
        person=person_of(0, profile.external_id),
        external_id=profile.external_id,
        attributes=profile.attributes,
        locale=str(profile.attributes.get("locale") or ""),
    )


def people(device_ids: Sequence[int], brand_id: int, *, now_ms: int = 0) -> dict[int, Subject]:
    """Devices with all that is known of their persons, as the rules would see them."""
    subjects = Subjects(catalogue.load_brands(brand_id), now_ms)
    subjects.load(set(device_ids))
    return {key: known.subject for key, known in subjects.known.items()}


def place(brand: Brand, wanted: Definition, asked: str = "") -> Place | None:
    """The place that a marketer means, else the first that the campaign waits at."""
    mine = Geofence.objects.present().filter(brand=brand)
    asked = asked.strip().replace("\0", "")
    if asked:
        named = Q(external_id=asked) | Q(name__iexact=asked)
        if asked.isdecimal() and len(asked) < 19:
            named |= Q(pk=int(asked))
        found = mine.filter(named).order_by("pk").first()
    else:
        found = next(iter(places(brand.pk, wanted, 1, "pk")), None)
    return None if found is None else known_places({found.pk}).get(found.pk)


def places(brand_id: int, wanted: Definition, limit: int, *order: str) -> list[Geofence]:
    """Some of the places that set the campaign off."""
    chosen = whereabouts(wanted)
    if chosen is None:
        return []
    mine = Geofence.objects.present().filter(brand_id=brand_id).filter(chosen)
    return list(mine.order_by(*order)[:limit])


def whereabouts(wanted: Definition) -> Q | None:
    """The geofences at which the campaign speaks; of a sequence, those of its last step."""
    trigger: Trigger | StepText | None = wanted.trigger
    if isinstance(trigger, Trigger) and trigger.steps:
        trigger = trigger.steps[-1]
    if trigger is None or not (trigger.geofences or trigger.tags):
        return None
    return (
        Q(pk__in=[key for key in trigger.geofences if isinstance(key, int)])
        | Q(external_id__in=[key for key in trigger.geofences if isinstance(key, str)])
        | Q(tags__overlap=list(trigger.tags))
    )


def scene(stage: Stage) -> content.Scene:
    """What the templates see; where nobody and nowhere is chosen, the sample's."""
    trigger, sample = stage.wanted.trigger, content.SAMPLE
    who, where = stage.who, stage.place
    return content.Scene(
        device=sample.device if who is None else judging.about_device(who),
        place=sample.place if where is None else judging.about_place(where),
        moment={
            **sample.moment,
            "on": trigger.on.value if trigger else "entered",
            "dwell_s": (trigger.dwell_s or 0) if trigger else 0,
            **({} if stage.distance_m is None else {"distance_m": stage.distance_m}),
        },
        event={
            "name": (trigger.event or "") if trigger else "",
            "properties": dict(trigger.where) if trigger else {},
        },
        brand={"name": stage.brand_name},
        campaign={"name": stage.name},
        coupon=sample.coupon,  # drawn only when an offer is made
    )


def previews(stage: Stage) -> list[Preview]:
    """Every variant in every language, the default last."""
    return [
        preview(said, stage, locale=locale, variant=variant)
        for variant, said in meaning.contents_of(stage.wanted).items()
        for locale in (*said.locales, "")
    ]


def preview(said: ContentText, stage: Stage, *, locale: str, variant: str = "") -> Preview:
    """One variant as a reader of one language gets it."""
    try:
        made = content.render(said, scene(stage), locale=locale)
    except content.ContentError as error:
        plain = content.localised(said, locale)
        return Preview(
            locale=locale,
            variant=variant,
            made=plain,
            problem=error.message,
            field_at_fault=error.field,
        )
    pushed = push_of(made, stage.wanted)
    return Preview(locale=locale, variant=variant, made=made, size=push.payload_bytes(pushed))


def push_of(made: Mapping[str, Any], wanted: Definition) -> push.Push:
    """The push that an offer would become."""
    return push.push_of(
        msgspec.convert(made, push.Content),
        delivery_id=TEST_ID,
        token=TOKEN,
        life_s=wanted.expires_after_s,
    )


def messages(made: Mapping[str, Any], wanted: Definition) -> Iterator[tuple[str, str]]:
    """What FCM is sent for each platform, as JSON."""
    from notifications import firebase  # half a second, and only where somebody looks

    whole = json.loads(str(firebase.message(push_of(made, wanted))))
    for platform, own in PLATFORMS.items():
        part = {
            key: value
            for key, value in whole.items()
            if key == own or key not in PLATFORMS.values()
        }
        yield platform, json.dumps(part, indent=2, ensure_ascii=False)

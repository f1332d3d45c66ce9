"""Sends a draft's offer to one chosen device, by hand: marked as a test, logged, counted by nobody.

It passes no gate of the campaign; no cap, budget, experiment or result counts it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction

from campaigns import definition, meaning, previews
from campaigns.audience import Subject
from campaigns.models import Campaign, CampaignAction, CampaignLog
from campaigns.previews import Stage
from campaigns.standing import TEST
from notifications import outbox
from notifications.outbox import NewDelivery

GOOD_FOR = timedelta(minutes=30)


class TrialError(ValueError):
    """It cannot be sent; the message says why, for a person."""


def send(
    campaign: Campaign,
    raw: Mapping[str, Any],
    *,
    device: str,
    place: str = "",
    variant: str = "",
    actor: AbstractBaseUser | None,
    now: datetime,
) -> int:
    """Owe the offer of `raw` to one device; the delivery's id. Raises TrialError."""
    who = previews.person(campaign.brand, device)
    if who is None or not who.device_id:
        raise TrialError("There is no such device: give its id or its external id.")
    stage = _stage(campaign, raw, who, place)
    content = _content(stage, who, variant)
    with transaction.atomic():
        found = outbox.send_test(
            NewDelivery(
                brand_id=campaign.brand_id,
                device_id=who.device_id,
                person=who.person,
                campaign_id=campaign.pk,
                campaign_name=f"Test of {campaign.name}"[:200],
                campaign_version=0,
                variant=variant,
                moment_kind=TEST,
                geofence_id=None if stage.place is None else stage.place.id,
                key=f"{TEST}:{uuid.uuid4()}",
                content=content,
                transactional=True,  # somebody chose this very phone: no quiet hours, no marketing
                created_at=now,
                due_at=now,
                expires_at=now + GOOD_FOR,
            ),
            actor_id=None if actor is None else actor.pk,
            note=f"to {who.external_id or who.device_id}",
            now=now,
        )
        if found is None:
            raise TrialError("It could not be written down.")
        CampaignLog.objects.create(
            campaign=campaign,
            actor_id=None if actor is None else actor.pk,
            action=CampaignAction.TESTED,
            at=now,
        )
    return found


def _stage(campaign: Campaign, raw: Mapping[str, Any], who: Subject, place: str) -> Stage:
    try:
        wanted = definition.decode(raw)
    except definition.DefinitionError as error:
        raise TrialError(str(error)) from error
    return Stage(
        brand_name=campaign.brand.name,
        name=campaign.name,
        wanted=wanted,
        who=who,
        place=previews.place(campaign.brand, wanted, place),
    )


def _content(stage: Stage, who: Subject, variant: str) -> dict[str, Any]:
    """The offer as it goes out, marked as a test."""
    contents = meaning.contents_of(stage.wanted)
    said = contents.get(variant) or next(iter(contents.values()), None)
    if said is None:
        raise TrialError("There is no offer to send yet.")
    made = previews.preview(said, stage, locale=who.locale, variant=variant)
    if made.problem:
        raise TrialError(f"{made.field_at_fault}: {made.problem}")
    return {**made.made, "data": {**made.made.get("data", {}), "test": "true"}}

"""Lets variants that reach the goal get more: a new allocation every so often, from rows alone.

It decides nothing: campaigns.experiments does. Every allocation keeps the counts and the step it
came from, so that anybody can work it out again.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from campaigns import experiments, results
from campaigns.definition import DefinitionError, Optimise, decode
from campaigns.experiments import Arm
from campaigns.models import Allocation, Campaign, CampaignState

logger = logging.getLogger(__name__)

LOOK_S = 60.0
LEARN_EVERY = timedelta(minutes=10)


def learn(campaign: Campaign, *, now: datetime) -> Allocation | None:
    """Work out the shares of a live campaign's variants anew; None where nothing is to learn."""
    version = campaign.live_version
    if version is None:
        return None
    live = decode(version.definition)
    if live.optimise is None or live.goal is None or len(live.variants) < 2:
        return None
    before = campaign.allocations.filter(version=version.number).first()
    if before is not None and (before.best or now - before.at < LEARN_EVERY):
        return None
    counted = results.arms_of(campaign, live.goal, version=version.number)
    arms = {variant.name: counted.get(variant.name, Arm(0, 0)) for variant in live.variants}
    step = 1 if before is None else before.step + 1
    found = experiments.allocate(
        arms, guard=_guard(live.optimise), seed=seed_of(campaign.pk, version.number, step)
    )
    return Allocation.objects.create(
        campaign=campaign,
        version=version.number,
        step=step,
        weights=found.weights,
        chances=found.chances,
        arms={name: list(arm) for name, arm in arms.items()},
        best=found.best or "",
        at=now,
    )


def seed_of(campaign_id: int, version: int, step: int) -> int:
    """The chance of one step, the same for whoever works it out again."""
    return (campaign_id << 32) + (version << 16) + step


def _guard(asked: Optimise) -> experiments.Guard:
    return experiments.Guard(burn_in=asked.burn_in, floor=asked.floor, freeze_at=asked.freeze_at)


def learn_all(*, now: datetime) -> int:
    """Look at every live campaign; answers how many got new shares."""
    learnt = 0
    for campaign in Campaign.objects.filter(state=CampaignState.LIVE).select_related(
        "live_version"
    ):
        try:
            with transaction.atomic():
                learnt += learn(campaign, now=now) is not None
        except IntegrityError:
            continue  # another worker was faster
        # One campaign that cannot be read stops no other (promise 9).
        except DefinitionError:
            logger.exception("campaign %s has nothing to teach", campaign.pk)
    return learnt


def run(stop: threading.Event) -> None:
    """Learn every minute what there is to learn, until `stop`."""
    while not stop.is_set():
        learn_all(now=timezone.now())
        stop.wait(LOOK_S)
    connection.close()

"""The life of a campaign: draft, publish, pause, resume, end, roll back; each with who did it.

What is live is an immutable version. Publishing arms the geofences a version names, downwards:
matching never looks up to see who needs a place. It judges no device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib.auth.models import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import Max, Q

from brands import overtaking
from brands.models import Brand
from campaigns import (
    catalogue,
    cautions,
    compiling,
    content,
    coupons,
    definition,
    lacks,
    meaning,
    spending,
)
from campaigns.audience import compile_tree
from campaigns.behaviour import Need
from campaigns.conditions import AudienceError, segments_in
from campaigns.definition import (
    AT_PLACES,
    Definition,
    DefinitionError,
    StepText,
    Trigger,
    TriggerOn,
    selectors,
)
from campaigns.lacks import Missing
from campaigns.models import (
    Campaign,
    CampaignAction,
    CampaignLog,
    CampaignState,
    CampaignVersion,
    Segment,
)
from geofences.models import FOREVER, Arming, Geofence, GeofenceQuerySet

Actor = AbstractBaseUser | None


class NotPublishableError(ValueError):
    """The draft lacks something; `missing` says what."""

    def __init__(self, missing: Sequence[Missing]) -> None:
        super().__init__("; ".join(f"{one.field}: {one.message}" for one in missing))
        self.missing = list(missing)


class WrongStateError(ValueError):
    """The campaign is not in a state in which this can be done."""


class ChangedMeanwhileError(ValueError):
    """Somebody else has changed the draft since it was opened."""


class ArmingKey(NamedTuple):
    """One row of Arming, by what it says."""

    geofence_id: int | None
    tag: str | None
    dwell_s: int | None
    until: datetime


def create(*, brand: Brand, name: str, raw: Mapping[str, Any], actor: Actor) -> Campaign:
    """A new draft. DefinitionError where the definition is malformed."""
    draft = normalised(brand.pk, raw)
    with transaction.atomic():
        campaign = Campaign.objects.create(brand=brand, name=name, draft=draft)
        _log(campaign, CampaignAction.CREATED, actor)
    return campaign


def mark_of(campaign: Campaign) -> str:
    """What tells a draft from every other: two people who open the same one have the same.

    Not of the whole row: who pauses or publishes what a colleague edits replaces none of it.
    """
    return overtaking.mark_of(campaign, ("name", "draft"))


def edit(
    campaign: Campaign,
    *,
    name: str | None = None,
    raw: Mapping[str, Any] | None,
    actor: Actor,
    mark: str | None = None,
    merged: bool = False,
) -> Campaign:
    """Change the draft; what is live stays as it is until it is published again.

    `merged` lays `raw` over the draft as it is under the lock, so that two who change different
    fields at a time both keep theirs. `mark` is that of the draft which was opened:
    ChangedMeanwhileError where it is another now.
    """
    with transaction.atomic():
        locked = _locked(campaign)
        if raw is not None and merged:
            raw = {**locked.draft, **raw}
        draft = None if raw is None else normalised(locked.brand_id, raw)
        if mark is not None and mark != mark_of(locked):
            raise ChangedMeanwhileError("The draft was changed since it was opened.")
        locked.name = name or locked.name
        locked.draft = locked.draft if draft is None else draft
        locked.save(update_fields=["name", "draft", "updated_at"])
        _log(locked, CampaignAction.EDITED, actor)
    return locked


def publish(campaign: Campaign, *, actor: Actor, now: datetime) -> CampaignVersion:
    """Make the draft the live version. NotPublishableError says what it lacks."""
    with transaction.atomic():
        found = Campaign.objects.select_related("live_version").get(pk=campaign.pk)
        still = _begins_to_count(found, found.draft)
        if still:
            catalogue.stand_still()
        locked = _locked(campaign)
        if locked.state == CampaignState.ENDED:
            raise WrongStateError("The campaign has ended; copy it to run it again.")
        if not still and _begins_to_count(locked, locked.draft):
            raise WrongStateError("It was changed at this very moment; publish it again.")
        return _go_live(locked, locked.draft, CampaignAction.PUBLISHED, actor, now)


def roll_back(campaign: Campaign, *, number: int, actor: Actor, now: datetime) -> CampaignVersion:
    """Make a former version live again, as a new one, and the draft what it said."""
    with transaction.atomic():
        former = CampaignVersion.objects.get(campaign_id=campaign.pk, number=number)
        if former.definition.get("budget"):
            catalogue.stand_still()
        locked = _locked(campaign)
        if locked.state == CampaignState.ENDED:
            raise WrongStateError("The campaign has ended; copy it to run it again.")
        locked.draft = former.definition
        locked.name = former.name
        return _go_live(locked, former.definition, CampaignAction.ROLLED_BACK, actor, now)


def pause(campaign: Campaign, *, actor: Actor) -> Campaign:
    """Stop at once; the geofences it alone needs are disarmed."""
    return _stop(campaign, CampaignState.PAUSED, CampaignAction.PAUSED, actor)


def end(campaign: Campaign, *, actor: Actor) -> Campaign:
    """Stop for good."""
    return _stop(campaign, CampaignState.ENDED, CampaignAction.ENDED, actor)


def resume(campaign: Campaign, *, actor: Actor, now: datetime) -> Campaign:
    """Let the live version of a paused campaign run on."""
    with transaction.atomic():
        locked = _locked(campaign)
        if locked.state != CampaignState.PAUSED or locked.live_version is None:
            raise WrongStateError("Only a paused campaign can be resumed.")
        live = definition.decode(locked.live_version.definition)
        if live.ends_at is not None and live.ends_at <= now:
            raise WrongStateError("Its end has passed; publish it with a later one.")
        locked.state = CampaignState.LIVE
        locked.save(update_fields=["state", "updated_at"])
        _arm(locked, live)
        _log(locked, CampaignAction.RESUMED, actor, locked.live_version.number)
    return locked


def normalised(brand_id: int, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The definition as stored; DefinitionError names the fields at fault."""
    slugs = list(Segment.objects.filter(brand_id=brand_id).values_list("slug", flat=True))
    return definition.encode(definition.decode(raw, segments=slugs))


def missing(campaign: Campaign, *, now: datetime) -> list[Missing]:
    """What the draft lacks to be published; empty when it can be."""
    return check(campaign.brand_id, campaign.draft, now=now)


def check(brand_id: int, raw: Mapping[str, Any], *, now: datetime) -> list[Missing]:
    """What a definition lacks to be published in a brand."""
    brand = catalogue.load_brands(brand_id)[brand_id]
    try:
        wanted = definition.decode(raw, segments=list(brand.segments))
    except DefinitionError as error:
        return [
            Missing(field=field, code="invalid", message=" ".join(messages))
            for field, messages in error.fields.items()
        ]
    found = lacks.missing(wanted, now=now)
    for variant, said in meaning.contents_of(wanted).items():
        found += [
            replace(one, field=f"variants.{variant}: {one.field}") if variant else one
            for one in content.check(said)
        ]
    for path, one in selectors(wanted.trigger):
        if one.on in AT_PLACES:
            found += _missing_places(brand_id, one, path)
    found += [
        Missing(field=field, code=code, message=message)
        for field, code, message in coupons.lacks(
            brand_id, wanted.coupon_pool, meaning.contents_of(wanted).values(), now=now
        )
    ]
    if brand.problem:
        found.append(Missing(field="brand", code="invalid", message=brand.problem))
    try:
        compiling.compiled(wanted, campaign_id=0, version=0, name="", brand=brand)
    except AudienceError as error:
        found += [
            Missing(field=path, code="invalid", message=message) for path, message in error.problems
        ]
    if not found:
        found += cautions.broken(cautions.Look(brand=brand, wanted=wanted, name="", now=now))
    return found


def warnings(brand_id: int, raw: Mapping[str, Any], *, name: str, now: datetime) -> list[Missing]:
    """What may surprise whoever publishes a definition, as far as it can be read."""
    brand = catalogue.load_brands(brand_id)[brand_id]
    try:
        wanted = definition.decode(raw, segments=list(brand.segments))
    except DefinitionError:
        return []
    return cautions.cautions(cautions.Look(brand=brand, wanted=wanted, name=name, now=now))


def _missing_places(brand_id: int, trigger: Trigger | StepText, path: str) -> list[Missing]:
    """Geofences that do not exist, tags that none has, a dwell without a length."""
    found: list[Missing] = []
    named = _named(brand_id, trigger, of=Geofence.objects.all())
    in_use = _known(place for place in named if place.retired_at is None)
    retired = _known(place for place in named if place.retired_at is not None)
    found += [
        Missing(
            field=f"{path}.geofences[{number}]",
            code="unknown",
            message=f"“{retired[place]}” is retired: bring it back, or take another place."
            if place in retired
            else f"There is no geofence {place!r}.",
        )
        for number, place in enumerate(trigger.geofences)
        if place not in in_use
    ]
    present = Geofence.objects.present().filter(brand_id=brand_id)
    found += [
        Missing(
            field=f"{path}.tags[{number}]",
            code="unknown",
            message=f"No geofence is tagged {tag!r}.",
        )
        for number, tag in enumerate(trigger.tags)
        if not present.filter(tags__contains=[tag]).exists()
    ]
    if trigger.on is TriggerOn.DWELLED and trigger.dwell_s is None:
        lengthless = present.filter(
            Q(pk__in=[place.pk for place in named]) | Q(tags__overlap=list(trigger.tags)),
            dwell_s__isnull=True,
        )
        if lengthless.exists():
            found.append(
                Missing(
                    field=f"{path}.dwell_s",
                    code="missing",
                    message="Say after how long; not all of these geofences say so themselves.",
                )
            )
    return found


def _known(places: Iterable[Geofence]) -> dict[int | str, str]:
    """Their names by the ids that a trigger may say."""
    found: dict[int | str, str] = {}
    for place in places:
        found[place.pk] = found[place.external_id or place.pk] = place.name
    return found


def _named(
    brand_id: int, trigger: Trigger | StepText, *, of: GeofenceQuerySet | None = None
) -> list[Geofence]:
    """The geofences that a trigger names: those in use, or those among others."""
    among = Geofence.objects.present() if of is None else of
    ids = [place for place in trigger.geofences if isinstance(place, int)]
    external_ids = [place for place in trigger.geofences if isinstance(place, str)]
    return list(
        among.filter(brand_id=brand_id)
        .filter(Q(pk__in=ids) | Q(external_id__in=external_ids))
        .only("pk", "external_id", "name", "retired_at")
    )


def _begins_to_count(campaign: Campaign, raw: Mapping[str, Any]) -> bool:
    """Whether a budget comes to a campaign that made offers without one."""
    live = campaign.live_version
    return bool(raw.get("budget")) and live is not None and not live.definition.get("budget")


def _go_live(
    campaign: Campaign,
    raw: Mapping[str, Any],
    action: CampaignAction,
    actor: Actor,
    now: datetime,
) -> CampaignVersion:
    lacking = check(campaign.brand_id, raw, now=now)
    if lacking:
        raise NotPublishableError(lacking)
    last = campaign.versions.aggregate(last=Max("number"))["last"] or 0
    version = CampaignVersion.objects.create(
        campaign=campaign,
        number=last + 1,
        name=campaign.name,
        definition=raw,
        published_at=now,
        published_by_id=None if actor is None else actor.pk,
    )
    campaign.live_version = version
    campaign.state = CampaignState.LIVE
    campaign.save()
    wanted = definition.decode(raw)
    budget = meaning.budget_of(wanted, timezone=campaign.brand.timezone, quiet=None)
    if budget is not None and last:
        spending.take_in(campaign.pk, budget)
    _arm(campaign, wanted)
    _log(campaign, action, actor, version.number)
    return version


def _stop(
    campaign: Campaign, state: CampaignState, action: CampaignAction, actor: Actor
) -> Campaign:
    with transaction.atomic():
        locked = _locked(campaign)
        allowed = {CampaignState.LIVE}
        if state is CampaignState.ENDED:
            allowed = {CampaignState.LIVE, CampaignState.PAUSED, CampaignState.DRAFT}
        if locked.state not in allowed:
            raise WrongStateError(f"A campaign that is {locked.state} cannot be {action}.")
        locked.state = state
        locked.save(update_fields=["state", "updated_at"])
        _replace_arming(locked, set())
        version = locked.live_version
        _log(locked, action, actor, None if version is None else version.number)
    return locked


def _locked(campaign: Campaign) -> Campaign:
    return Campaign.objects.select_for_update(of=("self",)).get(pk=campaign.pk)


def _log(
    campaign: Campaign, action: CampaignAction, actor: Actor, version: int | None = None
) -> None:
    CampaignLog.objects.create(
        campaign=campaign,
        actor_id=None if actor is None else actor.pk,
        action=action,
        version=version,
    )


def _arm(campaign: Campaign, wanted: Definition) -> None:
    """Arm exactly the geofences that this definition needs, until it ends.

    Those of the trigger and of every step, and those whose visits its audience asks about: a visit
    to a place that nobody watches is never known.
    """
    until = wanted.ends_at or FOREVER
    rows: set[ArmingKey] = set()
    for _, one in selectors(wanted.trigger):
        if one.on in AT_PLACES:
            dwell_s = one.dwell_s if one.on is TriggerOn.DWELLED else None
            rows |= {
                ArmingKey(place.pk, None, dwell_s, until)
                for place in _named(campaign.brand_id, one)
            } | {ArmingKey(None, tag, dwell_s, until) for tag in one.tags}
    for need in _behaviour(campaign.brand_id, wanted):
        if need.kind in {"home", "usual"}:
            continue  # those come of fixes, not of visits
        visited = Trigger(on=TriggerOn.ENTERED, geofences=need.geofences)
        rows |= {
            ArmingKey(place.pk, None, None, until) for place in _named(campaign.brand_id, visited)
        } | {ArmingKey(None, tag, None, until) for tag in need.tags}
    if wanted.goal is not None:
        visited = Trigger(on=TriggerOn.ENTERED, geofences=wanted.goal.geofences)
        rows |= {
            ArmingKey(place.pk, None, None, until) for place in _named(campaign.brand_id, visited)
        } | {ArmingKey(None, tag, None, until) for tag in wanted.goal.tags}
    _replace_arming(campaign, rows)


def _behaviour(brand_id: int, wanted: Definition) -> frozenset[Need]:
    if not wanted.audience:
        return frozenset()
    trees = dict(Segment.objects.filter(brand_id=brand_id).values_list("slug", "tree"))
    return compile_tree(wanted.audience, segments=trees).needs


def _replace_arming(campaign: Campaign, wanted: set[ArmingKey]) -> None:
    """Make the arming rows of a campaign these, and wake only the geofences that differ.

    Waits for those who write geofences: of a place that they have not committed yet, neither they
    nor we would know that it is to be armed (migration 0011 of geofences).
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('geofences_arming'), 0)")
    old = {
        ArmingKey(row.geofence_id, row.tag, row.dwell_s, row.until): row.pk
        for row in Arming.objects.filter(campaign_id=campaign.pk)
    }
    gone = [pk for key, pk in old.items() if key not in wanted]
    new = [key for key in wanted if key not in old]
    Arming.objects.filter(pk__in=gone).delete()
    Arming.objects.bulk_create(
        Arming(brand_id=campaign.brand_id, campaign_id=campaign.pk, **key._asdict()) for key in new
    )
    changed = [key for key in old if key not in wanted] + new
    if changed:
        with connection.cursor() as cursor:
            # The trigger of geofences' migration 0002 computes armed_until from the rows above.
            cursor.execute(
                """UPDATE geofences_geofence SET tags = tags
                    WHERE brand_id = %s AND retired_at IS NULL
                      AND (id = ANY(%s::bigint[]) OR tags && %s::varchar[])""",
                (
                    campaign.brand_id,
                    [key.geofence_id for key in changed if key.geofence_id is not None],
                    [key.tag for key in changed if key.tag is not None],
                ),
            )


def compile_segment(slug: str, trees: Mapping[str, Mapping[str, Any]]) -> None:
    """AudienceError where a segment among others is broken or goes in a circle."""
    compile_tree({"segment": slug}, segments=trees, path="tree")


def users_of_segment(segment: Segment) -> list[str]:
    """The names of what would break without it: campaigns not yet ended, and segments."""
    mine = {"brand_id": segment.brand_id}
    rows = [
        (one.name, one.draft.get("audience"), one.live_version and one.live_version.definition)
        for one in Campaign.objects.filter(**mine)
        .exclude(state=CampaignState.ENDED)
        .select_related("live_version")
    ]
    users = [
        name
        for name, draft, live in rows
        if segment.slug in segments_in(draft) | segments_in((live or {}).get("audience"))
    ]
    others = Segment.objects.filter(**mine).exclude(pk=segment.pk)
    return users + [one.name for one in others if segment.slug in segments_in(one.tree)]

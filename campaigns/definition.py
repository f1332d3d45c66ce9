"""What a campaign says: its wire shape, read strictly. Pure.

A draft may be incomplete but never malformed: `decode` names every wrong field. What it lacks to be
published is `campaigns.lacks`'s question, what it means to the rules `campaigns.meaning`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from brands import storable
from campaigns import budgets, conditions, schedules, scores
from campaigns import caps as capping
from campaigns import guards as guarding
from notifications.push import PushOptions

DEFAULT_EXPIRES_S = 3_600
# A phone that saves power reports in bundles some minutes old; an offer older than that greets
# somebody who has left.
DEFAULT_MAX_AGE_S = 900
MAX_GEOFENCES = 10_000  # by name; more of them share a tag
MAX_SPAN_S = 366 * 86_400
TOO_FAR = "No calendar reaches that far."
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Seconds = Annotated[int, Meta(ge=1, le=MAX_SPAN_S)]
ShortText = Annotated[str, Meta(min_length=1, max_length=128)]
GeofenceName = Annotated[int, Meta(ge=1, le=conditions.MAX_ID)] | ShortText  # its id, or external
Clock = Annotated[str, Meta(pattern=r"^([01]?\d|2[0-3]):[0-5]\d$|^24:00$")]


class TriggerOn(StrEnum):
    ENTERED = "entered"
    DWELLED = "dwelled"
    EXITED = "exited"
    EVENT = "event"
    SEQUENCE = "sequence"
    SCHEDULE = "schedule"


PLACE_TRIGGERS = frozenset({TriggerOn.ENTERED, TriggerOn.DWELLED, TriggerOn.EXITED})
AT_PLACES = PLACE_TRIGGERS | {TriggerOn.SCHEDULE}  # those that need to know who is where


class InitialState(StrEnum):
    """What of a device that is already there when the campaign arms the geofence."""

    FIRE = "fire"  # as if it had just come
    SUPPRESS = "suppress"  # no welcome; its dwell and its leaving count
    REQUIRE_EXIT = "require_exit"  # nothing of that visit counts


class HoursPolicy(StrEnum):
    """What becomes of an offer whose hour is wrong: kept until the hour is right, or dropped."""

    HOLD = "hold"  # sent at the window's end, and good from then on
    WHILE_GOOD = "while_good"  # sent at the window's end if it is still good then
    DROP = "drop"


class StepText(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing of a sequence: at a place as in a trigger, or an event; `times` in a row."""

    on: TriggerOn
    geofences: Annotated[tuple[GeofenceName, ...], Meta(max_length=MAX_GEOFENCES)] = ()
    tags: tuple[ShortText, ...] = ()
    dwell_s: Seconds | None = None
    event: ShortText | None = None
    where: dict[str, str | int | float | bool | None] = {}
    days: tuple[str | int, ...] = ()
    times: Annotated[int, Meta(ge=1, le=20)] = 1


class Trigger(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What sets the campaign off. A text names a geofence by external id, a number by id."""

    on: TriggerOn
    geofences: Annotated[tuple[GeofenceName, ...], Meta(max_length=MAX_GEOFENCES)] = ()
    tags: tuple[ShortText, ...] = ()
    dwell_s: Seconds | None = None
    event: ShortText | None = None
    where: dict[str, str | int | float | bool | None] = {}
    # A sequence: these steps, one after the other, from first to last within so long …
    steps: Annotated[tuple[StepText, ...], Meta(max_length=10)] = ()
    within_s: Seconds | None = None
    # … and then nothing like `unless` for `for_s`, by the server's clock.
    unless: StepText | None = None
    for_s: Seconds | None = None
    key: Annotated[str, Meta(max_length=64)] = ""  # a property that all its events share
    nth: Annotated[int, Meta(ge=1, le=1_000)] = 1
    every: bool = False  # every n-th time, not only the n-th
    absent_s: Seconds | None = None  # the last step came before, but not in so long
    once: bool = False
    again_after_s: Annotated[int, Meta(ge=0, le=MAX_SPAN_S)] = 0
    # A schedule: at an instant, or at these times of day on these days, by whose clock; for who is
    # inside then, or who was within `within_s` or since `since`.
    at: datetime | None = None
    times: Annotated[tuple[Clock, ...], Meta(max_length=48)] = ()
    days: tuple[str | int, ...] = ()
    zone: schedules.ClockOf = schedules.ClockOf.DEVICE
    since: datetime | None = None


class DaypartText(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """`{"days": ["mon", "tue"], "from": "08:00", "to": "18:00"}`; no days: every day."""

    days: tuple[str | int, ...] = ()
    start: Clock = field(name="from", default="00:00")
    end: Clock = field(name="to", default="24:00")


class CapText(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`{"limit": 3, "window_s": 86400, "scope": "person"}`, or `per` hour, day, week, month."""

    limit: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    window_s: Seconds | None = None
    per: capping.Period | None = None
    scope: capping.CapScope = capping.CapScope.DEVICE
    tag: str = ""
    channel: Literal["push", "inbox", ""] = ""


class LocalContent(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What a locale says otherwise; what it leaves out it takes from the default."""

    title: str | None = None
    body: str | None = None
    deep_link: str | None = None
    image_url: str | None = None


class ContentText(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Liquid templates (campaigns.content)."""

    title: str = ""
    body: str = ""
    deep_link: str | None = None
    image_url: str | None = None
    data: dict[str, str] = {}
    push: PushOptions | None = None
    locales: dict[str, LocalContent] = {}


class VariantContent(
    LocalContent, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What a variant says otherwise, to everybody and by language."""

    locales: dict[str, LocalContent] = {}


class Variant(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One way to say it; what its content leaves out it takes from the campaign's."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
    weight: Annotated[float, Meta(ge=0, le=1_000)] = 1.0
    content: VariantContent = VariantContent()


class Goal(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What an offer is for: an event, a visit or a feedback, within so long of it."""

    event: ShortText | None = None
    where: dict[str, str | int | float | bool | None] = {}
    geofences: tuple[GeofenceName, ...] = ()
    tags: tuple[ShortText, ...] = ()
    feedback: Literal["received", "opened", "redeemed"] | None = None
    within_s: Seconds = 7 * 86_400


class Optimise(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Let the variant that reaches the goal best get more, within these bounds."""

    burn_in: Annotated[int, Meta(ge=10, le=1_000_000)] = 100
    floor: Annotated[float, Meta(ge=0, le=0.5)] = 0.05
    freeze_at: Annotated[float, Meta(gt=0.5, le=1)] = 0.99


class Definition(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A campaign in CONTRACT's shape, without its name."""

    trigger: Trigger | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    dayparts: tuple[DaypartText, ...] = ()
    outside_dayparts: HoursPolicy = HoursPolicy.DROP
    quiet_hours: HoursPolicy = HoursPolicy.DROP
    audience: dict[str, Any] = {}
    caps: tuple[CapText, ...] = ()
    guards: tuple[guarding.GuardText, ...] = ()
    labels: Annotated[tuple[ShortText, ...], Meta(max_length=20)] = ()
    priority: Annotated[int, Meta(ge=-32_768, le=32_767)] = 0
    score: Annotated[float, Meta(ge=-1e6, le=1e6)] = 0.0
    score_by: dict[str, Annotated[float, Meta(ge=-1e6, le=1e6)]] = {}
    group: Annotated[str, Meta(max_length=64)] = ""
    content: ContentText | None = None
    expires_after_s: Annotated[int, Meta(ge=1, le=28 * 86_400)] = DEFAULT_EXPIRES_S
    max_age_s: Annotated[int, Meta(ge=1, le=30 * 86_400)] = DEFAULT_MAX_AGE_S
    only_while_inside: bool = False
    initial_state: InitialState = InitialState.SUPPRESS
    transactional: bool = False
    variants: Annotated[tuple[Variant, ...], Meta(max_length=10)] = ()
    holdout: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    goal: Goal | None = None
    optimise: Optimise | None = None
    budget: budgets.BudgetText | None = None
    coupon_pool: Annotated[str, Meta(max_length=64)] = ""  # its slug


class DefinitionError(ValueError):
    """A malformed definition; `fields` has messages by the path of the field."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        super().__init__("; ".join(f"{path}: {' '.join(texts)}" for path, texts in fields.items()))
        self.fields = {path: list(texts) for path, texts in fields.items()}


_FIELDS = {one.encode_name: one for one in msgspec.structs.fields(Definition)}
_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)


def decode(raw: Mapping[str, Any], *, segments: Sequence[str] | None = None) -> Definition:
    """Read a definition; DefinitionError names every wrong field.

    `segments` are the slugs that an audience may refer to; None leaves that unchecked.
    """
    errors: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        known = _FIELDS.get(key)
        if known is None:
            errors[str(key)] = ["There is no such field."]
        elif flaw := storable.flaw_of(value, key):
            errors[flaw[0]] = [flaw[1]]
        elif value is not None:
            try:
                values[known.name] = msgspec.convert(_instant(key, value), known.type)
            except (msgspec.ValidationError, OverflowError, ValueError) as error:
                path, message = _located(key, str(error))
                errors.setdefault(path, []).append(message)
    definition = Definition(**values)
    for path, message in _nonsense(definition, segments):
        errors.setdefault(path, []).append(message)
    if errors:
        raise DefinitionError(errors)
    return definition


def readable(raw: Mapping[str, Any]) -> Definition:
    """Read a stored definition; an empty one where it cannot be read any more."""
    try:
        return decode(raw)
    except DefinitionError:
        return Definition()


def encode(definition: Definition) -> dict[str, Any]:
    """The definition as JSON values, defaults left out."""
    plain: dict[str, Any] = msgspec.to_builtins(definition)
    return plain


def selectors(trigger: Trigger | None) -> list[tuple[str, Trigger | StepText]]:
    """Every part of a trigger that names places or an event, with its path."""
    if trigger is None:
        return []
    if trigger.on is not TriggerOn.SEQUENCE:
        return [("trigger", trigger)]
    found: list[tuple[str, Trigger | StepText]] = [
        (f"trigger.steps[{number}]", step) for number, step in enumerate(trigger.steps)
    ]
    if trigger.unless is not None:
        found.append(("trigger.unless", trigger.unless))
    return found


def _instant(key: str, value: Any) -> Any:
    """Epoch milliseconds and times without an offset (UTC) are fine on the wire."""
    if key == "trigger" and isinstance(value, Mapping):
        instants = {name: value[name] for name in ("at", "since") if value.get(name) is not None}
        return {**value, **{name: _instant("starts_at", one) for name, one in instants.items()}}
    if key not in {"starts_at", "ends_at"}:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _within_calendars(datetime.fromtimestamp(value / 1000, tz=UTC))
        except (OverflowError, OSError) as error:  # as the platform puts "no such year"
            raise ValueError(TOO_FAR) from error
    if not isinstance(value, str | datetime):
        return value  # to be refused by its type
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return _within_calendars(at if at.tzinfo else at.replace(tzinfo=UTC))


def _within_calendars(at: datetime) -> datetime:
    """Refuse the first and the last year: what counts from there falls off the calendar."""
    if not MINYEAR < at.year < MAXYEAR:
        raise ValueError(TOO_FAR)
    return at


def _located(key: str, error: str) -> tuple[str, str]:
    """`Expected …  - at `$[0].limit`` of caps → ("caps[0].limit", "Expected …")."""
    found = _WHERE.match(error)
    if found is None:
        return key, error
    return key + (found["path"] or "$")[1:], found["what"].replace("`", "")


def _nonsense(definition: Definition, segments: Sequence[str] | None) -> list[tuple[str, str]]:
    """What has the right type and still cannot mean anything."""
    found: list[tuple[str, str]] = []
    for number, part in enumerate(definition.dayparts):
        found += [
            (f"dayparts[{number}].days", f"{day!r} is not a day: mon … sun.")
            for day in part.days
            if weekday(day) is None
        ]
        if part.start == part.end:
            found.append((f"dayparts[{number}]", "It ends when it begins."))
    found += [
        (f"{path}.days", f"{day!r} is not a day: mon … sun.")
        for path, one in selectors(definition.trigger)
        for day in one.days
        if weekday(day) is None
    ]
    for number, cap in enumerate(definition.caps):
        if cap.window_s is not None and cap.per is not None:
            found.append((f"caps[{number}]", "Either `window_s` or `per`, not both."))
        if (cap.scope is capping.CapScope.TAG) is not bool(cap.tag):
            found.append((f"caps[{number}].tag", "A tag goes with the scope `tag`."))
        if (cap.scope is capping.CapScope.CHANNEL) is not bool(cap.channel):
            found.append((f"caps[{number}].channel", "push or inbox, with the scope `channel`."))
    found += guarding.problems(definition.guards)
    found += scores.problems(definition.score_by)
    names = [variant.name for variant in definition.variants]
    if len(set(names)) < len(names):
        found.append(("variants", "Each variant needs a name of its own."))
    if definition.goal is not None and not _says_one_thing(definition.goal):
        found.append(("goal", "A goal is one of: event; geofences or tags; feedback."))
    if definition.budget is not None and (problem := budgets.nonsense(definition.budget)):
        found.append(("budget.timezone", problem))
    known = conditions.segments_in(definition.audience) if segments is None else segments
    found += conditions.problems(definition.audience, known_segments=known)
    return found


def _says_one_thing(goal: Goal) -> bool:
    return [bool(goal.event), bool(goal.geofences or goal.tags), goal.feedback is not None].count(
        True
    ) == 1


def language_tag(name: str) -> str:
    """`fr_CA` and `fr-ca` are the same language."""
    return name.replace("_", "-").lower()


def weekday(day: str | int) -> int | None:
    """`mon`, `Monday` and 1 (ISO 8601) are 0."""
    if isinstance(day, int):
        return day - 1 if 1 <= day <= 7 else None
    short = day.lower()[:3]
    return DAY_NAMES.index(short) if short in DAY_NAMES else None

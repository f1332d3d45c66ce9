"""What a campaign by itself has against a moment: the first reason, in a fixed order. Pure.

The order is the order of `_REASONS`: what is wrong with the campaign, with the moment, with
consent, with the person, with what is known, with the hour. What other offers have against it
comes after (`campaigns.restraint`). The order is part of the contract with support: the first
reason that applies is the one that is stored.
Instants are epoch milliseconds. Nothing here reads a clock, a row or a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from brands import wallclock
from campaigns import budgets, hours
from campaigns import caps as capping
from campaigns import guards as guarding
from campaigns.audience import REMEMBERED, Audience, Miss, Subject, Test
from campaigns.behaviour import Need
from campaigns.definition import HoursPolicy, InitialState, TriggerOn
from campaigns.reasons import Decision, Reason, Refusal, Trace
from campaigns.sequences import Pattern

Gate = Callable[["Campaign", "Moment"], Trace | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A published version, ready to be judged (campaigns.compiling makes it)."""

    id: int
    version: int
    name: str
    brand_id: int
    on: TriggerOn
    audience: Audience
    dwell_s: int | None = None
    event: str = ""
    where: tuple[tuple[str, Any], ...] = ()
    pattern: Pattern | None = None  # of a sequence
    starts_ms: int | None = None
    ends_ms: int | None = None
    dayparts: tuple[hours.Daypart, ...] = ()
    outside_dayparts: HoursPolicy = HoursPolicy.DROP
    quiet: hours.Daypart | None = None
    quiet_policy: HoursPolicy = HoursPolicy.DROP
    caps: tuple[capping.Cap, ...] = ()  # its own, then the brand's
    guards: guarding.Guards | None = None  # its own, then the brand's
    priority: int = 0
    score: float = 0.0
    score_by: Mapping[str, float] = field(default_factory=dict)  # see campaigns.scores
    group: str = ""
    expires_after_ms: int = 3_600_000
    max_age_ms: int = 900_000
    only_while_inside: bool = False
    initial_state: InitialState = InitialState.SUPPRESS
    transactional: bool = False
    budget: budgets.Budget | None = None
    coupon_pool: str = ""  # the slug of the pool whose codes its offers carry
    weights: Mapping[str, float] = field(default_factory=dict)  # of its variants, if it has any
    holdout: float = 0.0  # the share of persons that it leaves out on purpose
    control: tuple[float, str] = (0.0, "")  # the brand's control group: share and salt
    problem: str = ""  # why it cannot be used at all
    # Those of the gates that can object at all, in their order: most campaigns need few.
    gates: tuple[Gate, ...] = field(init=False, repr=False, compare=False)
    # And those that can object to a plain moment (see `is_plain`).
    plain_gates: tuple[Gate, ...] = field(init=False, repr=False, compare=False)
    turn: tuple[float, ...] = field(init=False, repr=False, compare=False)  # see `ranked`
    # Whether nothing comes before a better campaign, and what decides is the same at any moment.
    gives_way: bool = field(init=False, repr=False, compare=False)
    # Whether it may speak, by the minute of the week on the wall.
    _open: dict[int, bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        gates = tuple(_applicable(self))
        object.__setattr__(self, "gates", gates)
        plain = tuple(one for one in gates if one not in _NEVER_PLAIN)
        object.__setattr__(self, "plain_gates", plain)
        object.__setattr__(self, "turn", (-self.priority, -self.score, self.id))
        says_first = self.guards is not None and bool(self.guards.offers)
        gives_way = not (self.transactional or says_first or self.score_by)
        object.__setattr__(self, "gives_way", gives_way)
        object.__setattr__(self, "_open", {})

    @property
    def rests_on_location(self) -> bool:
        """Whether its moments do, though what ends them may be an event at no place."""
        return self.pattern is not None and self.pattern.has_places

    def speaks_at(self, wall: hours.Local) -> bool:
        """Whether this is an hour of its own, and no quiet one that it heeds."""
        minute = wall.weekday * wallclock.DAY_MINUTES + wall.minute
        found = self._open.get(minute)
        if found is None:
            found = self._open[minute] = hours.is_open(
                wall.weekday, wall.minute, self.dayparts
            ) and (self.transactional or not hours.is_quiet(wall.weekday, wall.minute, self.quiet))
        return found


@dataclass(slots=True, kw_only=True)
class Moment:
    """One transition or event of one device, with what is known of the device then."""

    kind: str  # transition, event, timer, schedule
    id: int
    on: TriggerOn
    occurred_ms: int
    now_ms: int
    subject: Subject
    tz: ZoneInfo
    local: hours.Local
    geofence_id: int | None = None
    tags: tuple[str, ...] = ()
    dwell_s: int = 0
    visit_id: int | None = None
    entered_ms: int | None = None
    reason: str = ""  # of the transition
    began_initially: bool = False  # the visit began with the arming, not with an arrival
    event: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)
    place: guarding.Here | None = None
    distance_m: int | None = None  # to the middle of the place, where a score asks for it
    # Of a sequence: what stands against it before any rule is asked, already in words.
    objection: Refusal | None = None
    # What audiences answered: many campaigns ask for the same people.
    answers: dict[Test, Miss | None] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )


# What is set off by no arrival has nobody who was already there.
_NO_ARRIVAL = frozenset({TriggerOn.EVENT, TriggerOn.SCHEDULE})
# Exits that nobody walked: the place, the consent or the phone's voice went away.
_NO_CROSSING = frozenset(
    {"geofence_ended", "geofence_moved", "disarmed", "consent_withdrawn", "silence"}
)


def gate(campaign: Campaign, moment: Moment) -> Refusal | None:
    """The first reason that needs no look at other offers, and so no lock."""
    for rule in campaign.gates:
        trace = rule(campaign, moment)
        if trace is not None:
            return Refusal(_REASONS[rule], trace)
    return None


class Asked(NamedTuple):
    """A campaign, and what is left to ask it of any plain moment at one instant in one zone."""

    campaign: Campaign
    gates: tuple[Gate, ...]
    hour: Decision | None  # what the hour has against it, in the end


def ask_at(campaign: Campaign, moment: Moment) -> Asked:
    """What to ask of plain moments at this one's instant and zone that come in good time."""
    gates = tuple(rule for rule in campaign.plain_gates if rule not in _OF_ANY_MOMENT)
    if campaign.speaks_at(moment.local):
        return Asked(campaign, gates, None)
    for rule in campaign.plain_gates:
        if rule in _OF_THE_HOUR and (trace := rule(campaign, moment)) is not None:
            return Asked(campaign, gates, Decision(False, _REASONS[rule], trace))
    return Asked(campaign, gates, None)


def objection_of(asked: Asked, moment: Moment) -> Decision | None:
    """As `gate`, of what is left to ask."""
    for rule in asked.gates:
        trace = rule(asked.campaign, moment)
        if trace is not None:
            return Decision(False, _REASONS[rule], trace)
    return asked.hour


def is_plain(moment: Moment) -> bool:
    """Whether a moment has nothing to it that gates object to on behalf of every campaign."""
    return (
        moment.reason not in _NO_CROSSING
        and not moment.began_initially
        and moment.objection is None
        and moment.subject.consent_location
        and moment.subject.consent_marketing
    )


def gate_again(campaign: Campaign, moment: Moment, *, then: Moment) -> Refusal | None:
    """The first reason against an offer that waited since `then`.

    What is known now counts, and the rules of relevance are asked at this instant. The windows of
    the audience stay those of then: that time went by while we waited is nobody's doing.
    """
    for rule in campaign.gates:
        if rule in _AGAIN:
            trace = rule(campaign, then if rule is _not_in_audience else moment)
            if trace is not None:
                return Refusal(_REASONS[rule], trace)
    return None


def _applicable(campaign: Campaign) -> Iterator[Gate]:
    needless: set[Gate] = set()
    if not campaign.problem:
        needless.add(_malformed)
    if campaign.starts_ms is None and campaign.ends_ms is None:
        needless.add(_outside_window)
    if campaign.on is not TriggerOn.EXITED:
        needless.add(_not_a_crossing)
    if campaign.on in _NO_ARRIVAL or campaign.initial_state is InitialState.FIRE:
        needless.add(_initial_state)
    if not campaign.where:
        needless.add(_event_differs)
    if campaign.pattern is None:
        needless |= {_sequence_incomplete, _sequence_rests, _called_off}
    if campaign.transactional:
        needless |= {_no_marketing_consent, _quiet_hours}
    if not campaign.audience.leaves:
        needless.add(_not_in_audience)
    asked = campaign.guards
    needless |= set() if asked and asked.attributes else {_contradicts_attribute}
    needless |= set() if asked and asked.events else {_contradicts_event}
    if hours.are_always(campaign.dayparts) or campaign.outside_dayparts is HoursPolicy.HOLD:
        # What may wait for however long is never refused for the hour.
        needless.add(_outside_daypart)
    if campaign.quiet is None or campaign.quiet_policy is HoursPolicy.HOLD:
        needless.add(_quiet_hours)
    return (rule for rule in _REASONS if rule not in needless)


def ranked(campaigns: Sequence[Campaign]) -> list[Campaign]:
    """In the order in which they may speak: priority, score, then the older campaign."""
    return sorted(campaigns, key=lambda one: one.turn)


def needs(campaigns: Iterable[Campaign], moment: Moment) -> set[Need]:
    """Every figure about behaviour that these campaigns' audiences and rules ask for."""
    found: set[Need] = set()
    for one in campaigns:
        found |= one.audience.needs
        if one.guards is not None and one.guards.events:
            found |= one.guards.needs(moment)
    return found


def _malformed(campaign: Campaign, _moment: Moment) -> Trace | None:
    return {"problem": campaign.problem} if campaign.problem else None


def _outside_window(campaign: Campaign, moment: Moment) -> Trace | None:
    starts, ends = campaign.starts_ms, campaign.ends_ms
    # Both must lie in the window: what happened before the start is not what the campaign is
    # about, and after the end nothing may be sent.
    if (starts is None or starts <= moment.occurred_ms) and (ends is None or moment.now_ms < ends):
        return None
    return window_trace(campaign, moment.occurred_ms)


def window_trace(campaign: Campaign, at_ms: int) -> Trace:
    seen: Trace = {"at": at_ms}
    if campaign.starts_ms is not None:
        seen["starts_at"] = campaign.starts_ms
    if campaign.ends_ms is not None:
        seen["ends_at"] = campaign.ends_ms
    return seen


def _not_a_crossing(_campaign: Campaign, moment: Moment) -> Trace | None:
    return {"transition_reason": moment.reason} if moment.reason in _NO_CROSSING else None


def _initial_state(campaign: Campaign, moment: Moment) -> Trace | None:
    if not moment.began_initially:
        return None
    policy = campaign.initial_state
    if policy is InitialState.REQUIRE_EXIT or moment.on is TriggerOn.ENTERED:
        return {"policy": policy.value}
    return None


def _too_late(campaign: Campaign, moment: Moment) -> Trace | None:
    age_ms = moment.now_ms - moment.occurred_ms
    if age_ms <= campaign.max_age_ms:
        return None
    return {"age_s": age_ms // 1000, "max_age_s": campaign.max_age_ms // 1000}


def _event_differs(campaign: Campaign, moment: Moment) -> Trace | None:
    for name, wanted in campaign.where:
        seen = moment.properties.get(name)
        if seen != wanted or isinstance(seen, bool) is not isinstance(wanted, bool):
            return {"property": name, "wanted": wanted, "seen": _short(seen)}
    return None


def _sequence_incomplete(_campaign: Campaign, moment: Moment) -> Trace | None:
    return _objection(moment, Reason.SEQUENCE_INCOMPLETE)


def _sequence_rests(_campaign: Campaign, moment: Moment) -> Trace | None:
    return _objection(moment, Reason.SEQUENCE_RESTS)


def _called_off(_campaign: Campaign, moment: Moment) -> Trace | None:
    return _objection(moment, Reason.CALLED_OFF)


def _objection(moment: Moment, reason: Reason) -> Trace | None:
    found = moment.objection
    return found.trace if found is not None and found.reason is reason else None


def _no_location_consent(campaign: Campaign, moment: Moment) -> Trace | None:
    if moment.subject.consent_location:
        return None
    return {} if moment.geofence_id is not None or campaign.rests_on_location else None


def _no_marketing_consent(_campaign: Campaign, moment: Moment) -> Trace | None:
    return None if moment.subject.consent_marketing else {}


def _not_in_audience(campaign: Campaign, moment: Moment) -> Trace | None:
    audience, answers = campaign.audience, moment.answers
    try:
        miss = answers[audience.miss]
    except KeyError:
        miss = answers[audience.miss] = audience.miss(moment.subject)
    return None if miss is None else _missed(audience, miss)


def _missed(audience: Audience, miss: Miss) -> Trace:
    """The same trace wherever the same is seen: nobody may write into it."""
    seen = miss.seen
    if isinstance(seen, list | dict):
        return _miss_trace(audience, miss)
    key = (miss.leaf, type(seen), seen)
    found = audience.told.get(key)
    if found is None:
        if len(audience.told) >= REMEMBERED:
            audience.told.clear()
        found = audience.told[key] = _miss_trace(audience, miss)
    return found


def _miss_trace(audience: Audience, miss: Miss) -> Trace:
    leaf = audience.leaves[miss.leaf]
    return {"path": leaf.path, "wanted": dict(leaf.condition), "seen": _short(miss.seen)}


def _contradicts_attribute(campaign: Campaign, moment: Moment) -> Trace | None:
    assert campaign.guards is not None
    return _shortened(guarding.against_attribute(campaign.guards, moment))


def _contradicts_event(campaign: Campaign, moment: Moment) -> Trace | None:
    assert campaign.guards is not None
    return _shortened(guarding.against_event(campaign.guards, moment))


def _shortened(trace: Trace | None) -> Trace | None:
    return trace and {
        name: {key: _short(one) for key, one in value.items()}
        if isinstance(value, dict)
        else _short(value)
        for name, value in trace.items()
    }


def _outside_daypart(campaign: Campaign, moment: Moment) -> Trace | None:
    if campaign.speaks_at(moment.local):
        return None
    if hours.is_open(moment.local.weekday, moment.local.minute, campaign.dayparts):
        return None
    return _too_long(campaign, moment, campaign.outside_dayparts)


def _quiet_hours(campaign: Campaign, moment: Moment) -> Trace | None:
    if campaign.speaks_at(moment.local):
        return None
    if not hours.is_quiet(moment.local.weekday, moment.local.minute, campaign.quiet):
        return None
    return _too_long(campaign, moment, campaign.quiet_policy)


_REASONS: dict[Gate, Reason] = {
    _malformed: Reason.MALFORMED,
    _outside_window: Reason.OUTSIDE_WINDOW,
    _not_a_crossing: Reason.NOT_A_CROSSING,
    _initial_state: Reason.INITIAL_STATE,
    _too_late: Reason.TOO_LATE,
    _event_differs: Reason.EVENT_DIFFERS,
    _sequence_incomplete: Reason.SEQUENCE_INCOMPLETE,
    _sequence_rests: Reason.SEQUENCE_RESTS,
    _called_off: Reason.CALLED_OFF,
    _no_location_consent: Reason.NO_LOCATION_CONSENT,
    _no_marketing_consent: Reason.NO_MARKETING_CONSENT,
    _not_in_audience: Reason.NOT_IN_AUDIENCE,
    _contradicts_attribute: Reason.CONTRADICTS_ATTRIBUTE,
    _contradicts_event: Reason.CONTRADICTS_EVENT,
    _outside_daypart: Reason.OUTSIDE_DAYPART,
    _quiet_hours: Reason.QUIET_HOURS,
}


# What these object to lies in the moment, whatever the campaign; see `is_plain`.
_NEVER_PLAIN = frozenset(
    {
        _not_a_crossing,
        _initial_state,
        _sequence_incomplete,
        _sequence_rests,
        _called_off,
        _no_location_consent,
        _no_marketing_consent,
    }
)

# Asked once for all moments at one instant in one zone; they come last.
_OF_THE_HOUR = frozenset({_outside_daypart, _quiet_hours})
_OF_ANY_MOMENT = _OF_THE_HOUR | {_too_late}

# Those of the gates that may object by now to what they let through before.
_AGAIN = frozenset(
    {
        _malformed,
        _outside_window,
        _no_location_consent,
        _no_marketing_consent,
        _not_in_audience,
        _contradicts_attribute,
        _contradicts_event,
    }
)


def _too_long(campaign: Campaign, moment: Moment, policy: HoursPolicy) -> Trace | None:
    """Whether the wait for the right hour is longer than the policy lets an offer wait."""
    trace = _hour_trace(campaign, moment)
    if policy is HoursPolicy.DROP:
        return trace
    next_ms = trace.get("next_at")
    if next_ms is not None and next_ms < moment.now_ms + campaign.expires_after_ms:
        return None
    return trace | {"good_for_s": campaign.expires_after_ms // 1000}


def _hour_trace(campaign: Campaign, moment: Moment) -> Trace:
    trace: Trace = {"local": moment.local.text}
    next_ms = allowed_ms(campaign, moment)
    if next_ms is not None:
        trace["next_at"] = next_ms
    return trace


def allowed_ms(campaign: Campaign, moment: Moment) -> int | None:
    return hours.next_allowed_ms(
        moment.now_ms,
        moment.tz,
        dayparts=campaign.dayparts,
        quiet=None if campaign.transactional else campaign.quiet,
    )


def _short(value: Any) -> Any:
    """What was seen, cut to what a trace may keep."""
    if isinstance(value, str):
        return value if len(value) <= 80 else value[:79] + "…"
    if isinstance(value, list | dict):
        text = str(value)
        return text if len(text) <= 80 else text[:79] + "…"
    return value

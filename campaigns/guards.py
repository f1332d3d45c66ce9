"""Relevance: rules that refuse an offer which contradicts what is known. Pure; it gathers nothing.

A rule is data and says one of three things:

- `{"attribute": "city", "op": "eq", "value": "Paris"}`: the offer supposes this of the person.
  Somebody known to be elsewhere is refused; somebody of whom nothing is known is not. `source` and
  `max_age_s` say what counts as known. Instead of `value`, `against` names where the supposition
  comes from: the place, the event or the offer's own data.
- `{"event": "purchase", "where": {"kind": "shoes"}, "same": {"sku": "offer.sku"},
  "within_s": 604800}`: not where this happened within so long, `times` times.
- `{"offer": {"label": "opening"}, "within_s": 3600}`: not where an offer with this label, of this
  group or of this campaign was made to the person within so long.

`against` and the values of `same` are one of place.name, place.external_id, place.metadata.<key>,
place.tags, place.tags.<beginning>, event.<property>, offer.<key of the offer's data>. Where that
says nothing, the rule has nothing to object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from campaigns.audience import Subject, comparison
from campaigns.behaviour import MAX_WITHIN_S, Measure, Need, typed
from campaigns.conditions import ORDERED, Op, is_number

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Seconds = Annotated[int, Meta(ge=1, le=MAX_WITHIN_S)]
Scalar = str | int | float | bool | None
Trace = dict[str, Any]

MAX_GUARDS = 20
_PLACE_FIELDS = frozenset({"name", "external_id", "tags"})
_LISTS = frozenset({Op.IN, Op.NOT_IN})


class OfferText(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which offers are meant: exactly one of these."""

    campaign: int | None = None
    group: Name | None = None
    label: Name | None = None

    @property
    def mark(self) -> str:
        """What the campaigns meant carry (see `marks_of`); empty where nothing is named."""
        if self.campaign is not None:
            return f"campaign:{self.campaign}"
        if self.group is not None:
            return f"group:{self.group}"
        return "" if self.label is None else f"label:{self.label}"


class GuardText(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One rule on the wire."""

    name: Annotated[str, Meta(max_length=80)] = ""
    attribute: Name | None = None
    op: Op = Op.EQ
    value: Scalar | list[Scalar] = None
    against: Annotated[str, Meta(max_length=160)] = ""
    source: Name | None = None
    max_age_s: Seconds | None = None
    event: Name | None = None
    where: dict[str, Scalar] = {}
    same: dict[str, str] = {}
    times: Annotated[int, Meta(ge=1, le=1_000)] = 1
    offer: OfferText | None = None
    within_s: Seconds | None = None


class Here(Protocol):
    """What a rule may ask of a place."""

    @property
    def external_id(self) -> str | None: ...
    @property
    def name(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def metadata(self) -> dict[str, Any]: ...


class Scene(Protocol):
    """What a rule may ask of a moment."""

    @property
    def subject(self) -> Subject: ...
    @property
    def place(self) -> Here | None: ...
    @property
    def properties(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """The rules of a campaign, its own and then its brand's, ready to be asked."""

    attributes: tuple[GuardText, ...] = ()
    events: tuple[GuardText, ...] = ()
    offers: tuple[GuardText, ...] = ()
    data: Mapping[str, str]  # of the campaign's offer

    def needs(self, scene: Scene) -> set[Need]:
        """The figures about past events that a moment is judged by."""
        return {need for one in self.events if (need := _need(one, scene, self.data)) is not None}

    @property
    def longest_s(self) -> int:
        """How far back the offers made must be known."""
        return max((one.within_s or MAX_WITHIN_S for one in self.offers), default=0)


def compiled(texts: Iterable[GuardText], data: Mapping[str, str]) -> Guards:
    """Sort rules by what they ask; `data` is what the campaign's offer carries for the app."""
    rules = tuple(texts)
    return Guards(
        attributes=tuple(one for one in rules if one.attribute is not None),
        events=tuple(one for one in rules if one.event is not None),
        offers=tuple(one for one in rules if one.offer is not None),
        data=dict(data),
    )


def marks_of(campaign_id: int, group: str, labels: Iterable[str]) -> frozenset[str]:
    """What a campaign's offers are called by in rules."""
    found = {f"campaign:{campaign_id}", *(f"label:{label}" for label in labels)}
    return frozenset(found | {f"group:{group}"} if group else found)


def against_attribute(guards: Guards, scene: Scene) -> Trace | None:
    """What is known of the person and contradicts the offer."""
    subject = scene.subject
    for rule in guards.attributes:
        name = rule.attribute or ""
        seen = subject.attributes.get(name)
        fact = subject.facts.get(name) or {}
        at_ms = fact.get("at_ms")
        age_s = None if at_ms is None else (subject.now_ms - at_ms) // 1000
        if (
            seen is None
            or (rule.source is not None and fact.get("source") != rule.source)
            or (rule.max_age_s is not None and (age_s is None or age_s > rule.max_age_s))
        ):
            continue
        op, wanted = rule.op, rule.value
        if rule.against:
            said = _said(rule.against, scene, guards.data)
            if said is None:
                continue
            if isinstance(said, list):
                op = Op.NOT_IN if rule.op in {Op.NE, Op.NOT_IN} else Op.IN
            wanted = said
        if _holds(op, wanted)(seen):
            continue
        trace = {"attribute": name, "seen": seen, "op": op.value, "wanted": wanted}
        known = {"source": fact.get("source"), "age_s": age_s}
        return _named(rule, trace | {key: one for key, one in known.items() if one is not None})
    return None


def against_event(guards: Guards, scene: Scene) -> Trace | None:
    """Something that happened too recently for this offer."""
    for rule in guards.events:
        need = _need(rule, scene, guards.data)
        if need is None:
            continue
        seen = scene.subject.measures.get(need)
        if seen is None or (need.measure is Measure.COUNT and seen < rule.times):
            continue
        trace: Trace = {"event": rule.event}
        if need.where:
            trace["where"] = dict(need.where)
        if need.measure is Measure.COUNT:
            trace["seen"] = int(seen)
        else:
            trace["ago_s"] = int(seen)
        if rule.within_s is not None:
            trace["within_s"] = rule.within_s
        return _named(rule, trace)
    return None


def against_offer(
    guards: Guards,
    offers: Iterable[tuple[int, int]],
    marks: Mapping[int, frozenset[str]],
    *,
    at_ms: int,
) -> Trace | None:
    """An offer that was made too recently; `offers` are instants (ms) and campaigns."""
    if not guards.offers:
        return None
    known = sorted(offers, reverse=True)
    for rule in guards.offers:
        assert rule.offer is not None, "compiled by it"
        mark = rule.offer.mark
        for made_ms, campaign_id in known:
            near = rule.within_s is None or abs(at_ms - made_ms) < rule.within_s * 1000
            if near and mark in marks.get(campaign_id, frozenset({f"campaign:{campaign_id}"})):
                kind, _, what = mark.partition(":")
                trace: Trace = {"offer": what, "kind": kind, "campaign_id": campaign_id}
                trace["at"] = made_ms
                if rule.within_s is not None:
                    trace |= {"within_s": rule.within_s, "next_at": made_ms + rule.within_s * 1000}
                return _named(rule, trace)
    return None


def _named(rule: GuardText, trace: Trace) -> Trace:
    return {"rule": rule.name, **trace} if rule.name else trace


def _holds(op: Op, wanted: Any) -> Callable[[Any], bool]:
    # An attribute that is a list has the value when it contains it.
    plain = comparison(op, wanted)
    if op not in {Op.EQ, Op.NE, Op.IN, Op.NOT_IN}:
        return plain
    values = [typed(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
    positive = op in {Op.EQ, Op.IN}
    return lambda seen: (
        any(typed(one) in values for one in seen) is positive
        if isinstance(seen, list)
        else plain(seen)
    )


def _need(rule: GuardText, scene: Scene, data: Mapping[str, str]) -> Need | None:
    where = dict(rule.where)
    for name, reference in rule.same.items():
        said = _said(reference, scene, data)
        if not isinstance(said, str | int | float):
            return None
        where[name] = said
    return Need(
        kind="event",
        name=rule.event or "",
        within_s=rule.within_s,
        measure=Measure.RECENCY_S if rule.times == 1 else Measure.COUNT,
        where=tuple(sorted(where.items())),
    )


def _said(reference: str, scene: Scene, data: Mapping[str, str]) -> Any:
    """What a reference stands for at a moment; None where that says nothing."""
    of, _, rest = reference.partition(".")
    if of == "offer":
        return data.get(rest)
    if of == "event":
        return scene.properties.get(rest)
    place = scene.place
    if place is None:
        return None
    field, _, key = rest.partition(".")
    if field == "metadata":
        return place.metadata.get(key)
    if field == "tags":
        return [tag[len(key) :] for tag in place.tags if tag.startswith(key)] or None
    return place.name if field == "name" else place.external_id


def problems(texts: Sequence[GuardText], path: str = "guards") -> list[tuple[str, str]]:
    """Everything that has the right type and still cannot mean anything."""
    found = [
        (f"{path}[{number}]{tail}", message)
        for number, rule in enumerate(texts)
        for tail, message in _problems(rule)
    ]
    if len(texts) > MAX_GUARDS:
        found.append((path, f"At most {MAX_GUARDS} rules."))
    return found


def lacking(texts: Sequence[GuardText], data: Mapping[str, str]) -> list[tuple[str, str]]:
    """References to the offer's data that would say nothing, or not what they seem to."""
    found = []
    for number, rule in enumerate(texts):
        for tail, reference in [("against", rule.against), *rule.same.items()]:
            of, _, key = reference.partition(".")
            if of != "offer":
                continue
            path = f"guards[{number}].{tail if tail == 'against' else f'same.{tail}'}"
            if key not in data:
                found.append((path, f"The offer's data has no “{key}”."))
            elif "{" in data[key]:
                found.append((path, f"“{key}” is a template; a rule needs a plain value."))
    return found


def _problems(rule: GuardText) -> list[tuple[str, str]]:
    about = [rule.attribute is not None, rule.event is not None, rule.offer is not None]
    if about.count(True) != 1:
        return [("", "A rule is about one of: attribute, event, offer.")]
    if rule.attribute is not None:
        return _attribute_problems(rule)
    found = _strangers(rule, {"value": None, "op": Op.EQ, "against": "", "source": None,
                              "max_age_s": None})  # fmt: skip
    if rule.event is not None:
        found += [
            (f".same.{name}", message)
            for name, reference in rule.same.items()
            if (message := _reference_problem(reference, lists=False))
        ]
        return found
    offer = rule.offer
    assert offer is not None
    found += _strangers(rule, {"where": {}, "same": {}, "times": 1})
    if [offer.campaign, offer.group, offer.label].count(None) != 2:
        found.append((".offer", "Name one of: campaign, group, label."))
    return found


def _attribute_problems(rule: GuardText) -> list[tuple[str, str]]:
    found = _strangers(rule, {"where": {}, "same": {}, "times": 1, "within_s": None})
    if rule.against:
        if rule.value is not None:
            found.append((".value", "Either `value` or `against`, not both."))
        if rule.op not in {Op.EQ, Op.NE, Op.IN, Op.NOT_IN}:
            found.append((".op", "`against` goes with eq or ne."))
        message = _reference_problem(rule.against)
        return [*found, (".against", message)] if message else found
    if rule.op is Op.EXISTS:
        return [*found, (".op", "Nothing known is no contradiction; ask for it in the audience.")]
    if rule.op is Op.MISSING:
        return [*found, (".value", "`missing` takes no value.")] if rule.value else found
    if rule.op in _LISTS:
        if not isinstance(rule.value, list):
            found.append((".value", f"`{rule.op}` needs a list."))
    elif rule.value is None or isinstance(rule.value, list):
        found.append((".value", f"`{rule.op}` needs a value."))
    elif rule.op in ORDERED and not (is_number(rule.value) or isinstance(rule.value, str)):
        found.append((".value", f"`{rule.op}` needs a number or a text."))
    return found


def _strangers(rule: GuardText, defaults: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (f".{name}", "Means nothing in a rule of this kind.")
        for name, default in defaults.items()
        if getattr(rule, name) != default
    ]


def _reference_problem(reference: str, *, lists: bool = True) -> str:
    of, _, rest = reference.partition(".")
    field, _, key = rest.partition(".")
    good = {
        "offer": bool(rest),
        "event": bool(rest),
        "place": field in _PLACE_FIELDS or (field == "metadata" and bool(key)),
    }.get(of, False)
    if not good:
        return "Must be place.name, place.tags, place.metadata.<key>, event.<name> or offer.<name>."
    return "" if lists or field != "tags" else "Tags are many; choose one thing."

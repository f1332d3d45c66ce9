"""Every live campaign, compiled and immutable, by what may set it off. It judges nothing.

`current` answers the newest one: a cheap query per batch sees every commit that matters, so an
evaluator never decides by an older publication than the transitions it claims.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from django.db import connection

from campaigns import guards as guarding
from campaigns import rules
from campaigns.compiling import BrandRules, Entry, entry_of, with_rules
from campaigns.conditions import Tree
from campaigns.definition import TriggerOn

Mark = tuple[int, ...]

# The place and the writing transaction of every row, as one sum per table: it changes with every
# commit that touches a row, whatever the clock says, and needs no trigger.
_SUM = "(SELECT coalesce(sum(hashtextextended(ctid::text, xmin::text::bigint)), 0) FROM {})"
# Whoever decides by a catalogue holds this until its transaction ends: see `stand_still`. Two
# statements on one way, so that the second sees what was committed while the first one waited.
_STILL = 0x6E63_0001
_MARK = f"SELECT pg_advisory_xact_lock_shared({_STILL}); SELECT " + ", ".join(
    _SUM.format(table)
    for table in (
        "campaigns_campaign",
        "campaigns_segment",
        "campaigns_controlgroup",
        "campaigns_allocation",
        "campaigns_brandguard",
        "brands_brand",
    )
)
_LIVE = """
    SELECT c.id, c.brand_id, v.number, v.name, v.definition
      FROM campaigns_campaign c JOIN campaigns_campaignversion v ON v.id = c.live_version_id
     WHERE c.state = 'live'
"""
_BRANDS = """
    SELECT b.id, b.name, b.timezone, b.quiet_hours, b.caps, coalesce(g.share, 0),
           coalesce(g.salt, '')
      FROM brands_brand b LEFT JOIN campaigns_controlgroup g ON g.brand_id = b.id
"""
# The newest shares that were learnt for what is live.
_LEARNT = """
    SELECT DISTINCT ON (a.campaign_id) a.campaign_id, a.version, a.weights
      FROM campaigns_allocation a ORDER BY a.campaign_id, a.step DESC, a.id DESC
"""
_GUARDS = "SELECT brand_id, name, rule FROM campaigns_brandguard"
# What campaigns are called by in rules; what those offered that no longer run stands.
_MARKS = """
    SELECT c.id, coalesce(v.definition->>'group', ''), coalesce(v.definition->'labels', '[]')
      FROM campaigns_campaign c JOIN campaigns_campaignversion v ON v.id = c.live_version_id
     WHERE v.definition ?| '{group,labels}'
"""
_SEGMENTS = "SELECT brand_id, slug, tree FROM campaigns_segment"


@dataclass(slots=True, kw_only=True)
class Catalogue:
    """All live campaigns at one moment; what it answers is in the order they may speak."""

    mark: Mark
    brands: Mapping[int, BrandRules]
    entries: Mapping[int, Entry]  # by campaign
    marks: Mapping[int, frozenset[str]] = field(default_factory=dict)  # see guards.marks_of
    _by: Mapping[tuple[object, ...], tuple[rules.Campaign, ...]] = field(default_factory=dict)
    _found: dict[tuple[object, ...], tuple[rules.Campaign, ...]] = field(default_factory=dict)
    _same: dict[tuple[int, ...], tuple[rules.Campaign, ...]] = field(default_factory=dict)

    def at_place(
        self,
        brand_id: int,
        on: TriggerOn,
        geofence_id: int,
        external_id: str | None,
        tags: tuple[str, ...],
        *,
        dwell_s: int,
        own_dwell_s: int | None,
    ) -> tuple[rules.Campaign, ...]:
        """The campaigns that a transition concerns: its place, its kind, its dwell threshold."""
        key = (brand_id, on, geofence_id, external_id, tags, dwell_s, own_dwell_s)
        found = self._found.get(key)
        if found is None:
            at = self._at(brand_id, False, on, geofence_id, external_id, tags)
            found = tuple(
                one
                for one in at
                if on is not TriggerOn.DWELLED or dwell_s == (one.dwell_s or own_dwell_s)
            )
            # Places with the same campaigns answer the same tuple: who judges plans for it once.
            found = self._same.setdefault(tuple(one.id for one in found), found)
            self._found[key] = found
        return found

    def sequences_at_place(
        self,
        brand_id: int,
        on: TriggerOn,
        geofence_id: int,
        external_id: str | None,
        tags: tuple[str, ...],
    ) -> tuple[rules.Campaign, ...]:
        """The sequences with a step at this place."""
        key = (brand_id, on, geofence_id, external_id, tags)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._at(brand_id, True, on, geofence_id, external_id, tags)
        return found

    def _at(
        self,
        brand_id: int,
        steps: bool,
        on: TriggerOn,
        geofence_id: int,
        external_id: str | None,
        tags: tuple[str, ...],
    ) -> tuple[rules.Campaign, ...]:
        names = [("id", geofence_id), ("external_id", external_id)]
        names += [("tag", tag) for tag in tags]
        unique = {
            one.id: one
            for kind, name in names
            for one in self._by.get((brand_id, steps, on, kind, name), ())
        }
        return tuple(rules.ranked(list(unique.values())))

    def on_event(self, brand_id: int, name: str) -> tuple[rules.Campaign, ...]:
        """The campaigns that wait for an event of this name."""
        return self._by.get((brand_id, False, TriggerOn.EVENT, "event", name), ())

    def sequences_on_event(self, brand_id: int, name: str) -> tuple[rules.Campaign, ...]:
        """The sequences with a step that is an event of this name."""
        return self._by.get((brand_id, True, TriggerOn.EVENT, "event", name), ())


EMPTY = Catalogue(mark=(), brands={}, entries={})


def build(
    mark: Mark,
    brands: Mapping[int, BrandRules],
    entries: Iterable[Entry],
    marks: Mapping[int, frozenset[str]] | None = None,
) -> Catalogue:
    """Sort campaigns by what may set them off; `marks` are those of campaigns past."""
    by: dict[tuple[object, ...], list[rules.Campaign]] = defaultdict(list)
    kept = {entry.campaign.id: entry for entry in entries}
    for entry in kept.values():
        for key in _keys(entry):
            by[key].append(entry.campaign)
    return Catalogue(
        mark=mark,
        brands=brands,
        entries=kept,
        marks={
            **(marks or {}),
            **{
                key: guarding.marks_of(key, entry.campaign.group, entry.labels)
                for key, entry in kept.items()
            },
        },
        _by={key: tuple(rules.ranked(found)) for key, found in by.items()},
    )


def _keys(entry: Entry) -> list[tuple[object, ...]]:
    """Under what a campaign is found; a sequence under each of its steps, marked as such."""
    brand_id, trigger = entry.campaign.brand_id, entry.trigger
    steps = trigger.on is TriggerOn.SEQUENCE
    chosen = [trigger] if not steps else list(trigger.steps)
    found: list[tuple[object, ...]] = []
    for one in chosen:
        if one.on is TriggerOn.EVENT:
            found.append((brand_id, steps, one.on, "event", one.event))
        found += [
            (brand_id, steps, one.on, "id" if isinstance(place, int) else "external_id", place)
            for place in one.geofences
        ]
        found += [(brand_id, steps, one.on, "tag", tag) for tag in one.tags]
    return list(dict.fromkeys(found))


_lock = threading.Lock()
_current = EMPTY


def current() -> Catalogue:
    """The live campaigns as committed now: one small query, and a load where something changed."""
    global _current  # noqa: PLW0603 - one catalogue per process, swapped whole
    mark = read_mark()
    if mark == _current.mark:
        return _current
    with _lock:
        if mark != _current.mark:
            _current = load(mark, before=_current)
        return _current


def read_mark() -> Mark:
    with connection.cursor() as cursor:
        cursor.execute(_MARK)
        cursor.nextset()
        return tuple(int(part) for part in cursor.fetchone())


def stand_still() -> None:
    """Wait for all who decide by the catalogue, and let nobody begin before this transaction ends.

    Taken before any row is locked: who decides may wait for one.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_STILL,))


def load(mark: Mark, *, before: Catalogue = EMPTY) -> Catalogue:
    """Read everything; versions that `before` compiled for an unchanged brand are taken over."""
    brands = load_brands()
    with connection.cursor() as cursor:
        cursor.execute(_LIVE)
        rows = cursor.fetchall()
        cursor.execute(_MARKS)
        marks = {
            key: guarding.marks_of(key, group, _json(labels))
            for key, group, labels in cursor.fetchall()
        }
        cursor.execute(_LEARNT)
        learnt = {(key, version): _json(weights) for key, version, weights in cursor.fetchall()}
    entries = []
    for campaign_id, brand_id, version, name, raw in rows:
        old = before.entries.get(campaign_id)
        if (
            old is not None
            and (old.campaign.version, old.campaign.name) == (version, name)
            and before.brands.get(brand_id) == brands[brand_id]
        ):
            entries.append(_with_weights(old, learnt.get((campaign_id, version))))
            continue
        entry = entry_of(
            _json(raw), campaign_id=campaign_id, version=version, name=name, brand=brands[brand_id]
        )
        if entry is not None:
            entries.append(_with_weights(entry, learnt.get((campaign_id, version))))
    return build(mark, brands, entries, marks)


def _with_weights(entry: Entry, weights: Mapping[str, float] | None) -> Entry:
    """The entry with the shares that were learnt, where they are for its variants."""
    if weights is None or set(weights) != set(entry.campaign.weights):
        return entry
    return replace(entry, campaign=replace(entry.campaign, weights=weights))


def load_brands(brand_id: int | None = None) -> dict[int, BrandRules]:
    """Every brand's rules, or one's; a brand with broken rules carries the problem."""
    segments: dict[int, dict[str, Tree]] = defaultdict(dict)
    with connection.cursor() as cursor:
        cursor.execute(f"{_SEGMENTS} WHERE %s::bigint IS NULL OR brand_id = %s", [brand_id] * 2)
        for owner, slug, tree in cursor.fetchall():
            segments[owner][slug] = _json(tree)
        guards: dict[int, list[Any]] = defaultdict(list)
        cursor.execute(f"{_GUARDS} WHERE %s::bigint IS NULL OR brand_id = %s", [brand_id] * 2)
        for owner, name, rule in cursor.fetchall():
            guards[owner].append(_json(rule) | {"name": name})
        cursor.execute(f"{_BRANDS} WHERE %s::bigint IS NULL OR b.id = %s", [brand_id] * 2)
        rows = cursor.fetchall()
    return {
        owner: with_rules(
            BrandRules(
                id=owner,
                name=name,
                timezone=zone,
                segments=segments.get(owner, {}),
                control=tuple(control),
            ),
            _json(quiet),
            _json(caps),
            guards.get(owner, []),
        )
        for owner, name, zone, quiet, caps, *control in rows
    }


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

"""What a brand's back office knows of people, merged in by its own ids. The only writer of Profile.

A person needs no device to have a profile: one that registers later under the same external id
finds it. This never reads or changes a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from django.db import connection, transaction

from brands.filejobs import Verdict
from brands.undoing import TakenBack, Undone
from devices.attributes import merged, problem_with, problem_with_bag
from devices.fixes import to_epoch_ms

MAX_EXTERNAL_ID = 128
MAX_AHEAD = timedelta(minutes=5)  # of clocks that are not ours


State = tuple[dict[str, Any], dict[str, Any]]
"""Attributes, and their facts by name."""


class ProfileIn(msgspec.Struct):
    """Attributes of one person; null takes an attribute away, what is not named stays."""

    external_id: str
    attributes: dict[str, Any]
    as_of: datetime | int | float | None = (
        None  # when they were true; older than what is stored: not taken
    )


class Told(NamedTuple):
    """What became of one profile, and why where that needs saying."""

    verdict: Verdict
    remark: str = ""


class Change(NamedTuple):
    """What was written of one person: `{name: [value, fact]}`, None where it is not known."""

    external_id: str
    made: bool
    before: dict[str, Any]
    after: dict[str, Any]


def problem_of(item: ProfileIn, *, now: datetime) -> str | None:
    """Why this profile cannot be kept; None where it can."""
    if not 0 < len(item.external_id) <= MAX_EXTERNAL_ID:
        return f"external_id: 1 to {MAX_EXTERNAL_ID} characters."
    if why := problem_with(item.external_id):
        return f"external_id: {why}"
    if why := problem_with_bag(item.attributes):
        return f"attributes: {why}"
    if item.as_of is not None:
        at_ms = to_epoch_ms(item.as_of)
        if at_ms > (now + MAX_AHEAD).timestamp() * 1000:
            return "as_of: Lies in the future."
        if at_ms < _LONG_AGO.timestamp() * 1000:
            return "as_of: Not a time that anybody can mean."
    return None


# Locked, or made, in order of the id: two uploads of the same people wait and do not deadlock.
_MAKE = """
    INSERT INTO devices_profile (brand_id, external_id, attributes, attribute_facts, updated_at)
    SELECT %s, u, '{}', '{}', %s FROM unnest(%s::text[]) u ORDER BY u
    ON CONFLICT ON CONSTRAINT one_profile_per_external_id DO NOTHING RETURNING external_id
"""
_LOCK = """
    SELECT external_id, attributes, attribute_facts FROM devices_profile
     WHERE brand_id = %s AND external_id = ANY(%s) ORDER BY external_id FOR UPDATE
"""
_FORGET = "DELETE FROM devices_profile WHERE brand_id = %s AND external_id = ANY(%s)"
_WRITE = """
    UPDATE devices_profile p
       SET attributes = u.attributes::jsonb, attribute_facts = u.facts::jsonb, updated_at = %s
      FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(id, attributes, facts)
     WHERE p.brand_id = %s AND p.external_id = u.id
"""


def upsert(
    brand_id: int,
    items: Sequence[ProfileIn],
    *,
    source: str,
    now: datetime,
    keep: Callable[[list[Change]], None] | None = None,
) -> list[Told]:
    """Merge attributes into profiles, making those that are missing; repeats count in order.

    `keep` gets what was changed, in the same transaction.
    """
    ids = list(dict.fromkeys(item.external_id for item in items))
    if not ids:
        return []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_MAKE, (brand_id, now, ids))
        made = {row[0] for row in cursor.fetchall()}
        cursor.execute(_LOCK, (brand_id, ids))
        known = {row[0]: (_json(row[1]), _json(row[2])) for row in cursor.fetchall()}
        first, new = dict(known), set(made)
        told: list[Told] = []
        written: set[str] = set()
        for item in items:
            state, one = _merge(known[item.external_id], item, source=source, now=now)
            if one.verdict is not Verdict.REFUSED and state != known[item.external_id]:
                known[item.external_id] = state
                written.add(item.external_id)
            if item.external_id in made and one.verdict is not Verdict.REFUSED:
                made.discard(item.external_id)
                one = Told(Verdict.CREATED, one.remark)
            told.append(one)
        if written:
            _write(cursor, brand_id, {key: known[key] for key in written}, now=now)
        if keep is not None:
            changed = sorted(written | new)
            keep([_change(key, first[key], known[key], key in new) for key in changed])
    return told


def take_back(brand_id: int, changes: Sequence[Change], *, now: datetime) -> list[TakenBack]:
    """Put back what changes wrote, as far as nobody has written it since.

    A person whom a change made, and of whom nothing else is known, is no longer one.
    """
    ids = [one.external_id for one in changes]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK, (brand_id, ids))
        known = {row[0]: (_json(row[1]), _json(row[2])) for row in cursor.fetchall()}
        told: list[TakenBack] = []
        written: dict[str, State] = {}
        gone: list[str] = []
        for change in changes:
            state = known.get(change.external_id)
            if state is None:
                told.append(TakenBack(Undone.KEPT, "there is no such person any more"))
                continue
            after, one = _without(state, change)
            told.append(one)
            if one.verdict is Undone.REMOVED:
                gone.append(change.external_id)
            elif after != state:
                written[change.external_id] = after
        if written:
            _write(cursor, brand_id, written, now=now)
        if gone:
            cursor.execute(_FORGET, (brand_id, gone))
    return told


def erase(brand_id: int, external_id: str) -> None:
    """Delete one person's profile; what comes later of the same id makes a new one."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, (brand_id, [external_id]))


def _write(cursor: Any, brand_id: int, states: dict[str, State], *, now: datetime) -> None:
    columns = zip(*((key, *map(_text, state)) for key, state in states.items()), strict=True)
    cursor.execute(_WRITE, (now, *map(list, columns), brand_id))


def _change(external_id: str, before: State, after: State, made: bool) -> Change:
    names = before[0].keys() | after[0].keys()
    touched = sorted(name for name in names if _one(before, name) != _one(after, name))
    return Change(
        external_id,
        made,
        {name: _one(before, name) for name in touched},
        {name: _one(after, name) for name in touched},
    )


def _one(state: State, name: str) -> list[Any] | None:
    """An attribute with its fact, as changes have it."""
    bag, facts = state
    return [bag[name], facts.get(name)] if name in bag else None


def _without(state: State, change: Change) -> tuple[State, TakenBack]:
    """The state with a change taken out of it."""
    bag, facts = dict(state[0]), dict(state[1])
    since = [name for name, wrote in change.after.items() if _one(state, name) != wrote]
    for name in change.after.keys() - set(since):
        bag.pop(name, None)
        facts.pop(name, None)
        if (was := change.before[name]) is not None:
            bag[name] = was[0]
            if was[1] is not None:
                facts[name] = was[1]
    if change.made and not bag:
        return (bag, facts), TakenBack(Undone.REMOVED)
    if why := problem_with_bag(bag):
        return state, TakenBack(Undone.KEPT, f"with what is known since: {why}")
    remark = f"changed since: {', '.join(sorted(since)[:5])}" if since else ""
    put_back = len(since) < len(change.after)
    return (bag, facts), TakenBack(Undone.PUT_BACK if put_back else Undone.KEPT, remark)


def _merge(state: State, item: ProfileIn, *, source: str, now: datetime) -> tuple[State, Told]:
    """The state after an item: a value that is known of a later time stays."""
    at = now if item.as_of is None else _instant(item.as_of)
    bag, facts = state
    older = [
        name for name in item.attributes if item.as_of is not None and _known_at(facts, name) > at
    ]
    change = {name: value for name, value in item.attributes.items() if name not in older}
    new_bag, new_facts = merged(bag, facts, change, source=source, at=at)
    remark = f"newer values are known of {', '.join(sorted(older)[:5])}" if older else ""
    changed = new_bag != bag
    if changed and (why := problem_with_bag(new_bag)):
        return state, Told(Verdict.REFUSED, f"with what is known already: {why}")
    return (new_bag, new_facts), Told(Verdict.UPDATED if changed else Verdict.UNCHANGED, remark)


_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


def _known_at(facts: dict[str, Any], name: str) -> datetime:
    try:
        return _aware(datetime.fromisoformat(facts[name]["at"]))
    except (KeyError, TypeError, ValueError):
        return _LONG_AGO


def _instant(at: datetime | float) -> datetime:
    """A time that `problem_of` has nothing against, as CONTRACT lets it be written."""
    if isinstance(at, datetime):
        return _aware(at)
    return datetime.fromtimestamp(to_epoch_ms(at) / 1000, UTC)


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

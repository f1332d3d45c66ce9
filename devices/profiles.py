"""What a brand's back office knows of people, merged in by its own ids. The only writer of Profile.

A person needs no device to have a profile: one that registers later under the same external id
finds it. This never reads or changes a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from django.db import connection, transaction

from brands.filejobs import Verdict
from devices.attributes import merged, problem_with, problem_with_bag

MAX_EXTERNAL_ID = 128
MAX_AHEAD = timedelta(minutes=5)  # of clocks that are not ours


class ProfileIn(msgspec.Struct):
    """Attributes of one person; null takes an attribute away, what is not named stays."""

    external_id: str
    attributes: dict[str, Any]
    as_of: datetime | None = None  # when they were true; older than what is stored: not taken


class Told(NamedTuple):
    """What became of one profile, and why where that needs saying."""

    verdict: Verdict
    remark: str = ""


def problem_of(item: ProfileIn, *, now: datetime) -> str | None:
    """Why this profile cannot be kept; None where it can."""
    if not 0 < len(item.external_id) <= MAX_EXTERNAL_ID:
        return f"external_id: 1 to {MAX_EXTERNAL_ID} characters."
    if why := problem_with(item.external_id):
        return f"external_id: {why}"
    if why := problem_with_bag(item.attributes):
        return f"attributes: {why}"
    if item.as_of is not None and _aware(item.as_of) > now + MAX_AHEAD:
        return "as_of: Lies in the future."
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
_WRITE = """
    UPDATE devices_profile p
       SET attributes = u.attributes::jsonb, attribute_facts = u.facts::jsonb, updated_at = %s
      FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(id, attributes, facts)
     WHERE p.brand_id = %s AND p.external_id = u.id
"""


def upsert(brand_id: int, items: Sequence[ProfileIn], *, source: str, now: datetime) -> list[Told]:
    """Merge attributes into profiles, making those that are missing; repeats count in order."""
    ids = list(dict.fromkeys(item.external_id for item in items))
    if not ids:
        return []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_MAKE, (brand_id, now, ids))
        made = {row[0] for row in cursor.fetchall()}
        cursor.execute(_LOCK, (brand_id, ids))
        known = {row[0]: (_json(row[1]), _json(row[2])) for row in cursor.fetchall()}
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
            columns = zip(*((key, *map(_text, known[key])) for key in written), strict=True)
            cursor.execute(_WRITE, (now, *map(list, columns), brand_id))
    return told


State = tuple[dict[str, Any], dict[str, Any]]
"""Attributes, and their facts by name."""


def _merge(state: State, item: ProfileIn, *, source: str, now: datetime) -> tuple[State, Told]:
    """The state after an item: a value that is known of a later time stays."""
    at = now if item.as_of is None else _aware(item.as_of)
    bag, facts = state
    older = [name for name in item.attributes if item.as_of and _known_at(facts, name) > at]
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


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

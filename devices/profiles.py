"""What a brand's back office knows of people, merged in by its own ids. The only writer of Profile.

It never reads or changes a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from django.db import connection, transaction

from devices.attributes import problem_with, problem_with_bag

MAX_EXTERNAL_ID = 128


class ProfileIn(msgspec.Struct):
    """Attributes of one person; null takes an attribute away, what is not named stays."""

    external_id: str
    attributes: dict[str, Any]


def problem_of(item: ProfileIn) -> str | None:
    """Why this profile cannot be kept; None where it can."""
    if not 0 < len(item.external_id) <= MAX_EXTERNAL_ID:
        return f"external_id: 1 to {MAX_EXTERNAL_ID} characters."
    if why := problem_with(item.external_id):
        return f"external_id: {why}"
    if why := problem_with_bag(item.attributes):
        return f"attributes: {why}"
    return None


# Locked, or made, in order of the id: two uploads of the same people wait and do not deadlock.
_MAKE = """
    INSERT INTO devices_profile (brand_id, external_id, attributes, attribute_facts, updated_at)
    SELECT %s, u, '{}', '{}', %s FROM unnest(%s::text[]) u ORDER BY u
    ON CONFLICT ON CONSTRAINT one_profile_per_external_id DO NOTHING
"""
_LOCK = """
    SELECT id FROM devices_profile WHERE brand_id = %s AND external_id = ANY(%s)
     ORDER BY external_id FOR UPDATE
"""
# A null is an attribute taken away; jsonb_strip_nulls would reach into nested values too.
_MERGE = """
    UPDATE devices_profile p
       SET attributes = (
             SELECT coalesce(jsonb_object_agg(key, value), '{}')
               FROM jsonb_each(p.attributes || u.attributes) WHERE value <> 'null'
           ),
           attribute_facts = (
             SELECT coalesce(jsonb_object_agg(key, value), '{}')
               FROM jsonb_each(p.attribute_facts || u.facts) WHERE value <> 'null'
           ),
           updated_at = %s
      FROM (SELECT id, attributes::jsonb, facts::jsonb
              FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(id, attributes, facts)) u
     WHERE p.brand_id = %s AND p.external_id = u.id
"""


def upsert(brand_id: int, items: Sequence[ProfileIn], *, source: str, now: datetime) -> None:
    """Merge attributes into profiles, making those that are missing; of repeats the last wins."""
    changes: dict[str, dict[str, Any]] = {}
    for item in items:
        changes.setdefault(item.external_id, {}).update(item.attributes)
    if not changes:
        return
    fact = {"source": source, "at": now.isoformat()}
    facts = [
        {name: None if value is None else fact for name, value in change.items()}
        for change in changes.values()
    ]
    ids = list(changes)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_MAKE, (brand_id, now, ids))
        cursor.execute(_LOCK, (brand_id, ids))
        cursor.execute(_MERGE, (now, ids, _texts(list(changes.values())), _texts(facts), brand_id))


def _texts(values: Sequence[dict[str, Any]]) -> list[str]:
    return [msgspec.json.encode(value).decode() for value in values]

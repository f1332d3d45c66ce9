"""A person by the brand's own id: what is held about them, and its erasure.

What a device holds is `devices.holdings`; this is what the brand's back office said of its person,
and whatever else holds the person's id.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection, transaction
from django.db.models import QuerySet

from devices import holdings, profiles, registration
from devices.models import Device

_HELD = {
    "profile": """
        SELECT updated_at,
               coalesce((SELECT jsonb_object_agg(key, jsonb_build_object(
                   'value', value, 'source', p.attribute_facts -> key -> 'source',
                   'at', p.attribute_facts -> key -> 'at'))
                 FROM jsonb_each(p.attributes)), '{}') AS attributes
          FROM devices_profile p
         WHERE brand_id = %(brand_id)s AND external_id = %(external_id)s
    """,
    "events": """
        SELECT id, name, occurred_at, received_at, properties
          FROM devices_event
         WHERE brand_id = %(brand_id)s AND external_id = %(external_id)s ORDER BY occurred_at, id
    """,
    # What an import said, and what it replaced: kept as long as it can be undone.
    "imports": """
        SELECT j.file_name, j.created_at, c.before, c.after
          FROM devices_profileimport j JOIN devices_profileimportchange c ON c.job_id = j.id
         WHERE j.brand_id = %(brand_id)s AND c.external_id = %(external_id)s ORDER BY j.id
    """,
    "remarks": """
        SELECT j.file_name, j.created_at, r.row, r.verdict, r.remark
          FROM devices_profileimport j JOIN devices_profileimportrow r ON r.job_id = j.id
         WHERE j.brand_id = %(brand_id)s AND r.external_id = %(external_id)s ORDER BY j.id, r.row
    """,
}
_ERASE = (
    "DELETE FROM devices_event WHERE brand_id = %(brand_id)s AND external_id = %(external_id)s",
    """
    DELETE FROM devices_profileimportrow r USING devices_profileimport j
     WHERE j.id = r.job_id AND j.brand_id = %(brand_id)s AND r.external_id = %(external_id)s
    """,
    # Its row stays, empty and of nobody: an undoing under way counts them.
    """
    UPDATE devices_profileimportchange c
       SET external_id = 'erased:' || c.id, made = false, before = '{}', after = '{}'
      FROM devices_profileimport j
     WHERE j.id = c.job_id AND j.brand_id = %(brand_id)s AND c.external_id = %(external_id)s
    """,
)


def devices_of(brand_id: int, external_id: str) -> QuerySet[Device]:
    """The devices whose app says that it is this person's."""
    return Device.objects.filter(brand_id=brand_id, external_id=external_id)


def is_known(brand_id: int, external_id: str) -> bool:
    """Whether there is anything to give out under this id."""
    said = any(rows for _, rows in held(brand_id, external_id))
    return said or devices_of(brand_id, external_id).exists()


def held(brand_id: int, external_id: str) -> Iterator[tuple[str, list[str]]]:
    """What the back office said of a person: each part's name, and its rows as JSON text."""
    for name, rows in _HELD.items():
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT to_jsonb(part)::text FROM ({rows}) part",  # noqa: S608 - our own SQL
                {"brand_id": brand_id, "external_id": external_id},
            )
            yield name, [row[0] for row in cursor.fetchall()]


def erase(brand_id: int, external_id: str, *, devices: bool) -> None:
    """Delete what the back office said of a person; with `devices`, all that names them.

    Each device is a transaction of its own, so that none waits for another's locks with its own
    in hand. The person's rows go last: where this ends early, to ask again does the rest.
    """
    if devices:
        for device_id in devices_of(brand_id, external_id).values_list("pk", flat=True):
            registration.erase(device_id)
    with transaction.atomic(), connection.cursor() as cursor:
        profiles.erase(brand_id, external_id)
        for statement in _ERASE:
            cursor.execute(statement, {"brand_id": brand_id, "external_id": external_id})
        if devices:
            holdings.forget(brand_id, external_id)

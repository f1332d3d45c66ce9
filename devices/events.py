"""What apps and back offices report: events in, rows out, once each. Their only writer.

Whether an event means anything to a campaign is asked by evaluation, later.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
from django.db import connection, transaction
from numpy.typing import NDArray

from devices.attributes import problem_with
from devices.fixes import MAX_AGE_MS, MAX_AHEAD_MS, RejectCode, key_of_id, to_epoch_ms
from devices.gathering import GroupCommit, now_ms
from devices.ingest import ACCEPTED
from devices.profiles import MAX_EXTERNAL_ID

CHANNEL = "nearcast_events"
MAX_NAME = 64
MAX_PROPERTIES_BYTES = 8 * 1024
_CODES = list(RejectCode)
_encode = msgspec.json.Encoder(order="sorted").encode  # the same properties give the same key

MESSAGES: dict[RejectCode, str] = {
    RejectCode.INVALID: "The item is not an event.",
    RejectCode.RECORDED_IN_FUTURE: "occurred_at is more than 120 s ahead of the server's clock.",
    RejectCode.TOO_OLD: "occurred_at is more than 30 days ago.",
    RejectCode.UNKNOWN_DEVICE: "No such device of this brand.",
}


class EventIn(msgspec.Struct):
    """One event on the wire (CONTRACT)."""

    name: str
    occurred_at: datetime | int | float
    properties: dict[str, Any] | None = None
    id: str | int | None = None


class GatewayEventIn(EventIn, kw_only=True):
    """An event of a device or a person that the brand's back office names."""

    device_id: int | None = None
    external_id: str | None = None


class EventRow(NamedTuple):
    """What a request keeps of an event until its batch is written."""

    brand_id: int
    device_id: int | None  # None: about the person `external_id`
    serial: int  # of the token that sent it; 0: no token (gateway)
    external_id: str
    key: int
    name: str
    occurred_ms: int
    properties: str


def row_of(
    item: EventIn, *, brand_id: int, device_id: int | None, serial: int = 0, external_id: str = ""
) -> EventRow:
    """Turn a decoded event into a row; raises ValueError with the reason where none can keep it."""
    if not 0 < len(item.name) <= MAX_NAME or not item.name.isprintable():
        raise ValueError(f"name: 1 to {MAX_NAME} printable characters.")
    if len(external_id) > MAX_EXTERNAL_ID:
        raise ValueError(f"external_id: 1 to {MAX_EXTERNAL_ID} characters.")
    if why := problem_with(external_id):
        raise ValueError(f"external_id: {why}")
    properties = item.properties or {}
    why = problem_with(properties)
    if why is not None:
        raise ValueError(f"properties: {why}")
    encoded = _encode(properties)
    if len(encoded) > MAX_PROPERTIES_BYTES:
        raise ValueError(f"properties: More than {MAX_PROPERTIES_BYTES} bytes.")
    occurred_ms = to_epoch_ms(item.occurred_at)
    return EventRow(
        brand_id=brand_id,
        device_id=device_id,
        serial=serial,
        external_id=external_id,
        key=(
            _key_of_content(item.name, occurred_ms, encoded)
            if item.id is None
            else key_of_id(item.id)
        ),
        name=item.name,
        occurred_ms=occurred_ms,
        properties=encoded.decode(),
    )


def _key_of_content(name: str, occurred_ms: int, properties: bytes) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in (name.encode(), str(occurred_ms).encode(), properties):
        digest.update(part + b"\0")
    return int.from_bytes(digest.digest(), "little") >> 1


# In order of key, so that two writers of the same events wait and do not deadlock.
# FOR KEY SHARE: an erasure that has begun is waited for, and then the device is gone.
_INSERT = """
    WITH sent AS (
      SELECT * FROM unnest(
        %s::bigint[], %s::bigint[], %s::int[], %s::text[], %s::bigint[], %s::text[],
        %s::timestamptz[], %s::text[]
      ) WITH ORDINALITY AS u(
        brand_id, device_id, serial, external_id, key, name, occurred_at, properties, place
      )
    ), known AS MATERIALIZED (
      SELECT device_id, brand_id, serial FROM devices_devicestate
       WHERE device_id = ANY(%s::bigint[]) ORDER BY device_id FOR KEY SHARE
    ), allowed AS MATERIALIZED (
      SELECT sent.* FROM sent LEFT JOIN known USING (device_id)
       WHERE sent.device_id IS NULL
          OR (known.brand_id = sent.brand_id AND sent.serial IN (0, known.serial))
    ), written AS (
      INSERT INTO devices_event (
        brand_id, device_id, external_id, key, name, occurred_at, received_at, properties,
        parked_reason
      )
      SELECT brand_id, device_id, external_id, key, name, occurred_at, now(), properties::jsonb, ''
        FROM allowed ORDER BY key
      ON CONFLICT ON CONSTRAINT one_event_per_key DO NOTHING RETURNING 1
    )
    SELECT coalesce((SELECT array_agg(place) FROM allowed), '{}'),
           EXISTS (SELECT FROM written)
"""


def insert(rows: list[EventRow], *, now: int) -> NDArray[np.int8]:
    """Write events that are not written yet. A verdict per row: ACCEPTED or index of a RejectCode.

    `now` in epoch milliseconds. A repeat is accepted and changes nothing.
    """
    occurred = np.array([row.occurred_ms for row in rows], dtype=np.int64)
    verdicts = np.full(len(rows), ACCEPTED, dtype=np.int8)
    verdicts[occurred < now - MAX_AGE_MS] = _CODES.index(RejectCode.TOO_OLD)
    verdicts[occurred > now + MAX_AHEAD_MS] = _CODES.index(RejectCode.RECORDED_IN_FUTURE)
    plausible = np.flatnonzero(verdicts == ACCEPTED)
    if not len(plausible):
        return verdicts
    sent = [rows[place] for place in plausible.tolist()]
    columns = [list(column) for column in zip(*sent, strict=True)]
    columns[6] = [datetime.fromtimestamp(ms / 1000, UTC) for ms in columns[6]]
    devices = sorted({row.device_id for row in sent if row.device_id is not None})
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_INSERT, [*columns, devices])
        allowed, any_new = cursor.fetchone()
        if any_new:
            cursor.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
    refused = np.ones(len(sent), dtype=bool)
    refused[np.array(allowed, dtype=np.int64) - 1] = False
    verdicts[plausible[refused]] = _CODES.index(RejectCode.UNKNOWN_DEVICE)
    return verdicts


class EventGatherer(GroupCommit):
    """Events (EventRow) of many requests."""

    def __init__(self) -> None:
        super().__init__("events")

    def attempt(self, rows: list[EventRow]) -> NDArray[np.int8]:
        """Insert the rows."""
        return insert(rows, now=now_ms())

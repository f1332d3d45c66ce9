"""The fast doors of a brand's back office, which names devices and people by its own ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import close_old_connections, connection

from brands.keys import KeyIdentity, keys
from brands.models import KeyKind
from devices import events
from devices.doors.answers import NO_KEY, WRONG_KEY, Answer
from devices.doors.decoding import Rejection
from devices.doors.door import ItemsDoor, Prepared
from devices.events import EventIn
from devices.fixes import MESSAGES, RejectCode, row_of

MAX_ID = 2**63 - 1


def devices_named(brand_id: int, external_ids: Iterable[str]) -> dict[str, int]:
    """Each external id's device; of several, the one registered last.

    Asks the database once: for a thread, not for the event loop.
    """
    asked = [name for name in set(external_ids) if name and "\0" not in name]
    if not asked:
        return {}
    close_old_connections()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT external_id, max(id) FROM devices_device
             WHERE brand_id = %s AND external_id = ANY(%s) GROUP BY external_id
            """,
            (brand_id, asked),
        )
        return dict(cursor.fetchall())


class GatewayDoor(ItemsDoor[KeyIdentity]):
    """From a brand's back office, by its server key; every item names its device."""

    async def admit(self, authorization: bytes) -> KeyIdentity | Answer:
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not secret:
            return NO_KEY
        key = secret.strip().decode("latin-1")
        identity, known = keys.remembered(key)
        if not known:
            identity = await self.on_thread(_look_up, key)
        if identity is None:
            return NO_KEY
        return identity if identity.kind is KeyKind.SERVER else WRONG_KEY


def _look_up(secret: str) -> KeyIdentity | None:
    close_old_connections()
    return keys.authenticate(secret)


class GatewayLocationsDoor(GatewayDoor):
    """`POST /v1/gateway/locations`."""

    def asks_database(self, body: bytes) -> bool:
        """Where a device may be named by its external id; an escape could hide the field's name."""
        return b"external_id" in body or b"\\" in body

    def prepare(self, identity: KeyIdentity, body: bytes, lines: bool) -> Prepared:
        items, places, rejected = self._reader.read(body, lines=lines)
        found = devices_named(
            identity.brand_id,
            (item.external_id for item in items if item.device_id is None and item.external_id),
        )
        rows, kept = [], []
        for at, item in enumerate(items):
            place = at if places is None else places[at]
            device_id = found.get(item.external_id) if item.device_id is None else item.device_id
            if item.device_id is None and not item.external_id:
                rejected.append(_nameless(place))
            elif device_id is None or not 0 < device_id <= MAX_ID:
                rejected.append(_unknown(place))
            else:
                rows.append(row_of(item, device_id=device_id, brand_id=identity.brand_id, serial=0))
                kept.append(place)
        return Prepared(rows, kept, rejected)


class GatewayEventsDoor(GatewayDoor):
    """`POST /v1/gateway/events`: of a device, or of a person whoever's device it is."""

    kind = "event"
    messages = events.MESSAGES

    def prepare(self, identity: KeyIdentity, body: bytes, lines: bool) -> Prepared:
        items, places, rejected = self._reader.read(body, lines=lines)
        named, kept = [], []
        for at, item in enumerate(items):
            place = at if places is None else places[at]
            if item.device_id is None and not item.external_id:
                rejected.append(_nameless(place))
            elif item.device_id is not None and not 0 < item.device_id <= MAX_ID:
                rejected.append(_unknown(place))
            else:
                person = "" if item.device_id is not None else item.external_id
                named.append((item, item.device_id, person))
                kept.append(place)
        return event_rows(named, kept, rejected, brand_id=identity.brand_id, serial=0)


def _nameless(place: int) -> Rejection:
    return Rejection(place, RejectCode.INVALID.value, "external_id or device_id: Required.")


def _unknown(place: int) -> Rejection:
    return Rejection(place, RejectCode.UNKNOWN_DEVICE.value, MESSAGES[RejectCode.UNKNOWN_DEVICE])


def event_rows(
    named: Sequence[tuple[EventIn, int | None, str]],
    places: list[int] | None,
    rejected: list[Rejection],
    *,
    brand_id: int,
    serial: int,
) -> Prepared:
    rows, kept = [], []
    for at, (item, device_id, external_id) in enumerate(named):
        place = at if places is None else places[at]
        try:
            rows.append(
                events.row_of(
                    item,
                    brand_id=brand_id,
                    device_id=device_id,
                    serial=serial,
                    external_id=external_id,
                )
            )
            kept.append(place)
        except ValueError as error:
            rejected.append(Rejection(place, "invalid", str(error)))
    return Prepared(rows, kept, rejected)

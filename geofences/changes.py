"""What an import changed of geofences, and how it is put back. It reads no file and no job.

A change has the fields that differ: `before` as they can be written again, `after` as they can be
recognised, in JSON. A geometry is hexadecimal WKB before, and its SHA-256 after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from django.contrib.gis.geos import GEOSGeometry
from django.db import transaction

from brands.undoing import TakenBack, Undone
from geofences import writing
from geofences.models import Geofence

KEPT_FIELDS = tuple(name for name in writing.CHANGEABLE if name != "updated_at")
TOGETHER = ({"geometry", "radius_m"}, {"starts_at", "ends_at"})
"""Fields of which one without the other may not be: put back both, or neither."""
SHOWN_FIELDS = 5


class Change(NamedTuple):
    """What was written of one geofence."""

    geofence_id: int
    made: bool
    before: dict[str, Any]
    after: dict[str, Any]


class Kept(Protocol):
    """A change, as it was made or as it was kept."""

    @property
    def geofence_id(self) -> int: ...
    @property
    def made(self) -> bool: ...
    @property
    def before(self) -> dict[str, Any]: ...
    @property
    def after(self) -> dict[str, Any]: ...


def between(before: Geofence | None, after: Geofence) -> Change:
    """What makes the one the other; of None, that it was made, and all it is."""
    now = _marks(after)
    if before is None:
        return Change(after.pk, True, {}, now)
    was = _marks(before)
    touched = [name for name in KEPT_FIELDS if was[name] != now[name]]
    return Change(
        after.pk,
        False,
        {name: _stored(getattr(before, name)) for name in touched},
        {name: now[name] for name in touched},
    )


def retired(geofence_id: int, *, at: datetime) -> Change:
    """That a geofence in use was retired."""
    return Change(geofence_id, False, {"retired_at": None}, {"retired_at": _stored(at)})


def take_back(
    brand_id: int, kept: Sequence[Kept], *, now: datetime
) -> list[tuple[TakenBack, Geofence | None]]:
    """Put back what changes wrote, as far as nobody has written it since; with each geofence.

    A geofence that a change made is retired where it is still as it was made: what happened in it
    stays in the history.
    """
    with transaction.atomic():
        writing.lock(brand_id)
        ids = [each.geofence_id for each in kept]
        known = Geofence.objects.filter(brand_id=brand_id).in_bulk(ids)
        was_retired = {pk for pk, place in known.items() if place.retired_at is not None}
        told: list[tuple[TakenBack, Geofence | None]] = []
        for each in kept:
            geofence = known.get(each.geofence_id)
            told.append((_without(geofence, each), geofence))
        written = [
            place for one, place in told if one.verdict is Undone.PUT_BACK and place is not None
        ]
        writing.save(written)
        for place in written:
            if place.retired_at is not None and place.pk not in was_retired:
                writing.retire([place.pk], now=now, since=place.retired_at)
        in_use = {place.pk for place in written if place.retired_at is None}
        writing.revive(in_use & was_retired, now=now)
        writing.retire(
            [
                place.pk
                for one, place in told
                if one.verdict is Undone.RETIRED and place is not None
            ],
            now=now,
        )
    return told


def _without(geofence: Geofence | None, change: Kept) -> TakenBack:
    """Take a change out of a geofence, which is not written here."""
    if geofence is None:
        return TakenBack(Undone.KEPT, "there is no such geofence any more")
    if change.made and geofence.retired_at is not None:
        return TakenBack(Undone.KEPT, "retired already")
    marks = _marks(geofence)
    since = {name for name, wrote in change.after.items() if marks[name] != wrote}
    for pair in TOGETHER:
        if since & pair:
            since |= pair & change.after.keys()
    fields = sorted(name.removesuffix("_at") for name in since)
    remark = f"changed since: {', '.join(fields[:SHOWN_FIELDS])}" if since else ""
    if change.made:
        return TakenBack(Undone.KEPT, remark) if since else TakenBack(Undone.RETIRED)
    for name in change.after.keys() - since:
        setattr(geofence, name, _read(name, change.before[name]))
    return TakenBack(Undone.PUT_BACK if len(since) < len(change.after) else Undone.KEPT, remark)


def _marks(geofence: Geofence) -> dict[str, Any]:
    return {name: _mark(getattr(geofence, name)) for name in KEPT_FIELDS}


def _mark(value: Any) -> Any:
    """A value as it is recognised."""
    if isinstance(value, GEOSGeometry):
        return hashlib.sha256(bytes(value.wkb)).hexdigest()
    return _stored(value)


def _stored(value: Any) -> Any:
    """A value as JSON keeps it."""
    if isinstance(value, GEOSGeometry):
        return bytes(value.wkb).hex()
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _read(name: str, stored: Any) -> Any:
    """A value as a geofence has it."""
    if name == "geometry":
        return GEOSGeometry(memoryview(bytes.fromhex(stored)), srid=4326)
    is_time = stored is not None and name.endswith("_at")
    return datetime.fromisoformat(stored) if is_time else stored

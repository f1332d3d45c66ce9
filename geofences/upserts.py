"""Brings wanted geofences and stored ones together, with a verdict on each. It reads no file.

Used by imports and by bulk requests: what is new is created, what differs is updated, what is the
same is left alone, what cannot be is refused; none stops the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import shapely
from django.contrib.gis.geos import GEOSGeometry
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, transaction
from django.utils.timezone import now

from brands.filejobs import Verdict
from geofences import writing
from geofences.changes import Change, between
from geofences.geometry import GeometryError, GeometryReason, Shape
from geofences.models import Geofence

ALL_FIELDS = frozenset(field.name for field in Geofence._meta.concrete_fields)
SETTINGS = frozenset(writing.CHANGEABLE) - {"external_id", "geometry", "retired_at", "updated_at"}
COMPARED = tuple(name for name in writing.CHANGEABLE if name not in {"geometry", "updated_at"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A geofence as a source has it; only what the source says is in `fields`."""

    number: int  # the caller's, to tell the rows apart
    external_id: str | None
    geometry: shapely.Geometry | None  # None: keep the stored one
    fields: Mapping[str, Any] = field(default_factory=dict)  # replaced
    tags: tuple[str, ...] = ()  # added to those there
    metadata: Mapping[str, Any] = field(default_factory=dict)  # merged into what is there
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of one wanted geofence."""

    number: int
    verdict: Verdict
    geofence: Geofence | None = None
    remark: str = ""  # why it was refused, or what a person may want to know
    reason: str = ""  # for programs
    repaired: bool = False
    shape: Shape | None = None  # of its geofence


def upsert(
    brand_id: int,
    wanted: Sequence[Wanted],
    *,
    keep: Callable[[list[Change]], None] | None = None,
    afresh: bool = False,
) -> list[Judged]:
    """Write what is new or differs, in one transaction; verdicts in the order given.

    `keep` gets what was changed, in the same transaction. A retired geofence is revived by its
    external id with what it had, as a file means that brings back what the one before left out.
    `afresh`: for who deleted it, it is gone; it is created with its id, its history and no more.
    """
    with transaction.atomic():
        writing.lock(brand_id)
        ids = [each.external_id for each in wanted if each.external_id]
        stored = {
            geofence.external_id: geofence
            for geofence in Geofence.objects.filter(brand_id=brand_id, external_id__in=ids)
        }
        gone = _forget_retired(stored) if afresh else frozenset[int]()
        judged = _apply(_judge_all(brand_id, wanted, stored))
        _revive(judged, stored)
        if keep is not None:
            keep(
                [
                    between(stored.get(each.geofence.external_id), each.geofence)
                    for each in judged
                    if each.geofence is not None and each.verdict is not Verdict.UNCHANGED
                ]
            )
    return [
        replace(each, verdict=Verdict.CREATED)
        if each.geofence is not None and each.geofence.pk in gone
        else each
        for each in judged
    ]


def _forget_retired(stored: Mapping[str | None, Geofence]) -> frozenset[int]:
    """Give the retired of these what a new geofence has, but for their shape; which they were."""
    retired = [geofence for geofence in stored.values() if geofence.retired_at is not None]
    blank = [one for one in Geofence._meta.concrete_fields if one.name in SETTINGS]
    for geofence in retired:
        for column in blank:
            setattr(geofence, column.name, column.get_default())
    return frozenset(geofence.pk for geofence in retired)


def _revive(judged: Sequence[Judged], stored: Mapping[str | None, Geofence]) -> None:
    """What a source has is in use again, whoever retired it."""
    retired = {known.pk for known in stored.values() if known.retired_at is not None}
    back = [each.geofence.pk for each in judged if each.geofence and each.geofence.pk in retired]
    if back:
        writing.revive(back, now=now())


def _judge_all(
    brand_id: int, wanted: Sequence[Wanted], stored: Mapping[str | None, Geofence]
) -> list[Judged]:
    """An external id counts once: the first row that has it and can be."""
    taken: dict[str, int] = {}
    judged = []
    for each in wanted:
        if each.external_id in taken:
            judged.append(
                Judged(
                    number=each.number,
                    verdict=Verdict.REFUSED,
                    remark=f"repeats the id {each.external_id} of row {taken[each.external_id]}",
                    reason="repeated_id",
                )
            )
            continue
        judged.append(_judge(brand_id, each, stored.get(each.external_id)))
        if each.external_id and judged[-1].geofence is not None:
            taken[each.external_id] = each.number
    return judged


def _judge(brand_id: int, wanted: Wanted, stored: Geofence | None) -> Judged:
    """Decide on one row; its geofence is then as it should be, but not written."""
    geofence = (
        Geofence(brand_id=brand_id, external_id=wanted.external_id)
        if stored is None
        else copy.copy(stored)
    )
    before = None if stored is None else _state(stored)
    try:
        shape, repair = _fill(geofence, wanted)
    except GeometryError as error:
        return Judged(
            number=wanted.number,
            verdict=Verdict.REFUSED,
            remark=str(error),
            reason=error.reason.value,
        )
    except ValidationError as error:
        return Judged(
            number=wanted.number,
            verdict=Verdict.REFUSED,
            remark=_in_words(error),
            reason="invalid",
        )
    verdict = Verdict.UPDATED
    if before is None:
        verdict = Verdict.CREATED
    elif before == _state(geofence):
        verdict = Verdict.UNCHANGED
    return Judged(
        number=wanted.number,
        verdict=verdict,
        geofence=geofence,
        remark="; ".join(filter(None, (repair, wanted.remark))),
        repaired=bool(repair),
        shape=shape,
    )


def _in_words(error: ValidationError) -> str:
    return "; ".join(f"{name}: {' '.join(said)}" for name, said in error.message_dict.items())


def _fill(geofence: Geofence, wanted: Wanted) -> tuple[Shape, str]:
    """Make a geofence what is wanted; answers its shape and which repair that took.

    Raises GeometryError, or ValidationError for another value that cannot be.
    """
    for name, value in wanted.fields.items():
        setattr(geofence, name, value)
    geofence.tags = [*dict.fromkeys((*geofence.tags, *wanted.tags))]
    geofence.metadata = {**geofence.metadata, **wanted.metadata}
    geofence.retired_at = None
    if wanted.geometry is not None:
        geofence.geometry = GEOSGeometry(memoryview(shapely.to_wkb(wanted.geometry)), srid=4326)
    given = {*wanted.fields, "tags", "external_id"} - {"metadata"}
    geofence.clean_fields(exclude=ALL_FIELDS - given)
    try:
        return writing.fit(geofence), ""
    except GeometryError as error:
        if error.reason is not GeometryReason.SELF_CROSSING:
            raise
        return writing.fit(geofence, repair=True), f"repaired: {error}"


def _state(geofence: Geofence) -> tuple[Any, ...]:
    return (bytes(geofence.geometry.wkb), *(getattr(geofence, name) for name in COMPARED))


def _apply(judged: list[Judged]) -> list[Judged]:
    """Write all at once; where the database refuses that, one by one."""
    changed = [
        (each.geofence, each.shape)
        for each in judged
        if each.geofence is not None
        and each.shape is not None
        and each.verdict is not Verdict.UNCHANGED
    ]
    try:
        writing.save([geofence for geofence, _ in changed], [shape for _, shape in changed])
    except (DataError, IntegrityError):
        return [_apply_one(each) for each in judged]
    return judged


def _apply_one(judged: Judged) -> Judged:
    if judged.geofence is None or judged.verdict is Verdict.UNCHANGED:
        return judged
    if judged.verdict is Verdict.CREATED:
        # The failed attempt may have given it an id that does not exist.
        judged.geofence.pk = None
        judged.geofence._state.adding = True
    try:
        writing.save([judged.geofence])
    except (DataError, IntegrityError) as error:
        return Judged(
            number=judged.number,
            verdict=Verdict.REFUSED,
            remark=str(error).partition("\n")[0],
            reason="invalid",
        )
    return judged

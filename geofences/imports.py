"""Takes files into geofences, row by row, as a job that can be watched, stopped and taken up again.

Each chunk is one transaction: its geofences, its verdicts and the progress are committed together,
so a job whose worker was killed goes on where it was and does nothing twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.timezone import now as current_time

from brands import undoing
from brands.filejobs import FileError, Stopped, Verdict, advance, counted, work
from brands.undoing import TakenBack
from geofences import changes, files, writing
from geofences.changes import Change
from geofences.models import Geofence, GeofenceImport, GeofenceImportChange, GeofenceImportRow
from geofences.upserts import Judged, Wanted, upsert

REMARK_COLUMNS = ("row", "external_id", "name", "verdict", "remark")
NAME_LENGTH = 200
ID_LENGTH = 128
SETTINGS = tuple(
    field
    for field in Geofence._meta.concrete_fields
    if field.name
    in {
        "track_visits",
        "dwell_s",
        "exit_buffer_m",
        "confirm_fixes",
        "confirm_s",
        "starts_at",
        "ends_at",
    }
)
"""Columns that are taken for a geofence's own settings when a file has them, as an export has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a file is to be taken in."""

    columns: files.Columns = field(default_factory=files.Columns)
    radius_m: float | None = None  # of points that have none of their own
    tags: tuple[str, ...] = ()
    track_visits: bool | None = None
    keep_metadata: bool = True  # the other columns become the geofence's metadata
    retire_missing: bool = False  # those with all these tags that the file no longer has

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        known = {name: stored[name] for name in cls.__slots__ if name in stored}
        known["columns"] = files.Columns.from_json(stored.get("columns", {}))
        known["tags"] = tuple(stored.get("tags", ()))
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def wanted(row: files.Row, plan: Plan) -> Wanted | Judged:
    """What a row asks for, or its refusal."""
    columns = plan.columns
    external_id = text(row.values.get(columns.external_id)) or None
    if row.problem or row.geometry is None:
        return refusal(row.number, row.problem)
    if columns.external_id and external_id is None:
        return refusal(row.number, f"no {columns.external_id}")
    if external_id and len(external_id) > ID_LENGTH:
        return refusal(row.number, f"the id is longer than {ID_LENGTH} characters")
    name = text(row.values.get(columns.name)) or external_id or f"Row {row.number}"
    try:
        return Wanted(
            number=row.number,
            external_id=external_id,
            geometry=row.geometry,
            fields={
                "name": name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…",
                "radius_m": _radius_m(row, plan) if row.geometry.geom_type == "Point" else None,
                **_settings(row, plan),
            },
            tags=(*plan.tags, *_tags(row.values.get(columns.tags))),
            metadata=_metadata(row, plan) if plan.keep_metadata else {},
            remark=f"name cut to {NAME_LENGTH} characters" if len(name) > NAME_LENGTH else "",
        )
    except ValidationError as error:
        return refusal(row.number, " ".join(error.messages))


def _radius_m(row: files.Row, plan: Plan) -> float:
    """Raises ValidationError."""
    value = row.values.get(plan.columns.radius)
    if text(value):
        try:
            return float(text(value).replace(",", "."))
        except ValueError:
            raise ValidationError(f"radius {text(value)[:40]!r} is not a number") from None
    if plan.radius_m is None:
        raise ValidationError("a point without a radius: give one for all, or name its column")
    return plan.radius_m


def _settings(row: files.Row, plan: Plan) -> dict[str, Any]:
    """Raises ValidationError."""
    found = {} if plan.track_visits is None else {"track_visits": plan.track_visits}
    for field_ in SETTINGS:
        value = row.values.get(field_.name)
        if text(value):
            try:
                found[field_.name] = field_.to_python(value)
            except ValidationError as error:
                raise ValidationError(f"{field_.name}: {' '.join(error.messages)}") from None
    return found


def _metadata(row: files.Row, plan: Plan) -> dict[str, Any]:
    meant = plan.columns.meant
    found = {name: plain(value) for name, value in row.values.items() if name not in meant}
    for name in ("nearcast_id", *(field_.name for field_ in SETTINGS)):
        found.pop(name, None)
    own = found.pop("metadata", None)  # a file that we exported
    found |= own if isinstance(own, dict) else {}
    return {name: value for name, value in found.items() if value not in (None, "")}


def refusal(number: int, why: str) -> Judged:
    return Judged(number=number, verdict=Verdict.REFUSED, remark=why, reason="invalid")


def _tags(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value or "").replace(";", ",").split(",")
    return tuple(filter(None, (text(part) for part in parts)))


def text(value: Any) -> str:
    """A value as one line of text; a whole number that a table stored as a float stays whole."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).replace("\x00", "").strip()


def plain(value: Any) -> Any:
    """A value as JSON has it; None for what it cannot hold."""
    if isinstance(value, str):
        if value[:1] in "{[" and value[-1:] in "}]":  # GDAL gives nested GeoJSON as text
            return _decoded(value)
        return value.replace("\x00", "")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {text(key): plain(each) for key, each in value.items()}
    return None if isinstance(value, bytes) else str(value)


def _decoded(value: str) -> Any:
    try:
        return plain(json.loads(value)) if value not in ("", "{}", "[]") else None
    except (ValueError, RecursionError):
        return value.replace("\x00", "")


@dataclass(slots=True)
class Seen:
    """What earlier rows had; its size grows with the ids of a file, not with its rows' content."""

    ids: dict[str, int] = field(default_factory=dict)
    places: dict[tuple[float, float], int] = field(default_factory=dict)

    def note(self, row: files.Row, asked: Wanted | Judged) -> Wanted | Judged:
        """The same, or its refusal where an earlier row has the id; a shared place is remarked."""
        if isinstance(asked, Judged):
            return asked
        if asked.external_id:
            earlier = self.ids.setdefault(asked.external_id, row.number)
            if earlier != row.number:
                return refusal(row.number, f"repeats the id {asked.external_id} of row {earlier}")
        if row.geometry is not None and row.geometry.geom_type == "Point":
            spot = (row.geometry.x, row.geometry.y)
            earlier = self.places.setdefault(spot, row.number)
            if earlier != row.number:
                remark = "; ".join(filter(None, (asked.remark, f"same place as row {earlier}")))
                return replace(asked, remark=remark)
        return asked


def take(job: GeofenceImport, path: Path, *, stop: threading.Event | None = None) -> Iterator[int]:
    """Import a job's file; yields the rows done after each chunk.

    Raises FileError when the file cannot be imported and Stopped when the job was cancelled.
    """
    plan = Plan.from_json(job.mapping)
    seen = Seen()
    for rows in files.read(path, plan.columns):
        if stop is not None and stop.is_set():
            raise Stopped
        asked = [seen.note(row, wanted(row, plan)) for row in rows]
        if rows[-1].number <= job.rows_done:
            continue  # committed by a worker that died
        with transaction.atomic():
            judged = _judged(job, asked)
            _report(job, rows, judged, plan)
        yield job.rows_done
    if not job.rows_done:  # and every place of its tags would be retired
        raise FileError(files.NO_ROWS)
    if plan.retire_missing and plan.tags:
        _retire_missing(job, plan, seen)
    job.rows_total = job.rows_done


def _judged(job: GeofenceImport, asked: list[Wanted | Judged]) -> list[Judged]:
    them = [each for each in asked if isinstance(each, Wanted)]
    verdicts = iter(upsert(job.brand_id, them, keep=lambda changed: _keep(job, changed)))
    return [each if isinstance(each, Judged) else next(verdicts) for each in asked]


def _report(job: GeofenceImport, rows: list[files.Row], judged: list[Judged], plan: Plan) -> None:
    """Write the chunk's verdicts and progress. Raises Stopped when the job is not ours any more."""
    columns = plan.columns
    GeofenceImportRow.objects.bulk_create(
        GeofenceImportRow(
            job=job,
            row=row.number,
            external_id=text(row.values.get(columns.external_id))[:128],
            name=text(row.values.get(columns.name))[:NAME_LENGTH],
            verdict=each.verdict,
            remark=each.remark,
        )
        for row, each in zip(rows, judged, strict=True)
        if each.remark
    )
    counts = counted(job.counts, (each.verdict for each in judged))
    if repaired := sum(each.repaired for each in judged):
        counts["repaired"] = counts.get("repaired", 0) + repaired
    advance(job, rows_done=rows[-1].number, counts=counts)


def _retire_missing(job: GeofenceImport, plan: Plan, seen: Seen) -> None:
    """Retire what earlier lists had under these tags and this one has not, closed shops say."""
    present = Geofence.objects.present().filter(
        brand_id=job.brand_id, tags__contains=list(plan.tags), external_id__isnull=False
    )
    with transaction.atomic():
        writing.lock(job.brand_id)
        gone = [pk for pk, key in present.values_list("pk", "external_id") if key not in seen.ids]
        at = current_time()
        retired = writing.retire(gone, now=at)
        _keep(job, [changes.retired(pk, at=at) for pk in gone])
        advance(job, counts=dict(job.counts) | {"retired": retired})


def _keep(job: GeofenceImport, changed: Iterable[Change]) -> None:
    """Remember what was changed, so that it can be undone; in the transaction that changed it."""
    GeofenceImportChange.objects.bulk_create(
        GeofenceImportChange(job=job, **each._asdict()) for each in changed
    )


def put_back(
    brand_id: int, kept: Sequence[GeofenceImportChange]
) -> list[tuple[TakenBack, dict[str, str]]]:
    """Take kept changes back (`brands.undoing.PutBack`)."""
    return [
        (one, {"external_id": place.external_id or "", "name": place.name} if place else {})
        for one, place in changes.take_back(brand_id, kept, now=current_time())
    ]


def run(stop: threading.Event) -> None:
    """The worker loop: jobs one after the other until `stop` is set."""
    work(GeofenceImport, do, stop)


def do(job: GeofenceImport, path: Path, stop: threading.Event) -> Iterator[int]:
    """Do a claimed job, whichever of the two it is."""
    return undoing.take(job, put_back, stop=stop) if job.undoes else take(job, path, stop=stop)

"""Files of places for tests, and one imported at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.utils.timezone import now

from brands import filejobs
from brands.filejobs import ImportState
from brands.models import Brand
from geofences import files, imports
from geofences.models import GeofenceImport

SQUARE = [[24.93, 60.16], [24.95, 60.16], [24.95, 60.17], [24.93, 60.17], [24.93, 60.16]]


def collection(path: Path, *features: tuple[Any, dict[str, Any]], **extra: Any) -> Path:
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "geometry": geometry, "properties": properties}
                    for geometry, properties in features
                ],
            }
            | extra
        )
    )
    return path


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": rings}


def take(brand: Brand, path: Path, **plan: Any) -> GeofenceImport:
    """Import a file with guessed columns."""
    columns = files.look(path, plan.pop("columns", None)).guess
    job = GeofenceImport(
        brand=brand,
        file_name=path.name,
        mapping=imports.Plan(columns=columns, **plan).to_json(),
    )
    filejobs.begin(job, now=now())
    for _ in imports.take(job, path):
        pass
    filejobs.finish(job, ImportState.DONE, "", now=now())
    return job


def remark(job: GeofenceImport, row: int) -> str:
    return job.rows.get(row=row).remark

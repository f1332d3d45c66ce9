"""`manage.py import_geofences FILE --brand …`: an import from the terminal, with a progress bar."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from brands.filecommands import FileCommand
from brands.filejobs import FileError
from geofences import files, imports
from geofences.models import GeofenceImport


class Command(FileCommand):
    jobs = GeofenceImport
    remark_columns = imports.REMARK_COLUMNS
    help = (
        "Import any OGR vector file (GeoJSON, GeoPackage, zipped Shapefile, KML, …), GeoParquet, "
        "or a table of points (CSV, Parquet, XLSX) as geofences. Columns are guessed where they "
        "are not named. The import's page in the admin undoes it for some days."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--id-column", default="", help="what makes a row the same next time")
        parser.add_argument("--name-column", default="")
        parser.add_argument("--lat-column", default="", help="of a table of points")
        parser.add_argument("--lng-column", default="", help="of a table of points")
        parser.add_argument("--radius-column", default="", help="metres, of points")
        parser.add_argument("--tags-column", default="", help="list, or text with commas")
        parser.add_argument("--radius-m", type=float, help="of points without their own radius")
        parser.add_argument("--tag", action="append", default=[], help="for every row; repeatable")
        parser.add_argument("--crs", default="", help="believed instead of the file's own")
        parser.add_argument("--layer", default="")
        parser.add_argument("--track-visits", action="store_true", default=None)
        parser.add_argument("--no-metadata", action="store_true", help="drop the other columns")
        parser.add_argument(
            "--retire-missing",
            action="store_true",
            help="retire geofences that have every --tag and are no longer in the file",
        )

    def prepare(self, job: GeofenceImport, file: Path, options: dict[str, Any]) -> bool:
        if options["retire_missing"] and not options["tag"]:
            raise CommandError("--retire-missing needs --tag: which geofences is this the list of?")
        layout = files.look(file, _columns(options))
        if layout.problem:
            raise FileError(layout.problem)
        job.mapping = _plan(layout.guess, options).to_json()
        job.rows_total = layout.rows
        return True

    def take(self, job: GeofenceImport, file: Path) -> Iterator[int]:
        return imports.take(job, file)


def _columns(options: dict[str, Any]) -> files.Columns:
    return files.Columns(
        external_id=options["id_column"],
        name=options["name_column"],
        lat=options["lat_column"],
        lng=options["lng_column"],
        radius=options["radius_column"],
        tags=options["tags_column"],
        layer=options["layer"],
        crs=options["crs"],
    )


def _plan(columns: files.Columns, options: dict[str, Any]) -> imports.Plan:
    return imports.Plan(
        columns=columns,
        radius_m=options["radius_m"],
        tags=tuple(options["tag"]),
        track_visits=options["track_visits"],
        keep_metadata=not options["no_metadata"],
        retire_missing=options["retire_missing"],
    )

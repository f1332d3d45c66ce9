"""`manage.py import_geofences FILE --brand …`: an import from the terminal, with a progress bar."""

from __future__ import annotations

import csv
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now
from tqdm import tqdm

from brands import filejobs
from brands.filejobs import FileError, ImportState
from brands.models import Brand
from geofences import files, imports
from geofences.models import GeofenceImport


class Command(BaseCommand):
    help = (
        "Import any OGR vector file (GeoJSON, GeoPackage, zipped Shapefile, KML, …), GeoParquet, "
        "or a table of points (CSV, Parquet, XLSX) as geofences. Columns are guessed where they "
        "are not named."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--brand", required=True, help="slug of the brand they belong to")
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
        parser.add_argument("--refused", type=Path, help="write the rows with a remark to this CSV")

    def handle(self, *_: Any, file: Path, brand: str, **options: Any) -> None:
        owner = Brand.objects.filter(slug=brand).first()
        if owner is None:
            known = ", ".join(Brand.objects.values_list("slug", flat=True)[:20])
            raise CommandError(f"There is no brand {brand!r}. Brands: {known or 'none yet'}.")
        if not file.is_file():
            raise CommandError(f"There is no file {file}.")
        if options["retire_missing"] and not options["tag"]:
            raise CommandError("--retire-missing needs --tag: which geofences is this the list of?")
        job = GeofenceImport(brand=owner, file_name=file.name)
        started = time.monotonic()
        try:
            layout = files.look(file, _columns(options))
            if layout.problem:
                raise FileError(layout.problem)
            job.mapping = _plan(layout.guess, options).to_json()
            job.rows_total = layout.rows
            filejobs.begin(job, now=now())
            self._take(job, file, quiet=options["verbosity"] == 0)
        except FileError as error:
            if job.pk:
                filejobs.finish(job, ImportState.FAILED, str(error), now=now())
            raise CommandError(f"{file.name}: {error}") from None
        except KeyboardInterrupt:
            filejobs.finish(job, ImportState.CANCELLED, "", now=now())
            raise CommandError(f"Cancelled after {job.rows_done:,} rows, which stay.") from None
        filejobs.finish(job, ImportState.DONE, "", now=now())
        if options["refused"]:
            _write_remarks(job, options["refused"])
        self._sum_up(job, time.monotonic() - started)

    def _take(self, job: GeofenceImport, file: Path, *, quiet: bool) -> None:
        bar = tqdm(total=job.rows_total, unit=" rows", desc=job.file_name, disable=quiet or None)
        with bar:
            for done in imports.take(job, file):
                bar.update(done - bar.n)
                bar.set_postfix(job.counts)

    def _sum_up(self, job: GeofenceImport, seconds: float) -> None:
        counts = ", ".join(f"{number:,} {verdict}" for verdict, number in job.counts.items())
        self.stdout.write(
            f"{job.file_name}: {job.rows_done:,} rows in {seconds:.1f} s: {counts or 'nothing'}"
        )
        for row in job.rows.all()[:5]:
            self.stdout.write(f"  row {row.row}: {row.verdict}: {row.remark}")
        more = job.rows.count() - 5
        if more > 0:
            self.stdout.write(f"  … and {more:,} more remarks; --refused FILE.csv writes them all")


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


def _write_remarks(job: GeofenceImport, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(imports.REMARK_COLUMNS)
        writer.writerows(filejobs.remarks(job, imports.REMARK_COLUMNS))

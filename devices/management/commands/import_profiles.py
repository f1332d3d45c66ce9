"""`manage.py import_profiles FILE --brand …`: a CRM's file from the terminal, with a bar."""

from __future__ import annotations

import csv
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now
from tqdm import tqdm

from brands import filejobs
from brands.filejobs import FileError, ImportState
from brands.models import Brand
from devices import profile_files, profile_imports
from devices.columns import Column, Kind, ProfilePlan
from devices.models import ProfileImport


class Command(BaseCommand):
    help = (
        "Import people and what a CRM knows of them (CSV, XLSX, ODS, Parquet, NDJSON) by external "
        "id. Columns become attributes; what they mean is guessed where it is not said. A file "
        "adds and replaces what its columns say and touches nothing else; its page in the "
        "admin undoes it for some days."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--brand", required=True, help="slug of the brand they belong to")
        parser.add_argument("--id-column", default="", help="the person's id in your systems")
        parser.add_argument(
            "--as-of-column", default=None, help="when a row was true; '' takes none"
        )
        parser.add_argument(
            "--column",
            action="append",
            default=[],
            metavar="NAME=ATTRIBUTE:KIND",
            help=f"what a column means; repeatable. Kinds: {', '.join(Kind)}",
        )
        parser.add_argument("--only", action="store_true", help="skip columns without --column")
        parser.add_argument("--source", default="crm", help="kept with each value")
        parser.add_argument(
            "--empty-clears", action="store_true", help="an empty cell takes the attribute away"
        )
        parser.add_argument("--trial", action="store_true", help="judge the first rows, keep none")
        parser.add_argument("--refused", type=Path, help="write the rows with a remark to this CSV")

    def handle(self, *_: Any, file: Path, brand: str, **options: Any) -> None:
        owner = Brand.objects.filter(slug=brand).first()
        if owner is None:
            known = ", ".join(Brand.objects.values_list("slug", flat=True)[:20])
            raise CommandError(f"There is no brand {brand!r}. Brands: {known or 'none yet'}.")
        if not file.is_file():
            raise CommandError(f"There is no file {file}.")
        job = ProfileImport(brand=owner, file_name=file.name)
        started = time.monotonic()
        try:
            layout = profile_files.look(file)
            plan = _plan(layout.guess, layout.columns, options)
            if options["trial"]:
                self._try(owner, layout, plan)
                return
            job.mapping, job.rows_total = plan.to_json(), layout.rows
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

    def _try(self, brand: Brand, layout: profile_files.Layout, plan: ProfilePlan) -> None:
        told = profile_imports.trial(
            brand.pk, [(values, "") for values in layout.sample], plan, now=now()
        )
        counts = filejobs.counted({}, (one.verdict for one in told))
        said = ", ".join(f"{number:,} {verdict}" for verdict, number in counts.items())
        self.stdout.write(f"The first {len(told):,} rows would be: {said}. Nothing was kept.")
        for number, one in enumerate(told, 1):
            if one.remark:
                self.stdout.write(f"  row {number}: {one.verdict}: {one.remark}")

    def _take(self, job: ProfileImport, file: Path, *, quiet: bool) -> None:
        bar = tqdm(total=job.rows_total, unit=" rows", desc=job.file_name, disable=quiet or None)
        with bar:
            for done in profile_imports.take(job, file):
                bar.update(done - bar.n)
                bar.set_postfix(job.counts)

    def _sum_up(self, job: ProfileImport, seconds: float) -> None:
        counts = ", ".join(f"{number:,} {verdict}" for verdict, number in job.counts.items())
        self.stdout.write(
            f"{job.file_name}: {job.rows_done:,} rows in {seconds:.1f} s: {counts or 'nothing'}"
        )
        for row in job.rows.all()[:5]:
            self.stdout.write(f"  row {row.row}: {row.verdict}: {row.remark}")
        more = job.rows.count() - 5
        if more > 0:
            self.stdout.write(f"  … and {more:,} more remarks; --refused FILE.csv writes them all")


def _plan(guess: ProfilePlan, names: tuple[str, ...], options: dict[str, Any]) -> ProfilePlan:
    """The guess, with what was said put in its place. Raises CommandError."""
    external_id = options["id_column"] or guess.external_id
    as_of = guess.as_of if options["as_of_column"] is None else options["as_of_column"]
    columns = {name: column for name, column in guess.columns.items() if not options["only"]}
    for said in options["column"]:
        name, _, meaning = said.rpartition("=")
        attribute, _, kind = meaning.partition(":")
        if name not in names:
            raise CommandError(f"There is no column {name!r} in: {', '.join(names)}.")
        try:
            columns[name] = Column(attribute=attribute, kind=Kind(kind or Kind.TEXT))
        except ValueError:
            raise CommandError(f"{kind!r} is none of: {', '.join(Kind)}.") from None
    for name in (external_id, as_of):
        if name and name not in names:
            raise CommandError(f"There is no column {name!r} in: {', '.join(names)}.")
        columns.pop(name, None)
    return replace(
        guess,
        external_id=external_id,
        as_of=as_of,
        columns=columns,
        source=options["source"],
        empty_clears=options["empty_clears"],
    )


def _write_remarks(job: ProfileImport, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(profile_imports.REMARK_COLUMNS)
        writer.writerows(filejobs.remarks(job, profile_imports.REMARK_COLUMNS))

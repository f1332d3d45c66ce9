"""What commands that take a brand's file share: whose it is, the bar, and what came of the rows.

What a file's columns mean is the command's own business.
"""

from __future__ import annotations

import csv
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now
from tqdm import tqdm

from brands import filejobs
from brands.filejobs import FileError, FileJob, ImportState
from brands.models import Brand

SHOWN_BRANDS = 20
SHOWN_REMARKS = 5


def brand_called(slug: str) -> Brand:
    """Return the brand of a slug. Raises CommandError, which names those there are."""
    brand = Brand.objects.filter(slug=slug).first()
    if brand is None:
        known = ", ".join(Brand.objects.values_list("slug", flat=True)[:SHOWN_BRANDS])
        raise CommandError(f"There is no brand {slug!r}. Brands: {known or 'none yet'}.")
    return brand


class FileCommand(BaseCommand):
    """An import from the terminal, as a job that the admin shows as well."""

    jobs: type[FileJob]
    remark_columns: tuple[str, ...]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--brand", required=True, help="slug of the brand they belong to")
        parser.add_argument("--refused", type=Path, help="write the rows with a remark to this CSV")

    def prepare(self, job: Any, file: Path, options: dict[str, Any]) -> bool:
        """Set the job's mapping and total; False where nothing is to be taken in.

        Raises FileError where the file cannot be read, CommandError where the options are wrong.
        """
        raise NotImplementedError

    def take(self, job: Any, file: Path) -> Iterator[int]:
        """Take the file in; yields the rows done. Raises FileError."""
        raise NotImplementedError

    def handle(self, *_: Any, file: Path, brand: str, **options: Any) -> None:
        owner = brand_called(brand)
        if not file.is_file():
            raise CommandError(f"There is no file {file}.")
        job = self.jobs(brand=owner, file_name=file.name)
        started = time.monotonic()
        try:
            if not self.prepare(job, file, options):
                return
            filejobs.begin(job, now=now())
            self._follow(job, file, quiet=options["verbosity"] == 0)
        except FileError as error:
            if job.pk:
                filejobs.finish(job, ImportState.FAILED, str(error), now=now())
            raise CommandError(f"{file.name}: {error}") from None
        except KeyboardInterrupt:
            if job.pk:
                filejobs.finish(job, ImportState.CANCELLED, "", now=now())
            raise CommandError(f"Cancelled after {job.rows_done:,} rows, which stay.") from None
        filejobs.finish(job, ImportState.DONE, "", now=now())
        if options["refused"]:
            self._write_remarks(job, options["refused"])
        self._sum_up(job, time.monotonic() - started)

    def _follow(self, job: FileJob, file: Path, *, quiet: bool) -> None:
        bar = tqdm(total=job.rows_total, unit=" rows", desc=job.file_name, disable=quiet or None)
        with bar:
            for done in self.take(job, file):
                bar.update(done - bar.n)
                bar.set_postfix(job.counts)

    def _sum_up(self, job: Any, seconds: float) -> None:
        counts = ", ".join(f"{number:,} {verdict}" for verdict, number in job.counts.items())
        self.stdout.write(
            f"{job.file_name}: {job.rows_done:,} rows in {seconds:.1f} s: {counts or 'nothing'}"
        )
        for row in job.rows.all()[:SHOWN_REMARKS]:
            self.stdout.write(f"  row {row.row}: {row.verdict}: {row.remark}")
        more = job.rows.count() - SHOWN_REMARKS
        if more > 0:
            self.stdout.write(f"  … and {more:,} more remarks; --refused FILE.csv writes them all")

    def _write_remarks(self, job: Any, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as target:
            writer = csv.writer(target)
            writer.writerow(self.remark_columns)
            writer.writerows(filejobs.remarks(job, self.remark_columns))

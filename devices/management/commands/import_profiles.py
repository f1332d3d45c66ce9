"""`manage.py import_profiles FILE --brand …`: a CRM's file from the terminal, with a bar."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils.timezone import now

from brands import filejobs
from brands.filecommands import FileCommand
from brands.models import Brand
from devices import profile_files, profile_imports
from devices.columns import Column, Kind, ProfilePlan
from devices.models import ProfileImport


class Command(FileCommand):
    jobs = ProfileImport
    remark_columns = profile_imports.REMARK_COLUMNS
    help = (
        "Import people and what a CRM knows of them (CSV, XLSX, ODS, Parquet, NDJSON) by external "
        "id. Columns become attributes; what they mean is guessed where it is not said. A file "
        "adds and replaces what its columns say and touches nothing else; its page in the "
        "admin undoes it for some days."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
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

    def prepare(self, job: ProfileImport, file: Path, options: dict[str, Any]) -> bool:
        layout = profile_files.look(file)
        plan = _plan(layout.guess, layout.columns, options)
        if options["trial"]:
            self._try(job.brand, layout, plan)
            return False
        job.mapping, job.rows_total = plan.to_json(), layout.rows
        return True

    def take(self, job: ProfileImport, file: Path) -> Iterator[int]:
        return profile_imports.take(job, file)

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

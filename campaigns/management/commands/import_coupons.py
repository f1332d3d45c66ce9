"""`manage.py import_coupons FILE --pool brand/slug`: codes from the terminal, with progress."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now
from tqdm import tqdm

from campaigns import coupon_imports
from campaigns.models import CouponImport, CouponPool


class Command(BaseCommand):
    help = "Take a file of coupon codes, one a line, into a pool; duplicates are refused."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--pool", required=True, help="brand/pool, both by their slug")

    def handle(self, *_: Any, file: Path, pool: str, **options: Any) -> None:
        brand, _slash, slug = pool.partition("/")
        owner = CouponPool.objects.filter(brand__slug=brand, slug=slug).first()
        if owner is None:
            rows = CouponPool.objects.values_list("brand__slug", "slug")[:20]
            known = ", ".join("/".join(row) for row in rows)
            raise CommandError(f"There is no pool {pool!r}. Pools: {known or 'none yet'}.")
        if not file.is_file():
            raise CommandError(f"There is no file {file}.")
        job = CouponImport(pool=owner, file_name=file.name[-200:])
        coupon_imports.begin(job, now=now())
        started = time.monotonic()
        try:
            with tqdm(unit=" codes", disable=options["verbosity"] == 0 or None) as bar:
                for done in coupon_imports.execute(job, file):
                    bar.total = done.lines_total
                    bar.update(done.lines_done - bar.n)
        except coupon_imports.CouponFileError as error:
            coupon_imports.finish(job, now=now(), problem=str(error))
            raise CommandError(f"{file.name}: {error}") from None
        coupon_imports.finish(job, now=now())
        took_s = time.monotonic() - started
        self.stdout.write(f"{file.name}: {job.taken:,} of {job.lines_done:,} in {took_s:.1f} s")
        for why, count in job.refused.items():
            self.stdout.write(f"  {count:,} refused: {why}")
        for line, code, why in job.remarks[:5]:
            self.stdout.write(f"  line {line}: {code!r} {why}")

"""`manage.py export_geofences FILE --brand …`: geofences as GeoJSON or GeoPackage."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brands.filecommands import brand_called
from geofences import exports
from geofences.models import Geofence


class Command(BaseCommand):
    help = "Write a brand's geofences to FILE; its ending says how: .geojson or .gpkg."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--brand", required=True, help="slug of the brand they belong to")
        parser.add_argument("--tag", default="", help="only those that have this tag")

    def handle(self, *_: Any, file: Path, brand: str, tag: str, **__: Any) -> None:
        try:
            form = exports.Format(file.suffix.lower().removeprefix("."))
        except ValueError:
            raise CommandError("The file's ending must be .geojson or .gpkg.") from None
        owner = brand_called(brand)
        geofences = Geofence.objects.present().filter(brand=owner)
        if tag:
            geofences = geofences.filter(tags__contains=[tag])
        count = exports.write(geofences, file, form)
        self.stdout.write(f"{file}: {count:,} geofences")

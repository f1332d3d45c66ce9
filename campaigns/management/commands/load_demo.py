"""`manage.py load_demo`: loads the demo city and writes its keys to `.nearcast/demo.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils.timezone import now

from brands import demo as demo_file
from campaigns.demo import load


class Command(BaseCommand):
    help = "Load the demo city; what is there already stays as it is."

    def handle(self, *_args: Any, **_options: Any) -> None:
        known = demo_file.read()
        known.setdefault("base_url", "http://127.0.0.1:8000")
        known.setdefault("ws_url", known["base_url"].replace("http", "ws", 1) + "/v1/stream")
        known.setdefault("admin_url", known["base_url"] + "/admin/")
        known["database_url"] = settings.DATABASE_URL
        if settings.FCM_EMULATOR_URL:
            known["emulator_url"] = settings.FCM_EMULATOR_URL
        try:
            found = load(Path(settings.BASE_DIR) / "fixtures", known, now=now())
        except ImproperlyConfigured as refusal:
            raise CommandError(str(refusal)) from refusal
        demo_file.write(found)
        self.stdout.write(f"{len(found['brands'])} brands; keys and log-ins in {demo_file.path()}")

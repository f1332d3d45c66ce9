"""`manage.py work NAME…`: runs the named loops until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.work import LOOPS, work


class Command(BaseCommand):
    help = "Run loops behind the doors in this process, each on a thread of its own."
    requires_system_checks = ()  # a restart after a crash should be quick

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="+", choices=sorted(LOOPS), metavar="NAME",
                            help=f"one or more of: {', '.join(LOOPS)}")  # fmt: skip

    def handle(self, *_args: Any, names: list[str], **_options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if not work(list(dict.fromkeys(names)), stop):
            raise CommandError("stopped, but not cleanly")

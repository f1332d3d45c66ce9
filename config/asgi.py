"""The ASGI application and its protocol; what they are made of stands in config.web."""

from __future__ import annotations

import os

__all__ = ["Protocol", "Sockets", "application"]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# For each worker: seven for the doors' own threads, the rest for requests that Django serves.
os.environ.setdefault("NEARCAST_POOL_SIZE", "20")

import django

django.setup(set_prefix=False)

from config.incoming import Handler  # noqa: E402 - Django must have been set up
from config.protocol import Protocol, Sockets  # noqa: E402 - the same
from config.web import Web  # noqa: E402 - it imports models

application = Web(Handler())

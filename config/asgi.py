"""The ASGI application; what it is made of stands in config.web."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# For each worker: seven for the doors' own threads, the rest for requests that Django serves.
os.environ.setdefault("NEARCAST_POOL_SIZE", "20")

from django.core.asgi import get_asgi_application

_django = get_asgi_application()

from config.web import Web  # noqa: E402 - it imports models, which Django must have set up

application = Web(_django)

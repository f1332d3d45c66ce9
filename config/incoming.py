"""Requests on their way to Django: the API's are no larger and no slower than at the fast doors.

Django keeps a body whole, in memory and then on disk, before it asks whose it is. What is in it is
not asked here.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, BinaryIO

from django.core.handlers.asgi import ASGIHandler, ASGIRequest

from devices.doors.answers import TOO_SLOW, answer_refusal
from devices.doors.decoding import Refused, too_large
from devices.doors.door import Receive, Scope, Send
from devices.doors.limits import Patience


class _Request(ASGIRequest):
    """It knows the length of a body that came in chunks: DRF takes one without for none."""

    def __init__(self, scope: Scope, body_file: BinaryIO) -> None:
        super().__init__(scope, body_file)
        if "CONTENT_LENGTH" not in self.META:
            body_file.seek(0, os.SEEK_END)
            if length := body_file.tell():
                self.META["CONTENT_LENGTH"] = str(length)
            body_file.seek(0)


class Handler(ASGIHandler):
    """Django, for bodies of every kind."""

    request_class = _Request


class Incoming:
    """Django behind a limit on bodies and a patience with them."""

    def __init__(self, django: Any, *, max_bytes: int, patience: Patience) -> None:
        self._django, self._max_bytes, self._patience = django, max_bytes, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if _said_bytes(scope) > self._max_bytes:
                raise too_large(self._max_bytes)
            await self._django(scope, _Body(receive, self._max_bytes, self._patience), send)
        except Refused as refusal:
            reply = answer_refusal(refusal)
        except TimeoutError:
            reply = TOO_SLOW
        else:
            return
        await send(reply.start)
        await send(reply.body)


class _Body:
    """What comes of a body, counted; TimeoutError where its client falls silent."""

    def __init__(self, receive: Receive, max_bytes: int, patience: Patience) -> None:
        self._receive, self._room, self._patience = receive, max_bytes, patience
        self._max_bytes, self._is_whole = max_bytes, False

    async def __call__(self) -> Any:
        if self._is_whole:  # Django listens for whether the client goes away
            return await self._receive()
        waiting = self._patience.begin()
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if self._patience.gave_up(waiting):
                raise TimeoutError from None
            raise
        finally:
            self._patience.end(waiting)
        self._room -= len(message.get("body", b""))
        if self._room < 0:
            raise too_large(self._max_bytes)
        self._is_whole = not message.get("more_body")
        return message


def _said_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) < 20:
            return int(value)
    return 0

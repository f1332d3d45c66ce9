"""Requests on their way to Django: the API's are no larger and no slower than at the fast doors.

Django keeps a body whole, in memory and then on disk, before it asks whose it is. So what is large
comes to the admin only from those who have signed in. What is in it is not asked here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any, BinaryIO

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import parse_cookie

from devices.doors.answers import TOO_SLOW, answer_refusal
from devices.doors.decoding import Refused, too_large
from devices.doors.door import Receive, Scope, Send
from devices.doors.limits import Patience

_BODILESS = frozenset({"GET", "HEAD"})


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


IsTrusted = Callable[[Scope], Awaitable[bool]]
"""Whether a request may bring a body of any size. Asked only of one that may bring a large one."""


class Incoming:
    """Django behind a limit on bodies and a patience with them."""

    def __init__(
        self,
        django: Any,
        *,
        max_bytes: int,
        patience: Patience,
        is_trusted: IsTrusted | None = None,
    ) -> None:
        self._django, self._max_bytes, self._patience = django, max_bytes, patience
        self._is_trusted = is_trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = _said_bytes(scope)
        if await self._may_be_larger(scope, said):
            await self._django(scope, receive, send)
            return
        try:
            if said > self._max_bytes:
                raise too_large(self._max_bytes)
            await self._django(scope, _Body(receive, self._max_bytes, self._patience), send)
        except Refused as refusal:
            if self._is_trusted is not None:
                refusal.message += " Sign in, then send it again."
            reply = answer_refusal(refusal)
        except TimeoutError:
            reply = TOO_SLOW
        else:
            return
        await send(reply.start)
        await send(reply.body)

    async def _may_be_larger(self, scope: Scope, said: int) -> bool:
        if self._is_trusted is None or scope["method"] in _BODILESS or 0 <= said <= self._max_bytes:
            return False
        return await self._is_trusted(scope)


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
    """How large the body is; -1 where that is not said, as of one in chunks."""
    value = _header(scope, b"content-length")
    return int(value) if value.isdigit() and len(value) < 20 else -1


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), b"")


def _is_signed_in(scope: Scope) -> bool:
    """Whether the request's session is that of somebody who may use the admin."""
    cookies = parse_cookie(_header(scope, b"cookie").decode("latin-1"))
    store = import_module(settings.SESSION_ENGINE).SessionStore
    session = store(cookies.get(settings.SESSION_COOKIE_NAME))
    user = get_user(SimpleNamespace(session=session))  # type: ignore[arg-type]
    return user.is_active and getattr(user, "is_staff", False)


is_signed_in: IsTrusted = database_sync_to_async(_is_signed_in)

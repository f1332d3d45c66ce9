"""JSON bodies as paths off the fast road read them: bounded, UTF-8, strict. It knows no field.

Whatever is sent is the caller's fault, never ours: 400, 413 or 415, before a view sees it.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, ClassVar

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser

_UTF8 = {"utf-8", "utf8"}
_PLAIN = {"", "identity"}


class BodyTooLarge(APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"
    default_detail = "The body is too large."


class WholeBody(BaseParser):
    """The bytes of a body, for readers that are faster than DRF's."""

    media_type = "application/json"
    max_bytes: ClassVar[int | None] = None  # the setting's

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """The bytes, as far as they are allowed."""
        sent = (parser_context or {})["request"]
        charset = sent.content_params.get("charset", "utf-8").lower()
        encoding = sent.headers.get("content-encoding", "").strip().lower()
        if charset not in _UTF8 or encoding not in _PLAIN:
            raise UnsupportedMediaType(media_type, "Send it in UTF-8 and not compressed.")
        limit = settings.MAX_BODY_BYTES if self.max_bytes is None else self.max_bytes
        body: bytes = stream.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge
        return body


class JsonBody(WholeBody):
    """A body as JSON values. Which of them can be kept is `brands.storable`'s question."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """Raises ParseError for what is no JSON, RecursionError for what is nested without end."""
        body = super().parse(stream, media_type, parser_context)
        try:
            return json.loads(body.decode(), parse_constant=_refuse_constant)
        except ValueError as error:  # UnicodeDecodeError is one
            raise ParseError(f"JSON parse error - {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")

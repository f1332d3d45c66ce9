"""The doors' answers, those that never vary made once. It says nothing about when to give them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from devices.doors.decoding import Refused

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A whole response, ready to be sent any number of times."""

    start: dict[str, Any]
    body: dict[str, Any]
    head: bytes  # the same start in HTTP/1.1, but for the empty line that ends it
    code: str  # of the error that it tells; empty where it tells none


def answer(
    status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = (), *, code: str = ""
) -> Answer:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    return Answer(
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body, "more_body": False},
        first + b"".join(b"%b: %b\r\n" % header for header in headers),
        code,
    )


def answer_refusal(refusal: Refused) -> Answer:
    error = {"code": refusal.code, "message": refusal.message, "fields": refusal.fields}
    return answer(refusal.status, _encode(error), refusal.headers, code=refusal.code)


ALL_ACCEPTED = {n: answer(200, b'{"accepted":%d,"rejected":[]}' % n) for n in range(257)}
_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
NO_TOKEN = answer_refusal(
    Refused(
        401, "not_authenticated", "A device token is needed, or it is not ours.", headers=_CHALLENGE
    )
)
REVOKED = answer_refusal(
    Refused(
        401,
        "token_revoked",
        "The token was revoked or the device erased; register again.",
        headers=_CHALLENGE,
    )
)
NO_KEY = answer_refusal(
    Refused(401, "not_authenticated", "A server key is needed.", headers=_CHALLENGE)
)
WRONG_KEY = answer_refusal(
    Refused(403, "permission_denied", "A publishable key may only register a device.")
)
NOT_POST = answer_refusal(
    Refused(405, "method_not_allowed", "Only POST.", headers=((b"allow", b"POST"),))
)
TOO_SLOW = answer_refusal(
    Refused(408, "timeout", "The body did not come in time.", headers=((b"connection", b"close"),))
)
NOT_HTTP = answer_refusal(Refused(400, "not_http", "This is no HTTP/1.1 request."))
HEAD_TOO_LARGE = answer_refusal(Refused(431, "too_large", "The headers are too large."))
OVERLOADED = answer_refusal(
    Refused(
        503,
        "overloaded",
        "Nothing was taken; send it again shortly.",
        headers=((b"retry-after", b"1"),),
    )
)
FAILED = answer_refusal(Refused(500, "error", "The server failed; nothing was taken."))


def too_many(wait_s: float) -> Answer:
    """429 with the whole seconds to wait."""
    seconds = int(wait_s) + 1
    return answer_refusal(
        Refused(
            429,
            "rate_limited",
            f"Too many requests of this device; try again in {seconds} s.",
            headers=((b"retry-after", str(seconds).encode()),),
        )
    )

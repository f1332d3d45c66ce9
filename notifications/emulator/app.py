"""The emulator as an ASGI application: routes, answers, and a bounded memory of what arrived."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from notifications.emulator import answers
from notifications.emulator.answers import Answer
from notifications.emulator.oauth import PROJECT, InvalidGrant, ServiceAccount
from notifications.emulator.shapes import TARGETS, violations

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024
PAGE = Path(__file__).with_name("page.html").read_bytes()
_SEND_PATH = re.compile(r"/v1/projects/([^/]+)/messages:send")
_JSON = (b"content-type", b"application/json; charset=UTF-8")
_HTML = (b"content-type", b"text/html; charset=UTF-8")

# What a token's beginning makes FCM say. `slow-` and `unavailable-` also depend on the settings.
ANSWERS_BY_PREFIX: dict[str, Answer] = {
    "unregistered": answers.UNREGISTERED,
    "invalid": answers.INVALID_TOKEN,
    "mismatch": answers.MISMATCH,
    "quota": answers.QUOTA,
    "internal": answers.INTERNAL,
    "thirdparty": answers.THIRD_PARTY_AUTH,
}


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How the emulated FCM behaves; `PUT /settings` changes it while it runs."""

    latency_ms: int = 20
    slow_ms: int = 3_000
    retry_after_s: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One send request: kept as it came, decoded only when somebody looks."""

    number: int
    at: float
    project: str
    target: str
    code: str
    body: bytes

    def shown(self) -> dict[str, Any]:
        return {
            "name": f"projects/{self.project}/messages/{self.number}",
            "received_at": datetime.fromtimestamp(self.at, UTC).isoformat(),
            "token": self.target,
            "answer": self.code,
            **msgspec.json.decode(self.body),
        }


class Emulator:
    """One emulated project. Holds the last `keep` requests and counts all of them."""

    def __init__(
        self, account: ServiceAccount, settings: Settings | None = None, *, keep: int = 5_000
    ) -> None:
        self._account = account
        self._settings = settings or Settings()
        self._arrivals: deque[Arrival] = deque(maxlen=keep)
        self._answered: Counter[str] = Counter()
        self._http_versions: Counter[str] = Counter()
        self._clients: set[Any] = set()
        self._number = 0
        self._in_flight = 0
        self._peak_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _read(receive)
        answer = (
            Answer(status=413, code="TOO_LARGE", body=b"{}")
            if body is None
            else await self._answer(scope, body)
        )
        headers = [*answer.headers]
        if not any(name == b"content-type" for name, _ in headers):
            headers.append(_JSON)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, body: bytes) -> Answer:
        method, path = scope["method"], scope["path"]
        if method == "POST" and (found := _SEND_PATH.fullmatch(path)):
            return await self._take(scope, found[1], body)
        match method, path:
            case "POST", "/token":
                return self._exchange(body)
            case "GET", "/messages" | "/":
                return self._show(scope)
            case "DELETE", "/messages":
                self._forget()
                return _json(200, {})
            case "GET", "/service-account.json":
                return _json(200, self._account.document(_base_url(scope)))
            case "GET", "/settings":
                return _json(200, msgspec.to_builtins(self._settings))
            case "PUT", "/settings":
                return self._configure(body)
            case "GET", "/healthz":
                return _json(200, {"status": "ok"})
        return answers.api_error(404, "NOT_FOUND", f"Nothing at {method} {path}.")

    async def _take(self, scope: Scope, project: str, body: bytes) -> Answer:
        """Answer one send request after the time that FCM takes for it."""
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
        self._http_versions[scope.get("http_version", "")] += 1
        if len(self._clients) < 10_000:
            self._clients.add(tuple(scope.get("client") or ()))
        try:
            answer, arrival, pause_ms = self._judge(scope, project, body)
            if pause_ms:
                await asyncio.sleep(pause_ms / 1000)
        finally:
            self._in_flight -= 1
        self._answered[answer.code] += 1
        if arrival:
            self._arrivals.append(arrival)
        return answer

    def _judge(self, scope: Scope, project: str, body: bytes) -> tuple[Answer, Arrival | None, int]:
        """Return the answer to a send request, what to remember of it, and the time it takes."""
        pause_ms = self._settings.latency_ms
        if not self._account.accepts(_header(scope, b"authorization"), now_s=time.time()):
            return answers.UNAUTHENTICATED, None, pause_ms
        if project != PROJECT:
            return answers.forbidden(project), None, pause_ms
        try:
            request = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return answers.NOT_JSON, None, pause_ms
        self._number += 1
        message = request.get("message") if isinstance(request, dict) else None
        target = _target(message) if isinstance(message, dict) else "?"
        prefix = target.partition("-")[0] if "-" in target else ""
        if found := violations(request):
            answer = answers.invalid(found)
        elif prefix == "unavailable":
            answer = answers.unavailable(self._settings.retry_after_s)
        elif prefix in ANSWERS_BY_PREFIX:
            answer = ANSWERS_BY_PREFIX[prefix]
        else:
            answer = answers.accepted(f"projects/{project}/messages/{self._number}")
            if prefix == "slow":
                pause_ms = self._settings.slow_ms
        arrival = Arrival(
            number=self._number,
            at=time.time(),
            project=project,
            target=target,
            code=answer.code,
            body=body,
        )
        return answer, arrival, pause_ms

    def _exchange(self, body: bytes) -> Answer:
        try:
            form = dict(parse_qsl(body.decode("utf-8", "replace")))
            return _json(200, self._account.exchange(form, now_s=time.time()))
        except InvalidGrant as error:
            return _json(400, {"error": "invalid_grant", "error_description": str(error)})

    def _show(self, scope: Scope) -> Answer:
        if "text/html" in _header(scope, b"accept"):
            return Answer(status=200, code="OK", body=PAGE, headers=(_HTML,))
        query = dict(parse_qsl(scope.get("query_string", b"").decode()))
        token = query.get("token")
        limit = int(query["limit"]) if query.get("limit", "").isdecimal() else len(self._arrivals)
        wanted = [a for a in reversed(self._arrivals) if token is None or a.target == token]
        return _json(
            200,
            {
                "next": None,
                "results": [arrival.shown() for arrival in wanted[:limit]],
                "stats": {
                    "arrived": self._number,
                    "answered": dict(self._answered),
                    "http_versions": dict(self._http_versions),
                    "connections": len(self._clients),
                    "in_flight": self._in_flight,
                    "peak_in_flight": self._peak_in_flight,
                },
            },
        )

    def _forget(self) -> None:
        self._arrivals.clear()
        self._answered.clear()
        self._http_versions.clear()
        self._clients.clear()
        self._peak_in_flight = self._in_flight

    def _configure(self, body: bytes) -> Answer:
        try:
            changed = msgspec.to_builtins(self._settings) | msgspec.json.decode(body, type=dict)
            self._settings = msgspec.convert(changed, Settings)
        except msgspec.MsgspecError as error:
            return answers.api_error(400, "INVALID_ARGUMENT", str(error))
        return _json(200, msgspec.to_builtins(self._settings))


def _json(status: int, value: Any) -> Answer:
    return Answer(status=status, code="OK", body=msgspec.json.encode(value))


def _target(message: dict[str, Any]) -> str:
    """Return whom a message is for, as far as it says so."""
    return next((str(message[name]) for name in TARGETS if message.get(name)), "?")


def _header(scope: Scope, name: bytes) -> str:
    for found, value in scope["headers"]:
        if found == name:
            return str(value.decode("latin-1"))
    return ""


def _base_url(scope: Scope) -> str:
    # HTTP/2 sends :authority, which the server hands on as host.
    return f"{scope.get('scheme', 'http')}://{_header(scope, b'host')}"


async def _read(receive: Receive) -> bytes | None:
    """Return the body, or None where it is longer than any message may be."""
    body = bytearray()
    while True:
        event = await receive()
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not event.get("more_body"):
            return bytes(body)

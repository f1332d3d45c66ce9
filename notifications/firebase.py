"""Sends pushes with firebase-admin; its only importer. Tries each once, says what came of it.

firebase-admin builds and checks the messages, holds the credentials and reads FCM's errors. Two of
its parts are replaced, in `_aimed` and nowhere else, because they cannot be set from outside:
the address (the emulator's instead of Google's), and the HTTP client underneath, which would repeat
a send up to four times out of our sight without honouring Retry-After, refresh credentials inside
the event loop, and cost ten times the processor time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import firebase_admin
import google.auth.credentials
import httpx
import msgspec
from firebase_admin import credentials, exceptions, messaging
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request as AuthRequest
from google.oauth2 import service_account

from notifications.http2 import Headers, Http2Client, Http2Error, Reply, Unprocessed
from notifications.push import (
    Outcome,
    Push,
    PushError,
    PushErrorKind,
    Urgency,
    push_data,
    refusal,
    rejected,
)

log = logging.getLogger(__name__)

FCM_ORIGIN = "https://fcm.googleapis.com"
EMULATOR_PROJECT = "demo-nearcast"
SCOPES = ("https://www.googleapis.com/auth/firebase.messaging",)
# Google's front end answers GOAWAY to more streams on one connection (firebase-admin-node#2943).
MAX_CONCURRENCY = 100
TIMEOUT_S = 10.0
# FCM's ErrorCode: QUOTA_EXCEEDED backs off "with a minimum initial delay of 1 minute".
QUOTA_DELAY_S = 60.0
# Somebody has to change a set-up; asking more often than this only fills the log.
OPERATOR_DELAY_S = 300.0
# RFC 8030, 5.4: a Topic is at most 32 characters of the URL-safe alphabet.
MAX_WEB_TOPIC_CHARS = 32
# FCM names the token in words only, without a field violation (firebase-admin-java#1064).
NOT_A_TOKEN = "The registration token is not a valid FCM registration token"  # noqa: S105 - words

_TRANSIENT, _REJECTED, _GONE = (
    PushErrorKind.TRANSIENT,
    PushErrorKind.REJECTED,
    PushErrorKind.TOKEN_GONE,
)
# The first class that fits decides: FCM's own before the platform's, which they derive from.
KINDS: tuple[tuple[type[exceptions.FirebaseError], PushErrorKind, float, bool], ...] = (
    # class, kind, least delay in seconds, needs an operator
    (messaging.UnregisteredError, _GONE, 0, False),
    # The token belongs to another sender's app: for us it never worked and never will.
    (messaging.SenderIdMismatchError, _GONE, 0, False),
    (messaging.QuotaExceededError, _TRANSIENT, QUOTA_DELAY_S, False),
    # Our APNs key or web push key at Firebase: no token's fault.
    (messaging.ThirdPartyAuthError, _TRANSIENT, OPERATOR_DELAY_S, True),
    (exceptions.InvalidArgumentError, _REJECTED, 0, False),
    (exceptions.UnauthenticatedError, _TRANSIENT, OPERATOR_DELAY_S, True),
    (exceptions.PermissionDeniedError, _TRANSIENT, OPERATOR_DELAY_S, True),
    # 404 without UNREGISTERED: the project is not there, so nothing is known of the token.
    (exceptions.NotFoundError, _TRANSIENT, OPERATOR_DELAY_S, True),
    (exceptions.ResourceExhaustedError, _TRANSIENT, QUOTA_DELAY_S, False),
    (exceptions.UnavailableError, _TRANSIENT, 0, False),
    (exceptions.InternalError, _TRANSIENT, 0, False),
    (exceptions.DeadlineExceededError, _TRANSIENT, 0, False),
    (exceptions.AbortedError, _TRANSIENT, 0, False),
    (exceptions.CancelledError, _TRANSIENT, 0, False),
    (exceptions.DataLossError, _TRANSIENT, 0, False),
    (exceptions.FailedPreconditionError, _REJECTED, 0, False),
    (exceptions.OutOfRangeError, _REJECTED, 0, False),
    (exceptions.ConflictError, _REJECTED, 0, False),
    (exceptions.AlreadyExistsError, _REJECTED, 0, False),
    # A lost connection, or a status that Google does not document: judged by the status, below.
    (exceptions.FirebaseError, _TRANSIENT, 0, False),
)


def sender_for(*, emulator_url: str, credentials_path: str) -> FirebaseSender:
    """Return the sender that the settings ask for: the emulator's where its address is set."""
    if emulator_url:
        return FirebaseSender(
            EmulatorCredential(emulator_url), origin=emulator_url, project=EMULATOR_PROJECT
        )
    return FirebaseSender(credentials.Certificate(credentials_path))


class FirebaseSender:
    """A `push.Sender`. Belongs to one event loop; at most `concurrency` sends are in the air."""

    def __init__(
        self,
        credential: credentials.Base,
        *,
        origin: str = FCM_ORIGIN,
        project: str | None = None,
        concurrency: int = MAX_CONCURRENCY,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._app = firebase_admin.initialize_app(
            credential,
            {"projectId": project} if project else None,
            name=f"nearcast-{uuid.uuid4()}",
        )
        self._channel = _Channel(
            Http2Client(origin, tls=tls), credential.get_credential(), timeout_s=timeout_s
        )
        _aimed(self._app, origin, self._channel)
        self._concurrency = concurrency
        # Over all calls together: a push that waits for its turn is not yet running out of time.
        self._slots = asyncio.Semaphore(concurrency)

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        """Try each push once, a bounded number at a time."""
        outcomes: dict[int, Outcome] = {}
        waiting = iter(enumerate(pushes))
        lanes = min(self._concurrency, len(pushes))
        await asyncio.gather(*[self._lane(waiting, outcomes) for _ in range(lanes)])
        return [outcomes[place] for place in range(len(pushes))]

    async def _lane(
        self, waiting: Iterator[tuple[int, Push]], outcomes: dict[int, Outcome]
    ) -> None:
        """Send one after the other until none waits: a slow one holds up its lane only."""
        for place, push in waiting:
            async with self._slots:
                outcomes[place] = await self._send_one(push)

    async def _send_one(self, push: Push) -> Outcome:
        started_s = time.perf_counter()
        error = refusal(push)
        message_id = ""
        if error is None:
            try:
                # One message a call: in a call of many, one exception hides what came of the rest.
                batch = await messaging.send_each_async([message(push)], app=self._app)
                answer = batch.responses[0]
                message_id = answer.message_id or ""
                if answer.exception:
                    error = push_error(answer.exception)
            except exceptions.FirebaseError as failure:
                error = push_error(failure)
            except ValueError as failure:
                error = rejected("INVALID_MESSAGE", str(failure))
        if error and error.needs_operator:
            log.error("FCM refuses our set-up: %s: %s", error.code, error.detail)
        latency_ms = round((time.perf_counter() - started_s) * 1000)
        return Outcome(message_id=message_id, error=error, latency_ms=latency_ms)

    async def close(self) -> None:
        await self._channel.aclose()
        # firebase-admin closes its client with a loop of its own, which must not be ours.
        await asyncio.to_thread(firebase_admin.delete_app, self._app)


def message(push: Push) -> messaging.Message:
    """Return the FCM message of a push; validates against FCM's discovery document."""
    options = push.options
    high = options.urgency is Urgency.HIGH
    made = messaging.Message(
        data=push_data(push),
        notification=messaging.Notification(title=push.title, body=push.body, image=push.image_url),
        android=messaging.AndroidConfig(
            collapse_key=push.collapse_key,
            priority=options.urgency.value,
            ttl=timedelta(seconds=push.ttl_s),
            notification=messaging.AndroidNotification(
                channel_id=options.android_channel_id,
                sound=options.android_sound,
                icon=options.android_icon,
                color=options.android_color,
                tag=push.collapse_key,  # a repeat replaces its first showing
            ),
        ),
        apns=messaging.APNSConfig(
            headers={
                "apns-push-type": "alert",
                "apns-priority": "10" if high else "5",
                "apns-collapse-id": push.collapse_key,
                "apns-expiration": str(int(time.time()) + push.ttl_s),
            },
            payload=messaging.APNSPayload(
                messaging.Aps(
                    sound=options.apns_sound or None,
                    badge=options.apns_badge,
                    category=options.apns_category,
                    thread_id=options.apns_thread_id,
                    # Lets the app's extension fetch the image and drop a repeated delivery id.
                    mutable_content=True,
                )
            ),
            fcm_options=messaging.APNSFCMOptions(image=push.image_url) if push.image_url else None,
        ),
        webpush=_webpush(push, high=high),
    )
    # Set here because the constructor warns at every token: FCM moves to installation ids, and
    # takes both in this field (discovery document, Message.token).
    made.token = push.token
    return made


def _webpush(push: Push, *, high: bool) -> messaging.WebpushConfig:
    headers = {"TTL": str(push.ttl_s), "Urgency": "high" if high else "normal"}
    if len(push.collapse_key) <= MAX_WEB_TOPIC_CHARS:
        headers["Topic"] = push.collapse_key
    secure_link = push.deep_link if (push.deep_link or "").startswith("https://") else None
    return messaging.WebpushConfig(
        headers=headers,
        notification=messaging.WebpushNotification(
            icon=push.options.web_icon,
            tag=push.collapse_key,
            require_interaction=push.options.web_require_interaction or None,
        ),
        fcm_options=messaging.WebpushFCMOptions(link=secure_link) if secure_link else None,
    )


def push_error(failure: exceptions.FirebaseError) -> PushError:
    """Return what a failure of firebase-admin means for the delivery and for its token."""
    kind, delay_s, needs_operator = next(
        (kind, delay_s, operator)
        for known, kind, delay_s, operator in KINDS
        if isinstance(failure, known)
    )
    response = failure.http_response
    status = response.status_code if response is not None else 0
    details = _details(response)
    code = details.get("errorCode") or str(failure.code)
    blames_token = details["fields"] == ["message.token"] or str(failure) == NOT_A_TOKEN
    if kind is _REJECTED and blames_token:
        kind, code = _GONE, "INVALID_TOKEN"
    if type(failure) is exceptions.UnknownError and 400 <= status < 500 and status != 408:
        kind = _REJECTED
    if isinstance(failure.cause, RefreshError) and not failure.cause.retryable:
        code, delay_s, needs_operator = "BAD_CREDENTIALS", OPERATOR_DELAY_S, True
    return PushError(
        kind=kind,
        code=code,
        detail=str(failure)[:400],
        retry_after_s=max(delay_s, _retry_after_s(response)) or None,
        needs_operator=needs_operator,
    )


def _details(response: httpx.Response | None) -> dict[str, Any]:
    """Return FCM's own code and the fields it objects to, as far as the answer has them."""
    found: dict[str, Any] = {"fields": []}
    try:
        details = response.json()["error"]["details"] if response is not None else []
        for detail in details:
            found.update({"errorCode": detail["errorCode"]} if "errorCode" in detail else {})
            found["fields"] += [wrong["field"] for wrong in detail.get("fieldViolations", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        return found  # a proxy's error page, say
    return found


def _retry_after_s(response: httpx.Response | None) -> float:
    """Return the wait that the answer asks for, in seconds or as a date; 0 where it asks none."""
    asked = response.headers.get("retry-after", "") if response is not None else ""
    if asked.strip().isdecimal():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # the last: a time zone years away
        return 0.0


class _Channel:
    """What firebase-admin sends through: one request, one try, over one HTTP/2 connection.

    Stands where firebase-admin has its `HttpxAsyncClient`, and fails with the same exceptions.
    """

    def __init__(
        self,
        http: Http2Client,
        credential: google.auth.credentials.Credentials,
        *,
        timeout_s: float,
    ) -> None:
        self._http = http
        self._credential = credential
        self._timeout_s = timeout_s
        self._refreshing = asyncio.Lock()

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], json: dict[str, Any]
    ) -> _Taken:
        """Post once; a token that Google calls stale is renewed and the request repeated."""
        path = urlsplit(url).path
        body = msgspec.json.encode(json)
        token = await self._token(stale=None)
        reply = await self._post(path, headers, token, body)
        if reply.status == 401 and b"AUTH_ERROR" not in reply.body:
            token = await self._token(stale=token)
            reply = await self._post(path, headers, token, body)
        if reply.status != 200:
            response = httpx.Response(reply.status, headers=reply.headers, content=reply.body)
            raise httpx.HTTPStatusError(
                f"HTTP {reply.status}", request=httpx.Request(method, url), response=response
            )
        return _Taken(reply.body)

    async def _post(self, path: str, headers: dict[str, str], token: str, body: bytes) -> Reply:
        sent: Headers = [(name.lower(), value) for name, value in headers.items()]
        # No content-length: HTTP/2 frames say it, and what changes each time costs a table entry.
        sent += [("authorization", f"Bearer {token}"), ("content-type", "application/json")]
        try:
            try:
                return await self._http.post(path, sent, body, timeout_s=self._timeout_s)
            except Unprocessed:
                return await self._http.post(path, sent, body, timeout_s=self._timeout_s)
        except TimeoutError as error:
            raise httpx.ReadTimeout(f"no answer within {self._timeout_s:g} s") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        except Http2Error as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    async def _token(self, *, stale: str | None) -> str:
        """Return an access token, renewed off the loop and by one of all who ask at once."""
        if not self._fresh(stale):
            async with self._refreshing:
                if not self._fresh(stale):
                    await asyncio.to_thread(self._credential.refresh, AuthRequest())
        return str(self._credential.token)

    def _fresh(self, stale: str | None) -> bool:
        return bool(self._credential.valid) and self._credential.token != stale

    async def aclose(self) -> None:
        await self._http.close()


class _Taken:
    """The answer to a push that FCM took."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def json(self) -> Any:
        return msgspec.json.decode(self._body)


def _aimed(app: firebase_admin.App, origin: str, channel: _Channel) -> None:
    """Point one app's messaging at an origin, through our channel. Other apps stay as they are."""
    service = messaging._get_messaging_service(app)
    service._fcm_url = service._fcm_url.replace(FCM_ORIGIN, origin, 1)
    service._async_client = channel


class EmulatorCredential(credentials.Base):  # type: ignore[misc]
    """The service account that the emulator hands out."""

    def __init__(self, emulator_url: str) -> None:
        super().__init__()
        self._credential = _EmulatorToken(emulator_url)

    def get_credential(self) -> google.auth.credentials.Credentials:
        return self._credential


class _EmulatorToken(google.auth.credentials.Credentials):
    """Asks for the account at every renewal, so that an emulator may start after us, or anew."""

    def __init__(self, emulator_url: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._emulator_url = emulator_url

    def refresh(self, request: AuthRequest) -> None:
        answer = request(f"{self._emulator_url}/service-account.json", timeout=TIMEOUT_S)
        account = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            json.loads(answer.data), scopes=SCOPES
        )
        account.refresh(request)
        self.token, self.expiry = account.token, account.expiry

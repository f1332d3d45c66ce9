"""What one push is, what may come of sending it, and who sends it. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

# FCM: "4096 bytes for most messages … both the keys and the values".
# https://firebase.google.com/docs/cloud-messaging/concept-options
MAX_PAYLOAD_BYTES = 4_096
# FCM: a message waits for its phone at most four weeks.
MAX_TTL_S = 2_419_200
# FCM's own words in `data` (discovery document, Message.data) …
RESERVED_KEYS = frozenset({"from", "message_type"})
# … and the beginnings it keeps for itself.
RESERVED_PREFIXES = ("google.", "gcm.notification.")
# APNs refuses a longer apns-collapse-id; FCM itself has no limit.
MAX_COLLAPSE_KEY_BYTES = 64

# What the app finds in `data` beside the campaign's own keys.
DELIVERY_ID_KEY = "delivery_id"
DEEP_LINK_KEY = "deep_link"


class Urgency(StrEnum):
    """Whether FCM may wake a sleeping phone for it."""

    HIGH = "high"
    NORMAL = "normal"


class PushOptions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What each platform does with a push; a field left out is the app's own default."""

    urgency: Urgency = Urgency.HIGH
    collapse_key: str | None = None
    ttl_s: int | None = None  # shorter than the offer's own life, never longer
    android_channel_id: str | None = None
    android_sound: str | None = None
    android_icon: str | None = None
    android_color: str | None = None  # #rrggbb
    apns_sound: str | None = "default"
    apns_badge: int | None = None
    apns_category: str | None = None
    apns_thread_id: str | None = None
    web_icon: str | None = None
    web_require_interaction: bool = False


class Content(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the phone shows and the app reads: the shape of `Delivery.content`."""

    title: str
    body: str
    deep_link: str | None = None
    image_url: str | None = None
    data: dict[str, str] = {}
    push: PushOptions = PushOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One offer on its way to one token."""

    delivery_id: int
    token: str
    title: str
    body: str
    ttl_s: int
    collapse_key: str
    image_url: str | None = None
    deep_link: str | None = None
    data: dict[str, str] = field(default_factory=dict)
    options: PushOptions = field(default_factory=PushOptions)


class PushErrorKind(StrEnum):
    """Who is at fault, and so what happens next: retry, give up, or forget the token too."""

    TRANSIENT = "transient"
    REJECTED = "rejected"
    TOKEN_GONE = "token_gone"  # noqa: S105 - a verdict, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class PushError:
    """Why a push was not taken. `code` is the provider's own word for it."""

    kind: PushErrorKind
    code: str
    detail: str = ""
    retry_after_s: float | None = None
    needs_operator: bool = False  # our credentials or set-up, which no retry mends


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one send: the provider's message id, or an error."""

    message_id: str = ""
    error: PushError | None = None
    latency_ms: int = 0


class Sender(Protocol):
    """Sends pushes; the one thing on the road that a test may replace."""

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        """Try each push once; one outcome for each, in the same order. Never raises for a push."""

    async def close(self) -> None:
        """Give back connections."""


def push_of(content: Content, *, delivery_id: int, token: str, life_s: int) -> Push:
    """What an offer becomes that is good for so long.

    The same delivery always has the same collapse key, so that a repeat replaces what is shown.
    """
    most_s, asked_s = min(life_s, MAX_TTL_S), content.push.ttl_s
    return Push(
        delivery_id=delivery_id,
        token=token,
        title=content.title,
        body=content.body,
        image_url=content.image_url,
        deep_link=content.deep_link,
        data=content.data,
        options=content.push,
        ttl_s=most_s if asked_s is None else max(0, min(asked_s, most_s)),
        collapse_key=content.push.collapse_key or f"nc{delivery_id}",
    )


def push_data(push: Push) -> dict[str, str]:
    """Return `data` as the app gets it: the campaign's keys, where to go, and which delivery it is.

    The app drops a delivery id that it has already shown: FCM has no idempotency key of its own.
    """
    link = {DEEP_LINK_KEY: push.deep_link} if push.deep_link else {}
    return {**push.data, **link, DELIVERY_ID_KEY: str(push.delivery_id)}


def payload_bytes(push: Push) -> int:
    """Return the size that FCM limits: notification and data, as UTF-8 JSON with its punctuation.

    FCM counts keys and values; counting the punctuation as well leaves room for what it adds.
    """
    notification = {"title": push.title, "body": push.body}
    if push.image_url:
        notification["image"] = push.image_url
    return len(msgspec.json.encode({"notification": notification, "data": push_data(push)}))


def fits_easily(texts: Iterable[str]) -> bool:
    """Whether a push of these texts and no data of its own is small enough however it is written.

    JSON writes a character as six bytes at most, and what stands between and beside them (the
    names, a delivery's id) takes less than 300.
    """
    return 6 * sum(map(len, texts)) + 300 <= MAX_PAYLOAD_BYTES


def refusal(push: Push) -> PushError | None:
    """Return why FCM would refuse this push whatever the token, or None: asking costs quota."""
    size = payload_bytes(push)
    if size > MAX_PAYLOAD_BYTES:
        return rejected("PAYLOAD_TOO_BIG", f"{size} bytes, {MAX_PAYLOAD_BYTES} are allowed")
    reserved = sorted(key for key in push.data if is_reserved(key))
    if reserved:
        return rejected("RESERVED_KEY", f"data may not use {', '.join(reserved)}")
    if not 0 <= push.ttl_s <= MAX_TTL_S:
        return rejected("TTL_OUT_OF_RANGE", f"{push.ttl_s} s is not within 0 and {MAX_TTL_S} s")
    if len(push.collapse_key.encode()) > MAX_COLLAPSE_KEY_BYTES:
        return rejected("COLLAPSE_KEY_TOO_LONG", f"more than {MAX_COLLAPSE_KEY_BYTES} bytes")
    return None


def is_reserved(key: str) -> bool:
    """Say whether FCM or Nearcast keeps this word of `data` for itself."""
    return (
        key in RESERVED_KEYS
        or key in (DELIVERY_ID_KEY, DEEP_LINK_KEY)
        or key.startswith(RESERVED_PREFIXES)
    )


def rejected(code: str, detail: str) -> PushError:
    """Return the error of a push that no retry and no other token would save."""
    return PushError(kind=PushErrorKind.REJECTED, code=code, detail=detail)

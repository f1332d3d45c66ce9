"""When a delivery is tried again, if ever. Decides only: no clock, no dice, no rows.

FCM's rules (docs/cloud-messaging/scale-fcm and reference/fcm/rest/v1/ErrorCode): 429 waits for
Retry-After, or a minute where there is none; 500 and 503 honour Retry-After and otherwise back off
exponentially with jitter, ten seconds at least; every other 4xx is never repeated. Where the token
is dead, the offer is not: it is left to the inbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from notifications.gates import InboxOnly
from notifications.push import Outcome, PushErrorKind

# FCM asks for ten seconds at least before the first retry.
FIRST_DELAY_S = 10.0
# An offer is about here and now: an hour between two tries would be a different offer.
LONGEST_DELAY_S = 900.0
# 10 s doubling to 15 min reaches about two hours; a provider that long away is an incident.
MAX_ATTEMPTS = 12
# Nobody means longer: what does holds milliseconds, or an instant. Also what a timedelta takes.
LONGEST_ASKED_S = 86_400.0
# Later than asked is polite, earlier is not: jitter only ever adds.
JITTER_SHARE = 0.25

TOKEN_GONE = "token_gone"  # noqa: S105 - a reason, not a secret


class DeadReason(StrEnum):
    """Why a delivery will not be tried again."""

    REJECTED = "rejected"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The provider has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again, not before `at`."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """Never again."""

    reason: DeadReason


Next = Sent | InboxOnly | Retry | Dead


def next_attempt(
    *, outcome: Outcome, attempts: int, now: datetime, expires_at: datetime, jitter: float
) -> Next:
    """Return what follows an attempt.

    `attempts` counts this one; `jitter` is in [0, 1). The first reason that applies wins.
    """
    error = outcome.error
    if error is None:
        return Sent()
    if error.kind is PushErrorKind.TOKEN_GONE:
        in_time = now < expires_at
        return InboxOnly(reason=TOKEN_GONE) if in_time else Dead(reason=DeadReason.EXPIRED)
    if error.kind is PushErrorKind.REJECTED:
        return Dead(reason=DeadReason.REJECTED)
    if attempts >= MAX_ATTEMPTS:
        return Dead(reason=DeadReason.EXHAUSTED)
    at = now + timedelta(seconds=delay_s(attempts, error.retry_after_s or 0.0, jitter))
    return Retry(at=at) if at < expires_at else Dead(reason=DeadReason.EXPIRED)


def delay_s(attempts: int, retry_after_s: float, jitter: float) -> float:
    """Return the wait after `attempts` failed tries: doubling, and what was asked for at least.

    What is asked for counts as a day at most.
    """
    backoff_s = min(FIRST_DELAY_S * 2.0 ** (attempts - 1), LONGEST_DELAY_S)
    return max(backoff_s, min(retry_after_s, LONGEST_ASKED_S)) * (1 + JITTER_SHARE * jitter)

"""The retry rules as a table, and against an oracle that counts second by second."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.gates import InboxOnly
from notifications.push import Outcome, PushError, PushErrorKind
from notifications.retries import (
    FIRST_DELAY_S,
    JITTER_SHARE,
    LONGEST_ASKED_S,
    LONGEST_DELAY_S,
    MAX_ATTEMPTS,
    Dead,
    DeadReason,
    Next,
    Retry,
    Sent,
    next_attempt,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
OK = Outcome(message_id="projects/demo/messages/1")


def failed(kind: PushErrorKind, retry_after_s: float | None = None) -> Outcome:
    return Outcome(error=PushError(kind=kind, code="TEST", retry_after_s=retry_after_s))


BUSY = failed(PushErrorKind.TRANSIENT)
QUOTA = failed(PushErrorKind.TRANSIENT, 60)
REFUSED = failed(PushErrorKind.REJECTED)
GONE = failed(PushErrorKind.TOKEN_GONE)


def retry(seconds: float) -> Retry:
    return Retry(at=NOON + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("outcome", "attempts", "life_s", "jitter", "expected"),
    [
        # taken: done, however many tries it took and however late
        (OK, 1, 3600, 0.0, Sent()),
        (OK, MAX_ATTEMPTS, -1, 0.9, Sent()),
        # our fault or the payload's: never repeated
        (REFUSED, 1, 3600, 0.0, Dead(reason=DeadReason.REJECTED)),
        # the token's: never repeated, and left to the inbox, unless that is too late
        (GONE, 1, 3600, 0.0, InboxOnly(reason="token_gone")),
        (GONE, MAX_ATTEMPTS, 3600, 0.0, InboxOnly(reason="token_gone")),
        (GONE, 1, 0, 0.0, Dead(reason=DeadReason.EXPIRED)),
        # the provider's: ten seconds, doubling
        (BUSY, 1, 3600, 0.0, retry(10)),
        (BUSY, 2, 3600, 0.0, retry(20)),
        (BUSY, 3, 3600, 0.0, retry(40)),
        # … up to a ceiling
        (BUSY, 11, 3600, 0.0, retry(900)),
        # Retry-After wins over a shorter back-off
        (QUOTA, 1, 3600, 0.0, retry(60)),
        # … and a longer back-off wins over it: 429 backs off as well
        (QUOTA, 4, 3600, 0.0, retry(80)),
        # … and over the ceiling
        (failed(PushErrorKind.TRANSIENT, 1800), 1, 3600, 0.0, retry(1800)),
        # … but not over a day: who says more means milliseconds, or an instant
        (failed(PushErrorKind.TRANSIENT, 1.79e12), 1, 90_000, 0.0, retry(LONGEST_ASKED_S)),
        (failed(PushErrorKind.TRANSIENT, 1.79e12), 1, 3600, 0.9, Dead(reason=DeadReason.EXPIRED)),
        (failed(PushErrorKind.TRANSIENT, math.inf), 1, 90_000, 0.0, retry(LONGEST_ASKED_S)),
        # jitter adds a quarter at most, also to Retry-After
        (BUSY, 1, 3600, 0.5, retry(11.25)),
        (QUOTA, 1, 3600, 0.5, retry(67.5)),
        # enough is enough
        (BUSY, MAX_ATTEMPTS - 1, 36000, 0.0, retry(900)),
        (BUSY, MAX_ATTEMPTS, 36000, 0.0, Dead(reason=DeadReason.EXHAUSTED)),
        # a try at or after the offer's end is none
        (BUSY, 1, 10, 0.0, Dead(reason=DeadReason.EXPIRED)),
        (BUSY, 1, 10.001, 0.0, retry(10)),
        (QUOTA, 1, 30, 0.0, Dead(reason=DeadReason.EXPIRED)),
        (BUSY, 1, -1, 0.0, Dead(reason=DeadReason.EXPIRED)),
    ],
)
def test_it_decides_as_the_table_says(
    outcome: Outcome, attempts: int, life_s: float, jitter: float, expected: Next
) -> None:
    assert (
        next_attempt(
            outcome=outcome,
            attempts=attempts,
            now=NOON,
            expires_at=NOON + timedelta(seconds=life_s),
            jitter=jitter,
        )
        == expected
    )


def obvious_delay_s(attempts: int, retry_after_s: float) -> float:
    delay = FIRST_DELAY_S
    for _ in range(attempts - 1):
        delay = min(delay + delay, LONGEST_DELAY_S)
    return max(delay, retry_after_s)


@given(
    attempts=st.integers(1, MAX_ATTEMPTS + 3),
    retry_after_s=st.one_of(st.none(), st.integers(0, 7200).map(float)),
    life_s=st.integers(-10, 10_000),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_it_agrees_with_the_obvious_oracle_on_every_transient_error(
    attempts: int, retry_after_s: float | None, life_s: int, jitter: float
) -> None:
    expires_at = NOON + timedelta(seconds=life_s)
    earliest = NOON + timedelta(seconds=obvious_delay_s(attempts, retry_after_s or 0))
    latest = NOON + (earliest - NOON) * (1 + JITTER_SHARE)

    decided = next_attempt(
        outcome=failed(PushErrorKind.TRANSIENT, retry_after_s),
        attempts=attempts,
        now=NOON,
        expires_at=expires_at,
        jitter=jitter,
    )

    match decided:
        case Retry(at=at):
            assert attempts < MAX_ATTEMPTS
            assert earliest <= at <= latest
            assert at < expires_at
        case Dead(reason=DeadReason.EXHAUSTED):
            assert attempts >= MAX_ATTEMPTS
        case Dead(reason=DeadReason.EXPIRED):
            assert attempts < MAX_ATTEMPTS
            assert latest >= expires_at
        case _:
            raise AssertionError(decided)


@given(life_s=st.integers(1, 100_000), jitter=st.floats(0, 1, exclude_max=True))
def test_it_always_ends_and_never_after_the_offer(life_s: int, jitter: float) -> None:
    now, expires_at = NOON, NOON + timedelta(seconds=life_s)

    for attempts in range(1, MAX_ATTEMPTS + 1):
        decided = next_attempt(
            outcome=BUSY, attempts=attempts, now=now, expires_at=expires_at, jitter=jitter
        )
        if isinstance(decided, Dead):
            break
        assert isinstance(decided, Retry)
        assert now < decided.at < expires_at
        now = decided.at
    else:
        raise AssertionError("it went on for ever")

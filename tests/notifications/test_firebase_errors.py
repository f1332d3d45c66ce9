"""What each failure of Firebase means: try again, give up, or forget the token."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from firebase_admin import exceptions, messaging
from google.auth.exceptions import RefreshError

from notifications.firebase import (
    QUOTA_DELAY_S,
    push_error,
)
from notifications.push import (
    PushError,
    PushErrorKind,
)


def answer(status: int, *, message: str = "", headers: Any = None, details: Any = ()) -> Any:
    body = {"error": {"code": status, "message": message, "details": list(details)}}
    return httpx.Response(status, headers=headers, json=body)


FCM_DETAIL = {
    "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
    "errorCode": "INVALID_ARGUMENT",
}


def blaming(*fields: str) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": name, "description": ""} for name in fields],
    }


KEY_REFUSED = RefreshError("invalid_grant")  # type: ignore[no-untyped-call]


NO_TOKEN_JUST_NOW = RefreshError("later", retryable=True)  # type: ignore[no-untyped-call]


NOT_A_TOKEN = "The registration token is not a valid FCM registration token"


@pytest.mark.parametrize(
    ("failure", "kind", "needs_operator"),
    [
        # FCM's own
        (messaging.UnregisteredError("gone"), "token_gone", False),
        (messaging.SenderIdMismatchError("not yours"), "token_gone", False),
        (messaging.QuotaExceededError("slow down"), "transient", False),
        (messaging.ThirdPartyAuthError("apns key"), "transient", True),
        # a bad payload never kills a token …
        (exceptions.InvalidArgumentError("bad"), "rejected", False),
        (
            exceptions.InvalidArgumentError(
                "bad", http_response=answer(400, details=[FCM_DETAIL, blaming("message.data")])
            ),
            "rejected",
            False,
        ),
        (
            exceptions.InvalidArgumentError(
                "two faults",
                http_response=answer(400, details=[blaming("message.token", "message.data")]),
            ),
            "rejected",
            False,
        ),
        # … unless it is the token that FCM objects to, in fields or in words
        (
            exceptions.InvalidArgumentError(
                "bad token", http_response=answer(400, details=[blaming("message.token")])
            ),
            "token_gone",
            False,
        ),
        (
            exceptions.InvalidArgumentError(
                NOT_A_TOKEN, http_response=answer(400, details=[FCM_DETAIL])
            ),
            "token_gone",
            False,
        ),
        # our set-up
        (exceptions.UnauthenticatedError("who?"), "transient", True),
        (exceptions.PermissionDeniedError("not allowed"), "transient", True),
        (exceptions.NotFoundError("no such project"), "transient", True),
        (exceptions.UnknownError("key", cause=KEY_REFUSED), "transient", True),
        (exceptions.UnknownError("net", cause=NO_TOKEN_JUST_NOW), "transient", False),
        # the provider's
        (exceptions.ResourceExhaustedError("busy"), "transient", False),
        (exceptions.UnavailableError("down"), "transient", False),
        (exceptions.InternalError("broken"), "transient", False),
        (exceptions.DeadlineExceededError("slow"), "transient", False),
        (exceptions.AbortedError("again"), "transient", False),
        (exceptions.CancelledError("again"), "transient", False),
        (exceptions.DataLossError("again"), "transient", False),
        (exceptions.UnknownError("lost"), "transient", False),
        (exceptions.UnknownError("gateway", http_response=answer(502)), "transient", False),
        (exceptions.UnknownError("timeout", http_response=answer(408)), "transient", False),
        # every other 4xx is never repeated
        (exceptions.UnknownError("too large", http_response=answer(413)), "rejected", False),
        (exceptions.FailedPreconditionError("no"), "rejected", False),
        (exceptions.OutOfRangeError("no"), "rejected", False),
        (exceptions.ConflictError("no"), "rejected", False),
        (exceptions.AlreadyExistsError("no"), "rejected", False),
    ],
)
def test_it_knows_what_each_exception_means(
    failure: exceptions.FirebaseError, kind: str, needs_operator: bool
) -> None:
    error = push_error(failure)

    assert (error.kind, error.needs_operator) == (kind, needs_operator)


def test_it_has_a_verdict_for_every_exception_class_of_the_library() -> None:
    classes = [
        kind
        for module in (exceptions, messaging)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, exceptions.FirebaseError)
    ]

    for kind in classes:
        made = kind("code", "text") if kind is exceptions.FirebaseError else kind("text")
        assert isinstance(push_error(made), PushError)


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [
        ("90", 90),
        # as from when the tests were collected
        (format_datetime(datetime.now(UTC) + timedelta(hours=20), usegmt=True), 72_000),
        # never earlier than the quota's own minimum
        ("5", QUOTA_DELAY_S),
        ("soon", QUOTA_DELAY_S),
        ("Sun, 22 Nov 2026 12:00:00 +99999999999999", QUOTA_DELAY_S),
        (format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True), QUOTA_DELAY_S),
    ],
)
def test_it_reads_retry_after_in_both_forms(header: str, expected_s: float) -> None:
    error = push_error(
        messaging.QuotaExceededError(
            "slow down", http_response=answer(429, headers={"retry-after": header})
        )
    )

    assert error.retry_after_s == pytest.approx(expected_s, rel=0.1)


def test_it_survives_an_error_page_that_is_not_json() -> None:
    failure = exceptions.UnavailableError(
        "proxy", http_response=httpx.Response(503, text="<h1>Bad gateway</h1>")
    )

    assert push_error(failure).kind is PushErrorKind.TRANSIENT

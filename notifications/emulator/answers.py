"""FCM's answers, word for word: google.rpc.Status bodies and their details. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from notifications.emulator.shapes import Violation

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer; `code` is its name in the list of messages."""

    status: int
    code: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


def accepted(name: str) -> Answer:
    """Return what FCM says when it took a message."""
    return Answer(status=200, code="OK", body=msgspec.json.encode({"name": name}))


def fcm_error(
    status: int,
    rpc: str,
    code: str,
    message: str,
    *details: dict[str, Any],
    retry_after_s: int | None = None,
) -> Answer:
    """Return an error with FCM's own code in its details."""
    fcm = {"@type": FCM_ERROR, "errorCode": code}
    return _error(status, rpc, code, message, [fcm, *details], retry_after_s)


def api_error(status: int, rpc: str, message: str, *details: dict[str, Any]) -> Answer:
    """Return an error of Google's API front, which knows nothing of FCM's codes."""
    return _error(status, rpc, rpc, message, list(details), None)


def _error(
    status: int,
    rpc: str,
    code: str,
    message: str,
    details: list[dict[str, Any]],
    retry_after_s: int | None,
) -> Answer:
    error: dict[str, Any] = {"code": status, "message": message, "status": rpc}
    if details:
        error["details"] = details
    headers = ((b"retry-after", str(retry_after_s).encode()),) if retry_after_s is not None else ()
    return Answer(
        status=status, code=code, body=msgspec.json.encode({"error": error}), headers=headers
    )


def invalid(found: Sequence[Violation]) -> Answer:
    """Return the refusal of a request: malformed ones never reach FCM, so carry no FCM code."""
    violations = {
        "@type": BAD_REQUEST,
        "fieldViolations": [
            {"field": violation.field, "description": violation.description} for violation in found
        ],
    }
    message = "\n".join(violation.description for violation in found)
    if found[0].malformed:
        return api_error(400, "INVALID_ARGUMENT", message, violations)
    return fcm_error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", message, violations)


NOT_JSON = api_error(400, "INVALID_ARGUMENT", "Invalid JSON payload received.")
UNAUTHENTICATED = api_error(
    401,
    "UNAUTHENTICATED",
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
    "or other valid authentication credential. See "
    "https://developers.google.com/identity/sign-in/web/devconsole-project.",
    {
        "@type": ERROR_INFO,
        "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        "metadata": {"service": "fcm.googleapis.com"},
    },
)


def forbidden(project: str) -> Answer:
    """Return what a service account gets that does not belong to the project."""
    return api_error(
        403,
        "PERMISSION_DENIED",
        "Permission 'cloudmessaging.messages.create' denied on resource "
        f"'//cloudresourcemanager.googleapis.com/projects/{project}' (or it may not exist).",
    )


UNREGISTERED = fcm_error(404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found.")
INVALID_TOKEN = fcm_error(
    400,
    "INVALID_ARGUMENT",
    "INVALID_ARGUMENT",
    "The registration token is not a valid FCM registration token",
    {
        "@type": BAD_REQUEST,
        "fieldViolations": [
            {
                "field": "message.token",
                "description": "The registration token is not a valid FCM registration token",
            }
        ],
    },
)
MISMATCH = fcm_error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch")
QUOTA = fcm_error(
    429,
    "RESOURCE_EXHAUSTED",
    "QUOTA_EXCEEDED",
    "Quota exceeded for quota metric 'Messages sent' and limit 'Messages sent per minute'.",
    {
        "@type": QUOTA_FAILURE,
        "violations": [
            {"subject": "project:demo-nearcast", "description": "Message rate quota exceeded."}
        ],
    },
)
INTERNAL = fcm_error(500, "INTERNAL", "INTERNAL", "Internal error encountered.")
THIRD_PARTY_AUTH = fcm_error(
    401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "Auth error from APNS or Web Push Service"
)


def unavailable(retry_after_s: int) -> Answer:
    """Return an overloaded FCM, which says when to come back."""
    return fcm_error(
        503,
        "UNAVAILABLE",
        "UNAVAILABLE",
        "The service is currently unavailable.",
        retry_after_s=retry_after_s,
    )

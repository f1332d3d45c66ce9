"""The one shape of an error: {"code", "message", "fields"}; used by every HTTP path."""

from __future__ import annotations

from typing import Any

from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: its answer in CONTRACT's shape."""
    response = exception_handler(error, context)
    if response is None:
        return None
    code, message = "error", ""
    fields: Any = {}
    if isinstance(error, exceptions.ValidationError):
        code, message = "invalid", "The request is not valid; see fields."
        detail = error.detail
        fields = detail if isinstance(detail, dict) else {"non_field_errors": detail}
        response.status_code = 422 if response.status_code == 400 else response.status_code
    elif isinstance(error, exceptions.APIException):
        code, message = str(error.get_codes()), str(error.detail)
    else:
        code = {403: "permission_denied", 404: "not_found"}.get(response.status_code, code)
        message = str(response.data.get("detail", "")) if isinstance(response.data, dict) else ""
    response.data = {"code": code, "message": message, "fields": fields}
    return response

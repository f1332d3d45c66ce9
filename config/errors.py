"""The one shape of an error: {"code", "message", "fields"}; used by every HTTP path under /v1/."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

API = "/v1/"


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: its answer in CONTRACT's shape."""
    if isinstance(error, RecursionError):
        error = exceptions.ParseError("The JSON is nested too deeply.")
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
    response.data = {"code": code, "message": _encodable(message), "fields": _encodable(fields)}
    return response


def _encodable(said: Any) -> Any:
    """What is said with what was sent in it: half a surrogate pair becomes a question mark."""
    if isinstance(said, dict):
        return {_encodable(name): _encodable(part) for name, part in said.items()}
    if isinstance(said, list):
        return [_encodable(part) for part in said]
    return str(said).encode(errors="replace").decode()


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler of 400: a host name that is not ours, a form that is none."""
    if not request.path.startswith(API):
        return defaults.bad_request(request, exception)
    if isinstance(exception, DisallowedHost):
        return _refusal(HTTPStatus.BAD_REQUEST, "bad_host", "This host name is not served here.")
    return _refusal(HTTPStatus.BAD_REQUEST, "bad_request", "The request cannot be read.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler of 404: no such path, or none with such an id."""
    if not request.path.startswith(API):
        return defaults.page_not_found(request, exception)
    return _refusal(HTTPStatus.NOT_FOUND, "not_found", "There is nothing under this path.")


def failed(request: HttpRequest) -> HttpResponse:
    """Django's handler of 500: what nobody has foreseen. It has logged it by now."""
    if not request.path.startswith(API):
        return defaults.server_error(request)
    return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "error", "The server failed.")


def only_read(view: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """A path outside the API that changes nothing: any other method is told so in its shape."""

    @csrf_exempt  # else it is that, in HTML, which whoever writes to it hears of
    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if request.method in {"GET", "HEAD"}:
            return view(request)
        said = f'Method "{request.method}" not allowed.'
        refused = _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", said)
        refused["Allow"] = "GET, HEAD"
        return refused

    return answer


def _refusal(status: HTTPStatus, code: str, message: str) -> JsonResponse:
    return JsonResponse({"code": code, "message": message, "fields": {}}, status=status)

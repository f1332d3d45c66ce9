"""Adds to the OpenAPI document what DRF does not serve: the fast doors and the health paths."""

from __future__ import annotations

from typing import Any

import msgspec

from devices.doors.decoding import Rejection
from devices.events import EventIn, GatewayEventIn
from devices.fixes import FixIn, GatewayFixIn

_REF = "#/components/schemas/{name}"


class Taken(msgspec.Struct):
    """What a door did with a body, once it is durable."""

    accepted: int
    rejected: list[Rejection]


class Error(msgspec.Struct):
    """The one shape of an error."""

    code: str
    message: str
    fields: dict[str, Any]


_SHAPES = (FixIn, GatewayFixIn, EventIn, GatewayEventIn, Taken, Error)
_DOORS = (
    ("/v1/locations", "report_locations", "locations", FixIn, "deviceToken", "devices"),
    ("/v1/events", "report_events", "events", EventIn, "deviceToken", "devices"),
    (
        "/v1/gateway/locations",
        "gateway_locations",
        "locations",
        GatewayFixIn,
        "serverKey",
        "gateway",
    ),
    ("/v1/gateway/events", "gateway_events", "events", GatewayEventIn, "serverKey", "gateway"),
)
_REFUSALS = {
    "400": "Not JSON, or not gzip.",
    "401": "No token or key, or one that is unknown or revoked.",
    "403": "A key that may not do this.",
    "408": "The body did not come in time.",
    "413": "The body is too large or holds too many items.",
    "415": "Neither JSON nor NDJSON, or an encoding other than gzip.",
    "422": "The whole body has the wrong shape; see fields.",
    "429": "Too many requests of this device; see Retry-After.",
    "503": "Nothing was taken; send it again, see Retry-After.",
}
_HEALTH = {
    "/healthz": ("is_alive", "The process answers.", "text/plain", ()),
    "/readyz": ("is_ready", "It may get traffic; 503 where not.", "application/json", ("503",)),
    "/metrics": ("metrics", "Figures in Prometheus' text format.", "text/plain", ()),
}


def add_doors(result: dict[str, Any], **_given: Any) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook."""
    shapes = msgspec.json.schema_components(_SHAPES, ref_template=_REF)[1]
    result["components"].setdefault("schemas", {}).update(shapes)
    for path, operation, envelope, shape, security, tag in _DOORS:
        result["paths"][path] = {"post": _door(operation, envelope, shape, security, tag)}
    for path, (operation, says, media_type, also) in _HEALTH.items():
        answers = {"200": says} | dict.fromkeys(also, "Not ready; the body says what is missing.")
        result["paths"][path] = {
            "get": {
                "operationId": operation,
                "description": says,
                "tags": ["health"],
                "security": [{}],
                "responses": {
                    status: {"description": text, "content": {media_type: {}}}
                    for status, text in answers.items()
                },
            }
        }
    result["paths"] = dict(sorted(result["paths"].items()))
    return result


def _door(
    operation: str, envelope: str, shape: type[msgspec.Struct], security: str, tag: str
) -> dict[str, Any]:
    item = _ref(shape)
    many = {"type": "array", "items": item}
    wrapped = {"type": "object", "required": [envelope], "properties": {envelope: many}}
    return {
        "operationId": operation,
        "description": (
            f"One item, an object with a list of `{envelope}`, a list, or NDJSON; optionally gzip."
            " Answered when it is durable. A malformed item rejects itself alone; a repeat counts"
            " as accepted."
        ),
        "tags": [tag],
        "security": [{security: []}],
        "parameters": [
            {
                "name": "Content-Encoding",
                "in": "header",
                "schema": {"type": "string", "enum": ["gzip"]},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [item, wrapped, many]}},
                "application/x-ndjson": {"schema": item},
            },
        },
        "responses": {
            "200": _answer("What was accepted, and why the rest was not.", Taken),
            **{status: _answer(text, Error) for status, text in _REFUSALS.items()},
        },
    }


def _answer(says: str, shape: type[msgspec.Struct]) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": _ref(shape)}}}


def _ref(shape: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=shape.__name__)}

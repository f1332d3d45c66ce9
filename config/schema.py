"""Adds to the OpenAPI document what DRF's views do not say: doors, health, refusals, geometries."""

from __future__ import annotations

from typing import Any

import msgspec

from devices.doors.decoding import Rejection
from devices.doors.owntracks import OwnTracksMessage
from devices.doors.radar import RadarTrack
from devices.doors.traccar import TraccarFields
from devices.doors.transistor import TransistorRecord
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


_DIALECTS = (OwnTracksMessage, TraccarFields, TransistorRecord, RadarTrack)
_SHAPES = (FixIn, GatewayFixIn, EventIn, GatewayEventIn, Taken, Error, *_DIALECTS)
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
_SLOWER_REFUSALS = {  # of the paths that Django serves
    "400": "Not JSON.",
    "401": _REFUSALS["401"],
    "403": "A key, or a person, that may not do this.",
    "404": "There is no such row, or no such cursor.",
    "408": _REFUSALS["408"],
    "409": "Its state does not allow that.",
    "413": "The body is too large, or holds too much.",
    "415": "Not JSON in UTF-8, or packed.",
    "422": "Something in it is wrong; see fields.",
}
_CONFLICTS = {  # what some states do not allow
    *((f"/v1/campaigns/{{id}}/{order}", "post") for order in ("publish", "rollback", "pause")),
    *((f"/v1/campaigns/{{id}}/{order}", "post") for order in ("end", "resume")),
    ("/v1/segments/{id}", "delete"),
}
_FORM = "application/x-www-form-urlencoded"
_AS_PASSWORD, _AS_IDENTIFIER, _AS_KEY = "tokenAsPassword", "tokenAsIdentifier", "tokenAsKey"
_TOKENS = {
    _AS_PASSWORD: {
        "type": "http",
        "scheme": "basic",
        "description": "The password is the device's token; the user's name may be any.",
    },
    _AS_IDENTIFIER: {
        "type": "apiKey",
        "in": "query",
        "name": "id",
        "description": "The device's token: in the query, the form, or as `device_id` in JSON.",
    },
    _AS_KEY: {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The device's token, where an SDK sends the key it was initialised with.",
    },
}
_REPLAYS = {
    "type": "object",
    "required": ["replays"],
    "properties": {"replays": {"type": "array", "items": {"$ref": _REF.format(name="RadarTrack")}}},
}
_PLACE = {
    "type": "object",
    "description": "GeoJSON, longitude first, WGS 84; a Point is a circle of `radius_m`.",
    "required": ["type", "coordinates"],
    "properties": {
        "type": {"enum": ["Point", "Polygon", "MultiPolygon"]},
        "coordinates": {"type": "array", "minItems": 1},
    },
}
_FILES = {  # instead of a page
    "application/geo+json": {
        "type": "object",
        "required": ["type", "features"],
        "properties": {
            "type": {"const": "FeatureCollection"},
            "features": {"type": "array", "items": {"$ref": _REF.format(name="Geofence")}},
        },
    },
    "application/geopackage+sqlite3": {"type": "string", "format": "binary"},
}
_HEALTH = {
    "/healthz": ("is_alive", "The process answers.", "text/plain", ()),
    "/readyz": ("is_ready", "It may get traffic; 503 where not.", "application/json", ("503",)),
    "/metrics": ("metrics", "Figures in Prometheus' text format.", "text/plain", ()),
}


def add_doors(result: dict[str, Any], **_given: Any) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook."""
    shapes = msgspec.json.schema_components(_SHAPES, ref_template=_REF)[1]
    known = result["components"].setdefault("schemas", {})
    known.update(shapes, Place=_PLACE)
    for name in ("Geofence", "PatchedGeofence"):
        known[name]["properties"]["geometry"] = {"$ref": _REF.format(name="Place")}
    given = result["paths"]["/v1/geofences"]["get"]["responses"]["200"]["content"]
    given.update({kind: {"schema": shape} for kind, shape in _FILES.items()})
    result["components"]["responses"] = {
        f"Refused{status}": _answer(says, Error) for status, says in _SLOWER_REFUSALS.items()
    }
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            for status in sorted(_refusals(path, method, operation)):
                answers = {"$ref": f"#/components/responses/Refused{status}"}
                operation["responses"].setdefault(status, answers)
    for path, operation, envelope, shape, security, tag in _DOORS:
        result["paths"][path] = {"post": _door(operation, envelope, shape, security, tag)}
    result["components"]["securitySchemes"].update(_TOKENS)
    for path, methods in _dialects().items():
        result["paths"][path] = methods
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


def _refusals(path: str, method: str, operation: dict[str, Any]) -> set[str]:
    """The statuses with which a path that Django serves may refuse."""
    found: set[str] = set()
    asked = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    if any(operation.get("security", ())):
        found |= {"401", "403"}
    if "{" in path or "cursor" in asked or path.startswith("/v1/devices/me"):
        found.add("404")
    if (path, method) in _CONFLICTS:
        found.add("409")
    if "requestBody" in operation:
        found |= {"400", "408", "413", "415"}
    if "requestBody" in operation or asked:
        found.add("422")
    return found


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


def _dialects() -> dict[str, dict[str, Any]]:
    """The doors of apps that exist, by path and method."""
    fields = msgspec.json.schema_components((TraccarFields,), ref_template=_REF)[1]["TraccarFields"]
    query = [
        {"name": name, "in": "query", "schema": shape}
        for name, shape in fields["properties"].items()
    ]
    track = {kind: {"schema": _ref(RadarTrack)} for kind in ("application/json", _FORM)}
    return {
        "/compat/owntracks": {
            "post": _dialect(
                "owntracks",
                "One message of OwnTracks in HTTP mode; `location` and `transition` tell a place.",
                _AS_PASSWORD,
                {"application/json": {"schema": _ref(OwnTracksMessage)}},
                {"type": "array", "items": {}},
            )
        },
        "/compat/traccar": {
            "get": _dialect("traccar_query", "OsmAnd's protocol, in the query.", _AS_IDENTIFIER)
            | {"parameters": query},
            "post": _dialect(
                "traccar",
                "Traccar Client: the same fields as a form, or a record as JSON since 9.0; a"
                " `notificationToken` without a place is the device's push token.",
                _AS_IDENTIFIER,
                {
                    _FORM: {"schema": _ref(TraccarFields)},
                    "application/json": {"schema": _listed(TransistorRecord)},
                },
            ),
        },
        "/compat/transistor": {
            "post": _dialect(
                "transistor",
                "Records of Transistor's Background Geolocation, under `location` or at the root.",
                "deviceToken",
                {"application/json": {"schema": _listed(TransistorRecord)}},
                _ref(Taken),
            )
        },
        "/compat/radar/v1/track": {
            "post": _dialect(
                "radar_track",
                "Radar's `track`; answers what changed and where the device is, in its shape.",
                _AS_KEY,
                track,
                {"type": "object", "required": ["meta", "events", "user"]},
            )
        },
        "/compat/radar/v1/track/replay": {
            "post": _dialect(
                "radar_replay",
                "What Radar's SDK recorded offline.",
                _AS_KEY,
                {"application/json": {"schema": _REPLAYS}},
                {"type": "object", "required": ["meta", "accepted", "rejected"]},
            )
        },
    }


def _dialect(
    operation: str,
    says: str,
    security: str,
    bodies: dict[str, Any] | None = None,
    answers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A path that speaks another app's language; so do its refusals, with these statuses."""
    taken: dict[str, Any] = {"description": "It is durable, or nothing could mend it."}
    if answers:
        taken["content"] = {"application/json": {"schema": answers}}
    described: dict[str, Any] = {
        "operationId": operation,
        "description": says,
        "tags": ["apps that exist"],
        "security": [{security: []}],
        "responses": {"200": taken}
        | {status: {"description": text} for status, text in _REFUSALS.items() if status != "403"}
        | {"415": {"description": "An encoding other than gzip."}},
    }
    if bodies:
        described["requestBody"] = {"content": bodies}
    if security == _AS_IDENTIFIER:
        described["responses"]["404"] = {"description": "No such device (JSON; 400 otherwise)."}
    return described


def _answer(says: str, shape: type[msgspec.Struct]) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": _ref(shape)}}}


def _ref(shape: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=shape.__name__)}


def _listed(shape: type[msgspec.Struct]) -> dict[str, Any]:
    """One of it, or many, under `location` or at the root."""
    one = _ref(shape)
    some = {"anyOf": [one, {"type": "array", "items": one}]}
    return {"anyOf": [{"type": "object", "properties": {"location": some}}, some]}

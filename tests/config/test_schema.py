"""The OpenAPI document: complete, valid, and true to the doors."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import jsonschema
import pytest
import yaml
from django.core.management import call_command
from django.test import Client
from openapi_spec_validator import validate

from tests.campaigns.rows import make_campaign
from tests.devices.conftest import a_fix
from tests.factories import make_brand, make_circle, make_device, make_key, make_polygon

ISLANDS = json.dumps(
    {
        "type": "MultiPolygon",
        "coordinates": [
            [[[x, 48.0], [x + 0.01, 48.0], [x, 48.01], [x, 48.0]]] for x in (-5.4, -5.3)
        ],
    }
)

PATHS = {
    *("/v1/devices", "/v1/devices/me", "/v1/devices/me/export", "/v1/locations", "/v1/events"),
    *("/v1/geofences/nearby", "/v1/offers", "/v1/deliveries/{delivery_id}/feedback"),
    *("/v1/gateway/locations", "/v1/gateway/events", "/v1/gateway/profiles"),
    "/v1/gateway/profiles/{external_id}",
    *("/compat/owntracks", "/compat/traccar", "/compat/transistor"),
    *("/compat/radar/v1/track", "/compat/radar/v1/track/replay"),
    *("/healthz", "/readyz", "/metrics"),
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    out = StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=out)
    read: dict[str, Any] = yaml.safe_load(out.getvalue())
    return read


def test_it_covers_every_path_of_the_contract(document: dict[str, Any]) -> None:
    assert set(document["paths"]) >= PATHS


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        (a_fix(), True),
        ([a_fix(), a_fix(id="x", battery=0.5)], True),
        ({"locations": [a_fix(recorded_at="2026-01-01T00:00:00Z")]}, True),
        ({"lat": 1}, False),
        ({"locations": 7}, False),
        ("fix", False),
    ],
)
def test_it_describes_the_bodies_that_a_door_takes(
    document: dict[str, Any], body: Any, fits: bool
) -> None:
    door = document["paths"]["/v1/locations"]["post"]
    shape = door["requestBody"]["content"]["application/json"]["schema"]
    whole = shape | {"components": document["components"]}
    assert jsonschema.Draft202012Validator(whole).is_valid(body) == fits


def test_it_names_every_refusal_of_a_door(document: dict[str, Any]) -> None:
    answers = document["paths"]["/v1/locations"]["post"]["responses"]
    assert {"200", "400", "401", "413", "415", "422", "429", "503"} <= set(answers)


def test_it_names_what_django_may_refuse(document: dict[str, Any]) -> None:
    paths = document["paths"]
    registration = paths["/v1/devices"]["post"]["responses"]
    assert {"400", "401", "403", "413", "415", "422"} <= set(registration)
    assert {"401", "403", "404"} <= set(paths["/v1/decisions"]["get"]["responses"])
    assert {"404", "409"} <= set(paths["/v1/campaigns/{id}/pause"]["post"]["responses"])
    assert "404" in paths["/v1/deliveries/{delivery_id}/feedback"]["post"]["responses"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/geofences", None),
        ("GET", "/v1/geofences/{id}", None),
        ("GET", "/v1/geofences?cursor=zz", None),
        ("GET", "/v1/campaigns", None),
        ("GET", "/v1/campaigns/{id}", None),
        ("GET", "/v1/coupon-pools", None),
        ("GET", "/v1/deliveries", None),
        ("POST", "/v1/campaigns", {"name": ""}),
        ("POST", "/v1/campaigns/{id}/pause", {}),
        ("POST", "/v1/campaigns/{id}/rollback", {}),
        ("POST", "/v1/geofences", {"type": "FeatureCollection", "features": [{}]}),
        ("POST", "/v1/geofences", {"type": "Feature"}),
        ("PUT", "/v1/control-group", {"share": 5}),
    ],
)
@pytest.mark.django_db
def test_it_describes_what_is_answered(
    document: dict[str, Any], method: str, path: str, body: Any
) -> None:
    brand = make_brand()
    place, campaign = make_polygon(brand, ISLANDS), make_campaign(brand, make_circle(brand))
    make_device(brand, external_id="ann", push_token="phone")
    pk = campaign.pk if "campaigns" in path else place.pk
    client = Client(headers={"authorization": f"Bearer {make_key(brand)}"})
    tried = client.post(f"/v1/campaigns/{campaign.pk}/test", {"device": "ann"}, "application/json")
    assert tried.status_code == 201
    sent = "" if body is None else json.dumps(body)
    answer: Any = client.generic(method, path.replace("{id}", str(pk)), sent, "application/json")
    operation = document["paths"][path.partition("?")[0]][method.lower()]
    described = operation["responses"][str(answer.status_code)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    shape = described["content"]["application/json"]["schema"]
    whole = shape | {"components": document["components"]}
    assert not list(jsonschema.Draft202012Validator(whole).iter_errors(answer.json()))

"""The OpenAPI document: complete, valid, and true to the doors."""

from __future__ import annotations

from io import StringIO
from typing import Any

import jsonschema
import pytest
import yaml
from django.core.management import call_command
from openapi_spec_validator import validate

from tests.devices.conftest import a_fix

PATHS = {
    *("/v1/devices", "/v1/devices/me", "/v1/devices/me/export", "/v1/locations", "/v1/events"),
    *("/v1/geofences/nearby", "/v1/offers", "/v1/deliveries/{delivery_id}/feedback"),
    *("/v1/gateway/locations", "/v1/gateway/events", "/v1/gateway/profiles"),
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

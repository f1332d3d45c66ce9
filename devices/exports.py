"""All that is held about a device or a person, as JSON, a part at a time. It asks no rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from devices import holdings, people
from devices.models import Device


def device_out(device: Device) -> dict[str, Any]:
    """A device as its app sees it."""
    return {
        "device_id": device.pk,
        "installation_id": device.installation_id,
        "platform": device.platform,
        "external_id": device.external_id,
        "push_token": device.push_token,
        "locale": device.locale,
        "timezone": device.timezone,
        "app_version": device.app_version,
        "attributes": device.attributes,
        "consent": {
            "location": device.consent_location,
            "marketing": device.consent_marketing,
            "version": device.consent_version,
            "at": device.consent_at,
        },
        "created_at": device.created_at,
        "updated_at": device.updated_at,
    }


def of_device(device: Device) -> Iterator[str]:
    """What is held about an installation; of its person only what the app itself has said."""
    yield f'{{"device":{_json(device_out(device) | {"attribute_facts": device.attribute_facts})}'
    yield from _parts(holdings.exported(device.pk))
    yield "}"


def of_person(brand_id: int, external_id: str) -> Iterator[str]:
    """What is held about a person: the back office's part, then each device of theirs."""
    yield f'{{"external_id":{_json(external_id)}'
    yield from _parts(people.held(brand_id, external_id))
    yield ',\n"devices":['
    for number, device in enumerate(people.devices_of(brand_id, external_id).order_by("pk")):
        yield ",\n" if number else ""
        yield from of_device(device)
    yield "]}"


def _parts(parts: Iterator[tuple[str, list[str]]]) -> Iterator[str]:
    for name, rows in parts:
        yield f",\n{_json(name)}:[{','.join(rows)}]"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

"""Devices and their persons as the rules see them: what is known of each at one instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from django.db import connection

from brands import wallclock
from campaigns import hours
from campaigns.audience import Subject
from campaigns.compiling import BrandRules

_DEVICES = """
    SELECT d.id, d.brand_id, d.external_id, d.platform, d.locale, d.timezone, d.app_version,
           d.attributes, d.attribute_facts, d.consent_location, d.consent_marketing,
           d.push_token IS NOT NULL, p.attributes, p.attribute_facts
      FROM devices_device d
      LEFT JOIN devices_profile p ON p.brand_id = d.brand_id AND p.external_id = d.external_id
     WHERE d.id = ANY(%s)
"""


class Known(NamedTuple):
    """A device at this moment of judging."""

    subject: Subject
    brand: BrandRules
    tz: ZoneInfo
    local: hours.Local


class Subjects:
    """The devices of a batch and their persons; the wall clock is read once per zone."""

    def __init__(self, brands: Mapping[int, BrandRules], now_ms: int) -> None:
        self.known: dict[int, Known] = {}
        self._brands = brands
        self._now_ms = now_ms
        self._clocks: dict[tuple[str, str], tuple[ZoneInfo, hours.Local]] = {}

    def load(self, device_ids: set[int]) -> None:
        if not device_ids:
            return
        with connection.cursor() as cursor:
            cursor.execute(_DEVICES, (list(device_ids),))
            for row in cursor.fetchall():
                brand = self._brands.get(row[1])
                if brand is not None:
                    self.known[row[0]] = self._known(row, brand)

    def _known(self, row: Sequence[Any], brand: BrandRules) -> Known:
        (device_id, _, external_id, platform, locale, timezone, app_version) = row[:7]
        attributes, facts = merged(
            _json(row[7]), _json(row[8]), _json(row[12]) or {}, _json(row[13]) or {}
        )
        clock = self._clocks.get((timezone, brand.timezone))
        if clock is None:
            tz = wallclock.zone(timezone, brand.timezone)
            clock = self._clocks[timezone, brand.timezone] = (tz, hours.local(self._now_ms, tz))
        subject = Subject(
            device_id=device_id,
            person=person_of(device_id, external_id),
            external_id=external_id,
            platform=platform,
            locale=locale,
            timezone=clock[0].key,
            app_version=app_version,
            attributes=attributes,
            facts=facts,
            consent_location=row[9],
            consent_marketing=row[10],
            has_push=row[11],
            now_ms=self._now_ms,
        )
        return Known(subject, brand, *clock)


def person_of(device_id: int, external_id: str | None) -> str:
    """Whom caps count: the person behind an external id, else the device by itself."""
    return external_id or f"device:{device_id}"


def merged(
    own: dict[str, Any], own_facts: dict[str, Any], shared: dict[str, Any], facts: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of a person: what the device said, unless the back office said it later."""
    known = {name: _fact(fact) for name, fact in own_facts.items()}
    if not shared:
        return own, known
    attributes = dict(shared)
    theirs = {name: _fact(fact) for name, fact in facts.items()}
    for name, value in own.items():
        later = (theirs.get(name) or {}).get("at_ms") or 0
        if name not in shared or later <= ((known.get(name) or {}).get("at_ms") or 0):
            attributes[name] = value
            theirs[name] = known.get(name, {})
    return attributes, theirs


def _fact(fact: dict[str, Any]) -> dict[str, Any]:
    try:
        at_ms = round(datetime.fromisoformat(fact["at"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError):
        at_ms = None
    return {"source": fact.get("source"), "at_ms": at_ms}


def _json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value

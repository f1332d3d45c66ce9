"""Values for the pure tests of campaigns: plain functions, the boring case as default."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from campaigns import caps, hours, restraint, rules
from campaigns.audience import Subject, compile_tree
from campaigns.definition import TriggerOn

HELSINKI = ZoneInfo("Europe/Helsinki")
NOON_MS = round(datetime(2026, 6, 10, 9, 0, tzinfo=UTC).timestamp() * 1000)
"""A Wednesday, 12:00 in Helsinki."""


def a_subject(**fields: Any) -> Subject:
    values: dict[str, Any] = {
        "device_id": 1,
        "person": "device:1",
        "platform": "android",
        "locale": "fi-FI",
        "timezone": "Europe/Helsinki",
        "app_version": "2.3.0",
        "now_ms": NOON_MS,
    }
    return Subject(**values | fields)


def a_campaign(**fields: Any) -> rules.Campaign:
    values: dict[str, Any] = {
        "id": 7,
        "version": 1,
        "name": "Coffee",
        "brand_id": 1,
        "on": TriggerOn.ENTERED,
        "audience": compile_tree({}),
    }
    return rules.Campaign(**values | fields)


def a_moment(**fields: Any) -> rules.Moment:
    values: dict[str, Any] = {
        "kind": "transition",
        "id": 100,
        "on": TriggerOn.ENTERED,
        "occurred_ms": NOON_MS - 2_000,
        "now_ms": NOON_MS,
        "subject": a_subject(),
        "tz": HELSINKI,
        "geofence_id": 5,
    } | fields
    values.setdefault("local", hours.local(values["now_ms"], values["tz"]))
    return rules.Moment(**values)


def a_history(*offers: caps.Offer, **winners: restraint.Winner) -> restraint.History:
    counts = caps.Counts(1)
    for offer in offers:
        counts.add(offer)
    return restraint.History(counts=counts, winners=dict(winners))


def an_offer(at_ms: int = NOON_MS - 60_000, **fields: Any) -> caps.Offer:
    values: dict[str, Any] = {
        "at_ms": at_ms,
        "device_id": 1,
        "person": "device:1",
        "campaign_id": 7,
        "geofence_id": 5,
        "tags": (),
    }
    return caps.Offer(**values | fields)

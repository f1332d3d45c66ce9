"""Decisions are forgotten when they are old enough, and not before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils.timezone import now

from campaigns import retention
from campaigns.models import Decision

pytestmark = pytest.mark.django_db


def decide(days_ago: float) -> None:
    Decision.objects.create(
        brand_id=1,
        device_id=1,
        campaign_id=1,
        campaign_version=1,
        moment_kind="event",
        moment_id=Decision.objects.count() + 1,
        verdict="refuse",
        reason="too_late",
        decided_at=now() - timedelta(days=days_ago),
    )


def test_it_forgets_what_is_past_the_retention(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DECISION_RETENTION_DAYS = 30
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    for days_ago in (40, 35, 31, 29.9, 1):
        decide(days_ago)
    assert [retention.forget(now=now()) for _ in range(3)] == [2, 1, 0]
    assert Decision.objects.count() == 2

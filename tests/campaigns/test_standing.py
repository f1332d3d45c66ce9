"""What becomes of offers whose campaign was stopped before they went out."""

from __future__ import annotations

import pytest
from django.utils.timezone import now

from campaigns import publishing
from campaigns.evaluation import evaluate_once
from notifications import delivering, leases
from notifications.gates import Stop
from tests.campaigns.rows import make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("stop", "reason"),
    [(publishing.pause, "campaign_paused"), (publishing.end, "campaign_ended"), (None, None)],
)
def test_a_stopped_campaign_sends_nothing_more(stop: object, reason: str | None) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    campaign = make_campaign(brand, shop)
    make_transition(make_device(brand), shop)
    evaluate_once(now=now())
    if callable(stop):
        stop(campaign, actor=None)
    batch = leases.claim(limit=10, lease_s=60, now=now())
    assert len(batch) == 1
    found = delivering.ask_above(batch, now=now())
    assert found == ({} if reason is None else {batch[0].id: Stop(reason=reason)})

"""Promise 5: caps are never exceeded, whatever runs in parallel."""

from __future__ import annotations

import pytest

from campaigns.models import Decision
from devices.models import Transition
from notifications.models import Delivery
from tests.campaigns.rows import make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device
from tests.processes import until, workers

VISITS, LIMIT = 120, 7

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_sends_exactly_as_many_as_the_cap_allows_to_a_person_with_many_phones() -> None:
    brand = make_brand()
    place = make_circle(brand)
    make_campaign(brand, place, caps=[{"limit": LIMIT, "window_s": 86_400, "scope": "person"}])
    phones = [make_device(brand, external_id="ann") for _ in range(6)]
    for number in range(VISITS):
        make_transition(phones[number % len(phones)], place)

    with workers("evaluate"), workers("evaluate"), workers("evaluate"):
        until(lambda: not Transition.objects.filter(processed_at=None).exists(), "all are decided")

    assert Delivery.objects.count() == LIMIT
    assert Decision.objects.filter(verdict="send").count() == LIMIT
    assert Decision.objects.filter(reason="cap_reached").count() == VISITS - LIMIT

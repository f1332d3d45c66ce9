"""Deliveries for tests: plain functions, the boring case as default; and the one fake, a sender."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from devices.models import Device
from notifications import leases
from notifications.courier import Courier
from notifications.delivering import LEASE_S, deliver_once
from notifications.leases import Claimed
from notifications.models import Delivery
from notifications.outbox import NewDelivery, enqueue
from notifications.push import Outcome, Push, PushError, PushErrorKind

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CONTENT = {"title": "Coffee", "body": "Half price until noon"}

_numbers = itertools.count(1)


def new_delivery(device: Device, **fields: Any) -> NewDelivery:
    number = next(_numbers)
    plain: dict[str, Any] = {
        "brand_id": device.brand_id,
        "device_id": device.pk,
        "person": str(device.pk),
        "campaign_id": 1,
        "campaign_name": "Coffee",
        "campaign_version": 1,
        "moment_kind": "transition",
        "moment_id": number,
        "key": f"c1:transition:{number}",
        "content": CONTENT,
        "created_at": NOON,
        "due_at": NOON,
        "expires_at": NOON + timedelta(hours=2),
    }
    return NewDelivery(**plain | fields)


def make_delivery(device: Device, **fields: Any) -> Delivery:
    [delivery_id] = enqueue([new_delivery(device, **fields)])
    assert delivery_id is not None
    return Delivery.objects.get(pk=delivery_id)


def failing(kind: PushErrorKind, code: str = "TEST", **fields: Any) -> Outcome:
    return Outcome(error=PushError(kind=kind, code=code, **fields))


class FakeSender:
    """Takes every push, but for the tokens it was told about."""

    def __init__(self) -> None:
        self.sent: list[Push] = []
        self.answers: dict[str, Outcome | Callable[[Push], Outcome]] = {}
        self.may_answer = threading.Event()  # cleared, everything stays in the air
        self.may_answer.set()
        self.batches = self.most_batches = 0  # in the air, and the most there were
        self.closed = False

    async def send(self, pushes: Sequence[Push]) -> list[Outcome]:
        self.batches += 1
        self.most_batches = max(self.most_batches, self.batches)
        await asyncio.to_thread(self.may_answer.wait)
        self.batches -= 1
        self.sent += pushes
        return [self._answer(push) for push in pushes]

    def _answer(self, push: Push) -> Outcome:
        answer = self.answers.get(push.token, Outcome(message_id=f"projects/x/{push.delivery_id}"))
        return answer if isinstance(answer, Outcome) else answer(push)

    async def close(self) -> None:
        self.closed = True
        self.may_answer.set()  # or the threads that wait for it keep a failed test


def deliver(courier: Courier, **later: float) -> int:
    return deliver_once(courier, now=NOON + timedelta(**later))


def the_delivery() -> Delivery:
    return Delivery.objects.get()


def claim(*, limit: int = 100, **later: float) -> list[Claimed]:
    return leases.claim(limit=limit, lease_s=LEASE_S, now=NOON + timedelta(**later))

"""The rate of a device against counting every request; patience with slow bodies."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.doors import limits
from devices.doors.limits import Patience, RateLimit


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Bucket:
    """The oracle: tokens, refilled as time goes by."""

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        self.per_s, self.burst, self.tokens, self.at = per_s, burst, float(burst), now

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_s)
        self.at = now
        if self.tokens >= 1 - 1e-6:
            self.tokens -= 1
            return True
        return False


@given(
    per_s=st.sampled_from([1, 2, 8]),
    burst=st.integers(1, 6),
    pauses=st.lists(st.sampled_from([0, 0, 0.125, 0.25, 1, 3]), max_size=60),
)
def test_it_allows_what_a_token_bucket_allows(per_s: int, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    limit, bucket = RateLimit(per_s=per_s, burst=burst, clock=clock), Bucket(per_s, burst, 1_000.0)
    for pause in pauses:
        clock.now += pause
        assert (limit.wait_s(7) == 0) == bucket.take(clock.now)


def test_it_says_how_long_to_wait_and_keeps_its_word() -> None:
    clock = Clock()
    limit = RateLimit(per_s=2, burst=1, clock=clock)
    assert limit.wait_s(1) == 0
    wait_s = limit.wait_s(1)
    assert wait_s == 0.5
    clock.now += wait_s
    assert limit.wait_s(1) == 0


def test_it_counts_each_device_for_itself() -> None:
    limit = RateLimit(per_s=1, burst=1, clock=Clock())
    assert limit.wait_s(1) == 0
    assert limit.wait_s(2) == 0
    assert limit.wait_s(1) > 0


def test_it_forgets_devices_whose_bucket_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICES_REMEMBERED", 100)
    clock = Clock()
    limit = RateLimit(per_s=10, burst=5, clock=clock)
    for device_id in range(1_000):
        clock.now += 0.01
        limit.wait_s(device_id)
    assert len(limit._full_at) <= 100


async def test_it_gives_up_on_a_client_that_does_not_send() -> None:
    patience = Patience(0.0)
    never = asyncio.Event()

    async def read() -> str:
        waiting = patience.begin()
        try:
            await never.wait()
        except asyncio.CancelledError:
            return "gave up" if patience.gave_up(waiting) else "cancelled by somebody else"
        return "read"

    slow = asyncio.create_task(read())
    await asyncio.sleep(0)
    patience.sweep()
    assert await slow == "gave up"


async def test_it_leaves_those_alone_that_have_delivered() -> None:
    patience = Patience(0.0)
    patience.end(patience.begin())
    patience.sweep()
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_it_does_not_take_another_cancellation_for_its_own() -> None:
    patience = Patience(60.0)

    async def read() -> bool:
        waiting = patience.begin()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return patience.gave_up(waiting)
        return True

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    patience.sweep()
    task.cancel()
    assert not await task

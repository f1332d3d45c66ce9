"""Group commit: one transaction for many, nobody stopped by another, "later" when it must be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from django.db import OperationalError
from numpy.typing import NDArray

from devices.gathering import MAX_WAITING, MIN_BATCH, GroupCommit, Overloaded


class Ledger(GroupCommit):
    """Takes numbers; 13 breaks whatever it is in, a closed gate holds the thread."""

    def __init__(self) -> None:
        super().__init__("test")
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.away = 0

    def attempt(self, rows: list[Any]) -> NDArray[np.int8]:
        self.gate.wait()
        if self.away:
            self.away -= 1
            raise OperationalError("gone")
        if 13 in rows:
            raise ValueError(13)
        self.batches.append(rows)
        return np.array([row % 3 for row in rows], dtype=np.int8)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger()
    yield made
    made.gate.set()


async def test_it_gathers_while_a_batch_is_under_way(ledger: Ledger) -> None:
    ledger.start()
    ledger.gate.clear()
    first = ledger.submit([1])
    await asyncio.sleep(0)  # lets the loop hand the first batch to the thread
    await asyncio.sleep(0)
    rest = [ledger.submit([number]) for number in range(2, 12)]
    ledger.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert answers == [[number % 3] for number in range(1, 12)]
    assert ledger.batches == [[1], list(range(2, 12))]
    await ledger.stop()


async def test_one_request_that_breaks_stops_no_other(ledger: Ledger) -> None:
    ledger.gate.clear()
    ledger.start()
    waiting = [ledger.submit([number]) for number in range(10, 16)]
    ledger.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    broken = [isinstance(answer, ValueError) for answer in answers]
    assert broken == [number == 13 for number in range(10, 16)]
    await ledger.stop()


async def test_it_survives_a_connection_that_died_and_says_later_when_it_stays_away(
    ledger: Ledger,
) -> None:
    ledger.start()
    ledger.away = 1
    assert await ledger.submit([4]) == [1]
    ledger.away = 2
    with pytest.raises(Overloaded):
        await ledger.submit([4])
    await ledger.stop()


async def test_a_large_request_is_taken_in_short_transactions_and_answered_once(
    ledger: Ledger,
) -> None:
    ledger.start()
    ledger.gate.clear()
    numbers = [number for number in range(20 * MIN_BATCH) if number != 13]
    large, small = ledger.submit(numbers), ledger.submit([7])
    ledger.gate.set()
    assert await small == [1]
    assert await large == [number % 3 for number in numbers]
    assert len(ledger.batches[0]) == MIN_BATCH
    assert [number for batch in ledger.batches for number in batch] == [*numbers, 7]
    await ledger.stop()


async def test_a_request_of_which_a_part_failed_is_refused_whole(ledger: Ledger) -> None:
    ledger.start()
    with pytest.raises(ValueError, match="13"):
        await ledger.submit(range(2 * MIN_BATCH))
    with pytest.raises(ValueError, match="13"):
        await ledger.submit([*range(20, 20 + 2 * MIN_BATCH), 13, 14])
    assert await ledger.submit([4]) == [1]
    await ledger.stop()


async def test_it_takes_no_more_than_it_can_hold(ledger: Ledger) -> None:
    ledger.submit(range(MAX_WAITING + 1))
    with pytest.raises(Overloaded):
        ledger.submit([1])


async def test_it_answers_whoever_was_promised_an_answer_before_it_stops(ledger: Ledger) -> None:
    ledger.start()
    promised = ledger.submit([2])
    await ledger.stop()
    assert promised.result() == [2]
    with pytest.raises(Overloaded):
        ledger.submit([1])

"""Two threads settle batches in the order in which they were claimed. It knows nothing of batches.

PostgreSQL reads for one batch and writes another while Python judges: a worker that waits for each
in turn is idle half of its time.
"""

from __future__ import annotations

import threading
from types import TracebackType


class OvertakenError(Exception):
    """A batch before this one failed and will be claimed again: this one must give up its claim."""


class Turns:
    """What the threads share: at any time one of them claims and reads, one judges and writes."""

    __slots__ = ("failures", "reading", "writing")

    def __init__(self) -> None:
        self.reading = threading.Lock()
        self.writing = threading.Lock()
        self.failures = 0  # changed by whoever holds either of them, before it lets go


class Turn:
    """One batch's turn, from before its claim until after its commit.

    It is given its place by `reading` and keeps that until all its locks in the database are taken,
    so no later batch counts an offer before it does. It never waits for a later batch: whoever
    holds `writing` writes rows of its own and sums whose locks it has, and takes no other turn.
    Who fails comes before those who claimed later: they are overtaken, and claim anew.
    """

    __slots__ = ("_failures", "_reads", "_turns", "_writes")

    def __init__(self, turns: Turns) -> None:
        self._turns, self._reads, self._writes = turns, False, False
        self._failures = 0

    def __enter__(self) -> Turn:
        self._turns.reading.acquire()
        self._reads = True
        self._failures = self._turns.failures
        return self

    def after_those_before(self) -> None:
        """Wait until the batch before this one is committed; OvertakenError where it failed."""
        if not self._writes:
            self._turns.writing.acquire()
            self._writes = True
            if self._turns.failures != self._failures:
                raise OvertakenError

    def let_next_read(self) -> None:
        """All is read and locked: after those before, whoever comes next may begin."""
        self.after_those_before()
        if self._reads:
            self._reads = False
            self._turns.reading.release()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and not issubclass(kind, OvertakenError):
            self._turns.failures += 1
        if self._reads:
            self._turns.reading.release()
        if self._writes:
            self._turns.writing.release()

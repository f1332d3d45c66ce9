"""From what happened to decisions and deliveries: claim, gather, decide, apply, one commit.

It owns no rule: campaigns.rules and campaigns.restraint decide, campaigns.history keeps caps exact,
and notifications.outbox writes what is owed. A batch that fails is done again one row at a time, so
that the row at fault is parked with its reason and stops nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from campaigns import catalogue as catalogues
from campaigns import copying, coupons, history, moments, past, progress, restraint, spending
from campaigns.catalogue import Catalogue
from campaigns.definition import HoursPolicy
from campaigns.judging import Offers, Pair, Read, Send, Verdicts, in_steps
from campaigns.moments import Batch, Happening
from campaigns.reasons import Reason
from campaigns.turns import OvertakenError, Turn, Turns
from devices.arrays import COPY_HEADER, COPY_TRAILER
from notifications.outbox import NewDelivery, enqueue

logger = logging.getLogger(__name__)

BATCH = 500
COPIED_ROWS = 250  # less than what fits between two processes
LOOK_S = 1.0  # a lost NOTIFY delays by no more than this
CHANNELS = ("nearcast_transitions", "nearcast_events")

_COPY = f"COPY campaigns_decision ({copying.COLUMNS}) FROM STDIN (FORMAT binary)"
_COPY_WITH_ID = f"COPY campaigns_decision (id, {copying.COLUMNS}) FROM STDIN (FORMAT binary)"
_TAKE_IDS = "SELECT nextval('campaigns_decision_id_seq') FROM generate_series(1, %s)"
_DONE = {
    "transition": "UPDATE devices_transition SET processed_at = %s WHERE id = ANY(%s)",
    "event": "UPDATE devices_event SET processed_at = %s WHERE id = ANY(%s)",
    "timer": "UPDATE campaigns_completion SET settled_at = %s WHERE id = ANY(%s)",
}
_CALLED_OFF = "UPDATE campaigns_completion SET called_off = true WHERE id = ANY(%s)"
_PARK = {
    "transition": """UPDATE devices_transition SET processed_at = %(now)s, parked_reason = %(why)s
                      WHERE id = ANY(%(ids)s) AND processed_at IS NULL""",
    "event": """UPDATE devices_event SET processed_at = %(now)s, parked_reason = %(why)s
                 WHERE id = ANY(%(ids)s) AND processed_at IS NULL""",
    "timer": """UPDATE campaigns_completion SET settled_at = %(now)s
                 WHERE id = ANY(%(ids)s) AND settled_at IS NULL""",
}


def evaluate_once(*, now: datetime, limit: int = BATCH, turns: Turns | None = None) -> int:
    """Judge up to `limit` transitions and as many events; answers how many were settled.

    With `turns`, in the order of those who share them.
    """
    turns = turns or Turns()
    while True:
        try:
            return _evaluate(now, limit, turns)
        except OvertakenError:
            continue  # its rows, and older ones, wait to be claimed
        except (OperationalError, InterfaceError):
            raise  # the database, not a row
        except Exception:
            logger.exception("a batch failed; trying its rows one at a time")
            return _one_at_a_time(now, limit, turns)


def _evaluate(now: datetime, limit: int, turns: Turns) -> int:
    with Turn(turns) as turn, transaction.atomic():
        batch = moments.claim(limit, now)
        if not batch:
            return 0
        current = catalogues.current()
        happenings = gather(batch, current, _epoch_ms(now), turn)
        _judge_and_apply(batch, happenings, current, now, turn)
    return len(batch)


def gather(batch: Batch, current: Catalogue, now_ms: int, turn: Turn) -> list[Happening]:
    """Everything that the rules need to know of a batch, in a bounded number of queries."""
    pairs, subjects = moments.arrivals(batch, current, now_ms)
    happenings = [happening for _, happening in pairs if happening.candidates]
    if batch.due or any(arrival.sequences for arrival, _ in pairs):
        turn.after_those_before()  # what they completed counts
    happenings += progress.advance(
        [pair for pair in pairs if pair[0].sequences], batch.due, subjects, current, now_ms
    )
    past.measure(happenings, now_ms)
    return happenings


def _one_at_a_time(now: datetime, limit: int, turns: Turns) -> int:
    """Settle rows singly; one that still fails is parked with what it said."""
    settled = 0
    for _ in range(limit):
        held: Batch | None = None
        try:
            with Turn(turns) as turn, transaction.atomic():
                held = moments.claim_one(now)
                if not held:
                    break
                current = catalogues.current()
                happenings = gather(held, current, _epoch_ms(now), turn)
                _judge_and_apply(held, happenings, current, now, turn)
            settled += len(held)
        except OvertakenError:
            continue
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            if held is None:
                raise
            logger.exception("parked: %s", held.claimed())
            settled += _park(held, error, now)
    return settled


def _park(held: Batch, error: Exception, now: datetime) -> int:
    why = " ".join(str(error).split())[:200] or type(error).__name__
    with transaction.atomic(), connection.cursor() as cursor:
        for kind, ids in held.claimed():
            cursor.execute(_PARK[kind], {"now": now, "why": why, "ids": ids})
    return len(held)


def reader(current: Catalogue, now: datetime) -> Read:
    """The offers that count, read under the locks that make caps exact."""

    def read(likely: Sequence[Pair]) -> Offers:
        offers = history.lock_and_read(likely, current, now)
        spending.lock_and_read(offers, likely, now)
        coupons.lock_and_read(offers, likely, now)
        return offers

    return read


def settle(verdicts: Verdicts, now: datetime) -> None:
    """Write what was decided on moments that no claimed row brought about."""
    _write_refusals([verdicts], now)
    _apply(Batch(transitions=[], events=[], due=[]), verdicts, now)


def _judge_and_apply(
    batch: Batch, happenings: Sequence[Happening], current: Catalogue, now: datetime, turn: Turn
) -> None:
    steps = in_steps(happenings, current, reader(current, now))
    verdicts = next(steps)  # with all that is read: while rows are copied nothing can be
    turn.let_next_read()
    _write_refusals(chain([verdicts], steps), now)
    _apply(batch, verdicts, now)


def _write_refusals(steps: Iterable[Verdicts], now: datetime) -> None:
    """Copy what is refused piece by piece: PostgreSQL takes one in while the next is decided."""
    copied, written = copying.Copied(now), 0
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(COPY_HEADER)
        for verdicts in steps:
            if len(verdicts.refusals) - written >= COPIED_ROWS:
                copy.write(copied.rows(verdicts.refusals[written:]))
                written = len(verdicts.refusals)
        copy.write(copied.rows(verdicts.refusals[written:]) + COPY_TRAILER)


def _apply(batch: Batch, verdicts: Verdicts, now: datetime) -> None:
    """Offers, deliveries and the marks of what is done, in the caller's transaction."""
    with connection.cursor() as cursor:
        if verdicts.sends:
            cursor.execute(_TAKE_IDS, (len(verdicts.sends),))
            ids = [row[0] for row in cursor.fetchall()]
            numbered = list(zip(ids, verdicts.sends, strict=True))
            rows = copying.Copied(now).numbered(
                (key, (send.happening, send.campaign, send.decision)) for key, send in numbered
            )
            with cursor.copy(_COPY_WITH_ID) as copy:
                copy.write(COPY_HEADER + rows + COPY_TRAILER)
            made = enqueue([_delivery(send, key) for key, send in numbered])
            charged = list(zip(made, verdicts.sends, strict=True))
            spending.charge(charged)
            coupons.draw(charged, now)
        for kind, keys in batch.claimed():
            cursor.execute(_DONE[kind], (now, keys))
        off = [
            happening.moment.id
            for happening, _, decision in verdicts.refusals
            if decision.reason is Reason.CALLED_OFF
        ]
        if off:
            cursor.execute(_CALLED_OFF, (off,))


def _delivery(send: Send, decision_id: int) -> NewDelivery:
    campaign, moment, subject = send.campaign, send.happening.moment, send.happening.moment.subject
    return NewDelivery(
        brand_id=campaign.brand_id,
        device_id=subject.device_id,
        person=subject.person,
        campaign_id=campaign.id,
        campaign_name=campaign.name,
        campaign_version=campaign.version,
        variant=send.variant,
        decision_id=decision_id,
        moment_kind=moment.kind,
        moment_id=moment.id,
        geofence_id=moment.geofence_id,
        key=f"c{campaign.id}:{moment.kind}:{moment.id}",
        transactional=campaign.transactional,
        content=send.content,
        gates=_gates(send),
        priority=campaign.priority,
        created_at=_instant(moment.now_ms),
        due_at=_instant(send.decision.due_ms),
        expires_at=_instant(restraint.expires_ms(campaign, moment, send.decision.due_ms)),
    )


def _gates(send: Send) -> dict[str, Any]:
    """What the outbox looks at again when it sends."""
    campaign, moment = send.campaign, send.happening.moment
    gates: dict[str, Any] = {"timezone": moment.subject.timezone}
    if send.coupon is not None:
        gates["shown_when_sent"] = True
    if campaign.only_while_inside and moment.geofence_id is not None:
        gates["only_while_inside"] = moment.geofence_id
    if campaign.rests_on_location:
        gates["by_location"] = True
    if campaign.quiet is not None and not campaign.transactional:
        quiet = send.happening.brand.quiet_text
        gates["quiet_hours"] = {
            "from": quiet.get("from", "00:00"),
            "to": quiet.get("to", "24:00"),
            # How long it may wait is in when it expires.
            "policy": "drop" if campaign.quiet_policy is HoursPolicy.DROP else "hold",
        }
    return gates


def _epoch_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def run(stop: threading.Event) -> None:
    """Evaluate until `stop`: at once when something happened, and every second anyway."""
    while not stop.is_set():
        try:
            _listen(stop)
        except (OperationalError, InterfaceError):
            logger.exception("evaluation lost the database; trying again")
            connection.close()
            stop.wait(1.0)
    connection.close()


def settle_all(stop: threading.Event, *, limit: int = BATCH) -> None:
    """Evaluate until nothing waits; where more than a batch does, two batches at a time."""
    while not stop.is_set() and (settled := evaluate_once(now=timezone.now(), limit=limit)):
        if settled >= limit:
            _settle_together(stop, limit)


def _settle_together(stop: threading.Event, limit: int) -> None:
    turns, over = Turns(), threading.Event()

    def work() -> None:
        try:
            while not (stop.is_set() or over.is_set()):
                if not evaluate_once(now=timezone.now(), limit=limit, turns=turns):
                    over.set()
        finally:
            over.set()  # whoever fails does not leave the other to go on alone

    def help_out() -> None:
        try:
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(1, thread_name_prefix="evaluate") as helper:
        helped = helper.submit(help_out)
        work()
        helped.result()


def _listen(stop: threading.Event) -> None:
    with connection.cursor() as cursor:
        for channel in CHANNELS:
            cursor.execute(f"LISTEN {channel}")
    raw: Any = connection.connection
    while not stop.is_set():
        settle_all(stop)
        until = time.monotonic() + LOOK_S
        # Half-second naps: `stop` is noticed soon, and a NOTIFY ends the nap at once.
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            # Not `select`: one that came with the answer to a statement is no longer in the socket.
            if list(raw.notifies(timeout=min(left, 0.5), stop_after=1)):
                break

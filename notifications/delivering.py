"""Sends what is due: claim, look again, send, record. It writes only through `leases`.

Rows and sockets wait on different threads: one talks to the database about what leaves, one about
what came of it, and the courier's to the provider. So several batches are in the air at once, and a
slow answer holds up its own batch only.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from queue import SimpleQueue
from typing import Any

import msgspec
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from devices import registration
from notifications import leases
from notifications.courier import Courier, Post
from notifications.gates import Facts, Gate, Gates, Go, Hold, InboxOnly, Refused, Stop, look_again
from notifications.leases import Claimed, Result, Tried
from notifications.models import DeliveryState
from notifications.outbox import Withheld
from notifications.push import Content, Outcome, Push, PushErrorKind, push_of
from notifications.retries import MAX_ATTEMPTS, Dead, DeadReason, Retry, Sent, next_attempt

logger = logging.getLogger(__name__)

BATCH = 100
BATCHES_IN_THE_AIR = 6
# Longer than the worst case: 600 rows over 100 lanes, ten seconds for each before it is given up.
LEASE_S = 90.0
# What came due by the clock, and `stop`, are noticed within this; what is new is noticed at once.
NAP_S = 0.5
STOP_WITHIN_S = 5.0
RECORDED_WITHIN_S = 0.8  # what lands at the last moment; config.work waits for a second more
GATE_FAILED_DELAY_S = 60.0

_gates: list[Gate] = []

_DEVICES = """
    SELECT d.id, d.push_token, greatest(d.push_token_at, s.received_at), d.consent_location,
           d.consent_marketing, d.timezone
      FROM devices_device d LEFT JOIN devices_devicestate s ON s.device_id = d.id
     WHERE d.id = ANY(%s)
"""
# Leaving is not yet left.
_INSIDE = """
    SELECT p.device_id, p.geofence_id FROM devices_presence p
      JOIN unnest(%s::bigint[], %s::bigint[]) AS asked (device_id, geofence_id)
        USING (device_id, geofence_id)
     WHERE p.state IN ('inside', 'leaving')
"""


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a batch comes to before anything is sent."""

    settled: list[Result] = field(default_factory=list)
    going: list[Claimed] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)  # as `going`, in its order


def add_gate(gate: Gate) -> None:
    """Let an app above look at each batch before it is sent; called once, when the app is ready."""
    _gates.append(gate)


def gather(batch: Sequence[Claimed]) -> dict[int, Facts]:
    """Read what is true now of the batch's devices: two queries, whatever its size."""
    asked = [(one.device_id, geofence_id) for one in batch if (geofence_id := _place(one))]
    inside: dict[int, set[int]] = {}
    with connection.cursor() as cursor:
        if asked:
            cursor.execute(_INSIDE, [list(column) for column in zip(*asked, strict=True)])
            for device_id, geofence_id in cursor.fetchall():
                inside.setdefault(device_id, set()).add(geofence_id)
        cursor.execute(_DEVICES, (list({one.device_id for one in batch}),))
        return {
            device_id: Facts(
                push_token=push_token,
                heard_at=heard_at,
                consent_location=location,
                consent_marketing=marketing,
                inside=frozenset(inside.get(device_id, ())),
                timezone=timezone_name,
            )
            for device_id, push_token, heard_at, location, marketing, timezone_name in cursor
        }


def _place(one: Claimed) -> int | None:
    """Return the geofence that an offer must still be in; a malformed row is parked later."""
    try:
        return msgspec.json.decode(one.gates, type=Gates).only_while_inside
    except msgspec.DecodeError:
        return None


def ask_above(batch: Sequence[Claimed], *, now: datetime) -> dict[int, Hold | Stop]:
    """Ask the apps above; where several object to a delivery, the first one's word counts."""
    found: dict[int, Hold | Stop] = {}
    for gate in _gates:
        try:
            found = {**gate(batch, now=now), **found}
        # A gate that fails holds its batch: better late than against a rule.
        except Exception:
            logger.exception("a gate failed; its batch waits")
            until = now + timedelta(seconds=GATE_FAILED_DELAY_S)
            return {one.id: Hold(until=until, reason="gate_failed") for one in batch}
    return found


def decide(
    batch: Sequence[Claimed],
    facts: Mapping[int, Facts],
    held_above: Mapping[int, Hold | Stop],
    *,
    now: datetime,
) -> Plan:
    """Sort a batch into what goes out and what does not."""
    plan = Plan()
    for one in batch:
        try:
            _decide_one(one, facts.get(one.device_id), held_above.get(one.id), plan, now)
        # A row that breaks our code is parked with what it said, and stops no other.
        except Exception as error:
            logger.exception("parked delivery %s", one.id)
            plan.settled.append(_parked(one, f"{type(error).__name__}: {error}"))
    return plan


def _decide_one(
    one: Claimed, facts: Facts | None, above: Hold | Stop | None, plan: Plan, now: datetime
) -> None:
    if one.attempt_count > MAX_ATTEMPTS:
        plan.settled.append(_parked(one, f"claimed {one.attempt_count} times without an answer"))
        return
    gates = msgspec.json.decode(one.gates, type=Gates)
    verdict = look_again(
        gates,
        facts,
        by_location=gates.by_location or _by_location(one),
        transactional=one.transactional,
        expires_at=one.expires_at,
        now=now,
    )
    if above and not isinstance(verdict, Stop):
        verdict = above
    match verdict:
        case Go(token=token):
            plan.pushes.append(_push(one, token, now))
            plan.going.append(one)
        case InboxOnly(reason=reason):
            plan.settled.append(_in_the_inbox(one, reason, now))
        case Hold(until=until, reason=reason):
            pending = DeliveryState.PENDING
            plan.settled.append(Result(claimed=one, state=pending, reason=reason, due_at=until))
        case Stop(reason=reason, seen=seen):
            expired = reason == Refused.EXPIRED
            state = DeliveryState.EXPIRED if expired else DeliveryState.SUPPRESSED
            told = Withheld(delivery_id=one.id, reason=reason, seen=seen, at=now)
            plan.settled.append(Result(claimed=one, state=state, reason=reason, withheld=told))


def _by_location(one: Claimed) -> bool:
    """Whether it is owed for where somebody was, and so rests on consent to location.

    Schedules and sequences too, by the place they are about; a test's place was staff's choice.
    """
    if one.moment_kind == "test":
        return False
    return one.geofence_id is not None or one.moment_kind == "transition"


def _push(one: Claimed, token: str, now: datetime) -> Push:
    return push_of(
        msgspec.json.decode(one.content, type=Content),
        delivery_id=one.id,
        token=token,
        life_s=int((one.expires_at - now).total_seconds()),
    )


def _in_the_inbox(one: Claimed, reason: str, now: datetime, tried: Tried | None = None) -> Result:
    """Sent as far as it can be: the inbox shows it, and an open socket is told."""
    return Result(
        claimed=one,
        state=DeliveryState.SENT,
        reason=reason,
        sent_at=now,
        channel="inbox",
        tried=tried,
    )


def _parked(one: Claimed, why: str) -> Result:
    return Result(claimed=one, state=DeliveryState.PARKED, reason=why)


def result_of(one: Claimed, outcome: Outcome, *, now: datetime) -> Result:
    """Return what an attempt makes of a delivery."""
    error = outcome.error
    tried = Tried(
        at=now,
        outcome=error.kind.value if error else "sent",
        error=f"{error.code}: {error.detail}" if error else "",
        message_id=outcome.message_id,
        latency_ms=outcome.latency_ms,
    )
    following = next_attempt(
        outcome=outcome,
        attempts=one.attempt_count,
        now=now,
        expires_at=one.expires_at,
        jitter=random.random(),  # noqa: S311 - it spreads retries, it keeps no secret
    )
    code = f": {error.code}" if error else ""
    match following:
        case Sent():
            return Result(claimed=one, state=DeliveryState.SENT, sent_at=now, tried=tried)
        case InboxOnly(reason=reason):
            return _in_the_inbox(one, f"{reason}{code}", now, tried)
        case Retry(at=at):
            why = error.code if error else ""
            return Result(
                claimed=one, state=DeliveryState.PENDING, reason=why, due_at=at, tried=tried
            )
        case Dead(reason=reason):
            expired = reason is DeadReason.EXPIRED
            state = DeliveryState.EXPIRED if expired else DeliveryState.FAILED
            told = Withheld(delivery_id=one.id, reason=reason, at=now) if expired else None
            return Result(
                claimed=one, state=state, reason=f"{reason}{code}", tried=tried, withheld=told
            )


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """A batch in the air: nothing of it is in a transaction."""

    plan: Plan
    answer: Future[list[Outcome]]


def depart(post: Post, *, now: datetime, limit: int = BATCH) -> tuple[int, Flight | None]:
    """Claim, look again and hand to the courier; how many were claimed, and what is in the air."""
    batch = leases.claim(limit=limit, lease_s=LEASE_S, now=now)
    if not batch:
        return 0, None
    plan = decide(batch, gather(batch), ask_above(batch, now=now), now=now)
    write(plan.settled)
    flight = Flight(plan=plan, answer=post.send(plan.pushes)) if plan.pushes else None
    return len(batch), flight


def land(*flights: Flight, now: datetime) -> None:
    """Record what came of batches; a token that is gone is taken from the device that had it."""
    answered = [each for flight in flights for each in _answered(flight)]
    gone = [
        (one.device_id, push.token)
        for one, push, outcome in answered
        if outcome.error and outcome.error.kind is PushErrorKind.TOKEN_GONE
    ]
    # First: where the database is lost in between, all of it is done again, attempts as well.
    if gone:
        registration.retire_push_tokens(gone, now=now)
    write([_judged(one, outcome, now) for one, _, outcome in answered])


def _answered(flight: Flight) -> list[tuple[Claimed, Push, Outcome]]:
    try:
        outcomes = flight.answer.result()
    # What came of it is not known: the leases run out, and it is sent again (the honest gap).
    except Exception:
        logger.exception("a batch was lost on its way")
        return []
    return list(zip(flight.plan.going, flight.plan.pushes, outcomes, strict=True))


def _judged(one: Claimed, outcome: Outcome, now: datetime) -> Result:
    try:
        return result_of(one, outcome, now=now)
    # An answer that breaks our code is its own delivery's trouble.
    except Exception as error:
        logger.exception("parked delivery %s", one.id)
        return _parked(one, f"{type(error).__name__}: {error}")


def write(results: Sequence[Result]) -> None:
    """Record a batch, and where that fails, row by row, parking the one at fault."""
    if not _refusal(results):
        return
    for result in results:
        if why := _refusal([result]):
            # Where not even this can be written, its lease runs out, and it is claimed again.
            _refusal([_parked(result.claimed, f"unrecordable: {why}")])


def _refusal(results: Sequence[Result]) -> str:
    """Record them; why that failed, or nothing. Raises where the database is lost."""
    try:
        leases.record(results)
    except (OperationalError, InterfaceError):
        raise  # no row is at fault
    except Exception as error:
        logger.exception("could not record deliveries %s", [each.claimed.id for each in results])
        return f"{type(error).__name__}: {error}"
    return ""


def deliver_once(post: Post, *, now: datetime, limit: int = BATCH) -> int:
    """Send one batch from claim to record; answers how many deliveries it settled."""
    started_s = time.monotonic()
    claimed, flight = depart(post, now=now, limit=limit)
    if flight:
        flight.answer.exception()  # waits
        land(flight, now=now + timedelta(seconds=time.monotonic() - started_s))
    return claimed


def run(stop: threading.Event) -> None:
    """Deliver until `stop`: at once when something is owed, and soon when something came due."""
    # Only here: every process imports this module, one of them sends.
    from notifications.firebase import sender_for

    make_sender = partial(
        sender_for,
        emulator_url=settings.FCM_EMULATOR_URL,
        credentials_path=settings.FIREBASE_CREDENTIALS,
    )
    with Courier(make_sender) as courier, contextlib.closing(Airport(courier)) as airport:
        airport.run(stop)


class Airport:
    """Keeps batches in the air. Who is owed something is not kept by what came of others.

    Batches leave on the caller's thread and connection and are recorded on another's: those that
    landed while one was recorded are recorded together.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self._in_the_air: set[Flight] = set()  # or landed and not yet recorded
        self._landed: SimpleQueue[Flight | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._recorder_died_of: Exception | None = None
        self._bell, self._ring = socket.socketpair()
        self._bell.setblocking(False)
        self._ring.setblocking(False)

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop`. Raises where the recorder died: nothing leaves without it."""
        recorder = threading.Thread(target=self._keep_recording, name="recorder", daemon=True)
        recorder.start()
        try:
            while not stop.is_set():
                try:
                    self._listen(stop)
                except (OperationalError, InterfaceError):
                    logger.exception("delivering lost the database; trying again")
                    connection.close()
                    stop.wait(1.0)
        finally:
            self._finish(recorder)
            connection.close()

    def _listen(self, stop: threading.Event) -> None:
        with connection.cursor() as cursor:
            cursor.execute("LISTEN nearcast_deliveries")
        while not stop.is_set():
            if self._recorder_died_of is not None:
                raise RuntimeError("the recorder died") from self._recorder_died_of
            more = False
            if len(self._in_the_air) < BATCHES_IN_THE_AIR:
                claimed, flight = depart(self._post, now=timezone.now())
                if flight:
                    self._in_the_air.add(flight)
                    flight.answer.add_done_callback(partial(self._touched_down, flight))
                more = claimed == BATCH
            if not more or len(self._in_the_air) >= BATCHES_IN_THE_AIR:
                self._wait()

    def _wait(self) -> None:
        """Sleep until something is owed, there is room in the air, or it is time to look anyway."""
        raw: Any = connection.connection
        if any(True for _ in raw.notifies(timeout=0)):
            return  # it came with the answer to another statement: the socket is silent by now
        ready, _, _ = select.select([raw.fileno(), self._bell], [], [], NAP_S)
        if self._bell in ready:
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4_096)
        if raw.fileno() in ready:
            for _ in raw.notifies(timeout=0):
                pass

    def _touched_down(self, flight: Flight, _answer: Future[list[Outcome]]) -> None:
        self._landed.put(flight)

    def _keep_recording(self) -> None:
        """On a thread of its own, until told that nothing more lands."""
        try:
            while flights := self._waiting_to_be_recorded():
                self._record(flights)
                self._in_the_air.difference_update(flights)
                if len(self._in_the_air) + len(flights) >= BATCHES_IN_THE_AIR:  # it was full
                    self._ring_the_bell()
        # Raised where the batches leave: whoever keeps that loop begins it anew, and this with it.
        except Exception as error:
            logger.exception("the recorder died")
            self._recorder_died_of = error
            self._ring_the_bell()
        finally:
            connection.close()

    def _ring_the_bell(self) -> None:
        with contextlib.suppress(OSError):  # it is ringing already, or gone
            self._ring.send(b"!")

    def _waiting_to_be_recorded(self) -> list[Flight]:
        """All that have landed, at least one; none where no more will."""
        flights: list[Flight] = []
        while not flights or not self._landed.empty():
            flight = self._landed.get()
            if flight is None:
                # A flight may still be on its way into the queue, behind this last word.
                self._landed.put(None)
                return [each for each in self._in_the_air if each.answer.done()]
            flights.append(flight)
        return flights

    def _record(self, flights: Sequence[Flight]) -> None:
        """Again and again where the database is away: what landed is not forgotten."""
        while True:
            try:
                land(*flights, now=timezone.now())
            except (OperationalError, InterfaceError):
                logger.exception("recording lost the database")
                connection.close()
                if self._stopping.wait(1.0):
                    logger.error("stopped without the database; leases will run out")
                    return
            else:
                return

    def _finish(self, recorder: threading.Thread) -> None:
        """Record what still lands; what does not is sent again when its lease runs out."""
        if not recorder.is_alive():
            return
        until = time.monotonic() + STOP_WITHIN_S
        for flight in list(self._in_the_air):
            with contextlib.suppress(TimeoutError):
                flight.answer.exception(max(0.0, until - time.monotonic()))
        self._stopping.set()
        self._landed.put(None)
        recorder.join(max(RECORDED_WITHIN_S, until - time.monotonic()))

    def close(self) -> None:
        self._bell.close()
        self._ring.close()

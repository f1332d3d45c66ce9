"""Draws codes for offers, takes back what nobody can have seen, and redeems. It decides nothing.

Whoever holds a pool's lock sees every code that was drawn before: each is drawn exactly once, and
a pool is never called empty because somebody else looks at its last codes (promise 5).
"""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from django.db import connection, transaction

from brands import wallclock
from brands.models import Brand
from campaigns import codes, hours, locks
from campaigns.codes import Code, Supply
from campaigns.content import speaks_of
from campaigns.definition import ContentText
from campaigns.judging import Offers, Pair, Send
from campaigns.models import Coupon, CouponPool, CouponState, PoolKind
from notifications import outbox
from notifications.gates import Hold, Stop, Subject
from notifications.models import Delivery, FeedbackEvent

PoolName = tuple[int, str]  # brand and slug

_POOLS = """
    SELECT p.id, p.brand_id, p.slug, p.kind, p.key, p.size, p.last_day, b.timezone
      FROM unnest(%s::bigint[], %s::text[]) AS u (brand_id, slug)
      JOIN campaigns_couponpool p ON p.brand_id = u.brand_id AND p.slug = u.slug
      JOIN brands_brand b ON b.id = p.brand_id
"""
_FREE = """
    SELECT u.pool_id, c.id, c.code, c.number
      FROM unnest(%s::bigint[], %s::bigint[]) AS u (pool_id, wanted)
      CROSS JOIN LATERAL (
        SELECT c.id, c.code, c.number FROM campaigns_coupon c
         WHERE c.pool_id = u.pool_id AND c.state = 'free' ORDER BY c.id LIMIT u.wanted) c
"""
_LAST_NUMBERS = """
    SELECT u.pool_id, coalesce((SELECT max(c.number) FROM campaigns_coupon c
                                 WHERE c.pool_id = u.pool_id AND c.number IS NOT NULL), 0)
      FROM unnest(%s::bigint[]) AS u (pool_id)
"""
# What was parked at birth shows its code to nobody: it stays free. So does what another delivery
# lost: that one's name goes.
_DRAW = """
    UPDATE campaigns_coupon c SET state = 'drawn', delivery_id = v.delivery_id, drawn_at = %s
      FROM unnest(%s::bigint[], %s::bigint[]) AS v (coupon_id, delivery_id)
      JOIN notifications_delivery d ON d.id = v.delivery_id AND d.state <> 'parked'
     WHERE c.id = v.coupon_id AND c.state = 'free'
"""
_SIGN = """
    INSERT INTO campaigns_coupon
           (pool_id, brand_id, code, number, state, delivery_id, drawn_at, reference)
    SELECT v.pool_id, d.brand_id, v.code, v.number, 'drawn', d.id, %s, ''
      FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
        AS v (pool_id, code, number, delivery_id)
      JOIN notifications_delivery d ON d.id = v.delivery_id AND d.state <> 'parked'
"""
# Every push with it was refused for certain, or none was tried: then nobody has seen the code.
_GIVE_BACK = """
    UPDATE campaigns_coupon c
       SET state = CASE WHEN d.attempt_count = (
                     SELECT count(*) FROM notifications_attempt a
                      WHERE a.delivery_id = d.id AND a.outcome IN ('rejected', 'token_gone'))
                   THEN 'free' ELSE 'spoilt' END
      FROM notifications_delivery d
     WHERE d.id = ANY(%s) AND c.delivery_id = d.id AND c.state = 'drawn'
"""
# The offers with a code; what is still free they may have again when they are sent again.
_HELD = """
    SELECT d.id, c.id, c.pool_id, c.state, p.last_day, b.timezone FROM notifications_delivery d
      LEFT JOIN campaigns_coupon c ON c.delivery_id = d.id
      LEFT JOIN campaigns_couponpool p ON p.id = c.pool_id
      LEFT JOIN brands_brand b ON b.id = p.brand_id
     WHERE d.id = ANY(%s) AND d.gates ->> 'shown_when_sent' = 'true'
"""
_DRAW_AGAIN = """
    UPDATE campaigns_coupon SET state = 'drawn', drawn_at = %s
     WHERE id = ANY(%s) AND delivery_id = ANY(%s) AND state IN ('free', 'spoilt')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What drawing needs to know of a pool."""

    id: int
    brand_id: int
    slug: str
    kind: PoolKind
    key: bytes
    size: int | None
    last_day: date | None
    timezone: str

    def is_over(self, now: datetime) -> bool:
        return _is_over(self.last_day, self.timezone, now)


def lock_and_read(offers: Offers, likely: Iterable[Pair], now: datetime) -> None:
    """Put the codes that may be drawn into `offers`: four queries, none where no pool is named."""
    wanted: Counter[PoolName] = Counter(
        (campaign.brand_id, campaign.coupon_pool) for _, campaign in likely if campaign.coupon_pool
    )
    if not wanted:
        return
    pools = [pool for pool in named(wanted) if not pool.is_over(now)]
    locks.take("coupons", [pool.id for pool in pools])
    free = _free(pools, wanted)
    last = _last_numbers([pool.id for pool in pools if pool.kind is PoolKind.SIGNED])
    for pool in pools:
        rows = iter(free.get(pool.id, ()))
        fresh = _fresh(pool, last[pool.id]) if pool.kind is PoolKind.SIGNED else iter(())
        offers.supplies[pool.brand_id, pool.slug] = Supply(_one_after_the_other(rows, fresh))


def named(names: Iterable[PoolName]) -> list[Pool]:
    """The pools by these names; those that do not exist are left out."""
    brand_ids, slugs = zip(*names, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(_POOLS, (list(brand_ids), list(slugs)))
        return [
            Pool(
                id=key,
                brand_id=brand_id,
                slug=slug,
                kind=PoolKind(kind),
                key=bytes.fromhex(secret),
                size=size,
                last_day=last_day,
                timezone=timezone,
            )
            for key, brand_id, slug, kind, secret, size, last_day, timezone in cursor.fetchall()
        ]


def _free(pools: Sequence[Pool], wanted: Mapping[PoolName, int]) -> dict[int, list[Code]]:
    found: dict[int, list[Code]] = {}
    last_days = {pool.id: pool.last_day for pool in pools}
    with connection.cursor() as cursor:
        cursor.execute(
            _FREE,
            (
                [pool.id for pool in pools],
                [wanted[pool.brand_id, pool.slug] for pool in pools],
            ),
        )
        for pool_id, coupon_id, code, number in cursor.fetchall():
            found.setdefault(pool_id, []).append(
                Code(pool_id, code, coupon_id, number, last_days[pool_id])
            )
    return found


def _last_numbers(pool_ids: list[int]) -> dict[int, int]:
    if not pool_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_LAST_NUMBERS, (pool_ids,))
        return dict(cursor.fetchall())


def _fresh(pool: Pool, last: int) -> Iterator[Code]:
    """New signed codes, made as they are asked for."""
    most = min(codes.MOST_NUMBERS - 1, pool.size if pool.size is not None else codes.MOST_NUMBERS)
    for number in range(last + 1, most + 1):
        code = codes.signed(pool.key, number, pool.last_day)
        yield Code(pool.id, code, None, number, pool.last_day)


def _one_after_the_other(*parts: Iterator[Code]) -> Iterator[Code]:
    for part in parts:
        yield from part


def draw(made: Sequence[tuple[int | None, Send]], now: datetime) -> None:
    """Write which delivery got which code, in the caller's transaction."""
    drawn = [
        (delivery_id, send.coupon)
        for delivery_id, send in made
        if send.coupon is not None and delivery_id is not None
    ]
    known = [(code.coupon_id, key) for key, code in drawn if code.coupon_id is not None]
    fresh = [
        (code.pool_id, code.code, code.number, key) for key, code in drawn if code.coupon_id is None
    ]
    with connection.cursor() as cursor:
        if known:
            cursor.execute(_DRAW, (now, *(list(column) for column in zip(*known, strict=True))))
        if fresh:
            cursor.execute(_SIGN, (now, *(list(column) for column in zip(*fresh, strict=True))))


def give_back(delivery_ids: Sequence[int]) -> None:
    """Return the codes of deliveries that will not be sent, in the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK, (list(delivery_ids),))


def still_theirs(deliveries: Sequence[Subject], *, now: datetime) -> Mapping[int, Hold | Stop]:
    """Stop an offer whose code went to somebody else meanwhile, or is over (one query)."""
    ids = [one.id for one in deliveries]
    held = _held(ids)
    over = {one.delivery_id for one in held if _is_over(one.last_day, one.timezone, now)}
    given_back = [
        one
        for one in held
        if one.state in {CouponState.FREE, CouponState.SPOILT} and one.delivery_id not in over
    ]
    if given_back:
        with transaction.atomic():
            locks.take("coupons", {one.pool_id for one in given_back if one.pool_id is not None})
            with connection.cursor() as cursor:
                cursor.execute(_DRAW_AGAIN, (now, [one.coupon_id for one in given_back], ids))
        held = _held(ids)
    return {key: Stop(reason="coupon_over") for key in over} | {
        one.delivery_id: Stop(reason="coupon_given_to_another")
        for one in held
        if one.coupon_id is None
    }


class Held(NamedTuple):
    """An offer with a code, and the code that it still has."""

    delivery_id: int
    coupon_id: int | None
    pool_id: int | None
    state: str | None
    last_day: date | None
    timezone: str | None


def _held(ids: Sequence[int]) -> list[Held]:
    with connection.cursor() as cursor:
        cursor.execute(_HELD, (list(ids),))
        return [Held._make(row) for row in cursor.fetchall()]


def _is_over(last_day: date | None, timezone: str | None, now: datetime) -> bool:
    at_ms = round(now.timestamp() * 1000)
    return last_day is not None and (
        hours.local_date(at_ms, wallclock.zone(timezone or "UTC")) > last_day
    )


def new_pool(brand: Brand, *, name: str, slug: str, **fields: Any) -> CouponPool:
    """A pool with a key of its own."""
    return CouponPool.objects.create(
        brand=brand, name=name, slug=slug, key=secrets.token_hex(codes.KEY_BYTES), **fields
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """How a pool stands; `left` is None where it never ends."""

    left: int | None
    drawn: int = 0
    redeemed: int = 0
    spoilt: int = 0
    is_low: bool = False


def stock_of(pools: Sequence[CouponPool]) -> dict[int, Stock]:
    """How pools stand, by id: one query."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pool_id, state, count(*) FROM campaigns_coupon"
            " WHERE pool_id = ANY(%s) GROUP BY 1, 2",
            ([pool.pk for pool in pools],),
        )
        counted = {(pool_id, state): count for pool_id, state, count in cursor.fetchall()}
    return {pool.pk: _stock(pool, counted) for pool in pools}


def _stock(pool: CouponPool, counted: Mapping[tuple[int, str], int]) -> Stock:
    count = {state: counted.get((pool.pk, state.value), 0) for state in CouponState}
    left: int | None = count[CouponState.FREE]
    if pool.kind == PoolKind.SIGNED:
        made = sum(count.values())
        left = None if pool.size is None else max(0, pool.size - made) + count[CouponState.FREE]
    return Stock(
        left=left,
        drawn=count[CouponState.DRAWN],
        redeemed=count[CouponState.REDEEMED],
        spoilt=count[CouponState.SPOILT],
        is_low=left is not None and left < pool.warn_below,
    )


def samples(names: Iterable[PoolName]) -> dict[PoolName, Supply]:
    """Stand-ins for as many codes as pools have left, for trials that draw none."""
    wanted = set(names)
    if not wanted:
        return {}
    pools = {pool.pk: pool for pool in CouponPool.objects.filter(
        pk__in=[pool.id for pool in named(wanted)])}  # fmt: skip
    return {
        (pools[key].brand_id, pools[key].slug): Supply(
            Code(key, "0000-0000-0000-0000")
            for _ in (itertools.count() if stock.left is None else range(stock.left))
        )
        for key, stock in stock_of(list(pools.values())).items()
    }


def lacks(
    brand_id: int, slug: str, contents: Iterable[ContentText], *, now: datetime
) -> list[tuple[str, str, str]]:
    """What stands between a campaign's coupons and being live: field, code, message."""
    told = [speaks_of(one, "coupon") for one in contents]
    if not slug:
        message = "The offer names a coupon: choose the pool it is drawn from."
        return [("coupon_pool", "missing", message)] if any(told) else []
    pool = CouponPool.objects.filter(brand_id=brand_id, slug=slug).first()
    if pool is None:
        return [("coupon_pool", "unknown", f"There is no coupon pool {slug!r}.")]
    found = []
    if not all(told):
        message = "Put {{ coupon.code }} into the offer: nobody would see the code."
        found.append(("content.body", "coupon_not_shown", message))
    if stock_of([pool])[pool.pk].left == 0:
        found.append(("coupon_pool", "empty", "The pool has no code left: import some."))
    if any(one.is_over(now) for one in named([(brand_id, slug)])):
        found.append(("coupon_pool", "in_the_past", "The pool's codes are good no longer."))
    return found


class RedeemProblem(StrEnum):
    """Why a code is not taken."""

    UNKNOWN = "unknown_coupon"
    NOT_GIVEN = "not_given_out"
    REDEEMED = "already_redeemed"
    EXPIRED = "expired"


class RedeemError(ValueError):
    """The till must not take this code."""

    def __init__(self, problem: RedeemProblem, message: str, coupon: Coupon | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.coupon = coupon


def redeem(
    brand: Brand, typed: str, *, at: datetime, now: datetime, reference: str = ""
) -> tuple[Coupon, bool]:
    """Take a code, once; answers the coupon, and whether this is a repeat of the same redemption.

    `reference` is the till's own name for it: the same one again is a repeat, not an error. What
    was redeemed becomes feedback of the delivery that carried the code. `at` before the code was
    given out is taken as `now`.
    """
    with transaction.atomic():
        coupon = (
            Coupon.objects.select_for_update(of=("self",))
            .select_related("pool")
            .filter(brand_id=brand.pk, code__in={typed.strip(), codes.as_written(typed)})
            .order_by("id")
            .first()
        )
        if coupon is None:
            raise RedeemError(RedeemProblem.UNKNOWN, "There is no such coupon.")
        if coupon.state == CouponState.REDEEMED:
            if reference and reference == coupon.reference:
                return coupon, True
            raise RedeemError(
                RedeemProblem.REDEEMED,
                f"It was redeemed at {coupon.redeemed_at:%Y-%m-%d %H:%M} UTC.",
                coupon,
            )
        if coupon.state == CouponState.FREE:
            raise RedeemError(RedeemProblem.NOT_GIVEN, "Nobody has been given this code.", coupon)
        if coupon.drawn_at is not None and at < coupon.drawn_at:
            at = now  # as with feedback: a time that cannot be meant. It would outlive its last day
        last_day = coupon.pool.last_day
        redeemed_ms = round(at.timestamp() * 1000)
        if last_day is not None and (
            hours.local_date(redeemed_ms, wallclock.zone(brand.timezone)) > last_day
        ):
            raise RedeemError(
                RedeemProblem.EXPIRED, f"It was good until {last_day:%Y-%m-%d}.", coupon
            )
        coupon.state, coupon.redeemed_at, coupon.reference = CouponState.REDEEMED, at, reference
        coupon.save(update_fields=["state", "redeemed_at", "reference"])
        _tell(coupon, at=at, now=now)
    return coupon, False


def _tell(coupon: Coupon, *, at: datetime, now: datetime) -> None:
    """What the till says is feedback of the offer, as if the app had said it."""
    delivery = Delivery.objects.filter(pk=coupon.delivery_id or 0).first()
    if delivery is not None:  # its person may have been erased meanwhile
        outbox.record_feedback(
            [
                outbox.NewFeedback(
                    delivery_id=delivery.pk,
                    device_id=delivery.device_id,
                    event=FeedbackEvent.REDEEMED,
                    occurred_at=at,
                )
            ],
            now=now,
        )

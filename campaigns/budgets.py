"""How much a campaign may give away, and how evenly over its time: exact, in whole numbers.

It counts what it is told; others lock and read. Money is in minor units (cents). An offer counts
at the time it is due, on the calendar of the budget's zone.

Even pacing: of an amount A over L milliseconds of live time, after e of them, the next offer may
go where `spent · L ≤ A · e` (and `spent + price ≤ A`). So the first goes at once, the k-th at
(k - 1) · L / A, and what a quiet hour left over may be given later. Live time is when the
campaign's hours are open, and no quiet hours hold, on the clock of the budget's zone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from brands import wallclock
from campaigns import hours

MOST = 10**15  # of anything: sums stay within 64 bits
LONGEST_RUN_DAYS = 731  # over which a total may be spread
# ISO 4217: currencies whose minor unit is not a hundredth.
_DIGITS = {"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3} | dict.fromkeys(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV",
     "XAF", "XOF", "XPF"),
    0,
)  # fmt: skip

Count = Annotated[int, Meta(ge=0, le=MOST)]


class Amount(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """So many offers, so much money, or both: whichever is used up first."""

    sends: Count | None = None
    money: Count | None = None


class BudgetText(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`{"total": {"sends": 9000}, "per_day": {"money": 50000}, "cost": 150, "currency": "EUR"}`."""

    total: Amount = Amount()
    per_day: Amount = Amount()
    per_place: Amount = Amount()
    per_place_and_day: Amount = Amount()
    cost: Count = 0  # of one offer
    currency: Annotated[str, Meta(pattern=r"^([A-Z]{3})?$")] = ""
    timezone: Annotated[str, Meta(max_length=64)] = ""  # the brand's, where it says nothing
    even: bool = False


class Whole(StrEnum):
    """What a limit is a limit of."""

    TOTAL = "total"
    DAY = "per_day"
    PLACE = "per_place"
    PLACE_AND_DAY = "per_place_and_day"

    @property
    def is_daily(self) -> bool:
        return self is Whole.DAY or self is Whole.PLACE_AND_DAY

    @property
    def is_local(self) -> bool:
        return self is Whole.PLACE or self is Whole.PLACE_AND_DAY


class Unit(StrEnum):
    SENDS = "sends"
    MONEY = "money"


class Limit(NamedTuple):
    whole: Whole
    unit: Unit
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A campaign's limits, ready to be judged."""

    limits: tuple[Limit, ...]
    cost: int = 0
    currency: str = ""
    tz: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    even: bool = False
    starts_ms: int | None = None
    ends_ms: int | None = None
    dayparts: tuple[hours.Daypart, ...] = ()
    quiet: hours.Daypart | None = None
    # Over what each kind of limit is spread, by day; None for what is not daily.
    _lives: dict[date | None, Live | None] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def day_of(self, at_ms: int) -> date:
        return hours.local_date(at_ms, self.tz)

    def live_on(self, day: date | None) -> Live | None:
        """The live time of a day, or of the whole campaign; None where that has no end."""
        try:
            return self._lives[day]
        except KeyError:
            found = _live_of(self, day)
        if len(self._lives) >= LONGEST_RUN_DAYS:
            self._lives.clear()
        self._lives[day] = found
        return found


class Spent(NamedTuple):
    sends: int = 0
    money: int = 0


NOTHING = Spent()


class Charge(NamedTuple):
    """What one offer takes."""

    day: date
    geofence_id: int | None
    money: int


class Purse:
    """What a campaign has spent: in all, by day, by place and by both; grows as a batch decides."""

    __slots__ = ("spent",)

    def __init__(self, spent: Mapping[tuple[date | None, int | None], Spent] | None = None) -> None:
        self.spent = dict(spent or {})

    def take(self, charge: Charge) -> None:
        for key in parts(charge):
            sends, money = self.spent.get(key, NOTHING)
            self.spent[key] = Spent(sends + 1, money + charge.money)

    def seen(self, limit: Limit, day: date, geofence_id: int | None) -> int:
        """What was spent of the whole that a limit is about."""
        key = (day if limit.whole.is_daily else None, geofence_id if limit.whole.is_local else None)
        spent = self.spent.get(key, NOTHING)
        return spent.sends if limit.unit is Unit.SENDS else spent.money


def parts(charge: Charge) -> Iterator[tuple[date | None, int | None]]:
    """The sums that an offer counts in."""
    yield None, None
    yield charge.day, None
    if charge.geofence_id is not None:
        yield None, charge.geofence_id
        yield charge.day, charge.geofence_id


class Short(NamedTuple):
    """What an offer runs into: how much of what may be spent by now is, and when that changes."""

    limit: Limit
    seen: int
    allowed: int
    next_ms: int | None
    is_paced: bool = False


def charge_of(budget: Budget, at_ms: int, geofence_id: int | None) -> Charge:
    return Charge(budget.day_of(at_ms), geofence_id, budget.cost)


def short(
    budget: Budget, purse: Purse, at_ms: int, geofence_id: int | None, *, paced: bool = True
) -> Short | None:
    """The first limit that forbids an offer at this time and place, or None.

    Amounts come first, then their pace: what is spent is not also early.
    """
    day = budget.day_of(at_ms)
    asked = [one for one in budget.limits if not one.whole.is_local or geofence_id is not None]
    seen = [purse.seen(limit, day, geofence_id) for limit in asked]
    for limit, spent in zip(asked, seen, strict=True):
        if spent + _price(budget, limit) > limit.amount:
            return Short(limit, spent, limit.amount, _renewed_ms(budget, limit, day))
    if budget.even and paced:
        for limit, spent in zip(asked, seen, strict=True):
            early = _early(budget, limit, spent, at_ms, day)
            if early is not None:
                return early
    return None


def _price(budget: Budget, limit: Limit) -> int:
    return 1 if limit.unit is Unit.SENDS else budget.cost


def _renewed_ms(budget: Budget, limit: Limit, day: date) -> int | None:
    if not limit.whole.is_daily or limit.amount < _price(budget, limit):
        return None
    next_ms = hours.first_instant_ms(day + timedelta(days=1), budget.tz)
    return None if budget.ends_ms is not None and next_ms >= budget.ends_ms else next_ms


def _early(budget: Budget, limit: Limit, spent: int, at_ms: int, day: date) -> Short | None:
    live = budget.live_on(day if limit.whole.is_daily else None)
    if live is None or not live.total_ms:
        return None  # nothing to spread over: the amount alone holds
    elapsed_ms = live.elapsed_ms(at_ms)
    if spent * live.total_ms <= limit.amount * elapsed_ms:
        return None
    allowed = limit.amount * elapsed_ms // live.total_ms + _price(budget, limit)
    due_ms = live.instant_ms(-(-spent * live.total_ms // limit.amount))
    return Short(limit, spent, min(allowed, limit.amount), due_ms, is_paced=True)


def _live_of(budget: Budget, day: date | None) -> Live | None:
    start_ms, end_ms = budget.starts_ms, budget.ends_ms
    if day is not None:
        first_ms = hours.first_instant_ms(day, budget.tz)
        last_ms = hours.first_instant_ms(day + timedelta(days=1), budget.tz)
        start_ms = first_ms if start_ms is None else max(first_ms, start_ms)
        end_ms = last_ms if end_ms is None else min(last_ms, end_ms)
    if start_ms is None or end_ms is None:
        return None
    return live_time(start_ms, end_ms, budget.tz, budget.dayparts, budget.quiet)


class Live:
    """The open spans of some stretch of time, as a clock that stands still between them."""

    __slots__ = ("_before", "_ends", "_starts", "total_ms")

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]
        self._before = [0, *accumulate(end - start for start, end in spans)]
        self.total_ms = self._before[-1]

    def elapsed_ms(self, at_ms: int) -> int:
        """How much of the live time lies before an instant."""
        number = bisect_right(self._starts, at_ms) - 1
        if number < 0:
            return 0
        return self._before[number] + min(at_ms, self._ends[number]) - self._starts[number]

    def instant_ms(self, elapsed_ms: int) -> int | None:
        """The first open instant before which so much live time lies; None at the end of it."""
        number = bisect_right(self._before, elapsed_ms) - 1
        if elapsed_ms >= self.total_ms:
            return None
        return self._starts[number] + elapsed_ms - self._before[number]


@lru_cache(maxsize=4_096)
def live_time(
    start_ms: int,
    end_ms: int,
    tz: ZoneInfo,
    dayparts: tuple[hours.Daypart, ...],
    quiet: hours.Daypart | None,
) -> Live:
    """The live time of a stretch; worked out once for each day or run."""
    return Live(hours.open_spans_ms(start_ms, end_ms, tz, dayparts=dayparts, quiet=quiet))


def limits_of(text: BudgetText) -> tuple[Limit, ...]:
    amounts = {
        Whole.TOTAL: text.total,
        Whole.DAY: text.per_day,
        Whole.PLACE: text.per_place,
        Whole.PLACE_AND_DAY: text.per_place_and_day,
    }
    return tuple(
        Limit(whole, unit, amount)
        for whole, said in amounts.items()
        for unit, amount in ((Unit.SENDS, said.sends), (Unit.MONEY, said.money))
        if amount is not None
    )


def nonsense(text: BudgetText) -> str:
    """What cannot mean anything, or nothing."""
    if text.timezone and text.timezone not in wallclock.zones():
        return f"{text.timezone!r} is no time zone such as Europe/Helsinki."
    return ""


def lacks(
    text: BudgetText, *, starts_ms: int | None, ends_ms: int | None
) -> Iterator[tuple[str, str, str]]:
    """What stands between a budget and being live: field, code, message."""
    found = limits_of(text)
    if not found:
        yield "budget", "missing", "A budget needs an amount: in all, per day or per place."
    for whole, unit, amount in found:
        path = f"budget.{whole}.{unit}"
        if amount == 0:
            yield path, "zero", "A budget of nothing sends nothing."
        elif unit is Unit.MONEY and 0 < amount < text.cost:
            yield path, "too_small", "It does not pay for one offer."
    if any(limit.unit is Unit.MONEY for limit in found):
        if not text.cost:
            yield "budget.cost", "missing", "A budget in money needs to know what an offer costs."
        if not text.currency:
            yield "budget.currency", "missing", "Say in which currency: EUR, USD, …"
    if text.even and found:
        yield from _lacks_of_pace(found, starts_ms, ends_ms)


def _lacks_of_pace(
    found: tuple[Limit, ...], starts_ms: int | None, ends_ms: int | None
) -> Iterator[tuple[str, str, str]]:
    bounded = starts_ms is not None and ends_ms is not None
    if not bounded and not any(limit.whole.is_daily for limit in found):
        yield (
            "budget.even",
            "needs_a_span",
            "Spreading evenly needs an amount per day, or a campaign with a start and an end.",
        )
    elif (
        starts_ms is not None
        and ends_ms is not None
        and ends_ms - starts_ms > LONGEST_RUN_DAYS * 86_400_000
    ):
        yield "budget.even", "too_long", "A budget is spread over two years at most."


def digits(currency: str) -> int:
    """How many decimals a currency has."""
    return _DIGITS.get(currency, 2)


def money(minor: int, currency: str) -> str:
    """123456 EUR → `1,234.56 EUR`."""
    places = digits(currency)
    if not places:
        return f"{minor:,} {currency}"
    whole, rest = divmod(minor, 10**places)
    return f"{whole:,}.{rest:0{places}d} {currency}".rstrip()


def in_words(text: BudgetText) -> str:
    """`at most 100 offers and 150.00 EUR a day, spread evenly`."""
    wholes = {
        Whole.TOTAL: "in all",
        Whole.DAY: "a day",
        Whole.PLACE: "for each place",
        Whole.PLACE_AND_DAY: "a day for each place",
    }
    by_whole: dict[Whole, list[str]] = {}
    for whole, unit, amount in limits_of(text):
        said = f"{amount:,} offers" if unit is Unit.SENDS else money(amount, text.currency)
        by_whole.setdefault(whole, []).append(said)
    said = " and ".join(
        f"{' and '.join(amounts)} {wholes[whole]}" for whole, amounts in by_whole.items()
    )
    if not said:
        return ""
    if text.cost and text.currency:
        said += f" at {money(text.cost, text.currency)} each"
    return f"{said}, spread evenly" if text.even else said

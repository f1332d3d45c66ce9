"""How much and how evenly, against a ledger and an oracle that counts open minutes."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from campaigns import budgets, hours, restraint, words
from campaigns.budgets import Budget, BudgetText, Charge, Limit, Purse, Unit, Whole, short
from campaigns.definition import Definition, DefinitionError, decode
from campaigns.hours import Daypart
from campaigns.lacks import missing
from campaigns.reasons import Reason
from campaigns.sentences import sentence
from tests.campaigns.values import NOON_MS, a_campaign, a_history, a_moment

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
HELSINKI = ZoneInfo("Europe/Helsinki")
ZONES = [ZoneInfo(name) for name in ("UTC", "Europe/Helsinki", "Australia/Lord_Howe")]
SPRING = date(2026, 3, 29)  # Helsinki's day of 23 hours
AUTUMN = date(2026, 10, 25)  # and that of 25
TODAY = date(2026, 6, 10)


def ms(text: str, tz: ZoneInfo = HELSINKI) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=tz).timestamp() * 1000)


def a_budget(*limits: Limit, **fields: object) -> Budget:
    return Budget(**{"limits": limits, "tz": HELSINKI} | fields)  # type: ignore[arg-type]


def spend(budget: Budget, purse: Purse, at_ms: int, place: int | None = 5) -> bool:
    """Make an offer if the budget lets it."""
    if short(budget, purse, at_ms, place) is not None:
        return False
    purse.take(budgets.charge_of(budget, at_ms, place))
    return True


def test_it_stops_at_the_amount_and_says_when_there_is_more() -> None:
    budget, purse = a_budget(Limit(Whole.DAY, Unit.SENDS, 3)), Purse()
    assert [spend(budget, purse, NOON_MS) for _ in range(5)] == [True] * 3 + [False] * 2
    found = short(budget, purse, NOON_MS, 5)
    assert found is not None
    assert (found.seen, found.allowed, found.next_ms) == (3, 3, ms("2026-06-11T00:00"))
    assert spend(budget, purse, ms("2026-06-11T00:00"))


def test_the_day_is_that_of_the_budgets_zone() -> None:
    budget, purse = a_budget(Limit(Whole.DAY, Unit.SENDS, 1)), Purse()
    assert spend(budget, purse, ms("2026-06-10T20:30", ZoneInfo("UTC")))  # 23:30 in Helsinki
    assert not spend(budget, purse, ms("2026-06-10T20:59", ZoneInfo("UTC")))
    assert spend(budget, purse, ms("2026-06-10T21:00", ZoneInfo("UTC")))


def test_each_place_has_its_own_amount() -> None:
    budget, purse = a_budget(Limit(Whole.PLACE, Unit.SENDS, 1)), Purse()
    assert [spend(budget, purse, NOON_MS, place) for place in (5, 5, 6, None, None)] == [
        True, False, True, True, True,
    ]  # fmt: skip


def test_money_is_counted_by_what_an_offer_costs() -> None:
    budget = a_budget(Limit(Whole.TOTAL, Unit.MONEY, 1000), cost=300, currency="EUR")
    purse = Purse()
    assert [spend(budget, purse, NOON_MS) for _ in range(4)] == [True, True, True, False]
    found = short(budget, purse, NOON_MS, None)
    assert found is not None
    assert (found.seen, found.allowed, found.next_ms) == (900, 1000, None)


def test_no_next_day_after_the_campaigns_end() -> None:
    limit = Limit(Whole.DAY, Unit.SENDS, 1)
    budget, purse = a_budget(limit, ends_ms=ms("2026-06-11T00:00")), Purse()
    assert spend(budget, purse, NOON_MS)
    found = short(budget, purse, NOON_MS, None)
    assert found is not None
    assert found.next_ms is None


amounts = st.builds(
    Limit, st.sampled_from(list(Whole)), st.sampled_from(list(Unit)), st.integers(0, 12)
)
attempts = st.lists(
    st.tuples(st.integers(0, 4 * 24 * 60), st.sampled_from([None, 1, 2])), max_size=60
)


@given(st.lists(amounts, max_size=4), st.integers(0, 5), attempts, st.sampled_from(ZONES))
def test_it_gives_exactly_what_a_ledger_allows(
    limits: list[Limit], cost: int, tried: list[tuple[int, int | None]], tz: ZoneInfo
) -> None:
    budget, purse = a_budget(*limits, cost=cost, tz=tz), Purse()
    ledger: list[tuple[date, int | None]] = []
    start_ms = ms("2026-10-23T00:00", tz)
    for minute, place in tried:
        at_ms = start_ms + minute * MINUTE_MS
        day = datetime.fromtimestamp(at_ms / 1000, tz).date()
        fits = all(
            (sum(matches(limit, row, day, place) for row in ledger) + 1)
            * (1 if limit.unit is Unit.SENDS else cost)
            <= limit.amount
            for limit in limits
            if not (limit.whole.is_local and place is None)
        )
        assert spend(budget, purse, at_ms, place) is fits
        if fits:
            ledger.append((day, place))


def matches(limit: Limit, row: tuple[date, int | None], day: date, place: int | None) -> bool:
    return (not limit.whole.is_daily or row[0] == day) and (
        not limit.whole.is_local or row[1] == place
    )


dayparts = st.lists(
    st.builds(
        Daypart,
        st.frozensets(st.integers(0, 6), min_size=1),
        st.integers(0, 23).map(lambda hour: hour * 60),
        st.integers(0, 47).map(lambda half: half * 30),
    ),
    max_size=2,
).map(tuple)
quiets = st.none() | st.builds(
    Daypart, st.just(hours.EVERY_DAY), st.just(21 * 60), st.sampled_from([7 * 60, 8 * 60])
)


def is_live(budget: Budget, minute_ms: int) -> bool:
    wall = hours.local(minute_ms, budget.tz)
    return hours.is_open(wall.weekday, wall.minute, budget.dayparts) and not hours.is_quiet(
        wall.weekday, wall.minute, budget.quiet
    )


@settings(max_examples=60)
@given(
    st.sampled_from([SPRING, AUTUMN, TODAY, date(2026, 4, 5)]),
    st.sampled_from(ZONES), dayparts, quiets, st.integers(1, 400), st.integers(1, 7),
    st.lists(st.integers(0, 26 * 60 - 1), max_size=80),
)  # fmt: skip
@example(AUTUMN, HELSINKI, (), None, 25, 1, list(range(0, 1500, 7)))
@example(SPRING, HELSINKI, (), Daypart(hours.EVERY_DAY, 1260, 480), 60, 1, list(range(1380)))
def test_it_is_never_ahead_of_the_minutes_that_were_open(
    day: date,
    tz: ZoneInfo,
    parts: tuple[Daypart, ...],
    quiet: Daypart | None,
    amount: int,
    cost: int,
    tried: list[int],
) -> None:
    """The oracle counts the open minutes of the day, one after the other."""
    limit = Limit(Whole.DAY, Unit.MONEY, amount)
    budget = a_budget(limit, cost=cost, tz=tz, even=True, dayparts=parts, quiet=quiet)
    purse = Purse()
    start_ms = hours.first_instant_ms(day, tz)
    end_ms = hours.first_instant_ms(day + timedelta(days=1), tz)
    live = [at for at in range(start_ms, end_ms, MINUTE_MS) if is_live(budget, at)]
    spent = 0
    for minute in sorted(tried):
        at_ms = start_ms + minute * MINUTE_MS
        if at_ms >= end_ms:
            break
        gone = sum(at < at_ms for at in live)
        fits = spent + cost <= amount and (not live or spent * len(live) <= amount * gone)
        found = short(budget, purse, at_ms, None)
        assert (found is None) is fits
        if found is None:
            purse.take(Charge(day, None, cost))
            spent += cost
        elif found.is_paced:
            assert found.seen == spent >= found.allowed - cost
            assert found.next_ms is not None
            assert short(budget, purse, found.next_ms, None) is None
            assert short(budget, purse, found.next_ms - 1, None) is not None


def test_a_total_is_spread_from_start_to_end() -> None:
    start_ms, end_ms = ms("2026-06-01T00:00"), ms("2026-06-11T00:00")
    budget = a_budget(
        Limit(Whole.TOTAL, Unit.SENDS, 100), even=True, starts_ms=start_ms, ends_ms=end_ms
    )
    purse = Purse()
    made = [at for at in range(start_ms, end_ms, 10 * MINUTE_MS) if spend(budget, purse, at)]
    assert len(made) == 100
    assert made[0] == start_ms
    gaps = {later - earlier for earlier, later in itertools.pairwise(made)}
    assert max(gaps) - min(gaps) <= 10 * MINUTE_MS
    assert sum(gaps) / len(gaps) == pytest.approx(2.4 * HOUR_MS, rel=0.1)


def test_what_a_quiet_morning_left_over_may_be_given_later() -> None:
    budget, purse = a_budget(Limit(Whole.DAY, Unit.SENDS, 24), even=True), Purse()
    at_ms = ms("2026-06-10T12:00")
    assert [spend(budget, purse, at_ms) for _ in range(15)] == [True] * 13 + [False] * 2
    found = short(budget, purse, at_ms, None)
    assert found is not None
    assert (found.seen, found.allowed, found.next_ms) == (13, 13, ms("2026-06-10T13:00"))


def test_an_hour_at_which_the_budgets_zone_is_closed_spreads_nothing() -> None:
    """A device far away may be in its hours when the budget's own clock has none today."""
    weekdays = Daypart(frozenset(range(5)), 480, 1080)
    limit = Limit(Whole.DAY, Unit.SENDS, 2)
    budget, purse = a_budget(limit, even=True, dayparts=(weekdays,)), Purse()
    assert [spend(budget, purse, ms("2026-06-13T12:00")) for _ in range(3)] == [True, True, False]


def test_a_run_of_two_years_is_laid_out_once() -> None:
    parts = (Daypart(frozenset(range(5)), 480, 1080),)
    live = budgets.live_time(ms("2026-01-01T00:00"), ms("2027-12-31T00:00"), HELSINKI, parts, None)
    assert live.total_ms == 521 * 10 * HOUR_MS
    assert live.instant_ms(live.total_ms) is None


def test_the_rules_refuse_with_what_they_saw() -> None:
    campaign = a_campaign(budget=a_budget(Limit(Whole.DAY, Unit.SENDS, 1)))
    history = a_history()
    moment = a_moment()
    assert restraint.decide(campaign, moment, history).send
    restraint.charge(campaign, moment, history, NOON_MS)
    decision = restraint.decide(campaign, moment, history)
    assert (decision.send, decision.reason) == (False, Reason.BUDGET_SPENT)
    said = words.message(decision.reason, decision.trace)
    assert said == "Budget: 1 of 1 today; next: 2026-06-10 21:00 UTC."
    said = words.message(decision.reason, decision.trace, "fr")
    assert said == "Budget : 1 sur 1 aujourd’hui ; prochaine fois : 2026-06-10 21:00 UTC."


def test_pace_and_money_are_said_in_words() -> None:
    limit = Limit(Whole.DAY, Unit.MONEY, 240_000)
    campaign = a_campaign(budget=a_budget(limit, cost=10_000, currency="EUR", even=True))
    history, moment = a_history(), a_moment()
    while (decision := restraint.decide(campaign, moment, history)).send:
        restraint.charge(campaign, moment, history, NOON_MS)
    assert decision.reason is Reason.PACED
    assert words.message(decision.reason, decision.trace) == (
        "Pacing: 1,300.00 EUR of 1,300.00 EUR today so far, spread evenly, "
        "until 2026-06-10 10:00 UTC."
    )


@pytest.mark.parametrize(
    ("minor", "currency", "said"),
    [(5, "EUR", "0.05 EUR"), (123456, "USD", "1,234.56 USD"), (1500, "JPY", "1,500 JPY"),
     (1500, "KWD", "1.500 KWD")],
)  # fmt: skip
def test_it_writes_money_as_people_do(minor: int, currency: str, said: str) -> None:
    assert budgets.money(minor, currency) == said


PLAIN = {
    "trigger": {"on": "entered", "tags": ["shop"]},
    "content": {"title": "Hi", "body": "There"},
}


@pytest.mark.parametrize(
    ("budget", "found"),
    [
        ({"total": {"sends": 5}}, set()),
        ({}, {("budget", "missing")}),
        ({"total": {"sends": 0}}, {("budget.total.sends", "zero")}),
        (
            {"per_day": {"money": 500}},
            {("budget.cost", "missing"), ("budget.currency", "missing")},
        ),
        (
            {"per_day": {"money": 500}, "cost": 501, "currency": "EUR"},
            {("budget.per_day.money", "too_small")},
        ),
        ({"total": {"sends": 5}, "even": True}, {("budget.even", "needs_a_span")}),
        ({"per_place_and_day": {"sends": 5}, "even": True}, set()),
    ],
)
def test_it_says_what_a_budget_lacks(
    budget: dict[str, object], found: set[tuple[str, str]]
) -> None:
    wanted = decode(PLAIN | {"budget": budget})
    now = datetime(2026, 6, 10, tzinfo=UTC)
    assert {(one.field, one.code) for one in missing(wanted, now=now)} == found


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        ({"total": {"sends": -1}}, "budget.total.sends"),
        ({"total": {"sends": 1.5}}, "budget.total.sends"),
        ({"currency": "euro"}, "budget.currency"),
        ({"timezone": "Europe/Atlantis"}, "budget.timezone"),
        ({"totel": {}}, "budget"),
    ],
)
def test_it_refuses_a_budget_that_means_nothing(budget: dict[str, object], field: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        decode(PLAIN | {"budget": budget})
    assert list(refused.value.fields) == [field]


def test_the_sentence_tells_the_budget() -> None:
    text = msgspec.convert(
        {"total": {"sends": 1000}, "per_day": {"money": 15000}, "cost": 150, "currency": "EUR",
         "even": True},
        BudgetText,
    )  # fmt: skip
    assert (
        "spending at most 1,000 offers in all and 150.00 EUR a day at 1.50 EUR each, spread evenly"
        in sentence(Definition(budget=text))
    )

"""Signed codes: what is signed is read back, what is typed wrong is not."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns import codes
from campaigns.codes import ALPHABET, EPOCH, LAST_DAY, MOST_NUMBERS, Code, Supply, read, signed

ROOT = Path(__file__).resolve().parents[2]
KEY = bytes(range(32))
keys = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, MOST_NUMBERS - 1)
days = st.none() | st.dates(EPOCH + timedelta(days=1), LAST_DAY)


@given(keys, numbers, days)
def test_what_is_signed_is_read_back(key: bytes, number: int, last_day: date | None) -> None:
    code = signed(key, number, last_day)
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", code)
    assert read(key, code) == (number, last_day)
    sloppy = code.lower().replace("-", " ").replace("1", "l").replace("0", "o")
    assert read(key, sloppy) == (number, last_day)
    assert codes.as_written(sloppy) == code


@given(numbers, days, st.integers(0, 15), st.sampled_from(ALPHABET))
def test_one_wrong_letter_is_noticed(
    number: int, last_day: date | None, place: int, letter: str
) -> None:
    text = codes.plain(signed(KEY, number, last_day))
    wrong = text[:place] + letter + text[place + 1 :]
    assert (read(KEY, wrong) is not None) is (wrong == text)


@given(keys, numbers)
def test_another_key_does_not_open_it(key: bytes, number: int) -> None:
    assert key == KEY or read(key, signed(KEY, number, None)) is None


@pytest.mark.parametrize(
    "typed", ["", "7K3M", "7K3M-2V9D-0QXW-8RTA-1", "ÄÖÜß-2V9D-0QXW-8RTA", "U" * 16]
)
def test_what_is_no_code_is_none(typed: str) -> None:
    assert read(KEY, typed) is None


@pytest.mark.parametrize(
    ("number", "last_day"), [(MOST_NUMBERS, None), (-1, None), (1, LAST_DAY + timedelta(days=1))]
)
def test_there_is_no_room_for_everything(number: int, last_day: date | None) -> None:
    with pytest.raises(ValueError, match="room"):
        signed(KEY, number, last_day)


def test_the_tills_few_lines_in_the_documentation_agree() -> None:
    text = (ROOT / "docs/decisions/signed-coupon-codes.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    till: dict[str, Any] = {}
    exec(example, till)  # noqa: S102 - our own page

    class LeapDay(date):
        @classmethod
        def today(cls) -> LeapDay:
            return cls(2028, 2, 29)

    today = LeapDay.today()
    till["datetime"] = SimpleNamespace(date=LeapDay, timedelta=timedelta)
    for number in (0, 1, 12_345_678, MOST_NUMBERS - 1):
        assert till["check"](KEY.hex(), signed(KEY, number, None).lower())
        assert till["check"](KEY.hex(), signed(KEY, number, today))
        assert not till["check"](KEY.hex(), signed(KEY, number, today - timedelta(days=1)))
        assert not till["check"](bytes(32).hex(), signed(KEY, number, None))


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20))
def test_a_supply_gives_each_code_once_in_order(asked: list[bool], count: int) -> None:
    """The oracle is a list from which is popped."""
    stock = [Code(1, f"c{number}", number) for number in range(count)]
    supply = Supply(iter(list(stock)))
    for take in asked:
        assert supply.peek() == (stock[0] if stock else None)
        if take and stock:
            assert supply.take() == stock.pop(0)
    if not stock:
        with pytest.raises(LookupError):
            supply.take()


@pytest.mark.parametrize(
    ("code", "why"),
    [("", "empty"), ("A" * 65, "longer"), ("AB CD", "blanks"), ("A\x07", "nobody"), ("Fün-5%", "")],
)
def test_it_says_why_a_line_is_no_code(code: str, why: str) -> None:
    assert why in codes.refusal(code)
    assert bool(codes.refusal(code)) is bool(why)

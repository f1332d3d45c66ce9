"""Coupon codes that a till can check by itself, and the stock codes are drawn from. Pure.

A signed code is 80 bits, written as 16 letters and digits of Crockford's base 32 in groups of four:
a number within the pool (30 bits), the last day it is good for, counted from 2020-01-01 (14 bits,
0: for ever), and the first 36 bits of HMAC-SHA256 over those, under the pool's key. Why not
Ed25519, and what a till does: docs/decisions/signed-coupon-codes.md.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U
_MISREAD = str.maketrans("ILO", "110", "- ")
EPOCH = date(2020, 1, 1)
NUMBER_BITS, DAY_BITS, TAG_BITS = 30, 14, 36
MOST_NUMBERS = 1 << NUMBER_BITS
LAST_DAY = EPOCH + timedelta(days=(1 << DAY_BITS) - 1)
KEY_BYTES = 32
MAX_CHARS = 64  # of a code, whoever made it


class Signed(NamedTuple):
    """What a genuine code says."""

    number: int
    last_day: date | None


def signed(key: bytes, number: int, last_day: date | None) -> str:
    """The code `XXXX-XXXX-XXXX-XXXX` of a number; ValueError for what does not fit."""
    day = 0 if last_day is None else (last_day - EPOCH).days
    if not 0 <= number < MOST_NUMBERS or not 0 <= day < 1 << DAY_BITS:
        raise ValueError("a signed code has no room for this")
    said = number << DAY_BITS | day
    bits = said << TAG_BITS | _tag(key, said)
    text = "".join(ALPHABET[bits >> shift & 31] for shift in range(75, -1, -5))
    return "-".join(text[start : start + 4] for start in range(0, 16, 4))


def read(key: bytes, typed: str) -> Signed | None:
    """What a code says, where this key signed it; None otherwise. As people type it is fine."""
    text = plain(typed)
    if len(text) != 16 or any(letter not in ALPHABET for letter in text):
        return None
    bits = 0
    for letter in text:
        bits = bits << 5 | ALPHABET.index(letter)
    said = bits >> TAG_BITS
    tag = (bits & ((1 << TAG_BITS) - 1)).to_bytes(5, "big")
    if not hmac.compare_digest(tag, _tag(key, said).to_bytes(5, "big")):
        return None
    day = said & ((1 << DAY_BITS) - 1)
    return Signed(said >> DAY_BITS, EPOCH + timedelta(days=day) if day else None)


def plain(typed: str) -> str:
    """A signed code without what people put in or mistake: `7k3m-0o1l` → `7K3M0011`."""
    return typed.upper().translate(_MISREAD)


def as_written(typed: str) -> str:
    """A typed code in groups of four, as signed codes are kept."""
    text = plain(typed)
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _tag(key: bytes, said: int) -> int:
    digest = hmac.new(key, said.to_bytes(6, "big"), hashlib.sha256).digest()
    return int.from_bytes(digest[:5], "big") >> (40 - TAG_BITS)


def flaw_of_last_day(day: date) -> str:
    """Why codes cannot be good until this day, or nothing."""
    if day <= EPOCH:
        return "That day is long past: no code would be good."
    if day > LAST_DAY:
        return f"No code reaches that far; the last day there can be is {LAST_DAY}."
    return ""


def refusal(code: str) -> str:
    """Why a line of a file is no code, or nothing."""
    if not code:
        return "empty"
    if len(code) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if not code.isprintable() or any(letter.isspace() for letter in code):
        return "has blanks or characters that nobody can type"
    return ""


class Code(NamedTuple):
    """One code that may be given away; `coupon_id` where it is a row already."""

    pool_id: int
    code: str
    coupon_id: int | None = None
    number: int | None = None
    last_day: date | None = None


class Supply:
    """The codes that a batch may draw, in their order; each is taken once."""

    __slots__ = ("_codes", "_next")

    def __init__(self, codes: Iterator[Code]) -> None:
        self._codes = codes
        self._next = next(codes, None)

    def peek(self) -> Code | None:
        """The next code, which stays; None where there is none left."""
        return self._next

    def take(self) -> Code:
        """The next code, for good."""
        taken = self._next
        if taken is None:
            raise LookupError("the pool is empty")
        self._next = next(self._codes, None)
        return taken


NOTHING = Supply(iter(()))

"""Bodies into items, against the slow and obvious way: one item at a time."""

from __future__ import annotations

import gzip
import json
import random
import time
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.doors.decoding import MOST_MEMBERS, ItemReader, Refused, inflated
from devices.fixes import FixIn

READER = ItemReader(FixIn, envelope="locations", time_field="recorded_at", max_items=20)
GOOD = {"lat": 60.0, "lng": 24.0, "recorded_at": 1_700_000_000_000}

ITEMS = st.lists(
    st.just(GOOD)
    | st.fixed_dictionaries({"lat": st.floats(-90, 90), "lng": st.floats(-180, 180)})
    | st.dictionaries(st.sampled_from(["lat", "lng", "recorded_at"]), st.none() | st.integers())
    | st.none()
    | st.integers()
    | st.text(max_size=3),
    max_size=8,
)


def one_by_one(items: list[Any]) -> tuple[list[int], list[int]]:
    """Indexes of good and of bad items."""
    good: list[int] = []
    bad: list[int] = []
    for index, item in enumerate(items):
        try:
            msgspec.json.decode(json.dumps(item), type=FixIn)
            good.append(index)
        except msgspec.ValidationError:
            bad.append(index)
    return good, bad


@pytest.mark.parametrize("form", ["list", "wrapped", "lines"])
@given(items=ITEMS)
def test_it_keeps_exactly_the_items_that_are_good_alone(form: str, items: list[Any]) -> None:
    encoded = {
        "list": json.dumps(items),
        "wrapped": json.dumps({"more": 1, "locations": items}),
        "lines": "\r\n".join(map(json.dumps, items)),
    }[form].encode()
    decoded = READER.read(encoded, lines=form == "lines")
    good, bad = one_by_one(items)
    places = list(range(len(decoded.items))) if decoded.places is None else decoded.places
    assert places == good
    assert [rejection.index for rejection in decoded.rejected] == bad


def status_of(body: bytes, *, lines: bool) -> int:
    try:
        READER.read(body, lines=lines)
    except Refused as refused:
        return refused.status
    return 200


@given(st.binary(max_size=200))
def test_it_reads_or_refuses_any_bytes(body: bytes) -> None:
    for lines in (False, True):
        assert status_of(body, lines=lines) in {200, 400, 413, 422}


def test_it_is_not_fooled_by_the_envelopes_name_in_a_value() -> None:
    body = json.dumps([GOOD | {"id": 'say "locations"'}, GOOD]).encode()
    assert len(READER.read(body).items) == 2
    lone = json.dumps(GOOD | {"id": '"locations"'}).encode()
    assert len(READER.read(lone).items) == 1


def test_it_takes_white_space_around_a_body() -> None:
    assert len(READER.read(b" \n[" + json.dumps(GOOD).encode() + b"]\n").items) == 1


@given(st.binary(max_size=3_000))
def test_it_inflates_what_gzip_packed(body: bytes) -> None:
    assert inflated(gzip.compress(body), max_bytes=3_000) == body


def test_it_inflates_several_members_as_one() -> None:
    assert inflated(gzip.compress(b"ab") + gzip.compress(b"cd"), max_bytes=4) == b"abcd"


@pytest.mark.parametrize("size", [101, 10_000_000])
def test_it_unpacks_nothing_beyond_the_limit(size: int) -> None:
    with pytest.raises(Refused) as refused:
        inflated(gzip.compress(bytes(size)), max_bytes=100)
    assert refused.value.status == 413


def test_it_adds_up_the_members_of_a_bomb() -> None:
    with pytest.raises(Refused) as refused:
        inflated(gzip.compress(bytes(60)) * 2, max_bytes=100)
    assert refused.value.status == 413


@pytest.mark.parametrize(
    "body", [b"x", gzip.compress(b"abc")[:-1], zlib.compress(b"abc"), gzip.compress(b"a") + b"x"]
)
def test_it_refuses_what_is_not_gzip(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        inflated(body, max_bytes=100)
    assert refused.value.status == 400


def test_many_members_cost_what_their_bytes_cost() -> None:
    """Eighty gigabytes would be copied if the rest were, member for member."""
    few = MOST_MEMBERS - 1
    large = gzip.compress(random.Random(1).randbytes(8_000_000), 0)
    body = gzip.compress(b"a") * few + large
    began = time.thread_time()
    assert len(inflated(body, max_bytes=9_000_000)) == few + 8_000_000
    assert time.thread_time() - began < 0.7


def test_it_refuses_more_members_than_anybody_packs() -> None:
    one = gzip.compress(b"a")
    assert len(inflated(one * MOST_MEMBERS, max_bytes=MOST_MEMBERS)) == MOST_MEMBERS
    with pytest.raises(Refused) as refused:
        inflated(one * (MOST_MEMBERS + 1), max_bytes=2 * MOST_MEMBERS)
    assert refused.value.status == 400
    assert "members" in refused.value.message


@given(st.lists(st.binary(max_size=9_000), max_size=5))
def test_members_may_end_anywhere_in_a_piece(parts: list[bytes]) -> None:
    body = b"".join(gzip.compress(part, 0) for part in parts)
    assert inflated(body, max_bytes=50_000) == b"".join(parts)


@pytest.mark.parametrize("field", ["lat", "accuracy_m", "recorded_at"])
def test_it_names_the_field_of_a_number_beyond_all(field: str) -> None:
    said = json.dumps(GOOD | {field: "@"}).replace('"@"', "1e400").encode()
    with pytest.raises(Refused) as refused:
        READER.read(said)
    assert refused.value.fields == {field: ["Number out of range."]}

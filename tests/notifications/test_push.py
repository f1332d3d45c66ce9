"""What a push may be, without any provider."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifications.push import (
    MAX_PAYLOAD_BYTES,
    MAX_TTL_S,
    Content,
    Push,
    PushErrorKind,
    PushOptions,
    fits_easily,
    payload_bytes,
    push_data,
    refusal,
)


def a_push(**fields: Any) -> Push:
    plain = Push(
        delivery_id=7,
        token="token-1",
        title="Coffee",
        body="Half price until noon",
        ttl_s=300,
        collapse_key="nc7",
    )
    return replace(plain, **fields)


def test_it_gives_the_app_its_delivery_id_and_where_to_go() -> None:
    push = a_push(deep_link="app://offer/1", data={"sku": "42"})

    assert push_data(push) == {"sku": "42", "deep_link": "app://offer/1", "delivery_id": "7"}


def test_it_takes_a_plain_push() -> None:
    assert refusal(a_push()) is None


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"body": "x" * MAX_PAYLOAD_BYTES}, "PAYLOAD_TOO_BIG"),
        # two bytes a letter
        ({"body": "é" * (MAX_PAYLOAD_BYTES // 2)}, "PAYLOAD_TOO_BIG"),
        ({"data": {"k": "x" * MAX_PAYLOAD_BYTES}}, "PAYLOAD_TOO_BIG"),
        ({"data": {"from": "x"}}, "RESERVED_KEY"),
        ({"data": {"message_type": "x"}}, "RESERVED_KEY"),
        ({"data": {"google.sent_time": "x"}}, "RESERVED_KEY"),
        ({"data": {"gcm.notification.title": "x"}}, "RESERVED_KEY"),
        # ours: a campaign must not break the app's deduplication
        ({"data": {"delivery_id": "x"}}, "RESERVED_KEY"),
        ({"ttl_s": -1}, "TTL_OUT_OF_RANGE"),
        ({"ttl_s": MAX_TTL_S + 1}, "TTL_OUT_OF_RANGE"),
        ({"collapse_key": "k" * 65}, "COLLAPSE_KEY_TOO_LONG"),
    ],
)
def test_it_refuses_what_the_provider_would_refuse(fields: dict[str, Any], code: str) -> None:
    error = refusal(a_push(**fields))

    assert error is not None
    assert error.kind is PushErrorKind.REJECTED
    assert error.code == code


@pytest.mark.parametrize("ttl_s", [0, MAX_TTL_S])
def test_it_takes_both_ends_of_the_ttl(ttl_s: int) -> None:
    assert refusal(a_push(ttl_s=ttl_s)) is None


@given(
    title=st.text(max_size=40),
    body=st.text(max_size=200),
    data=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=40)),
)
def test_it_counts_at_least_every_key_and_value_in_utf8(
    title: str, body: str, data: dict[str, str]
) -> None:
    push = a_push(title=title, body=body, data=data)

    counted = sum(len(key.encode()) + len(value.encode()) for key, value in data.items())

    assert payload_bytes(push) >= counted + len(title.encode()) + len(body.encode())


def test_it_reads_the_content_of_a_delivery() -> None:
    content = msgspec.convert(
        {"title": "Coffee", "body": "Now", "push": {"urgency": "normal", "apns_badge": 3}}, Content
    )

    assert content.push == PushOptions(urgency="normal", apns_badge=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken",
    [
        {"title": "no body"},
        {"title": "t", "body": "b", "data": {"k": 1}},
        {"title": "t", "body": "b", "push": {"no_such_option": 1}},
        {"title": "t", "body": "b", "push": {"urgency": "panic"}},
    ],
)
def test_it_refuses_broken_content(broken: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(broken, Content)


@given(title=st.text(max_size=400), body=st.text(max_size=400), link=st.text(max_size=400))
@example(title="\0" * 632, body="", link="")
def test_what_fits_easily_is_never_too_big(title: str, body: str, link: str) -> None:
    push = a_push(
        delivery_id=2**63 - 1, title=title, body=body, deep_link=link, image_url=link, data={}
    )
    if fits_easily((title, body, link, link)):
        assert payload_bytes(push) <= MAX_PAYLOAD_BYTES

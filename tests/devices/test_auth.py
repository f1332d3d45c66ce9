"""Device tokens: who they name, and who nobody signed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from devices.auth import DeviceIdentity, TokenMemory, issue, verify

SOMEBODY = DeviceIdentity(device_id=123_456_789_012, brand_id=7, serial=3)
OLD = "an earlier secret that is long enough"
NEW = "the secret that took over, long enough"


def test_it_names_the_device_it_was_issued_for() -> None:
    assert verify(issue(*SOMEBODY)) == SOMEBODY


def test_it_issues_a_new_token_each_time() -> None:
    assert len({issue(*SOMEBODY) for _ in range(20)}) > 1


@given(at=st.integers(0, 57), letter=st.characters(codec="ascii"))
def test_it_refuses_a_token_with_one_letter_changed(at: int, letter: str) -> None:
    token = issue(*SOMEBODY)
    changed = token[:at] + letter + token[at + 1 :]
    assert verify(changed) == (SOMEBODY if changed == token else None)


@pytest.mark.parametrize(("issued", "other"), [("-", "+"), ("_", "/")])
def test_it_refuses_a_token_in_the_other_alphabet_of_base64(issued: str, other: str) -> None:
    token = next(token for _ in range(10_000) if issued in (token := issue(*SOMEBODY))[6:])
    assert verify(token) == SOMEBODY
    assert verify(token[:6] + token[6:].replace(issued, other)) is None


@given(st.text(max_size=80))
def test_it_refuses_whatever_else_it_is_given(text: str) -> None:
    assert verify(text) is None
    assert verify("nc_dt_" + text) is None


def test_it_refuses_what_another_secret_signed(settings: Settings) -> None:
    settings.SECRET_KEY = OLD
    token = issue(*SOMEBODY)
    settings.SECRET_KEY = NEW
    assert verify(token) is None


def test_it_believes_an_earlier_secret_while_a_new_one_takes_over(
    settings: Settings,
) -> None:
    settings.SECRET_KEY = OLD
    token = issue(*SOMEBODY)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    assert verify(token) == SOMEBODY
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, []
    assert verify(issue(*SOMEBODY)) == SOMEBODY


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER "])
def test_it_remembers_a_header_it_has_verified(scheme: str) -> None:
    memory, header = TokenMemory(), (scheme + issue(*SOMEBODY)).encode()
    assert memory.identify(header) == SOMEBODY
    assert memory.identify(header) == SOMEBODY


@pytest.mark.parametrize(
    "header", [b"", b"Bearer", b"Bearer ", b"Basic abc", b"\xff\xfe", b"nc_dt_"]
)
def test_it_knows_nobody_by_other_headers(header: bytes) -> None:
    assert TokenMemory().identify(header) is None


def test_it_keeps_the_memory_of_tokens_bounded() -> None:
    memory = TokenMemory(limit=10)
    for device_id in range(1, 101):
        memory.identify(f"Bearer {issue(device_id, 1, 1)}".encode())
    assert len(memory._recent) + len(memory._older) <= 10

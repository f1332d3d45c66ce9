"""Times of the day and time zones as people write them."""

from __future__ import annotations

import pytest

from brands.wallclock import minutes, zone


@pytest.mark.parametrize(
    ("clock", "expected"), [("00:00", 0), ("8:05", 485), ("21:30", 1290), ("24:00", 1440)]
)
def test_it_reads_a_time_of_the_day(clock: str, expected: int) -> None:
    assert minutes(clock) == expected


@pytest.mark.parametrize("clock", ["", "8", "24:01", "12:60", "noon", "1:2:3", "-1:00", "12:5"])
def test_it_refuses_what_is_no_time_of_the_day(clock: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        minutes(clock)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Europe/Helsinki", "Europe/Paris"), "Europe/Helsinki"),
        (("Nowhere/Land", "Europe/Paris"), "Europe/Paris"),
        (("", "Mars/Olympus", "../etc/passwd", "\0"), "UTC"),
        (("localtime", "Factory"), "UTC"),
        ((), "UTC"),
    ],
)
def test_it_takes_the_first_zone_that_there_is(names: tuple[str, ...], expected: str) -> None:
    assert zone(*names).key == expected

import math

import pytest

from online.scores.numbers import (
    ABSENT,
    brief,
    clock,
    duration,
    hundredths,
    mean_text,
    share,
    small_number,
    whole,
)


def test_each_format_has_its_digits() -> None:
    assert small_number(0.0021549) == "0.00215"
    assert share(0.93149) == "0.931"
    assert hundredths(24.314) == "24.31"
    assert whole(2500.0) == "2500"
    assert (brief(0.812), brief(1.0)) == (".81", "1.00")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_a_dash(value: float | None) -> None:
    assert {show(value) for show in (small_number, share, hundredths, whole)} == {ABSENT}


def test_a_mean_has_an_error_where_there_are_several() -> None:
    assert mean_text([], share) == ABSENT
    assert mean_text([0.5], share) == "0.500"
    assert mean_text([1.0, 3.0], hundredths) == "2.00 ± 1.00"


@pytest.mark.parametrize(
    ("seconds", "sentence", "line"),
    [
        (0.2, "0 s", "0:00"),
        (41.4, "41 s", "0:41"),
        (468.0, "7 min 48 s", "7:48"),
        (11_525.0, "3 h 12 min", "3:12:05"),
    ],
)
def test_durations_read_well_in_a_sentence_and_fit_a_line(
    seconds: float, sentence: str, line: str
) -> None:
    assert (duration(seconds), clock(seconds)) == (sentence, line)


def test_a_duration_without_end_is_unknown() -> None:
    assert duration(math.inf) == "an unknown time"

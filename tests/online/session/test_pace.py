"""Time left of a probe, by the shares of it that it says are done."""

import pytest

from online.session.pace import Pace


def test_time_left_is_by_the_rate_of_the_latest_work() -> None:
    pace = Pace()
    assert pace.seconds_left(0.1, at=100.0) is None
    assert pace.seconds_left(0.11, at=102.0) is None  # too soon to say
    assert pace.seconds_left(0.2, at=110.0) == pytest.approx(80.0)
    assert pace.seconds_left(0.3, at=130.0) == pytest.approx(105.0)
    # what was faster is more than half a minute ago
    assert pace.seconds_left(0.4, at=160.0) == pytest.approx(0.6 * 30 / 0.1)


def test_work_that_was_kept_from_an_earlier_start_does_not_count_as_fast() -> None:
    pace = Pace()
    pace.seconds_left(0.1, at=0.0)
    assert pace.seconds_left(0.9, at=10.0) is None
    assert pace.seconds_left(0.95, at=15.0) == pytest.approx(5.0)


def test_another_activity_has_a_rate_of_its_own() -> None:
    pace = Pace()
    pace.seconds_left(0.5, at=0.0)
    assert pace.seconds_left(0.1, at=60.0) is None  # less is done than before
    pace.forget()
    assert pace.seconds_left(0.2, at=90.0) is None

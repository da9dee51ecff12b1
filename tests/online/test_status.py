import time
from dataclasses import replace

import pytest

from cli import _status_text
from online.clock import RunClock
from online.status import Status

STATUS = Status(
    activity="learning",
    share=0.4,
    step=1400,
    steps=3500,
    loss=1.2345,
    top1=0.812,
    prequential_top1=0.774,
    triplets_per_second=310.4,
    samples_per_insert=21.3,
    delay_seconds=None,
    eta_seconds=124.6,
)


def test_a_line_of_progress_says_how_far_how_well_and_how_long() -> None:
    assert _status_text(STATUS) == (
        "learning 40%  step 1400/3500  ETA 2:05  loss 1.23  top-1 .81 (new footage .77)  "
        "310 triplets/s  clips seen 21x"
    )


@pytest.mark.parametrize(
    ("eta_seconds", "shown"), [(0.2, "ETA 0:00"), (59.7, "ETA 1:00"), (36_000.0, "ETA 10:00:00")]
)
def test_time_left_is_shown_like_a_clock(eta_seconds: float, shown: str) -> None:
    assert f"  {shown}  " in _status_text(replace(STATUS, eta_seconds=eta_seconds))


def test_how_far_a_run_is_behind_a_camera_is_told() -> None:
    clock = RunClock()
    clock.took_in(time.time_ns() - 2_500_000_000)
    assert clock.delay_seconds is not None
    assert clock.delay_seconds >= 2.5
    line = _status_text(replace(STATUS, delay_seconds=2.5))
    assert line == f"{_status_text(STATUS)}  2.5 s behind the camera"
    clock.took_in(None)
    assert clock.delay_seconds is None


def test_what_is_not_known_yet_is_left_out() -> None:
    early = replace(
        STATUS,
        activity="waiting for data",
        step=0,
        share=0.0,
        loss=None,
        top1=None,
        prequential_top1=None,
        triplets_per_second=0.0,
        samples_per_insert=0.0,
        eta_seconds=60.0,
    )
    assert _status_text(early) == "waiting for data 0%  step 0/3500"


def test_a_long_run_still_fits_a_line() -> None:
    long = replace(
        STATUS, step=100_000, steps=100_000, top1=1.0, prequential_top1=1.0, eta_seconds=36_000.0
    )
    assert len(_status_text(long)) <= 120
    assert len(_status_text(STATUS)) <= 110


def test_a_pause_does_not_count_as_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("online.clock.time.monotonic", lambda: now)
    clock = RunClock()
    assert clock.seconds_per_step is None
    now = 160.0  # connecting, or a probe
    clock.pause()
    for _ in range(3):
        now += 2.0
        clock.step(10)
    now += 60.0
    clock.pause()
    now += 4.0
    clock.step(10)
    assert clock.seconds_per_step == pytest.approx(2.5)
    assert clock.seconds == pytest.approx(130.0)

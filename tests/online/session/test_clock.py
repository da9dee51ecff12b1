import time

import pytest

from online.session.clock import FIRST_STEPS, RunClock, Spent


def test_how_far_a_run_is_behind_a_camera_is_told() -> None:
    clock = RunClock()
    clock.took_in(time.time_ns() - 2_500_000_000)
    assert clock.delay_seconds is not None
    assert clock.delay_seconds >= 2.5
    clock.took_in(None)
    assert clock.delay_seconds is None


def test_time_that_learning_stands_still_is_counted_over_all_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("online.session.clock.time.monotonic", lambda: now)
    clock = RunClock()
    now += 10.0
    with clock.paused("probe"):
        now += 6.0
    with clock.paused("checkpoint"):
        now += 4.0
    assert clock.spent == Spent(seconds=20.0, probe_share=0.3, checkpoint_share=0.2)
    later = RunClock()
    later.start(clock.seconds, clock.paused_seconds)
    now += 20.0
    assert later.spent == Spent(seconds=40.0, probe_share=0.15, checkpoint_share=0.1)


def test_a_pause_does_not_count_as_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("online.session.clock.time.monotonic", lambda: now)
    clock = RunClock()
    assert clock.seconds_per_step is None
    now = 160.0  # connecting, or a probe
    clock.pause()
    for _ in range(FIRST_STEPS):
        now += 30.0  # libraries are loaded
        clock.step(10)
    assert clock.seconds_per_step is None
    for _ in range(3):
        now += 2.0
        clock.step(10)
    now += 60.0
    clock.pause()
    now += 4.0
    clock.step(10)
    assert clock.seconds_per_step == pytest.approx(2.5)
    assert clock.seconds == pytest.approx(130.0 + 30 * FIRST_STEPS)

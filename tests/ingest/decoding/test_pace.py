"""When a step between frames is a hole."""

import pytest

from ingest.decoding.pace import Pace, Steps

MS = 1_000_000


@pytest.mark.parametrize(
    ("steps", "usual"),
    [
        ([40] * 100, 40),
        ([33, 33, 34] * 30, 33),  # 30 frames a second in milliseconds
        ([4, 4, 5, 4] * 30, 4),  # 240 a second
        ([40] * 95 + [80] * 5, 40),  # some frames are missing
        ([40] * 80 + [80] * 20, None),
        ([33, 50] * 40, None),  # film shown at 60 fields a second
        ([40] * 10, None),  # too few to tell
        ([], None),
    ],
)
def test_only_a_steady_rate_has_a_usual_step(steps, usual):
    pace = Pace(step * MS for step in steps)
    assert pace.usual_ns == (None if usual is None else usual * MS)
    if usual is not None:
        assert Steps(pace).is_hole(2 * usual * MS)
        assert not Steps(pace).is_hole(round(1.3 * usual * MS))
    else:
        assert not Steps(pace).is_hole(900 * MS)


@pytest.mark.parametrize(
    ("steps", "tells"),
    [
        ([40] * 250, True),
        ([40] * 248 + [80] * 2, True),
        ([40, 80] + [40] * 50, True),
        ([40, 80, 120] + [40] * 50, False),
        ([40] * 245 + [80] * 5, False),
    ],
)
def test_a_recorder_that_leaves_frames_out_now_and_then_loses_nothing(steps, tells):
    pace = Pace(step * MS for step in steps)
    assert pace.usual_ns == 40 * MS
    assert pace.tells_loss == tells


def test_after_four_steps_of_another_length_the_rate_has_changed():
    steps = Steps(Pace([40 * MS] * 100))
    holes = [steps.is_hole(step * MS) for step in [40] * 5 + [80] * 9 + [40, 80, 40]]
    assert holes == [False] * 5 + [True] * 4 + [False] * 5 + [False, True, False]


def test_a_pace_that_learns_follows_the_latest_steps():
    pace = Pace(learns=True)
    for _ in range(20):
        pace.observe(33 * MS)
    assert Steps(pace).is_hole(66 * MS)
    for _ in range(100):
        pace.observe(66 * MS)  # a camera in the dark
    assert not Steps(pace).is_hole(66 * MS)


def test_a_pace_that_was_given_steps_does_not_learn():
    pace = Pace([40 * MS] * 20)
    for _ in range(100):
        pace.observe(80 * MS)
    assert pace.usual_ns == 40 * MS

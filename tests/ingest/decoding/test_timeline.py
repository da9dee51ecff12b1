from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.decoding.timeline import Pace, Steps, Timeline

MS = 1_000_000


def test_only_the_first_of_steady_frames_is_a_gap():
    timeline = Timeline(interval_ns=40 * MS)
    placed = [timeline.place(40 * MS * index) for index in range(50)]
    assert [frame.gap for frame in placed if frame] == [True] + [False] * 49
    assert timeline.counters.gaps == 1
    assert timeline.counters.stored == timeline.counters.decoded == 50


def test_frames_around_a_jump_of_the_clock_are_not_consecutive():
    timeline = Timeline(interval_ns=40 * MS)
    times = [0, 40, 80, 5000, 5040]
    assert [timeline.place(t * MS).gap for t in times] == [True, False, False, True, False]


def test_a_clock_that_goes_backwards_carries_on_behind_the_last_frame():
    timeline = Timeline(interval_ns=40 * MS)
    placed = [timeline.place(t * MS) for t in (1000, 1040, 0, 40)]
    assert [frame.pts_ns // MS for frame in placed] == [1000, 1040, 1080, 1120]
    assert [frame.gap for frame in placed] == [True, False, True, False]


def test_two_pictures_with_one_time_are_two_frames():
    timeline = Timeline(interval_ns=40 * MS)
    placed = [timeline.place(t * MS) for t in (0, 40, 40, 120, 160)]
    assert [frame.pts_ns // MS for frame in placed] == [0, 40, 80, 120, 160]
    assert [frame.gap for frame in placed] == [True] + [False] * 4
    assert timeline.counters.stored == 5


def test_more_frames_than_ticks_of_the_clock_are_spread_between_them():
    """4,000 frames a second in milliseconds."""
    times = [index // 4 for index in range(400)]
    timeline = Timeline(interval_ns=None, pace=Pace(MS * (b - a) for a, b in pairwise(times)))
    placed = [timeline.place(t * MS) for t in times]
    assert timeline.counters.gaps == 1
    wrong = [frame.pts_ns - 250_000 * index for index, frame in enumerate(placed)]
    assert max(map(abs, wrong)) < MS


@pytest.mark.parametrize(
    ("times", "right"),
    [
        ([0, 40, 80, 120, 160, 200, 240, 200, 240, 360], range(0, 361, 40)),  # as MPEG-PS
        ([0, 80, 120, 40, 200, 240, 160, 320], [0, 80, 120, 160, 200, 240, 280, 320]),
        ([0, 40, 39, 120], [0, 40, 80, 120]),
    ],
)
def test_the_order_of_frames_is_believed_and_not_a_time_that_steps_back(times, right):
    timeline = Timeline(interval_ns=40 * MS)
    placed = [timeline.place(t * MS) for t in times]
    assert [frame.pts_ns // MS for frame in placed] == list(right)
    assert timeline.counters.gaps == 1


def test_missing_times_follow_at_the_usual_interval():
    timeline = Timeline(interval_ns=40 * MS)
    assert [timeline.place(t).pts_ns // MS for t in (None, None, 200 * MS, None)] == [
        0,
        40,
        200,
        240,
    ]


def test_a_frame_that_is_not_trusted_is_counted_as_dropped():
    timeline = Timeline(interval_ns=40 * MS, from_pts_ns=40 * MS)
    timeline.drop(0)  # of the run-in
    timeline.drop(40 * MS)
    timeline.drop(None)
    assert timeline.counters.dropped == timeline.counters.decoded == 2


def test_a_corrupt_packet_is_counted_and_leaves_a_gap():
    timeline = Timeline(interval_ns=40 * MS)
    timeline.place(0)
    timeline.corrupt_packet()
    placed = [timeline.place(t * MS) for t in (80, 120)]
    assert [frame.gap for frame in placed if frame] == [True, False]
    assert timeline.counters.corrupt_packets == 1


def test_a_break_among_frames_left_out_shows_in_the_next_one_kept():
    timeline = Timeline(interval_ns=10 * MS, fps=25.0)
    kept = []
    for index in range(12):
        if index == 5:
            timeline.break_off()
        placed = timeline.place(10 * MS * index)
        if placed:
            kept.append((placed.pts_ns // MS, placed.gap))
    assert kept == [(0, True), (40, False), (80, True)]


@pytest.mark.parametrize(
    ("source_fps", "fps", "per_second"),
    [(30, 15.0, 15), (30, 10.0, 10), (60, 25.0, 25), (30, 60.0, 30)],
)
def test_resampling_keeps_the_rate_asked_for_despite_rounded_times(source_fps, fps, per_second):
    timeline = Timeline(interval_ns=round(1e9 / source_fps), fps=fps)
    for index in range(10 * source_fps):
        timeline.place(round(index * 1000 / source_fps) * MS)  # as Matroska writes them
    assert timeline.counters.stored == 10 * per_second
    assert timeline.counters.resampled == 10 * source_fps - timeline.counters.stored


@given(
    times=st.lists(st.integers(0, 10**12), min_size=1, max_size=60),
    fps=st.none() | st.floats(0.5, 100),
    corrupt=st.sets(st.integers(0, 59)),
    learns=st.booleans(),
)
def test_whatever_the_clock_does_times_grow_and_every_frame_is_counted_once(
    times, fps, corrupt, learns
):
    timeline = Timeline(interval_ns=40 * MS, fps=fps, pace=Pace(learns=learns))
    placed = []
    for index, time in enumerate(times):
        if index in corrupt:
            timeline.drop(time)
        else:
            placed.append(timeline.place(time))
    kept = [frame.pts_ns for frame in placed if frame]
    assert all(a < b for a, b in pairwise(kept))
    counted = timeline.counters
    assert counted.decoded == len(times)
    assert counted.decoded == (
        counted.stored + counted.dropped + counted.duplicate + counted.resampled
    )
    assert counted.gaps == sum(frame.gap for frame in placed if frame)


@settings(max_examples=40)
@given(start=st.integers(1, 99), fps=st.none() | st.sampled_from([7.0, 10.0, 24.0]))
def test_a_pass_from_a_kept_frame_keeps_the_same_frames(start, fps):
    times = [33_366_667 * index for index in range(100)]
    whole = Timeline(interval_ns=33_366_667, fps=fps)
    kept = [frame.pts_ns for t in times if (frame := whole.place(t))]
    begin = kept[min(start, len(kept) - 1)]
    again = Timeline(interval_ns=33_366_667, fps=fps, from_pts_ns=begin)
    run_in = max(0, times.index(begin) - 5)
    kept_again = [frame.pts_ns for t in times[run_in:] if (frame := again.place(t))]
    assert kept_again == [t for t in kept if t >= begin]


def test_a_missing_time_of_a_variable_rate_moves_no_other():
    timeline = Timeline(interval_ns=33 * MS)
    placed = [timeline.place(None if t is None else t * MS) for t in (0, None, 30, 50, 90)]
    assert [frame.pts_ns // MS for frame in placed] == [0, 33, 33, 50, 90]
    assert placed[2].pts_ns > placed[1].pts_ns
    assert [frame.gap for frame in placed] == [True, False, False, False, False]
    assert timeline.counters.stored == 5


def test_a_time_at_which_one_was_missing_is_no_duplicate():
    timeline = Timeline(interval_ns=33 * MS)
    assert all(timeline.place(t) for t in (0, None, 33 * MS))


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


def test_a_hole_among_the_first_frames_of_a_live_source_is_one_by_its_declared_rate():
    timeline = Timeline(interval_ns=100 * MS, pace=Pace(learns=True))
    placed = [timeline.place(index * 100 * MS) for index in (0, 2, 3, 4)]
    assert [frame.gap for frame in placed if frame] == [True, True, False, False]
    timeline.begin_anew(interval_ns=50 * MS)
    placed = [timeline.place((20 + index) * 50 * MS) for index in (0, 1, 3, 4)]
    assert [frame.gap for frame in placed if frame] == [True, False, True, False]


def test_a_rate_that_a_live_source_declares_wrongly_is_soon_forgotten():
    timeline = Timeline(interval_ns=20 * MS, pace=Pace(learns=True))  # of fields
    placed = [timeline.place(index * 40 * MS) for index in range(40)]
    assert [frame.gap for frame in placed if frame] == [True] * 5 + [False] * 35

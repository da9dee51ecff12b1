from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streaming import TripletId, triplets_of

from ingest.frame import Frames
from online.clips.clip import Clip, ClipConfig, ClipSpec, Interval, cut

configs = st.builds(
    ClipConfig,
    clip_length=st.integers(1, 7),
    frame_stride=st.integers(1, 4),
)


@st.composite
def recordings(draw) -> tuple[np.ndarray, list[Interval]]:
    """Gap marks, and disjoint intervals in time order."""
    n = draw(st.integers(0, 90))
    gap = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=np.bool_)
    if draw(st.booleans()):  # half of the recordings have few gaps
        gap &= np.arange(n) % 23 == 0
    edges = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return gap, [Interval(a, b) for a, b in pairs]


def naive_triplets(gap: np.ndarray, within: list[Interval], config: ClipConfig) -> list[int]:
    """Last frames of all triplets, by walking every frame of every interval."""
    found = []
    for interval in within:
        run_start = interval.start
        for frame in range(interval.start, interval.stop):
            if gap[frame]:
                run_start = frame
            if frame - run_start >= 2 * config.frame_stride:
                found.append(frame)
    return found


@given(recordings(), configs)
def test_every_triplet_of_a_recording_belongs_to_exactly_one_clip(recording, config):
    gap, within = recording
    clips = cut("r", gap, within, config)
    owned = [triplet for clip in clips for triplet in triplets_of(clip, config)]
    assert owned == [TripletId("r", last) for last in naive_triplets(gap, within, config)]


@given(recordings(), configs)
def test_no_clip_crosses_a_gap_or_the_border_of_an_interval(recording, config):
    gap, within = recording
    for clip in cut("r", gap, within, config):
        stop = clip.start + clip.length
        assert not gap[clip.start + 1 : stop].any()
        assert any(i.start <= clip.start and stop <= i.stop for i in within)


@given(recordings(), configs)
def test_clips_own_clip_length_triplets_and_only_the_end_of_a_run_gives_fewer(recording, config):
    gap, within = recording
    clips = cut("r", gap, within, config)
    for clip in clips:
        triplets = config.triplets(clip.length)
        assert triplets == len(triplets_of(clip, config))
        assert 1 <= triplets <= config.clip_length
        assert (clip.length == config.frames) == (triplets == config.clip_length)
    for clip, after in pairwise(clips):
        same_run = not gap[clip.start + 1 : after.start + 1].any() and any(
            i.start <= clip.start and after.start < i.stop for i in within
        )
        if same_run:
            assert clip.length == config.frames


@given(recordings(), configs, st.integers(0, 90))
def test_clips_of_a_growing_recording_are_the_first_clips_of_the_longer_one(
    recording, config, length
):
    gap, within = recording
    if not within:
        return
    early = [Interval(i.start, min(i.stop, length)) for i in within if i.start < length]
    before = cut("r", gap[:length], early, config, closed=False)
    now_open = cut("r", gap, within, config, closed=False)
    now_closed = cut("r", gap, within, config, closed=True)
    # an interval that ended where the recording did may have been held back, never changed
    assert now_closed[: len(before)] == before
    assert now_open[: len(before)] == before
    assert now_closed[: len(now_open)] == now_open


def test_the_picture_in_the_module_is_true():
    config = ClipConfig(clip_length=3, frame_stride=2)
    clips = cut("r", np.zeros(10, np.bool_), [Interval(0, 10)], config)
    assert clips == [ClipSpec("r", 0, 7), ClipSpec("r", 3, 7)]
    assert [t.last_frame for t in triplets_of(clips[1], config)] == [7, 8, 9]


def test_a_run_shorter_than_a_triplet_gives_no_clip():
    config = ClipConfig(clip_length=3, frame_stride=2)
    assert cut("r", np.zeros(4, np.bool_), [Interval(0, 4)], config) == []


def test_overhead_is_the_share_of_frames_sent_twice():
    assert ClipConfig(clip_length=64, frame_stride=4).overhead == 0.125


@pytest.mark.parametrize("name", ["clip_length", "frame_stride"])
def test_settings_below_one_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ClipConfig(**{name: 0})


def test_a_clip_knows_its_size():
    frames = Frames(np.zeros((5, 4, 6, 3), np.uint8), np.arange(5), np.zeros(5, np.bool_))
    clip = Clip(ClipSpec("r", 0, 5), frames)
    assert clip.nbytes == 5 * 4 * 6 * 3
    assert not clip.is_released
    gone = Clip.released(clip.spec)
    assert gone.is_released
    assert gone.nbytes == 0
    assert gone.last_captured_ns is None

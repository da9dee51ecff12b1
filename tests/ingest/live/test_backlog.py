import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.frame import Frame
from ingest.live.backlog import Backlog
from ingest.store.records import Counters

NOW = 0.0
SOON = 5.0


def frame(index: int, *, gap: bool = False, side: int = 2) -> Frame:
    image = np.full((side, side, 3), index % 256, np.uint8)
    return Frame(image=image, pts_ns=index, gap=gap, captured_ns=index)


def fill(backlog: Backlog, gaps: list[bool | None]) -> Counters:
    """Put one frame for each mark, and none for None, which stands for one that is resampled."""
    counters = Counters()
    for index, gap in enumerate(gaps):
        is_stored = gap is not None
        counters += Counters(
            decoded=1, stored=int(is_stored), resampled=int(not is_stored), gaps=int(gap or 0)
        )
        backlog.put(frame(index, gap=gap) if gap is not None else None, counters)
    return counters


def test_frames_come_out_in_order_and_in_runs_of_the_length_asked_for():
    backlog = Backlog()
    fill(backlog, [True, False, False, False, False])
    taken = backlog.take(3, NOW)
    assert taken is not None
    assert taken.frames is not None
    assert (taken.frames.pts_ns.tolist(), taken.last) == ([0, 1, 2], False)
    assert taken.counters == Counters(decoded=3, stored=3, gaps=1)
    assert backlog.take(3, NOW) is None
    backlog.end()
    taken = backlog.take(3, NOW)
    assert taken is not None
    assert taken.frames is not None
    assert (taken.frames.pts_ns.tolist(), taken.last) == ([3, 4], True)


def test_the_oldest_frame_makes_room_and_leaves_a_gap():
    backlog = Backlog(max_frames=3)
    fill(backlog, [True, False, False, False, False])
    taken = backlog.take(3, NOW)
    assert taken is not None
    assert taken.frames is not None
    assert taken.frames.pts_ns.tolist() == [2, 3, 4]
    assert taken.frames.gap.tolist() == [True, False, False]
    assert taken.counters == Counters(decoded=5, stored=3, dropped=2, gaps=1)


def test_large_frames_are_bounded_by_their_bytes():
    backlog = Backlog(max_bytes=4 * 12)
    fill(backlog, [True] + 9 * [False])
    assert backlog.take(5, NOW) is None
    assert backlog.take(4, NOW) is not None


@given(st.lists(st.sampled_from(["frame", "frame", "gap", "resampled", "take"]), max_size=60))
def test_counters_add_up_at_every_taking_and_what_is_missing_leaves_a_gap(events):
    backlog, counters, taken = Backlog(max_frames=4), Counters(), []
    for index, event in enumerate(events):
        if event == "take":
            taken.append(backlog.take(2, NOW))
            continue
        stored, gap = event != "resampled", event == "gap"
        counters += Counters(
            decoded=1, stored=int(stored), resampled=int(not stored), gaps=int(gap)
        )
        backlog.put(frame(index, gap=gap) if stored else None, counters)
    backlog.end()
    for _ in range(3):
        taken.append(backlog.take(2, NOW))
    put = [i for i, event in enumerate(events) if event in ("frame", "gap")]
    times, gaps = [], 0
    for run in taken:
        if run is None:
            continue
        if run.frames is not None:
            times += run.frames.pts_ns.tolist()
            gaps += int(run.frames.gap.sum())
            for time, gap in zip(run.frames.pts_ns.tolist(), run.frames.gap, strict=True):
                before = put.index(time) - 1
                assert gap or before < 0 or put[before] in times
        counted = run.counters
        assert (counted.stored, counted.gaps) == (len(times), gaps)
        assert counted.decoded == counted.stored + counted.dropped + counted.resampled
    assert times == sorted(times)
    assert counted.decoded == counters.decoded


def test_a_frame_that_comes_ends_the_wait():
    backlog = Backlog()
    camera = threading.Timer(0.05, fill, [backlog, [True]])
    camera.start()
    assert backlog.has_frame(SOON)
    assert backlog.take(1, NOW) is not None
    camera.join()


def test_what_the_end_was_given_is_raised_where_frames_are_taken():
    backlog = Backlog()
    fill(backlog, [True])
    backlog.end(ValueError("broken"))
    backlog.end()
    with pytest.raises(ValueError, match="broken"):
        backlog.take(1, NOW)


def test_nothing_comes_in_behind_the_end():
    backlog = Backlog()
    backlog.end()
    fill(backlog, [True])
    taken = backlog.take(1, NOW)
    assert taken is not None
    assert (taken.frames, taken.last, taken.counters) == (None, True, Counters())

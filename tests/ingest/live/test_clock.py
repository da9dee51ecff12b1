from ingest.live.clock import SourceClock

SECOND = 1_000_000_000


def test_a_source_clock_begins_at_zero_and_jumps_only_with_the_camera():
    clock = SourceClock()
    assert clock.since_began(500 * SECOND, 7 * SECOND) == 0
    assert clock.since_began(501 * SECOND, 9 * SECOND) == 1 * SECOND  # it arrived late
    clock.connected()
    assert clock.since_began(3 * SECOND, 17 * SECOND) == 10 * SECOND
    assert clock.since_began(4 * SECOND, 18 * SECOND) == 11 * SECOND
    assert clock.since_began(90_000 * SECOND, 19 * SECOND) == 12 * SECOND  # the source was set
    assert clock.since_began(None, 99 * SECOND) is None  # others tell when it was
    clock.connected()
    assert clock.since_began(None, 20 * SECOND) == 13 * SECOND


def test_a_clock_that_steps_back_goes_on():
    clock = SourceClock()
    assert clock.since_began(100 * SECOND, 0) == 0
    assert clock.since_began(101 * SECOND, 1 * SECOND) == 1 * SECOND
    assert not clock.has_jumped
    assert clock.since_began(71 * SECOND, 2 * SECOND) == 2 * SECOND
    assert clock.has_jumped
    assert clock.since_began(72 * SECOND, 3 * SECOND) == 3 * SECOND
    clock.connected()
    assert clock.since_began(5 * SECOND, 9 * SECOND) == 9 * SECOND


def test_frames_that_are_only_counted_are_never_before_they_come():
    clock = SourceClock()
    clock.connected("counted")
    assert clock.since_began(0, 10 * SECOND) == 0
    assert clock.since_began(1 * SECOND, 10 * SECOND) == 1 * SECOND  # they waited in a pipe
    assert clock.since_began(2 * SECOND, 13 * SECOND) == 3 * SECOND  # fewer than were promised
    assert clock.since_began(3 * SECOND, 13 * SECOND) == 4 * SECOND
    assert not clock.has_jumped


def test_frames_without_times_are_when_they_come():
    clock = SourceClock()
    clock.connected("arrival")
    assert clock.since_began(0, 10 * SECOND) == 0
    assert clock.since_began(1, 17 * SECOND) == 7 * SECOND

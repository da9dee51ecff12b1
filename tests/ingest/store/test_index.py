import threading

import numpy as np
import pytest

from ingest.store.index import ReadIndex

VALUES = np.arange(100, dtype=np.int64) * 7


@pytest.fixture
def asked() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def index(asked: list[tuple[int, int]]) -> ReadIndex:
    def read(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return VALUES[start:stop]

    return ReadIndex("pts_ns", 10, read)


def test_only_the_pieces_that_are_needed_are_read_and_each_once(index, asked):
    np.testing.assert_array_equal(index.values(25, 41, 100), VALUES[25:41])
    assert asked == [(20, 50)]
    np.testing.assert_array_equal(index.values(20, 50, 100), VALUES[20:50])
    assert asked == [(20, 50)]
    np.testing.assert_array_equal(index.values(0, 100, 100), VALUES)
    assert asked[1:] == [(0, 100)]  # in one go, also what lies between
    np.testing.assert_array_equal(index.values(3, 97, 100), VALUES[3:97])
    assert len(asked) == 2


def test_a_piece_that_has_grown_is_read_again(index, asked):
    np.testing.assert_array_equal(index.values(0, 13, 13), VALUES[:13])
    np.testing.assert_array_equal(index.values(10, 13, 18), VALUES[10:13])
    assert asked == [(0, 13)]
    np.testing.assert_array_equal(index.values(0, 18, 18), VALUES[:18])
    np.testing.assert_array_equal(index.values(9, 20, 20), VALUES[9:20])
    assert asked == [(0, 13), (10, 18), (10, 20)]


def test_none_are_an_empty_array_of_their_type(index, asked):
    for start, stop in ((0, 0), (10, 10), (13, 13)):
        values = index.values(start, stop, 0)
        assert (len(values), values.dtype) == (0, np.int64)
    assert asked == []


def test_what_is_given_may_be_changed(index):
    index.values(0, 5, 100)[:] = -1
    np.testing.assert_array_equal(index.values(0, 5, 100), VALUES[:5])


def test_what_cannot_be_read_is_asked_for_again():
    broken = True

    def read(start: int, stop: int) -> np.ndarray:
        if broken:
            raise OSError("gone")
        return VALUES[start:stop]

    index = ReadIndex("pts_ns", 10, read)
    with pytest.raises(OSError, match="gone"):
        index.values(0, 5, 100)
    broken = False
    np.testing.assert_array_equal(index.values(0, 5, 100), VALUES[:5])


def test_who_needs_what_is_here_waits_for_no_other_thread():
    reads, go_on = threading.Event(), threading.Event()

    def read(start: int, stop: int) -> np.ndarray:
        if start:
            reads.set()
            assert go_on.wait(20)
        return np.arange(start, stop)

    index = ReadIndex("pts_ns", 4, read)
    index.values(0, 3, 8)
    other = threading.Thread(target=index.values, args=(5, 8, 8))
    other.start()
    assert reads.wait(20)
    assert index.values(1, 3, 8).tolist() == [1, 2]  # and this thread goes on
    go_on.set()
    other.join(20)
    assert index.values(0, 8, 8).tolist() == [*range(8)]

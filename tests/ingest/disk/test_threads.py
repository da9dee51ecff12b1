import threading
import time
from collections import Counter

import pytest

from ingest.disk.threads import MAX_WORKERS, Pool, available_cores, in_order, side_by_side


@pytest.mark.parametrize("workers", [0, 1, 3, 100])
def test_every_item_is_done_once(workers):
    done: Counter[int] = Counter()
    lock = threading.Lock()

    def work(item: int) -> None:
        with lock:
            done[item] += 1

    side_by_side(work, range(200), workers=workers)
    assert done == Counter(range(200))


def test_items_are_done_at_the_same_time_and_no_thread_is_left():
    before = threading.active_count()
    together = threading.Barrier(MAX_WORKERS, timeout=20)

    def meet(_: int) -> None:
        together.wait()

    side_by_side(meet, range(MAX_WORKERS), workers=MAX_WORKERS)
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_work_and_is_raised_here(workers):
    done = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("three")
        done.append(item)

    with pytest.raises(ValueError, match="three"):
        side_by_side(work, range(10_000_000), workers=workers)
    assert 3 not in done
    assert len(done) < 10_000_000


def test_there_is_a_core_to_work_on():
    assert available_cores() >= 1


@pytest.mark.parametrize("workers", [1, 2, 40])
def test_results_come_in_the_order_of_their_items(workers):
    later: list[threading.Event] = [threading.Event() for _ in range(20)]

    def work(item: int) -> int:
        later[item].set()
        if workers > 1 and item % 2 == 0 and item < 19:
            assert later[item + 1].wait(20)  # the next one is at work before this one is done
        return item * item

    found = [each.result() for each in in_order(work, range(20), workers=workers)]
    assert found == [n * n for n in range(20)]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_is_raised_in_its_turn(workers):
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    found = in_order(work, range(1000), workers=workers)
    assert [next(found).result() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found).result()
    assert next(found).result() == 4
    assert len(begun) < 20
    found.close()


def test_one_that_is_closed_begins_nothing_more():
    begun, threads, go_on = [], set(), threading.Event()

    def work(item: int) -> None:
        threads.add(threading.current_thread())
        begun.append(item)
        assert item == 0 or go_on.wait(20)

    found = in_order(work, range(1000), workers=2)
    next(found).result()
    until = time.monotonic() + 20
    while len(begun) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    found.close()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert sorted(begun) == [0, 1, 2]  # and of those that waited, none


def test_of_a_pool_what_is_needed_sooner_is_begun_sooner_and_nothing_waits_for_ever():
    pool, begun, rest = Pool(1), [], iter(range(20))

    def again() -> None:
        """Submits the next one, which is always needed at once."""
        begun.append("at once")
        if next(rest, None) is not None:
            pool.submit(again, after=0)

    go_on = threading.Event()
    pool.submit(go_on.wait, 20)
    patient = pool.submit(begun.append, "patient", after=3)
    pool.submit(again, after=0)
    go_on.set()
    patient.result(20)
    assert 1 <= begun.index("patient") <= 6
    until = time.monotonic() + 20
    while len(begun) < 22 and time.monotonic() < until:
        time.sleep(0.01)
    pool.close()
    assert len(begun) == 22


def test_a_pool_that_is_closed_cancels_what_was_not_begun():
    pool, go_on = Pool(1), threading.Event()
    first, second = pool.submit(go_on.wait, 20), pool.submit(go_on.wait, 20)
    while not first.running():
        time.sleep(0.01)
    pool.close()
    go_on.set()
    assert first.result(20)
    assert second.cancelled()

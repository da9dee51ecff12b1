import signal
import threading
from collections.abc import Iterator

import pytest

from ingest.disk.signals import has_to_wait, uninterrupted


class SignalError(Exception):
    """What the handler raises."""


@pytest.fixture(autouse=True)
def raising_handler() -> Iterator[None]:
    def handler(number: int, _: object) -> None:
        if not has_to_wait(number):
            raise SignalError

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_raises_where_nothing_keeps_it_waiting() -> None:
    with pytest.raises(SignalError):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_waits_until_the_outermost_context_is_left() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            with uninterrupted():
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")

    with pytest.raises(SignalError):
        work()
    assert done == ["inner", "outer"]
    with uninterrupted():
        done.append("again")  # it was sent once
    assert done[-1] == "again"


def test_signals_that_come_while_one_waits_are_one_with_it() -> None:
    def work() -> None:
        with uninterrupted():
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SignalError):
        work()
    with uninterrupted():
        pass  # none is left to come here


def test_a_signal_that_waited_comes_where_the_context_ends_with_an_error() -> None:
    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            raise OSError("no space")

    with pytest.raises(SignalError) as caught:
        work()
    assert isinstance(caught.value.__context__, OSError)


def test_another_thread_keeps_no_signal_of_the_main_one_waiting() -> None:
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with uninterrupted():
            inside.set()
            done.wait(20)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert inside.wait(20)
        with pytest.raises(SignalError):
            signal.raise_signal(signal.SIGTERM)
    finally:
        done.set()
        worker.join()

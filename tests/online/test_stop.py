import signal
import subprocess
import sys
import threading
import time

import pytest

from online.stop import StopRequested, StopSignals

WAITING = """
import sys, time
import ingest.disk.signals
ingest.disk.signals.REPEAT_SECONDS = float(sys.argv[1])
from online.stop import StopSignals
with StopSignals() as stop:
    print("entered", flush=True)
    while stop.received is None:
        time.sleep(0.01)
    print("received", flush=True)
    try:
        sys.stdin.readline()
    finally:
        print("cleaned up", flush=True)
"""


def signal_soon() -> None:
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGTERM)).start()


def test_a_signal_is_remembered_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        stop.check()
        signal.raise_signal(signal.SIGTERM)
        assert stop.received is signal.SIGTERM
        with pytest.raises(StopRequested):
            stop.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_may_be_given_up_is_given_up_at_once() -> None:
    with StopSignals() as stop:
        signal_soon()
        with pytest.raises(StopRequested), stop.at_once():
            time.sleep(60)
        with pytest.raises(StopRequested), stop.at_once():
            pytest.fail("a signal that came before was forgotten")


def test_behind_it_a_signal_waits_for_a_safe_point_again() -> None:
    with StopSignals() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGINT)
        assert stop.received is signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_without_cleaning_up(number: signal.Signals) -> None:
    process = signalled_twice(number, repeat_seconds=0.0)
    process.wait(timeout=20)
    rest, _ = process.communicate(timeout=20)
    assert (process.returncode, rest) == (128 + number, "")


def test_a_signal_that_is_sent_twice_is_one_request() -> None:
    process = signalled_twice(signal.SIGINT, repeat_seconds=600.0)
    rest, _ = process.communicate("\n", timeout=20)
    assert (process.returncode, rest) == (0, "cleaned up\n")


def signalled_twice(number: signal.Signals, *, repeat_seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(repeat_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for said in ("entered\n", "received\n"):
        assert process.stdout.readline() == said
        process.send_signal(number)
    return process

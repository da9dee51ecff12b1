"""Shapes and types are checked in nearly every test; in production they cost nothing."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator

# Two test processes' worth of threads on two cores fight each other; and sums stay in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
from shape_checks import check_shapes, without_shape_checks

# how long an example takes is for benchmarks: a machine with other work to do fails no test
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# for `pytest -m fuzz --hypothesis-profile=fuzz`; see tests/support/fuzzing.py
hypothesis.settings.register_profile(
    "fuzz", parent=hypothesis.settings.get_profile("untimed"), print_blob=True
)
hypothesis.settings.load_profile("untimed")

# a shell that runs the tests behind it has them ignore Ctrl-C, and all that they start as well
signal.signal(signal.SIGINT, signal.default_int_handler)

check_shapes("setcon", "ingest", "online")

LONGEST_FILES = (
    "test_readme.py",
    "test_end_to_end.py",
    "test_resume.py",
    "test_saving.py",
    "test_cli.py",
    "probes/test_process.py",
    "test_start.py",
    "queue/test_server.py",
    "queue/test_client.py",
    "test_recorder.py",
    "test_continual.py",
    "test_stores.py",
)
"""Files that take longest go first, so that no process is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first; others as they were."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST_FILES))


@pytest.fixture(scope="module", autouse=True)
def no_threads_are_left() -> Iterator[None]:
    """Threads that a file's tests started end before the next file's.

    The checks of shapes draw from `random`, and hypothesis fails a test in which anyone else does.
    """
    from ingest.disk.threads import POOL

    before = set(threading.enumerate())
    yield
    gc.collect()  # a failed test's frames may hold an iterator that has threads
    until = time.monotonic() + 30
    for thread in set(threading.enumerate()) - before:
        if thread.name == POOL or not thread.daemon:
            thread.join(max(0, until - time.monotonic()))
            # what storage that is gone was asked for may go on, and does no harm
            assert thread.daemon or not thread.is_alive(), f"{thread} goes on after its test"


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For tests of whole runs."""
    with without_shape_checks():
        yield

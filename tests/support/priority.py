"""SVT-AV1 gives itself, and the thread that called it, real-time priority where it runs as root.

Left at it, the test process would starve every other one on the machine.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Afterwards this thread is scheduled as it was before."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)

"""Shapes and types are checked in nearly every test; in production they cost nothing."""

import os
from collections.abc import Iterator

# Two test processes' worth of threads on two cores fight each other; and sums stay in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jaxtyping
import pytest

# how long an example takes is for benchmarks: a machine with other work to do fails no test
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

jaxtyping.install_import_hook(["setcon", "ingest", "online"], "beartype.beartype")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For whole runs: checking their tens of thousands of calls takes longer than all the rest."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)

"""Shapes and types are checked in every test; in production they cost nothing."""

import os

# Two test processes' worth of threads on two cores fight each other; and sums stay in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook(["setcon", "ingest", "online"], "beartype.beartype")

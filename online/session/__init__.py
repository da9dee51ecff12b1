"""One run from start to end: the loop, its state, its probes and its status."""

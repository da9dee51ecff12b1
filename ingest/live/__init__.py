"""Cameras: a source that does not wait, and what is recorded from it."""

"""Clips over ZeroMQ: what server and trainer say to each other, and how none is lost."""

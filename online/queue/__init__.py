"""Clips over ZeroMQ: the protocol between server and trainer, in which no clip is lost."""

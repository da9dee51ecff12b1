"""Recordings: video decoded once into a store of frames that many readers share."""

"""Packets to sound frames: decoding, damage, time, and scaling to the stored size."""

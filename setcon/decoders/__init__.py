"""Decoders of the probe: from slots to images."""

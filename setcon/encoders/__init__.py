"""Encoders: an image to a grid of features."""

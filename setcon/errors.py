"""The errors this package raises for what comes from outside.

    SetConError
    ├── EncoderError (also a ValueError)
    └── SeedCheckpointError (also a ValueError)

Configurations are refused with a plain ValueError, as everywhere in Python.
"""


class SetConError(Exception):
    """Whatever this package refuses; the message is one line: what, where, value found, remedy."""


class SeedCheckpointError(SetConError, ValueError):
    """A file that is not a checkpoint of the 2021 port, or not of the part asked for."""


class EncoderError(SetConError, ValueError):
    """A pretrained encoder that cannot be had, or not with the weights that were learned with."""

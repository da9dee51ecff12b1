"""Checks of the values of a configuration; each raises ValueError with the name and the value.

Every package uses them, also those that know nothing of the model: they need the standard library
only.
"""

from collections.abc import Collection


def check_choice(name: str, value: str | int, choices: Collection[str | int]) -> None:
    """The value is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


# each says `not value >= bound` rather than `value < bound`, which NaN would pass


def check_at_least(least: float | int, **values: float | int) -> None:
    """None of the named values lies below `least`."""
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_above(bound: float | int, **values: float | int) -> None:
    """Each of the named values lies above `bound`."""
    for name, value in values.items():
        if not value > bound:
            raise ValueError(f"{name} must be above {bound}, got {value}")


def check_below(bound: float | int, **values: float | int) -> None:
    """Each of the named values lies below `bound`."""
    for name, value in values.items():
        if not value < bound:
            raise ValueError(f"{name} must be below {bound}, got {value}")


def check_within(least: float | int, most: float | int, **values: float | int) -> None:
    """Each of the named values lies in `least`..`most`, both included."""
    for name, value in values.items():
        if not least <= value <= most:
            raise ValueError(f"{name} must lie in {least}..{most}, got {value}")

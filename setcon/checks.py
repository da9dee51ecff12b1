"""Checks of the values of a configuration; each raises ValueError with the name and the value."""

from typing import get_args


def check_choice(name: str, value: str, choices: object) -> None:
    """The value is one of the strings of a Literal type."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")


def check_at_least(minimum: float | int, **values: float | int) -> None:
    """None of the named values lies below the minimum."""
    for name, value in values.items():
        if not value >= minimum:  # not `<`, which NaN would pass
            raise ValueError(f"{name} must be at least {minimum}, got {value}")

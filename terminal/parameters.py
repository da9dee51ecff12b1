"""Types of options that click lacks."""

from __future__ import annotations

import math
import re
from typing import Any

import click

LOCATION = click.Path(path_type=str)
"""Where a store is, kept as typed: as a path, `s3://b/x` would become `s3:/b/x`."""


class Finite(click.FloatRange):
    """A finite number in a range: click's own lets nan pass, and inf where a side is open."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, if it is finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Duration(click.ParamType):
    """A duration with its unit, as 90m or 12h; converted to seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", value.strip())
        if found is None:
            self.fail(f"{value!r} is not a duration; use for example 90m, 12h or 7d", param, ctx)
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]

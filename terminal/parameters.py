"""Types of options that click lacks."""

from __future__ import annotations

import math
import re
from typing import Any

import click

LOCATION = click.Path(path_type=str)
"""Where a store is, kept as typed: as a path, `s3://b/x` would become `s3:/b/x`."""


LONGEST_SIDE = 8192
"""As in `ingest.store.records`, which is not imported for this."""


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


class FrameSize(click.ParamType):
    """A size of frames: 128 for squares, 128x72 for width and height, or native."""

    name = "size"

    def __init__(self, *, takes_native: bool = True) -> None:
        self._takes_native = takes_native

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """How the help calls a value."""
        return "SIDE|WxH|native" if self._takes_native else "SIDE|WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int] | None:
        """A side, (width, height), or None for native."""
        if not isinstance(value, str):
            return value
        if value == "native":
            if not self._takes_native:
                self.fail("native: a camera can change its size at any time; give one", param, ctx)
            return None
        found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", value)
        given = [int(side) for side in found.groups() if side is not None] if found else []
        if not given or not all(1 <= side <= LONGEST_SIDE for side in given):
            self.fail(
                f"{value!r} is not a size of frames; use for example 128 or 128x72, with sides of "
                f"1 to {LONGEST_SIDE} pixels" + (", or native" * self._takes_native),
                param,
                ctx,
            )
        return given[0] if len(set(given)) == 1 else (given[0], given[1])


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

"""Numbers and durations as people read them: each format once, for pages and terminals alike."""

import math
import statistics
from collections.abc import Callable, Sequence

ABSENT = "–"  # noqa: RUF001 - an en dash is meant
"""Shown where there is no number: no masks, or a file older than the measure."""

Format = Callable[[float | None], str]


def small_number(value: float | None) -> str:
    """Three significant digits: `0.00215`."""
    return _finite(value, "#.3g")


def share(value: float | None) -> str:
    """Three decimals: `0.931`."""
    return _finite(value, ".3f")


def hundredths(value: float | None) -> str:
    """Two decimals: `24.31`."""
    return _finite(value, ".2f")


def whole(value: float | None) -> str:
    """No decimals: `2500`."""
    return _finite(value, ".0f")


def brief(value: float) -> str:
    """A share in as few letters as will do: `.81`, `1.00`."""
    return f"{value:.2f}".removeprefix("0")


def mean_text(values: Sequence[float], shown: Format) -> str:
    """The mean, with its standard error where there are several: `0.913 ± 0.010`."""
    if not values:
        return ABSENT
    mean = shown(statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ± {shown(statistics.stdev(values) / math.sqrt(len(values)))}"


def duration(seconds: float) -> str:
    """For a sentence, two units at most: `41 s`, `7 min 48 s`, `3 h 12 min`."""
    if not math.isfinite(seconds):
        return "an unknown time"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600:,} h {total % 3600 // 60} min"


def clock(seconds: float) -> str:
    """For a line of progress: `7:48`, `3:12:05`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _finite(value: float | None, form: str) -> str:
    return ABSENT if value is None or not math.isfinite(value) else format(value, form)

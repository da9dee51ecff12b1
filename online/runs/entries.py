"""The lines of `metrics.jsonl`: one class for each kind, by which they are written and read.

    {"kind": "step", "step": 120, "seconds": 4.2, "loss": 3.1, "top1": 0.4, ...}
    {"kind": "event", "step": 120, "seconds": 4.2, "message": "continued from ..."}

A field that came later has a default, so that older logs are read; a line of a newer log may have
fields that are unknown here. What is not finite is written as null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Generic, TypeVar

import msgspec

from online.scores.evaluation import NO_JSON, Step

Loss = Annotated[float, msgspec.Meta(ge=-3.5e38, le=3.5e38)]
"""The largest float32: no chart can be drawn of larger values."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One line of the log."""

    step: Step
    seconds: float = 0.0
    """Seconds of learning and probing until then."""


class SpentEntry(Entry, frozen=True, kw_only=True):
    """A line that says how the run spent its time until then."""

    probe_share: float | None = None
    checkpoint_share: float | None = None


class StepEntry(SpentEntry, frozen=True, kw_only=True, tag="step"):
    """One logged optimizer step; not all are."""

    loss: Loss | None
    exclusivity: Share | None = None
    """How much of what slots read is theirs alone."""
    foreground: float | msgspec.UnsetType = msgspec.UNSET
    """Loss of the foreground, where slots start at objects."""
    top1: float | None
    chance_loss: float | None = None
    """The loss of a guess."""
    grad_norm: float | None = None
    learning_rate: float | None = None
    """Learning rate of the step."""
    triplets_per_second: float | None = None
    wait_share: float | None = None
    """Share of time in which the trainer had no clip to continue with."""
    delay_seconds: float | None = None
    """From the capture of the newest frame to its arrival; None where nothing is live."""
    clips_inserted: int | None = None
    """In all starts of the run."""
    clips_skipped: int | None = None
    samples_per_insert: float | None = None
    clips_received: int | None = None
    """In this start, as the next three."""
    reconnects: int | None = None
    discarded_messages: int | None = None
    damaged_clips: int | None = None
    epoch: int | None = None


class PrequentialEntry(Entry, frozen=True, kw_only=True, tag="prequential"):
    """New footage, scored before it was trained on."""

    loss: float | None = None
    loss_untrained: float | None = None
    top1: float
    top1_copy: float
    top1_untrained: float
    candidates: int
    """Frames among which the right one was to be found."""


class ProbeEntry(SpentEntry, frozen=True, kw_only=True, tag="probe"):
    """A probe has run; its scores are in `probes/`."""

    beside: bool = False
    """Learning went on meanwhile."""
    probe_seconds: float | None = None


class EventEntry(Entry, frozen=True, kw_only=True, tag="event"):
    """Something a person should know of."""

    message: str
    batch: list[str] | msgspec.UnsetType = msgspec.UNSET
    """All clips of the batch in which the numbers ceased to be finite."""

    @property
    def is_alarm(self) -> bool:
        """Whether it reports a collapse or exploding gradients."""
        return self.message.startswith(("collapse", "exploding"))


class SourceEntry(Entry, frozen=True, kw_only=True, tag="source"):
    """What a start of the run learns from."""

    recordings: list[str] = []
    footage: list[str] = []
    """What each of them holds and how it is split, in words; empty in older logs."""
    store: str = ""
    """Path or address; empty where unknown."""
    steps: int | None = None
    """The step that this start aimed for."""
    clip_overhead: float | None = None
    """Frames that are sent only to complete triplets, as a share of the others."""
    device: str = ""
    """What it computes on, such as `cpu`; empty in older logs."""
    precision: str = ""
    """Its arithmetic: float32 or bfloat16."""
    command: list[str] = []
    """Words of a command line that continues the run, without `--steps`; may be empty."""


AnyEntry = StepEntry | PrequentialEntry | ProbeEntry | EventEntry | SourceEntry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogLine(Generic[T]):
    """One line of the log, and what it says."""

    raw: bytes
    entry: T | None
    """None where the line is torn, not text or of no known kind."""


def to_line(entry: Entry) -> bytes:
    """As it is written, with the newline."""
    fields = {key: _jsonable(value) for key, value in msgspec.to_builtins(entry).items()}
    # not by msgspec: names of files may hold bytes that are not text, which it refuses
    return json.dumps(fields).encode() + b"\n"


def log_lines(path: Path, decoder: msgspec.json.Decoder[T]) -> Iterator[LogLine[T]]:
    """Lines of a log, oldest first; none where there is no file."""
    if path.exists():
        yield from _lines(path.read_bytes(), decoder)


def read_log(path: Path) -> Iterator[LogLine[AnyEntry]]:
    """Lines of a log with what they say, oldest first; none where there is no file."""
    return log_lines(path, _DECODER)


def last_spent(entries: Sequence[AnyEntry]) -> SpentEntry | None:
    """The last line that says how the run spent its time."""
    spent = (entry for entry in reversed(entries) if isinstance(entry, SpentEntry))
    return next(spent, None)


class FollowedLog:
    """A log that is read while it grows, each byte once.

    A resumed run cuts its log back by putting a shorter file in its place. That is noticed by the
    last line that was read, which is then no longer where it was, and all is read again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[AnyEntry] = []
        """All that hold now, oldest first."""
        self.unreadable = 0
        """Lines among them that could not be read."""
        self._end = 0
        self._last = b""

    def poll(self) -> bool:
        """Bring `entries` up to date; whether they have changed.

        A last line without its newline is still being written, and waits for the next time.
        """
        try:
            with self.path.open("rb") as file:
                cut_back = not self._still_there(file) and self._forget()
                file.seek(self._end)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return self._forget()
        if not newline:
            return cut_back
        self._end += len(whole) + 1
        self._last = whole.rpartition(b"\n")[2] + b"\n"
        for line in _lines(whole, _DECODER):
            if line.entry is None:
                self.unreadable += 1
            else:
                self.entries.append(line.entry)
        return True

    def _still_there(self, file: BinaryIO) -> bool:
        file.seek(self._end - len(self._last))
        return file.read(len(self._last)) == self._last

    def _forget(self) -> bool:
        had_any = self._end > 0
        self.entries, self.unreadable, self._end, self._last = [], 0, 0, b""
        return had_any


_DECODER = msgspec.json.Decoder(AnyEntry)


def _jsonable(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(data: bytes, decoder: msgspec.json.Decoder[T]) -> Iterator[LogLine[T]]:
    for raw in data.split(b"\n"):
        if not raw.strip():
            continue
        try:  # as text first: a kill can cut a letter in two, in a field that no decoder looks at
            yield LogLine(raw, decoder.decode(raw.decode()))
        except NO_JSON:
            yield LogLine(raw, None)

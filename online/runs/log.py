"""What a run has left in its directory, read for people: metrics, probes, settings.

A run may be killed at any byte and read while it goes on, so a line or a probe that cannot be read
is left out and counted, never a reason to show nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Generic, TypeVar
from zipfile import BadZipFile

import msgspec

from online.errors import RunError
from online.scores.evaluation import NO_JSON, Evaluation, Panels, Step, load_evaluation, load_panels
from online.scores.matrix import Continual, load_continual

Loss = Annotated[float, msgspec.Meta(ge=-3.5e38, le=3.5e38)]
"""What float32 can hold: of more, no chart can be drawn."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One line of `metrics.jsonl`."""

    step: Step
    seconds: float = 0.0
    """Seconds of learning and probing until then."""


class SpentEntry(Entry, frozen=True, kw_only=True):
    """A line that says what the run's time went into until then."""

    probe_share: float | None = None
    checkpoint_share: float | None = None


class StepEntry(SpentEntry, frozen=True, kw_only=True, tag="step"):
    """One optimizer step out of so many."""

    loss: Loss | None
    top1: float | None
    exclusivity: Share | None = None
    """How much of what slots read is theirs alone; not in a log of before it was measured."""
    chance_loss: float | None = None
    """The loss of a guess."""
    triplets_per_second: float | None = None
    wait_share: float | None = None
    samples_per_insert: float | None = None


class PrequentialEntry(Entry, frozen=True, kw_only=True, tag="prequential"):
    """New footage, scored before it was trained on."""

    top1: float
    top1_copy: float
    top1_untrained: float
    candidates: int
    """Frames that the right one was to be told from."""


class ProbeEntry(SpentEntry, frozen=True, kw_only=True, tag="probe"):
    """A probe has run; its scores are in `probes/`."""

    beside: bool = False
    """Learning went on meanwhile."""


class EventEntry(Entry, frozen=True, kw_only=True, tag="event"):
    """Something a person should know of."""

    message: str

    @property
    def is_alarm(self) -> bool:
        """Whether it tells of a collapse or of exploding gradients."""
        return self.message.startswith(("collapse", "exploding"))


class SourceEntry(Entry, frozen=True, kw_only=True, tag="source"):
    """What a start of the run learns from."""

    recordings: list[str] = []
    command: list[str] = []
    """Words of a command line that goes on with the run, but for `--steps`; may be empty."""
    store: str = ""
    """Path or address; empty where unknown."""
    steps: int | None = None
    """How many steps this start was to come to."""


AnyEntry = StepEntry | PrequentialEntry | ProbeEntry | EventEntry | SourceEntry
_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, BadZipFile, zlib.error),
    RuntimeError,  # zipfile, of what it takes for a password or a method that it lacks
)
"""What NumPy raises of an archive that is damaged."""
_DECODER = msgspec.json.Decoder(AnyEntry)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogLine(Generic[T]):
    """One line of `metrics.jsonl`, and what it says."""

    raw: bytes
    entry: T | None
    """None where the line is torn, no text or of no known kind."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunLog:
    """A run so far, in order of steps."""

    path: Path
    settings: str | None
    """Text of `config.toml`; None where it is missing."""
    steps: list[StepEntry]
    probes: list[ProbeEntry]
    prequential: list[PrequentialEntry]
    events: list[EventEntry]
    reached: Entry | None
    """What was logged last of the latest step; scores of new footage come before their step."""
    source: SourceEntry | None
    """Of the latest start."""
    evaluations: list[Evaluation]
    panels: Panels | None
    """Of the latest evaluation."""
    continual: Continual | None = None
    """What it kept of each segment, where that was asked."""
    unreadable: list[str] = field(default_factory=list)
    """What was left out, a sentence each."""

    @property
    def spent(self) -> SpentEntry | None:
        """The latest line that says what the run's time went into."""
        return max([*self.steps, *self.probes], key=lambda entry: entry.seconds, default=None)

    @property
    def evaluation(self) -> Evaluation | None:
        """The latest one."""
        return self.evaluations[-1] if self.evaluations else None


def read_run(path: Path) -> RunLog:
    """Read the run directory at `path`.

    Raises RunError: there is no directory, or its files are not ours to read.
    """
    if not path.is_dir():
        raise RunError(f"{path}: no such directory; give the --run directory of a training run")
    unreadable: list[str] = []
    with _reading(path):
        entries = _read_entries(path / "metrics.jsonl", unreadable)
        settings = path / "config.toml"
        text = settings.read_text("utf-8", "replace") if settings.exists() else None
        evaluations, panels = _read_probes(path / "probes", unreadable)
        continual = _read_continual(path / "continual.json", unreadable)
    sources = [entry for entry in entries if isinstance(entry, SourceEntry)]
    return RunLog(
        path=path,
        settings=text,
        steps=[entry for entry in entries if isinstance(entry, StepEntry)],
        probes=[entry for entry in entries if isinstance(entry, ProbeEntry)],
        prequential=[entry for entry in entries if isinstance(entry, PrequentialEntry)],
        events=[entry for entry in entries if isinstance(entry, EventEntry)],
        reached=max(
            (entry for entry in entries if not isinstance(entry, PrequentialEntry)),
            key=lambda entry: (entry.step, entry.seconds),
            default=None,
        ),
        source=sources[-1] if sources else None,
        evaluations=evaluations,
        panels=panels,
        continual=continual,
        unreadable=unreadable,
    )


def latest_panels(path: Path) -> tuple[Panels | None, list[str]]:
    """Pictures of the latest evaluation of the run at `path`, and what could not be read.

    Raises RunError: the files are not ours to read.
    """
    unreadable: list[str] = []
    with _reading(path):
        _, panels = _read_probes(path / "probes", unreadable)
    return panels, unreadable


def not_a_run(path: Path) -> RunError:
    """That there is no run at `path`, and where one is near."""
    inside = [found.parent for found in sorted(path.glob("*/config.toml"))[:1]]
    where = f"did you mean {inside[0]}?" if inside else "name the --run of a training"
    return RunError(f"{path}: is not a run (no config.toml); {where}")


def log_lines(path: Path, decoder: msgspec.json.Decoder[T]) -> Iterator[LogLine[T]]:
    """Lines of a metrics log, oldest first; none where there is no file."""
    if not path.exists():
        return
    for raw in path.read_bytes().split(b"\n"):
        if not raw.strip():
            continue
        try:  # as text first: a kill can cut a letter in two, in a field that no decoder looks at
            yield LogLine(raw, decoder.decode(raw.decode()))
        except NO_JSON:
            yield LogLine(raw, None)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error})") from error


def _read_entries(path: Path, unreadable: list[str]) -> list[AnyEntry]:
    lines = list(log_lines(path, _DECODER))
    entries = [line.entry for line in lines if line.entry is not None]
    if torn := len(lines) - len(entries):
        counted = "1 line" if torn == 1 else f"{torn} lines"
        unreadable.append(f"{counted} of metrics.jsonl could not be read")
    return entries


def _read_probes(folder: Path, unreadable: list[str]) -> tuple[list[Evaluation], Panels | None]:
    """Evaluations by step, and the panels of the last that could be read."""
    evaluations: list[Evaluation] = []
    latest: Path | None = None
    # scores are written last: a folder without them is one whose probe did not finish
    for scores in sorted(folder.glob("step-*/scores.json")):
        try:
            evaluations.append(load_evaluation(scores.parent))
            latest = scores.parent
        except (OSError, *NO_JSON) as error:
            unreadable.append(f"probes/{scores.parent.name}/scores.json could not be read: {error}")
    if latest is None:
        return [], None
    try:
        return evaluations, load_panels(latest)
    except _DAMAGE as error:
        unreadable.append(f"probes/{latest.name}/panels.npz could not be read: {error}")
        return evaluations, None


def _read_continual(path: Path, unreadable: list[str]) -> Continual | None:
    try:
        return load_continual(path)
    except FileNotFoundError:
        return None
    except (OSError, *NO_JSON) as error:
        unreadable.append(f"{path.name} could not be read: {error}")
        return None

"""What a run has left in its directory, read for people: metrics, probes, settings.

A run may be killed at any byte and read while it goes on, so a line or a probe that cannot be read
is left out and counted, never a reason to show nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from online.errors import RunError
from online.runs.entries import (
    AnyEntry,
    Entry,
    EventEntry,
    PrequentialEntry,
    ProbeEntry,
    SourceEntry,
    SpentEntry,
    StepEntry,
    last_spent,
    read_log,
)
from online.runs.glimpse import DAMAGE, Glimpse, load_glimpse
from online.runs.names import CONFIG_FILE
from online.scores.evaluation import NO_JSON, Evaluation, Panels, load_evaluation, load_panels
from online.scores.matrix import Continual, load_continual


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
    spent: SpentEntry | None
    """The last line that says how the run spent its time. Not that of the most seconds: in older
    logs they go back where a run continues."""
    source: SourceEntry | None
    """Source of the latest start."""
    evaluations: list[Evaluation]
    panels: Panels | None
    """Pictures of the latest evaluation."""
    newest: Glimpse | None = None
    """The newest frame, as the model saw it last; None for runs older than such pictures."""
    continual: Continual | None = None
    """What it kept of each segment, where that was asked."""
    unreadable: list[str] = field(default_factory=list)
    """What was left out, a sentence each."""

    @property
    def evaluation(self) -> Evaluation | None:
        """The latest one."""
        return self.evaluations[-1] if self.evaluations else None


def read_run(path: str | Path, *, entries: Sequence[AnyEntry] | None = None) -> RunLog:
    """Read the run directory at `path`.

    With `entries`, those of a `FollowedLog`, its log is not read again.

    Raises RunError: there is no directory, or its files are not ours to read.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"{path}: no such directory; give the --run directory of a training run")
    unreadable: list[str] = []
    with _reading(path):
        if entries is None:
            entries = _read_entries(path / "metrics.jsonl", unreadable)
        settings = path / CONFIG_FILE
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
        reached=max(  # the last of those of the same step: `max` takes the first that it sees
            (entry for entry in reversed(entries) if not isinstance(entry, PrequentialEntry)),
            key=lambda entry: entry.step,
            default=None,
        ),
        spent=last_spent(entries),
        source=sources[-1] if sources else None,
        evaluations=evaluations,
        panels=panels,
        newest=load_glimpse(path / "newest.npz"),
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
    """The error that there is no run at `path`, naming one nearby."""
    inside = [found.parent for found in sorted(path.glob(f"*/{CONFIG_FILE}"))[:1]]
    where = f"did you mean {inside[0]}?" if inside else "name the --run of a training"
    return RunError(f"{path}: not a run (no config.toml); {where}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error})") from error


def _read_entries(path: Path, unreadable: list[str]) -> list[AnyEntry]:
    lines = list(read_log(path))
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
    except DAMAGE as error:
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

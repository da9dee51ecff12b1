"""The weights of a run at the end of each segment of its stream.

    stream     balls ──────▶│ sprites ─────▶│ gridworld ─▶│ end
    segments/          000.safetensors  001.safetensors  002.safetensors

A segment is a recording. A run that is resumed comes to the same ends again, with the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ingest.durable import write_durably
from online.errors import CheckpointError

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Segment:
    """The end of one."""

    path: Path
    recording: str
    step: int
    """Optimizer steps from the start of the run to this end."""


class Segments:
    """Notes when the stream passes from one recording to the next."""

    def __init__(self, folder: Path, *, index: int = 0, recording: str | None = None) -> None:
        self._folder = folder
        self.index = index
        """Of the segment that is being learned from."""
        self.recording = recording
        """That segment; None before the first clip."""

    def enter(self, recording: str, model: Mapping[str, Tensor], step: int) -> None:
        """Learn from ``recording`` next; ``model`` is as it is now, after ``step`` steps."""
        if self.recording not in (None, recording):
            self.end(model, step)
            self.index += 1
        self.recording = recording

    def end(self, model: Mapping[str, Tensor], step: int) -> None:
        """Keep the weights at the end of what was learned from last, if it was anything."""
        if self.recording is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in model.items()}
        about = {"recording": json.dumps(self.recording), "step": str(step)}
        write_durably(self._folder / f"{self.index:03d}{SUFFIX}", save(tensors, metadata=about))


def find_segments(folder: Path) -> list[Segment]:
    """What a run has kept, in the order of its stream.

    Raises:
        CheckpointError: a file is damaged.
    """
    return [_segment(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def load_segment(segment: Segment) -> dict[str, Tensor]:
    """The weights at its end.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        with safe_open(segment.path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(segment.path, error) from error


def _segment(path: Path) -> Segment:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
        return Segment(path, json.loads(about["recording"]), int(about["step"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: weights of a segment that cannot be read ({error}); remove it, or train again"
    )

"""The weights of a run at the end of each segment of its stream.

    stream     balls ──────▶│ sprites ─────▶│ gridworld ─▶│ end
    segments/          000000.safetensors  000001.safetensors  000002.safetensors

A segment is a recording. It ends with the step that takes the last of its new clips: those of the
next one may have been inserted before. A run that is resumed reaches the same ends again, with the
same weights.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ingest.disk.checksum import crc32c
from ingest.disk.durable import write_whole
from online.errors import CheckpointError
from online.runs.weights import on_host

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Segment:
    """The end of a segment."""

    path: Path
    recording: str
    step: int
    """Optimizer steps from the start of the run to this end."""


class OpenSegments:
    """Where in the stream a run is: how many segments have ended, and which have begun."""

    def __init__(self) -> None:
        self.ended = 0
        self._open: list[str] = []

    @property
    def oldest(self) -> str | None:
        """The recording that the run learns from; None before the first clip."""
        return self._open[0] if self._open else None

    def enter(self, recording: str) -> None:
        """Note that a clip of `recording` is inserted."""
        if not self._open or self._open[-1] != recording:
            self._open.append(recording)

    def has_ended(self, waiting: Collection[str]) -> bool:
        """Whether the oldest segment has: `waiting` are the recordings of the clips that were
        inserted and not learned from yet.
        """
        return len(self._open) > 1 and self._open[0] not in waiting

    def end_oldest(self) -> None:
        """Go on to the next one."""
        self._open.pop(0)
        self.ended += 1

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {"ended": self.ended, "open": list(self._open)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.ended, self._open = state["ended"], state["open"]


class EndWeights:
    """Keeps the weights of the end of each of a run's segments."""

    def __init__(self, folder: Path, segments: OpenSegments) -> None:
        self._folder = folder
        self._segments = segments

    def are_due(self, waiting: Collection[str]) -> bool:
        """Whether a segment has ended; `waiting` as in `OpenSegments.has_ended`."""
        return self._segments.has_ended(waiting)

    def stepped(self, waiting: Collection[str], model: Mapping[str, Tensor], step: int) -> None:
        """Keep `model` for each segment that has ended."""
        while self._segments.has_ended(waiting):
            self._keep(model, step)
            self._segments.end_oldest()

    def end(self, model: Mapping[str, Tensor], step: int) -> None:
        """Keep `model` as the end of what is being learned from."""
        if self._segments.oldest is not None:
            self._keep(model, step)

    def cut_back(self, step: int) -> None:
        """Remove what was kept after `step`: a run that is resumed will keep it again."""
        for segment in find_segments(self._folder):
            if segment.step > step:
                segment.path.unlink()

    def _keep(self, model: Mapping[str, Tensor], step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        tensors = on_host(model)
        about = {
            "recording": json.dumps(self._segments.oldest),
            "step": str(step),
            "crc32c": str(_checksum(tensors)),
        }
        path = self._folder / f"{self._segments.ended:06d}{SUFFIX}"
        write_whole(path, save(tensors, metadata=about))


def find_segments(folder: Path) -> list[Segment]:
    """What a run has kept, in the order of its stream.

    Raises CheckpointError: a file is damaged.
    """
    return [_segment(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def load_segment(segment: Segment) -> dict[str, Tensor]:
    """The weights at its end.

    Raises CheckpointError: the file is damaged.
    """
    try:
        with safe_open(segment.path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _checksum(tensors) != int(file.metadata()["crc32c"]):
                raise ValueError("its checksum does not hold")
        return tensors
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _unreadable(segment.path, error) from error


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    return crc32c(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors)))


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

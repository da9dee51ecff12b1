"""A run's directory: its names, its lock, and the metrics log that a resume cuts back.

RUN/config.toml  metrics.jsonl  report.html  status.json  newest.npz  lock
    checkpoints/step-00001500/   probes/step-00001500/   segments/   tensorboard/
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from ingest.disk.durable import PARTIAL, write_whole
from ingest.errors import IngestError
from online.config import RunConfig, differences, dump_config, load_config
from online.errors import Diverged, OnlineError, RunError
from online.runs.checkpoint import latest_checkpoint, set_aside
from online.runs.entries import Entry, log_lines, to_line
from online.runs.lock import LOCK_FILE, RunLock
from online.runs.names import (
    CHECKPOINTS,
    CONFIG_FILE,
    PREFIX,
    check_run_folder,
    folder_name,
)
from online.runs.tensorboard import TensorBoard, open_tensorboard

# May change between two starts of one run: how long, how often, on what; never what is learned.
_CHANGEABLE = (
    *("optimizer.learning_rate", "optimizer.warmup_steps"),
    *("optimizer.weight_decay", "optimizer.clip_norm", "optimizer.average_steps"),
    "model.encoder.timm.weights",  # whose fingerprint is in the checkpoint
    "stream.credit_bytes",
    "stream.max_epochs",
    "stream.max_delay_seconds",
    "training.steps",
    "training.log_every_steps",
    "training.checkpoint_every_seconds",
    "training.keep_checkpoints",
    "training.picture_share",
    "evaluation.",
    "probe.",
)


class _Stamp(msgspec.Struct):
    """What a line of the log must have to be kept."""

    step: int


_STAMP = msgspec.json.Decoder(_Stamp)


class RunDirectory:
    """One run on disk, locked against a second trainer while the object is open.

    Without `writes` nothing of it is locked, written or removed: the first of several trainers of
    one run does that for all of them.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.config_path = path / CONFIG_FILE
        self.metrics_path = path / "metrics.jsonl"
        self.status_path = path / "status.json"
        self.newest_path = path / "newest.npz"
        self.curves = path / "tensorboard"
        self.checkpoints = path / CHECKPOINTS
        self.probes = path / "probes"
        self.segments = path / "segments"
        self.continual_path = path / "continual.json"
        self._lock = RunLock(path)
        self._is_new = False

    def __enter__(self) -> RunDirectory:
        """Make the directory if it is missing, and lock it.

        Raises RunError: it is a file, holds something else, or another trainer is at work in it.
        """
        check_run_folder(self.path)
        if not self.writes:
            return self
        if self.path.is_dir() and not self.config_path.exists() and self._holds_something():
            raise RunError(
                f"{self.path}: is not empty and not a run (no config.toml); choose a new directory"
            )
        self._is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # a start that was refused before its first step has made nothing worth keeping
        refused = isinstance(error, OnlineError | IngestError) and not isinstance(error, Diverged)
        if self._is_new and refused and not self._has_learned():
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()

    def _has_learned(self) -> bool:
        """Whether there is a step that was saved or logged."""
        newest = latest_checkpoint(self.checkpoints)
        return newest not in (None, self.checkpoint(0)) or self._steps_logged() > 0

    def _holds_something(self) -> bool:
        """Whether there is more than a start that failed at once leaves."""
        return any(p.name != LOCK_FILE and p.suffix != PARTIAL for p in self.path.iterdir())

    def begin_anew(self) -> None:
        """Forget a start that never reached its first checkpoint after step 0.

        Raises RunError: the run has come further, and its checkpoints are gone.
        """
        if not self.writes:
            return
        if not self.checkpoint(0).exists() and (steps := self._steps_logged()):
            raise RunError(
                f"{self.path}: metrics.jsonl has {steps} steps, but there is no checkpoint; "
                f"restore {self.checkpoints} from a copy, or choose a new --run directory"
            )
        self.metrics_path.unlink(missing_ok=True)  # first: it counts only with a checkpoint
        shutil.rmtree(self.checkpoint(0), ignore_errors=True)
        shutil.rmtree(self.probes, ignore_errors=True)
        shutil.rmtree(self.segments, ignore_errors=True)
        self.continual_path.unlink(missing_ok=True)
        self.newest_path.unlink(missing_ok=True)
        shutil.rmtree(self.curves, ignore_errors=True)

    def claim(self, config: RunConfig) -> list[str]:
        """Write `config` into a new run, or check that it is what the run was started with.

        Returns the settings that have changed, if they are ones that may.

        Raises RunError: the run was started with another configuration, naming what differs.
        """
        changed: list[str] = []
        if latest_checkpoint(self.checkpoints) not in (None, self.checkpoint(0)):
            changed = differences(config, load_config(self.config_path))
            refused = [text for text in changed if not text.startswith(_CHANGEABLE)]
            if refused:
                raise RunError(
                    f"{self.path}: was started with another configuration: {', '.join(refused)}; "
                    "use the same settings, or begin in another directory"
                )
        if self.writes:
            write_whole(self.config_path, dump_config(config).encode())
        return changed

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of `step` is, or was before newer ones replaced it."""
        return self.checkpoints / folder_name(step)

    def probe_folder(self, step: int) -> Path:
        """Where the evaluation of `step` is kept."""
        return self.probes / folder_name(step)

    @property
    def has_probe(self) -> bool:
        """Whether the scores of a probe are there."""
        return any(self.probes.glob(f"{PREFIX}*/scores.json"))

    def cut_back(self, step: int) -> None:
        """Drop probes and lines of the log after `step`, and lines that cannot be read."""
        if not self.writes:
            return
        for probe in self.probes.glob(f"{PREFIX}*"):
            if probe.name > folder_name(step):
                shutil.rmtree(probe)
        if not self.metrics_path.exists():
            return
        kept = [
            line.raw + b"\n"
            for line in log_lines(self.metrics_path, _STAMP)
            if line.entry is not None and line.entry.step <= step
        ]
        write_whole(self.metrics_path, b"".join(kept))

    def log(self, entry: Entry) -> None:
        """Append one line to the metrics log."""
        if self.writes:
            with self.metrics_path.open("ab") as log:
                log.write(to_line(entry))

    def open_curves(self, *, after_step: int) -> TensorBoard | None:
        """Curves that go on after a step; None where there is no TensorBoard, or nothing to write.

        What earlier starts wrote after `after_step` is void.
        """
        return open_tensorboard(self.curves, after_step=after_step) if self.writes else None

    def set_aside(self, damaged: Sequence[Path]) -> None:
        """Give damaged checkpoints a name that is not looked at, so that they are reported once."""
        if self.writes:
            set_aside(damaged)

    def _steps_logged(self) -> int:
        if not self.metrics_path.exists():
            return 0
        entries = (line.entry for line in log_lines(self.metrics_path, _STAMP))
        return max((entry.step for entry in entries if entry is not None), default=0)

    def sync_metrics(self) -> None:
        """Put on disk what was logged: before a checkpoint, whose resume keeps it."""
        if self.writes and self.metrics_path.exists():
            with self.metrics_path.open("a") as log:
                os.fsync(log.fileno())

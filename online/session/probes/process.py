"""The probe in a separate process, while learning goes on.

    probes/step-00005000/model.safetensors            the probe is owed
    parent ── its servers, "5000" ──▶ python -m online.session.probes.process RUN DEVICE
           ◀── "progress 0.43 probing", then "done" or "none MESSAGE" ──
    probes/step-00005000/panels.npz, scores.json      it is made

The process fetches its footage from the servers as the trainer does. It waits for the next request
rather than leave, since it keeps what the untrained encoder scores.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load

from ingest.disk.durable import remove_partial_files, write_whole
from online.allocator import keep_freed_memory
from online.clips.joined import JoinedSource
from online.config import load_config
from online.errors import FootageError, ServerError
from online.probing.evaluator import Evaluator
from online.process import Child, hear_parent
from online.queue.client import Client
from online.queue.keys import TrainerKeys
from online.runs.directory import RunDirectory
from online.runs.models import load_pair
from online.runs.names import MODEL_FILE, PREFIX, step_of
from online.runs.weights import load_into
from online.scores.evaluation import save_evaluation
from online.training.models import set_determinism


@dataclass(frozen=True, slots=True)
class Ended:
    """A probe that is made, or will not be."""

    step: int
    failure: str
    """Why there are no scores; empty if there are."""


@dataclass(frozen=True, slots=True)
class Access:
    """A server, and what it takes to be let in."""

    address: str
    keys: TrainerKeys | None


class ProbeProcess:
    """Makes one probe at a time; starts with the first one, and again if it died."""

    def __init__(
        self, directory: RunDirectory, clients: Sequence[Client], *, device: torch.device
    ) -> None:
        self.directory = directory
        self.step: int | None = None
        """Whose probe is being made."""
        self.doing = ""
        self.share = 0.0
        """Share of it that is done, 0..1."""
        self._arguments = [str(directory.path), str(device)]
        self._servers = [Access(client.address, client.keys) for client in clients]
        self._child: Child | None = None

    def begin(self, step: int) -> None:
        """Have the model of `step`, which has a checkpoint or is owed, probed."""
        folder = self.directory.probe_folder(step)
        if not (folder / MODEL_FILE).exists():  # checkpoints come and go while it is at work
            folder.mkdir(parents=True, exist_ok=True)
            weights = (self.directory.checkpoint(step) / MODEL_FILE).read_bytes()
            write_whole(folder / MODEL_FILE, weights)
        if self._child is None:
            self._child = Child("online.session.probes.process", self._arguments)
            # not as arguments: anyone can read those, and keys are secret
            self._child.tell(msgspec.json.encode(self._servers).decode())
        self.step, self.doing, self.share = step, "starting the probe", 0.0
        self._child.tell(str(step))

    def poll(self, timeout_seconds: float = 0.0) -> Ended | None:
        """How the probe at work ended, if it has; waits for news of it in the time given."""
        if self._child is None or self.step is None:
            return None
        has_ended = self._child.has_ended  # looked at first: all that it said is there by now
        for line in self._child.lines(timeout_seconds):
            word, _, rest = line.partition(" ")
            if word == "progress":
                share, _, self.doing = rest.partition(" ")
                self.share = float(share)
            elif word in ("done", "none"):
                return self._end(self.step, rest)
        if has_ended:
            words = self._child.last_words()
            self._leave()
            return self._end(self.step, f"its process was {words}")
        return None

    def close(self) -> None:
        """End the process at once; a probe that it was making is owed."""
        self._leave()
        self.step = None
        remove_partial_files(self.directory.probes)

    def _end(self, step: int, failure: str) -> Ended:
        self.step = None
        folder = self.directory.probe_folder(step)
        if failure:
            shutil.rmtree(folder)
        else:
            forget_weights(folder)
        return Ended(step, failure)

    def _leave(self) -> None:
        if self._child is not None:
            self._child.leave(within_seconds=0.0)  # what it has fitted is kept
            self._child = None


def unheard_probe(directory: RunDirectory) -> int | None:
    """The step of the probe that an earlier start began and did not see finished, if any.

    Its scores may exist all the same. What a killed process left half written is removed.
    """
    remove_partial_files(directory.probes)
    begun = sorted(directory.probes.glob(f"{PREFIX}*/{MODEL_FILE}"))  # one at most is at work
    return step_of(begun[-1].parent) if begun else None


def forget_weights(folder: Path) -> None:
    """Delete what was probed: the scores are there, and the parent knows of them."""
    (folder / MODEL_FILE).unlink()


def main(run: str, device: str) -> None:
    """Make the probes that stdin asks for after a line about the servers, until it ends."""
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    hear_parent(requests.put, at_end=lambda: os._exit(0))
    directory = RunDirectory(Path(run))
    servers = msgspec.json.decode(requests.get(), type=list[Access])
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(at.address, keys=at.keys)) for at in servers]
        maker = _Maker(directory, clients, torch.device(device))
        while True:
            try:
                maker.make(int(requests.get()))
            except (FootageError, ServerError) as error:
                _say(f"none {error}")
            else:
                _say("done")


class _Maker:
    """The models and the evaluator of the process."""

    def __init__(
        self, directory: RunDirectory, clients: Sequence[Client], device: torch.device
    ) -> None:
        self.directory = directory
        config = load_config(directory.config_path)
        keep_freed_memory()
        set_determinism(replace(config.training, threads=config.evaluation.threads))
        pair = load_pair(directory, config, device=device)
        self.model = pair.model
        source = JoinedSource(clients, recordings=config.stream.recordings)
        self.evaluator = Evaluator.of(config, source, pair.untrained, device=device)
        self._said = ""

    def make(self, step: int) -> None:
        """Evaluate the model that waits in the probe folder of `step`, and save what is found."""
        folder = self.directory.probe_folder(step)
        load_into(self.model, load((folder / MODEL_FILE).read_bytes()), where=folder)
        found = self.evaluator.evaluate_in(folder, self.model, step=step, progress=self._progress)
        save_evaluation(folder, found.evaluation, found.panels)

    def _progress(self, what: str, share: float) -> None:
        line = f"progress {share:.2f} {what}"
        if line != self._said:  # a parent in the middle of a long step does not read
            self._said = line
            _say(line)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One run: clips into the replay, steps of the trainer, checkpoints, probes, a report.

    feed.next ─▶ prequential score ─▶ replay.insert
                                      replay.sample ─▶ trainer.step ─▶ metrics.jsonl
                                                       every so often: checkpoint, probe, report

All that decides what is learned is a function of the configuration and of the clips inserted, so a
run that is killed and started again logs the same losses as one that was left alone.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from online.batch import collate, to_images
from online.catalog import RecordingSummary
from online.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    load_into,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from online.client import Client
from online.clip import Clip
from online.clock import RunClock
from online.config import RunConfig, check_frame_size
from online.errors import FootageError, RunError, ServerError, ServerSilent, TrainingError
from online.evaluate import Evaluator
from online.feed import Feed
from online.footage import JoinedSource
from online.replay import Replay
from online.report import write_report
from online.run_directory import RunDirectory
from online.scores import Evaluation, collapse_alarm, load_evaluation, save_evaluation
from online.stop import StopSignals
from online.trainer import CollapseAlarm, PrequentialScore, StepResult, Trainer
from setcon.model import SetCon

PREQUENTIAL_WINDOW_CLIPS = 50
PATIENCE_SECONDS = 60.0
"""How long no clip may come before the run gives up; a server may be restarted meanwhile."""
FAR_CLIP_STATES = 8
"""Most states taken from each far clip that a prequential score compares with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a person watching a run wants to know."""

    activity: str
    """``learning``, ``waiting for data``, ``probing`` and the like."""
    share: float
    """Share of the activity that is done, 0..1; of the whole run while learning."""
    step: int
    steps: int
    seconds: float
    """Learning and probing so far, earlier starts of the run included."""
    loss: float | None
    top1: float | None
    prequential_top1: float | None
    triplets_per_second: float
    wait_share: float
    clips_inserted: int
    samples_per_insert: float


Observer = Callable[[Status], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a run's footage comes from, for the report."""

    store: str = ""
    """Path of the store, or addresses of the servers."""
    command: Sequence[str] = ()
    """Words of the command line that continues the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    reason: Literal["complete", "stopped", "stream ended", "time is up"]
    step: int
    signal_number: int | None = None
    evaluation: Evaluation | None = None
    """Of the last probe; None after a signal, which does not wait for one."""
    report: Path | None = None


class _StopRequested(Exception):  # noqa: N818 - carries a signal through a probe
    """A signal came in the middle of something that can be given up."""


class Session:
    """Wires and runs one run; ``run`` returns when it is complete or told to stop."""

    def __init__(
        self,
        directory: RunDirectory,
        config: RunConfig,
        clients: Sequence[Client],
        *,
        device: torch.device,
        stop: StopSignals,
        minutes: float | None = None,
        observe: Observer | None = None,
        origin: Origin | None = None,
        check_servers: Callable[[], None] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config
        self.feed = Feed(clients, config.stream.request(seed=config.training.seed))
        self.stop = stop
        self.budget_seconds = math.inf if minutes is None else 60 * minutes
        self.origin = origin or Origin()
        self.check_servers = check_servers or (lambda: None)
        self.observe = observe or (lambda status: None)
        torch.manual_seed(config.training.seed)
        self.trainer = Trainer(
            SetCon(config.model),
            frame_stride=config.stream.frame_stride,
            loss=config.loss,
            optimizer=config.optimizer,
            training=config.training,
            device=device,
        )
        self.source = JoinedSource(clients, recordings=config.stream.recordings)
        self.evaluator = Evaluator(
            self.source,
            self.trainer.untrained,
            config.evaluation,
            config.probe,
            frame_stride=config.stream.frame_stride,
            device=device,
        )
        self.replay = Replay(
            config.replay, batch_clips=config.training.batch_clips, seed=config.training.seed
        )
        self.alarm = CollapseAlarm()
        self.clock = RunClock()
        self._frame_size: list[int] | None = None
        self._held_out: dict[str, float] = {}
        self._last: StepResult | None = None
        self._prequential: deque[float] = deque(maxlen=PREQUENTIAL_WINDOW_CLIPS)
        self._saved_at = time.monotonic()

    def run(self) -> Outcome:
        """Learn until the steps or the minutes are used up, the stream ends, or a signal comes.

        Raises:
            OnlineError: the run cannot begin, continue or go on; what was saved stays.
        """
        self._begin()
        try:
            reason = self._learn()
        except ServerError:  # what was learned before the server went away is kept
            self._save()
            raise
        self._save()
        if reason == "stopped":
            return self._stopped()
        try:
            evaluation = self._probed()
        except _StopRequested:
            return self._stopped()
        return Outcome(
            reason=reason,
            step=self.trainer.step_count,
            evaluation=evaluation,
            report=write_report(self.directory.path),
        )

    def _begin(self) -> None:
        path = latest_checkpoint(self.directory.checkpoints)
        if path is None or path == self.directory.checkpoint(0):
            self.directory.begin_anew()
            self._save()  # step 0 is the untrained model, which every evaluation is shown beside
            self.clock.start(0.0)
        else:
            self._resume(path)
        summaries = self.source.recordings()
        self._remember_held_out(summaries)
        self.directory.log(
            "source",
            step=self.trainer.step_count,
            seconds=self.clock.seconds,
            recordings=[summary.name for summary in summaries],
            store=self.origin.store,
            clip_overhead=self.config.stream.clip.overhead,
            command=list(self.origin.command),
        )

    def _remember_held_out(self, summaries: list[RecordingSummary]) -> None:
        """Note what share of each recording is held out, so that nothing else is scored later.

        Raises:
            RunError: a server now holds out more of a recording, which was trained on.
        """
        for summary in summaries:
            if not summary.complete or summary.live or not summary.length:
                continue
            share = sum(map(len, summary.held_out)) / summary.length
            before = self._held_out.setdefault(summary.name, share)
            if share > before:
                raise RunError(
                    f"{summary.name}: {share:.1%} is held out now, but this run has trained on all "
                    f"but {before:.1%} of it; use --holdout {before:.4g}"
                )

    def _resume(self, path: Path) -> None:
        first = self.directory.checkpoint(0)
        load_into(self.trainer.untrained, load_checkpoint(first).model, where=first)
        checkpoint = load_checkpoint(path)
        load_into(self.trainer.model, checkpoint.model, where=path)
        self.trainer.load_optimizer(checkpoint.optimizer)
        self.trainer.step_count = checkpoint.step
        run = checkpoint.run
        self.clock.start(run["seconds"])
        self.alarm.steps_at_chance = run["steps_at_chance"]
        self._frame_size = run["frame_size"]
        self._held_out = run["held_out"]
        self.feed.restore(run["feed"])
        self.replay.restore(run["replay"], self.feed.fetch_clip)
        set_rng_state(checkpoint.rng)
        self.directory.cut_metrics(checkpoint.step)
        self._event(f"continued from the checkpoint of step {checkpoint.step}")

    def _learn(self) -> Literal["complete", "stopped", "stream ended", "time is up"]:
        config = self.config
        while True:
            if self.stop.received:
                return "stopped"
            if self.trainer.step_count >= config.training.steps:
                return "complete"
            if self.clock.seconds >= self.budget_seconds:
                return "time is up"
            try:
                if self._probe_is_due():
                    self._save()
                    self._probed()
                    write_report(self.directory.path)
                if not self._fill():
                    return "stream ended"
            except _StopRequested:
                return "stopped"
            self._step()
            if time.monotonic() - self._saved_at > config.training.checkpoint_every_seconds:
                self._save()

    def _fill(self) -> bool:
        """Insert the clips that are due; False where the stream ends before they come."""
        while self.replay.inserts_due():
            with self.clock.waiting():
                clip = self._next_clip()
            if clip is None:
                return False
            self._check_size(clip)
            self._score(clip)
            self.replay.insert(clip)
            self.feed.inserted(clip)
        return True

    def _next_clip(self) -> Clip | None:
        """The next clip of the stream, None at its end; looks up for a signal all the while."""
        patience = time.monotonic() + PATIENCE_SECONDS
        while not self.feed.ended:
            clip = self.feed.next(timeout_seconds=0.5)
            if clip is not None:
                return clip
            if self.stop.received:
                raise _StopRequested
            self.check_servers()
            if time.monotonic() > patience:
                raise ServerSilent(
                    f"no clip in {PATIENCE_SECONDS:g} s; is the server running, and has its store "
                    "anything new? the same command continues this run"
                )
            self._tell("waiting for data")
        return None

    def _check_size(self, clip: Clip) -> None:
        size = list(clip.images.shape[1:3])
        if self._frame_size is None:
            check_frame_size(self.config, *size)
            self._frame_size = size
        if size != self._frame_size:
            raise TrainingError(
                f"{clip.spec.recording}: frames of {size[0]}x{size[1]}, but this run learns from "
                f"{self._frame_size[0]}x{self._frame_size[1]}; ingest it with that --size, "
                "or leave it out with --set stream.recordings=GLOB"
            )

    def _score(self, clip: Clip) -> None:
        """Score a clip that was never inserted before, where enough far clips are held."""
        far = self._far_clips(clip) if self.feed.first_time(clip) else []
        if not far:
            return
        score = self.trainer.prequential(
            to_images(clip.images), torch.stack([to_images(images) for images in far])
        )
        self._prequential.append(score.top1)
        self._log_prequential(score)

    def _far_clips(self, clip: Clip) -> list[np.ndarray]:
        """Images of clips drawn from the replay that lie far from ``clip`` in time, or none."""
        training, clip_config = self.config.training, self.config.stream.clip
        states = min(FAR_CLIP_STATES, clip_config.frames - clip_config.overlap)
        frames = clip_config.overlap + states
        gap_ns = training.prequential_gap_seconds * 1e9
        far = [
            held
            for held in self.replay.held()
            if len(held.images) >= frames and _distance_ns(held, clip) >= gap_ns
        ]
        wanted = -(-training.prequential_candidates // states)
        if len(far) < wanted:
            return []
        rng = np.random.default_rng([training.seed, 0xFA5, self.replay.inserts])
        return [far[i].images[:frames] for i in rng.choice(len(far), wanted, replace=False)]

    def _step(self) -> None:
        batch = collate(self.replay.sample(), self.config.stream.clip)
        learning_rate = self.trainer.learning_rate
        try:
            result = self._last = self.trainer.step(batch)
        except TrainingError as error:
            self._event(str(error))
            raise
        self.clock.step(result.triplets)
        if message := self.alarm.update(result):
            self._event(message)
        if self.trainer.step_count % self.config.training.log_every_steps == 0:
            self._log_step(result, learning_rate)
        self._tell("learning")

    def _probe_is_due(self) -> bool:
        step = self.trainer.step_count
        every = self.config.evaluation.every_steps
        done = (self.directory.probe_folder(step) / "scores.json").exists()
        return step > 0 and step % every == 0 and not done

    def _probed(self) -> Evaluation | None:
        """The evaluation of this step, made unless it is there; None without footage for it."""
        folder = self.directory.probe_folder(self.trainer.step_count)
        if (folder / "scores.json").exists():
            return load_evaluation(folder)
        try:
            return self._probe()
        except FootageError as error:  # a camera's first minutes hold nothing out yet
            self._event(f"no probe: {error}")
            return None
        finally:
            self.clock.pause()

    def _probe(self) -> Evaluation:
        step = self.trainer.step_count
        findings = self.evaluator.evaluate(self.trainer.model, step=step, progress=self._probing)
        save_evaluation(self.directory.probe_folder(step), findings.evaluation, findings.panels)
        self.directory.log("probe", step=step, seconds=self.clock.seconds)
        if message := collapse_alarm(findings.evaluation):
            self._event(message)
        return findings.evaluation

    def _probing(self, what: str, share: float) -> None:
        if self.stop.received:
            raise _StopRequested
        self._tell(what, share)

    def _save(self) -> None:
        self.directory.sync_metrics()
        save_checkpoint(
            self.directory.checkpoints,
            Checkpoint(
                step=self.trainer.step_count,
                model=self.trainer.model.state_dict(),
                optimizer=self.trainer.optimizer.state_dict(),
                run={
                    "seconds": self.clock.seconds,
                    "steps_at_chance": self.alarm.steps_at_chance,
                    "frame_size": self._frame_size,
                    "held_out": self._held_out,
                    "feed": self.feed.state(),
                    "replay": self.replay.state(),
                },
                rng=rng_state(),
            ),
            keep=self.config.training.keep_checkpoints,
        )
        self._saved_at = time.monotonic()

    def _stopped(self) -> Outcome:
        number = self.stop.received
        self._event(f"stopped by {number.name if number else 'request'}, saved")
        return Outcome(reason="stopped", step=self.trainer.step_count, signal_number=number)

    def _event(self, message: str) -> None:
        self.directory.log(
            "event", step=self.trainer.step_count, seconds=self.clock.seconds, message=message
        )

    def _log_step(self, result: StepResult, learning_rate: float) -> None:
        self.directory.log(
            "step",
            step=self.trainer.step_count,
            seconds=self.clock.seconds,
            loss=result.loss,
            top1=result.top1,
            chance_loss=math.log(result.candidates),
            grad_norm=result.grad_norm,
            learning_rate=learning_rate,
            triplets_per_second=self.clock.triplets_per_second,
            wait_share=self.clock.wait_share,
            clips_inserted=self.replay.inserts,
            samples_per_insert=self.replay.samples / max(1, self.replay.inserts),
            epoch=self.feed.epoch,
        )

    def _log_prequential(self, score: PrequentialScore) -> None:
        self.directory.log(
            "prequential",
            step=self.trainer.step_count + 1,  # the step it comes before: a resume logs it again
            seconds=self.clock.seconds,
            loss=score.loss,
            loss_untrained=score.loss_untrained,
            top1=score.top1,
            top1_copy=score.top1_copy,
            top1_untrained=score.top1_untrained,
            candidates=score.candidates,
        )

    def _tell(self, activity: str, share: float | None = None) -> None:
        by_steps = self.trainer.step_count / self.config.training.steps
        by_time = self.clock.seconds / self.budget_seconds
        self.observe(
            Status(
                activity=activity,
                share=max(by_steps, by_time) if share is None else share,
                step=self.trainer.step_count,
                steps=self.config.training.steps,
                seconds=self.clock.seconds,
                loss=self._last.loss if self._last else None,
                top1=self._last.top1 if self._last else None,
                prequential_top1=float(np.mean(self._prequential)) if self._prequential else None,
                triplets_per_second=self.clock.triplets_per_second,
                wait_share=self.clock.wait_share,
                clips_inserted=self.replay.inserts,
                samples_per_insert=self.replay.samples / max(1, self.replay.inserts),
            )
        )


def _distance_ns(one: Clip, other: Clip) -> float:
    """Time between the nearest frames of two clips; infinite between recordings."""
    if one.spec.recording != other.spec.recording or one.spec.server != other.spec.server:
        return math.inf
    between = max(one.pts_ns[0] - other.pts_ns[-1], other.pts_ns[0] - one.pts_ns[-1])
    return max(0.0, float(between))

"""What a run is between two steps: everything that a checkpoint holds, and puts back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ingest.errors import IngestError
from online.clips.clip import Clip
from online.clips.holdout import RecordingSummary
from online.config import RunConfig
from online.errors import CheckpointError, OnlineError, RunError, TrainingError
from online.queue.client import Client
from online.queue.connection import ClientCounters
from online.queue.feed import Fate, FeedCounters
from online.runs.checkpoint import Checkpoint
from online.runs.rng import rng_state, set_rng_state
from online.runs.segments import OpenSegments
from online.runs.weights import load_into
from online.session.agreement import Agreed, Agreement, Found, Tally
from online.session.clock import RunClock
from online.session.shards import (
    SavedShard,
    Shard,
    check_count,
    joined_shards,
    packed,
    saved_shards,
    unpacked,
)
from online.session.world import World
from online.stop import StopSignals
from online.training.alarms import Alarms
from online.training.exchange import Exchange
from online.training.models import check_frame_size, untrained_model
from online.training.trainer import Trainer
from setcon.frozen import learned_state
from setcon.model import SetCon

_DOES_NOT_FIT = (
    *(LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError),
    *(RecursionError, MemoryError),
)
"""What a state raises that is not one of this run, or was changed."""


class RunState:
    """The trainer, the feed, the replay, and what must not change while a run lasts."""

    def __init__(
        self,
        config: RunConfig,
        clients: Sequence[Sequence[Client]],
        *,
        device: torch.device,
        world: World,
        stop: StopSignals | None = None,
        observe_clips: Callable[[Fate], None] = lambda fate: None,
    ) -> None:
        """`clients` are of each shard of this rank, of every server one."""
        self.config = config
        self.segments = OpenSegments() if config.training.keep_segments else None
        self.shards = [
            Shard.of(config, index, own, observe_clips)
            for index, own in zip(world.share_of(config.training.shards), clients, strict=True)
        ]
        self.world = world
        self.agreement = Agreement(world, stop or StopSignals(), self._tally())
        self.trainer = new_trainer(config, device, exchange=world.exchange)
        self.alarms = Alarms()
        self.clock = RunClock()
        self._frame_size: list[int] | None = None
        self._held_out: dict[str, float] = {}
        self._recordings: list[str] | None = None

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.trainer.step_count

    @property
    def is_complete(self) -> bool:
        """Whether these are all steps of the run."""
        return self.step >= self.config.training.steps

    @property
    def model(self) -> SetCon:
        """The model that learns."""
        return self.trainer.model

    @property
    def evaluated(self) -> SetCon:
        """The model that is probed and kept: the running mean of its weights, if there is one."""
        return self.trainer.evaluated

    @property
    def untrained(self) -> SetCon:
        """The model as the run began."""
        return self.trainer.untrained

    @property
    def samples_per_insert(self) -> float:
        """How often each clip was seen so far, on average."""
        samples = sum(shard.replay.samples for shard in self.shards)
        return samples / max(1, sum(shard.replay.inserts for shard in self.shards))

    @property
    def counters(self) -> FeedCounters:
        """What became of the clips that the run was offered, of all ranks."""
        return self._counted().clips

    @property
    def received(self) -> ClientCounters:
        """What came from all servers, to all ranks, in this start of the run."""
        return self._counted().received

    @property
    def epoch(self) -> int:
        """Epoch of the clip offered last."""
        return max(shard.feed.epoch for shard in self.shards)

    def waiting(self) -> set[str]:
        """Recordings of the clips that were inserted and not drawn yet."""
        return set().union(*(shard.replay.waiting() for shard in self.shards))

    def agreed(self, found: Found) -> Agreed:
        """What all ranks do next; each has to call it."""
        return self.agreement.on(found, self._tally())

    def _tally(self) -> Tally:
        clips, received = FeedCounters(), ClientCounters()
        for shard in self.shards:
            clips += shard.feed.counters
            received += shard.feed.received
        return Tally(clips, received)

    def _counted(self) -> Tally:
        return self._tally() if self.world.size == 1 else self.agreement.tally

    def saved_shards(self) -> list[SavedShard]:
        """Where the shards of all ranks stand; each rank has to call it."""
        own = [shard.saved() for shard in self.shards]
        if self.world.size == 1:
            return own
        texts, arrays = (self.world.gathered_bytes(part) for part in packed(own))
        parts = [unpacked(*each) for each in zip(texts, arrays, strict=True)]
        return [shard for part in parts for shard in part]

    def checkpoint(self, shards: Sequence[SavedShard]) -> Checkpoint:
        """All of it; tensors are those of the model, not copies.

        `shards` are those of all ranks, from `saved_shards`.
        """
        saved, arrays = joined_shards(shards)
        return Checkpoint(
            step=self.step,
            model=learned_state(self.evaluated),
            learning={} if self.trainer.mean is None else learned_state(self.model),
            optimizer=self.trainer.optimizer.state_dict(),
            run={
                "seconds": self.clock.seconds,
                "still_seconds": dict(self.clock.paused_seconds),
                "alarms": self.alarms.state(),
                "frame_size": self._frame_size,
                "held_out": self._held_out,
                "recordings": self._recordings,
                **saved,
                "segments": self.segments.state() if self.segments else None,
            },
            replay=arrays,
            rng=rng_state(),
        )

    def restore(
        self, checkpoint: Checkpoint, *, where: Path, progress: Callable[[float], None]
    ) -> int:
        """Go on from `checkpoint`; the replay's pixels come from the servers.

        `progress` gets the share of them that has come. Returns how many clips of the replay are
        no longer kept by a capture.

        Raises CheckpointError: it belongs to another configuration, or does not hold together;
        OnlineError: the servers do not give what the run has seen.
        """
        try:
            return self._restore(checkpoint, where, progress)
        except (OnlineError, IngestError):
            raise
        except _DOES_NOT_FIT as error:
            raise CheckpointError(
                f"{where}: its state does not fit the run ({type(error).__name__}: {error}); "
                f"remove that folder to continue from an older checkpoint"
            ) from error

    def _restore(
        self, checkpoint: Checkpoint, where: Path, progress: Callable[[float], None]
    ) -> int:
        load_into(self.model, checkpoint.learning or checkpoint.model, where=where)
        if self.trainer.mean is not None:
            load_into(self.trainer.mean, checkpoint.model, where=where)
        self.trainer.load_optimizer(checkpoint.optimizer)
        self.trainer.step_count = checkpoint.step
        run = checkpoint.run
        self.clock.start(run["seconds"], run["still_seconds"])
        self.alarms.restore(run["alarms"])
        self._frame_size = run["frame_size"]
        self._held_out = run["held_out"]
        self._recordings = run.get("recordings")
        if self.segments and run.get("segments"):
            self.segments.restore(run["segments"])
        saved = saved_shards(run, checkpoint.replay)
        check_count(saved, self.config.training.shards, where=where)
        for shard in saved:  # those of other ranks are counted here until these tell
            self.agreement.tally.clips += FeedCounters.of(shard.feed)
        gone = 0
        for done, shard in enumerate(self.shards):

            def some(share: float, done: int = done) -> None:
                progress((done + share) / len(self.shards))

            gone += shard.restore(saved[shard.index], some)
        set_rng_state(checkpoint.rng)
        return gone

    def remember_recordings(self, names: Sequence[str]) -> list[str]:
        """Note what there is to learn from; those that were not there when the run last began."""
        before = names if self._recordings is None else self._recordings
        self._recordings = list(names)
        return [name for name in names if name not in before]

    def remember_held_out(self, summaries: Sequence[RecordingSummary]) -> None:
        """Note what share of each recording is held out, so that nothing else is scored later.

        Raises RunError: a server now holds out more of a recording, which was trained on.
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

    def enter(self, clip: Clip) -> None:
        """Note that `clip` is inserted; its size must be that of the others.

        Raises OnlineError: as `check_size`.
        """
        self.check_size(clip)
        if self.segments:
            self.segments.enter(clip.spec.recording)

    def check_size(self, clip: Clip) -> None:
        """Refuse a clip of another frame size than the first, or of one that cannot be encoded.

        Raises ConfigError: the model is not made for such frames; TrainingError: the frames are
        not of the size that the run learns from.
        """
        size = list(clip.frames.images.shape[1:3])
        if self._frame_size is None:
            height, width = size
            check_frame_size(self.model, height=height, width=width)
            self._frame_size = size
        if size != self._frame_size:
            (height, width), (learned_height, learned_width) = size, self._frame_size
            raise TrainingError(
                f"{clip.spec.recording}: frames of {width}x{height}, but this run learns from "
                f"{learned_width}x{learned_height}; ingest it with that --size, "
                "or leave it out with --recordings GLOB"
            )


def new_trainer(
    config: RunConfig, device: torch.device, *, exchange: Exchange | None = None
) -> Trainer:
    """What a run of this configuration begins to learn with, alone or with other ranks."""
    return Trainer(
        untrained_model(config.model, seed=config.training.seed),
        frame_stride=config.frame_stride,
        loss=config.loss,
        optimizer=config.optimizer,
        training=config.training,
        device=device,
        exchange=exchange,
    )

"""Virtual shards: what a step is learned from does not depend on how many processes take it.

    shard 0   feed 0 ─▶ replay 0 ─▶ clips ─┐
    shard 1   feed 1 ─▶ replay 1 ─▶ clips ─┴─▶ batch of step k      n processes hold V/n shards each
       ...

A run has a fixed number V of shards. Each is asked for as the v-th part of V of the footage, and
draws by a seed of its own. A run of one shard is what every run was before there were shards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ingest.errors import ReleasedError
from online.clips.clip import Clip, ClipSpec
from online.config import RunConfig
from online.errors import CheckpointError
from online.queue.client import Client
from online.queue.feed import Fate, Feed
from online.replay.long_term import Feedback
from online.replay.mixing import Replay
from online.runs.checkpoint import shards_of


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """One of them: where its clips come from, and what is seen of them again."""

    index: int
    feed: Feed
    replay: Replay

    @classmethod
    def of(
        cls,
        config: RunConfig,
        index: int,
        clients: Sequence[Client],
        observe: Callable[[Fate], None],
    ) -> Shard:
        """Shard `index` of a run; its clients were not asked for clips yet."""
        training, shards = config.training, config.training.shards
        feed = Feed(
            clients,
            config.stream.request(seed=training.seed, shard=index, shards=shards),
            credit_bytes=config.stream.credit_bytes,
            max_delay_seconds=config.stream.max_delay_seconds,
            observe=observe,
        )
        share = replace(
            config.replay,
            fifo_bytes=config.replay.fifo_bytes // shards,
            long_term_bytes=config.replay.long_term_bytes // shards,
            min_clips=math.ceil(config.replay.min_clips / shards),
        )
        replay = Replay(
            share,
            batch_clips=training.batch_clips // shards,
            seed=training.seed,
            shard=index,
            shards=shards,
        )
        return cls(index, feed, replay)

    def saved(self) -> SavedShard:
        """Where it stands, for a checkpoint."""
        arrays = {name: torch.from_numpy(a) for name, a in self.replay.arrays().items()}
        return SavedShard(self.feed.state(), self.replay.state(), arrays)

    def restore(self, saved: SavedShard, progress: Callable[[float], None]) -> int:
        """Go on from `saved`; returns how many clips of the replay are no longer kept."""
        self.feed.restore(saved.feed)
        self.feed.agree()  # before pixels are fetched of what may have been replaced
        arrays = {name: tensor.numpy() for name, tensor in saved.arrays.items()}
        return self.replay.restore(saved.replay, arrays, self._fetched, progress)

    def _fetched(self, spec: ClipSpec) -> Clip | None:
        try:
            return self.feed.fetch_clip(spec)
        except ReleasedError:
            return None


@dataclass(frozen=True, slots=True, eq=False)
class SavedShard:
    """A shard in a checkpoint."""

    feed: dict[str, Any]
    replay: dict[str, Any]
    arrays: dict[str, Tensor]
    """`Replay.arrays()`."""


class Drawn:
    """A batch that was drawn from the shards of this process, to be learned from."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self.by_shard = [shard.replay.sample() for shard in shards]
        self.clips = [clip for clips in self.by_shard for clip in clips]

    def learned(self, feedback: Feedback) -> None:
        """Let each shard note what a step found out about its clips."""
        ends = np.cumsum([len(clips) for clips in self.by_shard])[:-1]
        parts = zip(np.split(feedback.features, ends), np.split(feedback.losses, ends), strict=True)
        for shard, clips, part in zip(self._shards, self.by_shard, parts, strict=True):
            shard.replay.update(clips, Feedback(*part))


def saved_shards(run: dict[str, Any], arrays: dict[str, Tensor]) -> list[SavedShard]:
    """The shards of a checkpoint; one that lists none has one.

    Raises KeyError, TypeError: it does not hold together.
    """
    listed = shards_of(run)
    parts = [arrays] if "shards" not in run else _by_shard(arrays, len(listed))
    return [
        SavedShard(each["feed"], each["replay"], part)
        for each, part in zip(listed, parts, strict=True)
    ]


def joined_shards(shards: Sequence[SavedShard]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `saved_shards` takes: a single shard is written as it was before there were several."""
    if len(shards) == 1:
        (shard,) = shards
        return {"feed": shard.feed, "replay": shard.replay}, shard.arrays
    return _listed(shards)


def packed(shards: Sequence[SavedShard]) -> tuple[bytes, bytes]:
    """Shards as JSON and safetensors, on their way from one process to another."""
    run, arrays = _listed(shards)
    return json.dumps(run).encode(), save(arrays)


def unpacked(text: bytes, arrays: bytes) -> list[SavedShard]:
    """The shards that were `packed`."""
    return saved_shards(json.loads(text), load(arrays))


def check_count(saved: Sequence[SavedShard], shards: int, *, where: object) -> None:
    """Refuse a checkpoint of another number of shards.

    Raises CheckpointError: naming both.
    """
    if len(saved) != shards:
        raise CheckpointError(
            f"{where}: has {len(saved)} shards, the run is configured for {shards}; "
            f"use training.shards={len(saved)}"
        )


def _by_shard(arrays: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for key, tensor in arrays.items():
        index, _, name = key.partition("/")
        parts[int(index)][name] = tensor
    return parts


def _listed(shards: Sequence[SavedShard]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    run = {"shards": [{"feed": shard.feed, "replay": shard.replay} for shard in shards]}
    arrays = {
        f"{index}/{name}": tensor
        for index, shard in enumerate(shards)
        for name, tensor in shard.arrays.items()
    }
    return run, arrays

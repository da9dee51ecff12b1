"""Footage for other people's training code: clips or triplets as a torch dataset.

    ClipDataset("store")                    read here, by each worker of a DataLoader on its own
    ClipDataset("tcp://127.0.0.1:5555")     sent by a server; each worker has a connection

Every clip of a pass belongs to exactly one worker. Which clips there are, and in which order, is a
function of the arguments, the epoch and what the store holds: a pass that is resumed goes on as if
it had not been cut off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ingest.open import open_store
from online.clips.catalog import StoreCatalog
from online.clips.clip import Clip, ClipConfig
from online.clips.cursor import Cursor
from online.clips.holdout import DEFAULT_HOLDOUT
from online.clips.plan import extents_now, make_plan
from online.clips.request import ClipRequest
from online.errors import FootageError
from online.queue.address import is_server
from online.queue.client import Client
from online.queue.keys import TrainerKeys
from online.queue.receiver import Delivery

Item = dict[str, Any]
"""What one clip or triplet is given as; torch's own `default_collate` stacks it."""


class ClipDataset(IterableDataset[Item]):
    """The clips of a store or of a server; one pass for each `iter`.

    An item has `frames`, uint8 (t, 3, h, w) with the earliest first, their times `seconds`,
    float64 (t), the name of the `recording` and the number `start` of the first frame in it.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        clip_length: int = 8,
        frame_stride: int = 1,
        triplets: bool = False,
        shuffled: bool = True,
        seed: int = 0,
        recordings: str = "*",
        holdout: float = DEFAULT_HOLDOUT,
        shard: int = 0,
        shards: int = 1,
        keys: TrainerKeys | None = None,
    ) -> None:
        """Take clips from `source`, the path of a store or the address of a server.

        A clip owns `clip_length` triplets and has 2 * `frame_stride` frames more; shorter ones, at
        the ends of recordings, are left out. With `triplets` each item is three frames,
        `frame_stride` apart. The last `holdout` of each recording of a store is left out; a server
        decides for itself. Of several trainers each takes its `shard` of `shards`.
        """
        super().__init__()
        length = 1 if triplets else clip_length
        self.source = source
        self.clip = ClipConfig(clip_length=length, frame_stride=frame_stride)
        self.triplets = triplets
        self.shuffled = shuffled
        self.seed = seed
        self.recordings = recordings
        self.holdout = holdout
        self.shard, self.shards = shard, shards
        self.keys = keys
        self.epoch = 0
        """The pass that `iter` begins next, which decides a shuffled order."""
        self._cursor: Cursor | None = None
        self._resume: Cursor | None = None

    def set_epoch(self, epoch: int) -> None:
        """Begin that pass next: with workers, to be called before each, as for a sampler."""
        self.epoch = epoch
        self._resume = self._cursor = None

    def __iter__(self) -> Iterator[Item]:
        """One pass, or the rest of one that was resumed.

        Raises IngestError, OnlineError: the footage cannot be read, in one line.
        """
        resume, self._resume = self._resume, None
        clips = self._sent if is_server(self.source) else self._read
        for clip in clips(self._request(), resume):
            if len(clip.frames) == self.clip.frames:
                yield self._item(clip)
        self.epoch += 1
        self._cursor = None

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is, for `load_state_dict`; JSON-able.

        Called in the process that iterates: with workers, by torchdata's StatefulDataLoader.
        """
        cursor = None if self._cursor is None else msgspec.json.encode(self._cursor).decode()
        return {"epoch": self.epoch, "cursor": cursor and json.loads(cursor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `iter` go on after the item that was given last."""
        self.epoch = state["epoch"]
        cursor = state["cursor"]
        self._resume = self._cursor = None if cursor is None else msgspec.convert(cursor, Cursor)

    def _request(self) -> ClipRequest:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return ClipRequest(
            clip=self.clip,
            recordings=self.recordings,
            order="shuffled" if self.shuffled else "stream",
            seed=self.seed + (self.epoch << 32),  # the same for stores and servers
            shard=self.shard * count + number,
            shards=self.shards * count,
            max_epochs=1,
        )

    def _read(self, request: ClipRequest, resume: Cursor | None) -> Iterator[Clip]:
        """Clips of a store, which this process reads itself."""
        store = open_store(self.source)
        with closing(StoreCatalog(store, holdout=self.holdout)) as catalog:
            there = extents_now(catalog, self.recordings, follow=False)
            wanted = resume or Cursor(extents=there)
            plan = make_plan(catalog, request, order=request.order or "stream", cursor=wanted)
            if resume is not None and plan.start.fingerprint != resume.fingerprint:
                raise FootageError(
                    f"{self.source}: holds other clips than when the state was saved, or the "
                    "dataset has other arguments; begin a new pass with set_epoch"
                )
            if not plan.full:
                raise self._too_short()
            begin = 0 if resume is None else resume.index
            for index in range(begin, len(plan.clips)):
                spec = plan.clips[index]
                frames = catalog.fetch(spec.recording, spec.start, spec.length)
                self._cursor = msgspec.structs.replace(plan.start, index=index + 1)
                yield Clip(spec, frames)

    def _sent(self, request: ClipRequest, resume: Cursor | None) -> Iterator[Clip]:
        """Clips that a server sends."""
        has_full = resume is not None  # else there was no state to save
        for delivery in self._deliveries(request, resume):
            self._cursor = delivery.cursor
            has_full |= self._is_full(delivery)
            if not delivery.clip.is_released:
                yield delivery.clip
        if has_full:
            return
        # a shard may have short clips only, but not all shards together
        every = msgspec.structs.replace(request, shard=0, shards=1)
        if request.shards == 1 or not any(map(self._is_full, self._deliveries(every, None))):
            raise self._too_short()

    def _deliveries(self, request: ClipRequest, resume: Cursor | None) -> Iterator[Delivery]:
        with Client(str(self.source), keys=self.keys) as client:
            client.open(request, cursor=resume)
            while (delivery := client.next_clip()) is not None:
                yield delivery

    def _is_full(self, delivery: Delivery) -> bool:
        return delivery.clip.spec.length == self.clip.frames

    def _too_short(self) -> FootageError:
        return FootageError(
            f"{self.source}: no recording that matches {self.recordings!r} is long enough "
            f"for clips of {self.clip.frames} frames; lower clip_length or frame_stride"
        )

    def _item(self, clip: Clip) -> Item:
        frames = clip.frames
        every = slice(None, None, self.clip.frame_stride if self.triplets else 1)
        images = torch.from_numpy(frames.images[every].copy()).permute(0, 3, 1, 2)
        return {
            "frames": images.contiguous(),
            "seconds": _seconds(frames.pts_ns[every]),
            "recording": clip.spec.recording,
            "start": clip.spec.start,
        }


def _seconds(pts_ns: Any) -> Tensor:
    return torch.from_numpy(pts_ns / 1e9)

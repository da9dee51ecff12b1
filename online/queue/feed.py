"""What reaches the trainer: clips of one or several servers, in a fixed order, each inserted once.

    server 0  a0 a1 a2 ...  ─┐
    server 1  b0 b1 b2 ...  ─┴▶  a0 b0 a1 b1 a2 ...  ──▶ inserted() ──▶ cursor moves

The cursor is about what the trainer did with a clip, not about what arrived: a run that continues
from it is offered exactly the clips that were not inserted. A trainer that is too slow for a camera
skips what has become too old or is no longer kept, which is counted: offered = inserted + skipped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from online.clips.clip import Clip, ClipConfig, ClipSpec
from online.clips.cursor import Cursor, Order
from online.errors import ConfigError, OnlineError, ServerSilent
from online.queue.client import Client, StreamRequest
from online.queue.connection import ClientCounters
from online.queue.ledger import Fate, Ledger, LedgerEntry


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Which clips are asked of the servers."""

    clip_length: int = 32
    """Triplets that a full clip owns."""
    frame_stride: int = 1
    """Distance in frames between the three frames of a triplet."""
    hop: int = 1
    """Distance in frames between one triplet and the next."""
    recordings: str = "*"
    """Glob of the recordings that are trained on."""
    order: Order | None = None
    """`stream` is time order, `shuffled` a block shuffle; without it the server decides."""
    shard: int = 0
    """Which of `shards` equal parts of the footage this trainer gets: 0 is the first."""
    shards: int = 1
    """How many trainers share the footage."""
    max_epochs: int = 0
    """How often the store is gone through; 0 is without end."""
    credit_bytes: int = 64 << 20
    """How much may be under way from each server; at least two clips."""
    max_delay_seconds: float = 300.0
    """Footage of a camera that is older when its turn comes is skipped and counted, so that a slow
    trainer never falls further behind; 0 skips nothing. What has been recorded to its end, and
    what is served without --follow, is never skipped for its age."""
    ledger: bool = False
    """Write a line to `ledger.jsonl` about every clip: inserted, or skipped."""

    def __post_init__(self) -> None:
        ClipConfig(
            clip_length=self.clip_length, frame_stride=self.frame_stride, hop=self.hop
        )  # which checks them
        if not 0 <= self.shard < self.shards:
            raise ValueError(f"shard is {self.shard} of {self.shards}, it must lie in 0..shards-1")
        if self.max_epochs < 0:
            raise ValueError(f"max_epochs is {self.max_epochs}, it cannot be below 0")
        if self.max_delay_seconds < 0:
            raise ValueError(f"max_delay_seconds is {self.max_delay_seconds}, it cannot be below 0")

    @property
    def clip(self) -> ClipConfig:
        """How recordings are cut."""
        return ClipConfig(
            clip_length=self.clip_length, frame_stride=self.frame_stride, hop=self.hop
        )

    def request(self, *, seed: int) -> StreamRequest:
        """What is asked of every server."""
        return StreamRequest(
            clip=self.clip,
            recordings=self.recordings,
            order=self.order,
            seed=seed,
            shard=self.shard,
            shards=self.shards,
            max_epochs=self.max_epochs,
            credit_bytes=self.credit_bytes,
        )


@dataclass(slots=True)
class FeedCounters:
    """What became of the clips that a run was offered, over all its starts."""

    inserted: int = 0
    skipped: int = 0
    skipped_frames: int = 0
    """New frames of the skipped clips, those that a neighbour carries too counted once."""
    released: int = 0
    """Of the skipped clips, those that the capture no longer kept when their turn came."""

    @property
    def offered(self) -> int:
        """Clips of the plan that lie behind."""
        return self.inserted + self.skipped


class Feed:
    """Takes the servers in turn; one clip is pending at a time and must be inserted."""

    def __init__(
        self,
        clients: Sequence[Client],
        request: StreamRequest,
        *,
        max_delay_seconds: float = 0.0,
        ledger: Ledger | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Feed from `clients`, in this order.

        Args:
            clients: servers, not yet asked for clips.
            request: what to ask of each.
            max_delay_seconds: see StreamConfig.
            ledger: told of every clip; what it holds from before is cut back to what is restored.
            now_ns: the wall clock that frames were captured by.
        """
        if not clients:
            raise ConfigError("a feed needs at least one server")
        self.request = request
        self.counters = FeedCounters()
        self._clients = list(clients)
        self._max_delay_ns = round(1e9 * max_delay_seconds)
        self._ledger = ledger
        self._ledger_size = 0
        self._now_ns = now_ns
        self._cursors: list[Cursor | None] = [None] * len(clients)
        self._ended = [False] * len(clients)
        self._opened = False
        self._turn = 0
        self._pending: Clip | None = None
        self._epoch = 0

    @property
    def ended(self) -> bool:
        """Whether every server has sent all its epochs."""
        return all(self._ended)

    @property
    def epoch(self) -> int:
        """Epoch of the clip offered last."""
        return self._epoch

    @property
    def received(self) -> ClientCounters:
        """What came from all servers together, in this start of the run."""
        return sum((client.counters for client in self._clients), ClientCounters())

    def next(self, timeout_seconds: float = 60.0) -> Clip | None:
        """Offer the next clip; None when it did not come in time, or the feed has ended.

        Raises ServerError: a server refuses or fails; WireError: a server is another program or
        version, or keeps sending damaged clips; OnlineError: the clip offered before was not
        inserted.
        """
        if self._pending is not None:
            raise OnlineError(f"{self._pending.spec} must be inserted first")
        self._open()
        deadline = time.monotonic() + timeout_seconds
        while not self.ended:
            client = self._clients[self._turn]
            if not self._ended[self._turn]:
                try:
                    clip = client.next_clip(max(0.0, deadline - time.monotonic()))
                except ServerSilent:
                    return None
                if clip is not None:
                    self._offer(clip, _known(client.cursor))
                    if not clip.is_released and not self._is_too_old(clip, client):
                        return self._pending
                    self._skip()
                    continue  # with the same server: what it sends next may be new enough
                self._ended[self._turn] = True
            self._turn = (self._turn + 1) % len(self._clients)
        return None

    def first_time(self, clip: Clip) -> bool:
        """Whether the pending `clip` comes by for the first time in this run."""
        return self._is_pending(clip) and self._epoch == 0

    def inserted(self, clip: Clip) -> None:
        """The pending `clip` is in the replay buffer: the cursor moves behind it."""
        if not self._is_pending(clip):
            raise OnlineError(f"{clip.spec} is not the clip that was offered")
        self.counters.inserted += 1
        self._leave_behind("inserted")
        self._turn = (self._turn + 1) % len(self._clients)

    def fetch_clip(self, spec: ClipSpec) -> Clip:
        """The pixels of a clip from before, from the server that has it; errors as in Client."""
        frames = self._clients[spec.server].fetch(spec.recording, spec.start, spec.length)
        return Clip(spec, frames.images, frames.pts_ns, frames.captured_ns)

    def state(self) -> dict[str, Any]:
        """JSON-able: where every server's plan goes on. A pending clip will be offered again."""
        return {
            "request": self._identity(),
            "turn": self._turn,
            "cursors": msgspec.to_builtins(self._cursors),
            "counters": dataclasses.asdict(self.counters),
            "ledger_size": self._ledger.size
            if self._ledger and self._opened
            else self._ledger_size,
        }

    def sync(self) -> None:
        """Put the ledger on disk: before a checkpoint that holds `state`."""
        if self._ledger is not None:
            self._ledger.sync()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`; before the first `next`.

        Raises ConfigError: it belongs to another request or number of servers.
        """
        if self._opened:
            raise OnlineError("a feed can only be restored before its first clip")
        ours, theirs = self._identity(), state["request"]
        if changed := sorted(key for key in ours if ours[key] != theirs.get(key)):
            raise ConfigError(
                f"the feed was saved with other settings of {', '.join(changed)}; "
                "use the same, or start a new run"
            )
        if len(state["cursors"]) != len(self._clients):
            raise ConfigError(
                f"the feed was saved with {len(state['cursors'])} servers, this run has "
                f"{len(self._clients)}; connect to the same ones in the same order"
            )
        self._cursors = msgspec.convert(state["cursors"], list[Cursor | None])
        self._turn = state["turn"]
        # checkpoints of before there were counters had skipped nothing, and kept no ledger
        self.counters = msgspec.convert(state.get("counters", {}), FeedCounters)
        self._ledger_size = state.get("ledger_size", 0)

    def agree(self) -> None:
        """Open the feed, and have every server agree to go on where it was saved.

        Raises OnlineError: a server refuses, as its store was replaced, or none answers.
        """
        self._open()
        for client in self._clients:
            client.agree()

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            if self._ledger is not None:
                self._ledger.cut_back(self._ledger_size)
            for client, cursor in zip(self._clients, self._cursors, strict=True):
                client.open(self.request, cursor=cursor)

    def _offer(self, clip: Clip, cursor: Cursor) -> None:
        spec = dataclasses.replace(clip.spec, server=self._turn)
        self._pending = dataclasses.replace(clip, spec=spec)
        self._epoch = cursor.epoch

    def _is_too_old(self, clip: Clip, client: Client) -> bool:
        """Whether the trainer is too far behind a camera that is still recording."""
        captured_ns = clip.last_captured_ns
        if captured_ns is None or not self._max_delay_ns:
            return False
        if clip.spec.recording not in client.recorded:
            return False  # there is nothing newer to catch up with
        return self._now_ns() - captured_ns > self._max_delay_ns

    def _skip(self) -> None:
        assert self._pending is not None
        self.counters.skipped += 1
        self.counters.released += self._pending.is_released
        self.counters.skipped_frames += self._pending.spec.length - self.request.clip.overlap
        self._leave_behind("skipped")

    def _leave_behind(self, fate: Fate) -> None:
        """Move the cursor behind the pending clip, and note what became of it."""
        assert self._pending is not None
        spec, self._pending = self._pending.spec, None
        before, cursor = self._cursors[spec.server], _known(self._clients[spec.server].cursor)
        if before is None or (before.epoch, before.round) != (cursor.epoch, cursor.round):
            self.counters.skipped += cursor.released
            self.counters.released += cursor.released
            self.counters.skipped_frames += cursor.released_frames
        self._cursors[spec.server] = cursor
        if self._ledger is not None:
            self._ledger.append(
                LedgerEntry(
                    fate=fate,
                    server=spec.server,
                    epoch=cursor.epoch,
                    round=cursor.round,
                    index=cursor.index - 1,
                    recording=spec.recording,
                    start=spec.start,
                    length=spec.length,
                )
            )

    def _is_pending(self, clip: Clip) -> bool:
        return self._pending is not None and self._pending.spec == clip.spec

    def _identity(self) -> dict[str, Any]:
        """What must stay as it is for a saved cursor to mean the same."""
        request = dataclasses.asdict(self.request)
        del request["credit_bytes"], request["max_epochs"]
        return request


def _known(cursor: Cursor | None) -> Cursor:
    assert cursor is not None  # a client that has returned a clip knows where it belongs
    return cursor

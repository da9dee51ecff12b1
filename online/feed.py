"""What reaches the trainer: clips of one or several servers, in a fixed order, each inserted once.

    server 0  a0 a1 a2 ...  ─┐
    server 1  b0 b1 b2 ...  ─┴▶  a0 b0 a1 b1 a2 ...  ──▶ inserted() ──▶ cursor moves

The cursor is about what the trainer did with a clip, not about what arrived: a run that continues
from it is offered exactly the clips that were not inserted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from online.client import Client, StreamRequest
from online.clip import Clip, ClipConfig, ClipSpec
from online.errors import ConfigError, OnlineError, ServerSilent
from online.wire import Cursor, Order


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
    max_epochs: int = 0
    """How often the store is gone through; 0 is without end."""
    credit_bytes: int = 64 << 20
    """How much may be under way from each server; at least two clips."""

    def __post_init__(self) -> None:
        ClipConfig(
            clip_length=self.clip_length, frame_stride=self.frame_stride, hop=self.hop
        )  # which checks them
        if self.max_epochs < 0:
            raise ValueError(f"max_epochs is {self.max_epochs}, it cannot be below 0")

    @property
    def clip(self) -> ClipConfig:
        """How recordings are cut."""
        return ClipConfig(
            clip_length=self.clip_length, frame_stride=self.frame_stride, hop=self.hop
        )

    def request(self, *, seed: int, shard: int = 0, shards: int = 1) -> StreamRequest:
        """What one of ``shards`` trainers asks of every server."""
        return StreamRequest(
            clip=self.clip,
            recordings=self.recordings,
            order=self.order,
            seed=seed,
            shard=shard,
            shards=shards,
            max_epochs=self.max_epochs,
            credit_bytes=self.credit_bytes,
        )


class Feed:
    """Takes the servers in turn; one clip is pending at a time and must be inserted."""

    def __init__(self, clients: Sequence[Client], request: StreamRequest) -> None:
        if not clients:
            raise ConfigError("a feed needs at least one server")
        self.request = request
        self._clients = list(clients)
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

    def next(self, timeout_seconds: float = 60.0) -> Clip | None:
        """Offer the next clip; None when it did not come in time, or the feed has ended.

        Raises:
            ServerError: a server refuses or fails.
            WireError: a server is another program or version, or keeps sending damaged clips.
            OnlineError: the clip offered before was not inserted.
        """
        if self._pending is not None:
            raise OnlineError(f"{self._pending.spec} must be inserted first")
        self._open()
        while not self.ended:
            client = self._clients[self._turn]
            if not self._ended[self._turn]:
                try:
                    clip = client.next_clip(timeout_seconds)
                except ServerSilent:
                    return None
                if clip is not None:
                    return self._offer(clip, client.cursor)
                self._ended[self._turn] = True
            self._turn = (self._turn + 1) % len(self._clients)
        return None

    def first_time(self, clip: Clip) -> bool:
        """Whether the pending ``clip`` comes by for the first time in this run."""
        return self._is_pending(clip) and self._epoch == 0

    def inserted(self, clip: Clip) -> None:
        """The pending ``clip`` is in the replay buffer: the cursor moves behind it."""
        if not self._is_pending(clip):
            raise OnlineError(f"{clip.spec} is not the clip that was offered")
        self._cursors[self._turn] = self._clients[self._turn].cursor
        self._turn = (self._turn + 1) % len(self._clients)
        self._pending = None

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
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; before the first ``next``.

        Raises:
            ConfigError: it belongs to another request or number of servers.
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

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            for client, cursor in zip(self._clients, self._cursors, strict=True):
                client.open(self.request, cursor=cursor)

    def _offer(self, clip: Clip, cursor: Cursor | None) -> Clip:
        spec = dataclasses.replace(clip.spec, server=self._turn)
        self._pending = dataclasses.replace(clip, spec=spec)
        self._epoch = cursor.epoch if cursor is not None else 0
        return self._pending

    def _is_pending(self, clip: Clip) -> bool:
        return self._pending is not None and self._pending.spec == clip.spec

    def _identity(self) -> dict[str, Any]:
        """What must stay as it is for a saved cursor to mean the same."""
        request = dataclasses.asdict(self.request)
        del request["credit_bytes"], request["max_epochs"]
        return request

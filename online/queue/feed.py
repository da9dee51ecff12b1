"""What reaches the trainer: clips of one or several servers, in a fixed order, each inserted once.

    server 0  a0 a1 a2 ...  ─┐
    server 1  b0 b1 b2 ...  ─┴▶  a0 b0 a1 b1 a2 ...  ──▶ inserted() ──▶ cursor moves, observe(fate)

The cursor is about what the trainer did with a clip, not about what arrived: a run that continues
from it is offered exactly the clips that were not inserted. A trainer that is too slow for a camera
skips what has become too old or is no longer kept, which is counted: offered = inserted + skipped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from online.clips.clip import Clip, ClipSpec
from online.clips.config import CREDIT_BYTES
from online.clips.cursor import Cursor
from online.clips.request import ClipRequest
from online.errors import ConfigError, OnlineError, ServerSilent
from online.queue.client import Client
from online.queue.connection import ClientCounters
from online.queue.receiver import Delivery


@dataclass(slots=True)
class FeedCounters:
    """What became of the clips that a run was offered, over all its starts."""

    inserted: int = 0
    skipped: int = 0
    released: int = 0
    """Skipped clips that the capture no longer kept when their turn came."""

    @property
    def offered(self) -> int:
        """Clips of the plan that are done."""
        return self.inserted + self.skipped

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> FeedCounters:
        """Those in a feed's `state`; before there were counters, nothing was skipped."""
        # counters of older versions are dropped
        return msgspec.convert(state.get("counters", {}), cls)

    def __add__(self, other: FeedCounters) -> FeedCounters:
        """Clips of both."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return FeedCounters(*map(sum, pairs))


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one clip, and its place in its server's plan."""

    kind: Literal["inserted", "skipped"]
    """`skipped` is footage of a camera that the trainer was too slow for, or came too late."""
    spec: ClipSpec
    epoch: int
    round: int
    """How often what was added to a followed store had been planned."""
    index: int
    """Position in the plan of the epoch and round."""
    offered: int
    """`FeedCounters.offered` with this clip: a run that resumes counts on from its checkpoint."""


class Feed:
    """Takes the servers in turn; one clip is pending at a time and must be inserted."""

    def __init__(
        self,
        clients: Sequence[Client],
        request: ClipRequest,
        *,
        credit_bytes: int = CREDIT_BYTES,
        max_delay_seconds: float = 0.0,
        observe: Callable[[Fate], None] = lambda fate: None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Feed from `clients`, in this order, which were not asked for clips yet.

        Each is asked for `request`. `credit_bytes` and `max_delay_seconds` are as in StreamConfig.
        `observe` is called with the fate of every clip, in order. `now_ns` is the wall clock that
        frames were captured by.
        """
        if not clients:
            raise ConfigError("a feed needs at least one server")
        self.request = request
        self.counters = FeedCounters()
        self._clients = list(clients)
        self._credit_bytes = credit_bytes
        self._max_delay_ns = round(1e9 * max_delay_seconds)
        self._observe = observe
        self._now_ns = now_ns
        self._cursors: list[Cursor | None] = [None] * len(clients)
        self._ended = [False] * len(clients)
        self._opened = False
        self._turn = 0
        self._pending: Delivery | None = None
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
            raise OnlineError(f"{self._pending.clip.spec} must be inserted first")
        self._open()
        deadline = time.monotonic() + timeout_seconds
        while not self.ended:
            if self._ended[self._turn]:
                self._next_turn()
                continue
            client = self._clients[self._turn]
            try:
                delivery = client.next_clip(max(0.0, deadline - time.monotonic()))
            except ServerSilent:
                return None  # the order is fixed: no other server may take this turn
            if delivery is None:
                self._ended[self._turn] = True
                self._next_turn()
                continue
            self._epoch = delivery.cursor.epoch
            if self._is_worth_learning(delivery.clip, client):
                self._pending = delivery
                return delivery.clip
            self._done(delivery, "skipped")  # same server again: its next may be new enough
        return None

    def first_time(self, clip: Clip) -> bool:
        """Whether the pending `clip` comes by for the first time in this run."""
        return self._is_pending(clip) and self._epoch == 0

    def inserted(self, clip: Clip) -> None:
        """The pending `clip` is in the replay buffer: the cursor moves past it."""
        delivery = self._pending
        if delivery is None or not self._is_pending(clip):
            raise OnlineError(f"{clip.spec} is not the clip that was offered")
        self._pending = None
        self._done(delivery, "inserted")
        self._next_turn()

    def fetch_clip(self, spec: ClipSpec) -> Clip:
        """A clip from earlier, fetched from the server that has it; errors as in Client."""
        frames = self._clients[spec.server].fetch(spec.recording, spec.start, spec.length)
        return Clip(spec, frames)

    def state(self) -> dict[str, Any]:
        """JSON-able: where every server's plan goes on. A pending clip will be offered again."""
        return {
            "request": self._identity(),
            "turn": self._turn,
            "cursors": msgspec.to_builtins(self._cursors),
            "counters": dataclasses.asdict(self.counters),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`; before the first `next`.

        Raises ConfigError: it belongs to another request or number of servers.
        """
        if self._opened:
            raise OnlineError("a feed can only be restored before its first clip")
        ours, theirs = self._identity(), _without_hop(state["request"])
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
        self.counters = FeedCounters.of(state)

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
            for server, client in enumerate(self._clients):
                client.open(
                    self.request,
                    cursor=self._cursors[server],
                    credit_bytes=self._credit_bytes,
                    server=server,
                )

    def _is_worth_learning(self, clip: Clip, client: Client) -> bool:
        return not (clip.is_released or self._is_too_old(clip, client))

    def _is_too_old(self, clip: Clip, client: Client) -> bool:
        """Whether the trainer is too far behind a camera that is still recording."""
        captured_ns = clip.last_captured_ns
        if captured_ns is None or not self._max_delay_ns:
            return False
        if clip.spec.recording not in client.recorded:
            return False  # there is nothing newer to catch up with
        return self._now_ns() - captured_ns > self._max_delay_ns

    def _done(self, delivery: Delivery, kind: Literal["inserted", "skipped"]) -> None:
        """Count a clip, move its server's cursor past it, and report what became of it."""
        spec, cursor, counters = delivery.clip.spec, delivery.cursor, self.counters
        if kind == "inserted":
            counters.inserted += 1
        else:
            counters.skipped += 1
            counters.released += delivery.clip.is_released
        before = self._cursors[spec.server]
        if before is None or (before.epoch, before.round) != (cursor.epoch, cursor.round):
            # the first clip of a round brings word of those that were deleted before it was planned
            counters.skipped += cursor.released
            counters.released += cursor.released
        self._cursors[spec.server] = cursor
        # a delivery's cursor is the place after its clip
        place = (cursor.epoch, cursor.round, cursor.index - 1)
        self._observe(Fate(kind, spec, *place, counters.offered))

    def _next_turn(self) -> None:
        self._turn = (self._turn + 1) % len(self._clients)

    def _is_pending(self, clip: Clip) -> bool:
        return self._pending is not None and self._pending.clip.spec == clip.spec

    def _identity(self) -> dict[str, Any]:
        """What must stay as it is for a saved cursor to mean the same."""
        request = msgspec.to_builtins(self.request)
        del request["max_epochs"]  # a plan does not depend on how many epochs follow
        del request["shard"]  # nor a place in it on who asks: ranks share the first's checkpoint
        return request


def _without_hop(request: dict[str, Any]) -> dict[str, Any]:
    """A saved request without a setting that older checkpoints have, and that must be 1."""
    clip = dict(request["clip"])
    if (hop := clip.pop("hop", 1)) != 1:
        raise ConfigError(f"the feed was saved with hop {hop}, which is no longer supported")
    return request | {"clip": clip}

"""What a run learns from: the recordings there are, and clips on their way into the replay.

feed.next ─▶ state.enter ─▶ prequential score ─▶ replay.insert ─▶ feed.inserted
"""

from __future__ import annotations

import time
from collections.abc import Callable

from online.clips.catalog import FrameSource
from online.clips.clip import Clip
from online.clips.config import StreamConfig
from online.errors import ServerSilent
from online.probing.footage import check_sizes
from online.queue.client import PATIENCE_SECONDS
from online.queue.feed import Feed
from online.session.journal import Journal, Origin
from online.session.shards import Shard
from online.session.state import RunState
from online.session.status import Watcher
from online.stop import StopSignals
from online.training.prequential import Prequential

LOOK_UP_SECONDS = 0.5
"""How often a wait for clips looks up for a signal, or for a server that has failed."""


class Intake:
    """Takes in the clips that are due, and says where some had to be skipped."""

    def __init__(
        self,
        config: StreamConfig,
        state: RunState,
        source: FrameSource,
        origin: Origin,
        *,
        prequential: Prequential,
        journal: Journal,
        watcher: Watcher,
        stop: StopSignals,
        check_servers: Callable[[], None],
    ) -> None:
        """`check_servers` raises where a server that this process has started is gone."""
        self.config = config
        self.state = state
        self.source = source
        self.origin = origin
        self.clock = state.clock
        self.prequential = prequential
        self.journal = journal
        self.watcher = watcher
        self.stop = stop
        self.check_servers = check_servers
        self.newest: Clip | None = None
        """The clip that was inserted last in this start."""
        self._warn_at_late = self._warn_at_released = 1

    def connect(self) -> None:
        """Note which recordings there are, as soon as the servers answer.

        Raises OnlineError: they do not, or their recordings are not what this run can learn from.
        """
        summaries = self.source.recordings()
        check_sizes(summaries)
        self.state.remember_held_out(summaries)
        names = [summary.name for summary in summaries]
        if added := self.state.remember_recordings(names):
            message = f"learns from recordings that were not there before: {', '.join(added)}"
            self.journal.warn(message)
        self.journal.source(summaries, self.origin, clip_overhead=self.config.clip.overhead)

    def fill(self) -> bool:
        """Insert the clips that are due; False where the stream ends before they come.

        Raises StopRequested: a signal came first; OnlineError: no clip comes, or one cannot be
        learned from.
        """
        return all(self._filled(shard) for shard in self.state.shards)

    def _filled(self, shard: Shard) -> bool:
        while shard.replay.inserts_due():
            with self.clock.waiting():
                clip = self._next_clip(shard.feed)
            if clip is None:
                return False
            self._take_in(clip, shard)
        return True

    def _take_in(self, clip: Clip, shard: Shard) -> None:
        self.state.enter(clip)
        if shard.feed.first_time(clip) and (score := self.prequential.score(clip, shard.replay)):
            self.journal.prequential(score)
        shard.replay.insert(clip)
        shard.feed.inserted(clip)
        self.newest = clip
        self.clock.took_in(clip.last_captured_ns)

    def _next_clip(self, feed: Feed) -> Clip | None:
        """The next clip of the stream, None at its end."""
        patience = time.monotonic() + PATIENCE_SECONDS
        while not feed.ended:
            clip = feed.next(timeout_seconds=LOOK_UP_SECONDS)
            self._warn_of_skips()
            if clip is not None:
                return clip
            self.stop.check()
            self.check_servers()
            if time.monotonic() > patience:
                raise ServerSilent(
                    f"no clip in {PATIENCE_SECONDS:g} s; is the server running, and does its store "
                    "have new footage? the same command continues this run"
                )
            self.watcher.tell("waiting for data")
        return None

    def _warn_of_skips(self) -> None:
        """Warn of the first skipped clips, and then whenever their number has doubled."""
        counters = self.state.counters
        if (late := counters.skipped - counters.released) >= self._warn_at_late:
            self._warn_at_late = 2 * late
            self.journal.warn(
                f"too slow for the camera: {late} of {counters.offered} clips were more than "
                f"{self.config.max_delay_seconds:g} s old and were skipped; "
                "lower replay.samples_per_insert to learn from more of them",
            )
        if counters.released >= self._warn_at_released:
            self._warn_at_released = 2 * counters.released
            self.journal.warn(
                f"{counters.released} of {counters.offered} clips were deleted by the capture "
                "before their turn and were skipped; record with a longer --keep to learn from "
                "them",
            )

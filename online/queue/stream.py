"""One trainer's stream: which message comes next, and whether its credit allows it. No sockets.

Epoch  Clip  Clip  ...  Clip  Epoch  Clip  ...  End
  |      each clip is sent only if all of it lies within the credit
  the cursor that makes the same plan again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ingest.errors import ReleasedError
from online.clips.catalog import StoreCatalog
from online.clips.cursor import Cursor, Extent
from online.clips.holdout import DEFAULT_HOLDOUT
from online.clips.plan import Plan, extents_now, has_grown, make_plan
from online.clips.request import Order
from online.errors import ServerError
from online.queue import messages

_Message = messages.Epoch | messages.ClipHeader | messages.Released | messages.End

FOLLOW_SECONDS = 0.25
"""How often a growing store is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What a server offers, and in which order."""

    order: Order = "stream"
    """Order for trainers that ask for none."""
    follow: bool = False
    """Send what is added to the store, until the server is to finish; else epochs of what is
    there."""
    recordings: str = "*"
    """Glob of the recordings that are offered."""
    holdout: float = DEFAULT_HOLDOUT
    """Share of each recording that is never sent for training."""


class Stream:
    """The messages of one session, in order."""

    def __init__(self, catalog: StoreCatalog, want: messages.Hello, config: ServeConfig) -> None:
        """Plan the stream that `want` asks for, from its cursor on.

        Raises ServerError: there is nothing to send, the credit is too small for two clips, or the
        store is not the one that the cursor comes from.
        """
        self.want = msgspec.structs.replace(want, cursor=None)  # which may be large
        self.credit = want.credit
        self.is_finishing = False
        """Whether a stream that follows the store is to end after what there is."""
        self.sent_bytes = 0
        self._catalog = catalog
        self._follow = config.follow
        self._request = want.request
        self._order: Order = want.request.order or config.order
        self._sequence = 0
        self._message: _Message | None = None
        self._parts: list[Any] = []
        self._cost = 0
        self._finished = False
        self._looked_at = 0.0
        cursor = want.cursor or Cursor(extents=self._extents_now())
        plan = self._plan(cursor)
        if want.cursor and plan.start.fingerprint != want.cursor.fingerprint:
            raise ServerError(
                f"{catalog.store.location}: the plan that the trainer was following cannot be made "
                "again; serve the same store with the same --holdout and --recordings"
            )
        self._begin(plan, cursor.index)

    @property
    def planned_clips(self) -> int:
        """Clips in the plan, those that were sent included."""
        return len(self._plan_now.clips)

    def recorded(self) -> tuple[str, ...]:
        """Recordings of this round that are being recorded just now."""
        return tuple(
            name
            for name, extent in self._plan_now.start.extents.items()
            if not extent.closed and self._catalog.store.is_being_written(name)
        )

    def next_message(self, now: float) -> list[Any] | None:
        """Parts of the next message, if there is one and the credit covers it; until `sent`."""
        if self._message is None and not self._finished:
            self._prepare(now)
        if self._message is None or self.sent_bytes + self._cost > self.credit:
            return None
        return self._parts

    def sent(self) -> int:
        """Note that the message went out; returns the bytes of a clip, 0 for other messages."""
        self._announced |= isinstance(self._message, messages.Epoch)
        self._finished |= isinstance(self._message, messages.End)
        self._index += isinstance(self._message, messages.ClipHeader | messages.Released)
        self._sequence += 1
        self.sent_bytes += self._cost
        clip = self._cost if isinstance(self._message, messages.ClipHeader) else 0
        self._message = None
        return clip

    def _prepare(self, now: float) -> None:
        if self._announced and self._index == len(self._plan_now.clips):
            self._turn_over(now)
        if self._message is not None:
            return
        if not self._announced:
            self._set(
                messages.Epoch(
                    session=self.want.session,
                    sequence=self._sequence,
                    cursor=self._plan_now.start,
                    clips=len(self._plan_now.clips),
                    recorded=self.recorded(),
                )
            )
        elif self._index < len(self._plan_now.clips):
            self._read_clip()

    def _turn_over(self, now: float) -> None:
        """After a plan's last clip: begin the next plan, end the stream, or change nothing."""
        if not self._follow:
            self._begin_epoch()
        elif now - self._looked_at >= FOLLOW_SECONDS:
            self._looked_at = now
            # Footage first, then the end: what was committed just before the server was asked to
            # finish still belongs to the stream. Until there is either, the stream is paused, and
            # `_prepare` comes here again.
            if not self._begin_round() and self.is_finishing:
                self._end()

    def _begin_epoch(self) -> None:
        """Go through the store again, with what has been added meanwhile; end after the last."""
        epoch = self._plan_now.start.epoch + 1
        if self._request.max_epochs and epoch >= self._request.max_epochs:
            self._end()
        else:
            self._begin(self._plan(Cursor(epoch=epoch, extents=self._extents_now())))

    def _begin_round(self) -> bool:
        """Plan what was added since the last round; False where that gives no clip yet."""
        start, extents = self._plan_now.start, self._extents_now()
        if not any(has_grown(start.extents.get(name), extents[name]) for name in extents):
            return False
        plan = self._plan(Cursor(round=start.round + 1, base=start.extents, extents=extents))
        # Recordings that grew by less than a clip are no round yet: each look would announce an
        # empty one. The base stays, so their new frames are part of the next look as well.
        if not plan.total:
            return False
        self._begin(plan)
        return True

    def _end(self) -> None:
        self._set(messages.End(self.want.session, self._sequence))

    def _read_clip(self) -> None:
        spec = self._plan_now.clips[self._index]
        try:
            frames = self._catalog.fetch(spec.recording, spec.start, spec.length)
        except ReleasedError:
            self._set(
                messages.Released(
                    session=self.want.session,
                    sequence=self._sequence,
                    index=self._index,
                    recording=spec.recording,
                    start=spec.start,
                    length=spec.length,
                )
            )
            # it waits at the trainer as the clip would
            self._cost = messages.clip_bytes(self._parts[0], 0)
            return
        header, buffers = messages.pack_frames(frames, checksum=self.want.checksum)
        self._set(
            messages.ClipHeader(
                session=self.want.session,
                sequence=self._sequence,
                index=self._index,
                recording=spec.recording,
                start=spec.start,
                frames=header,
            )
        )
        self._parts += buffers
        self._cost = messages.clip_bytes(self._parts[0], buffers[0].nbytes)

    def _set(self, message: _Message) -> None:
        self._message, self._parts, self._cost = message, [messages.encode(message)], 0

    def _begin(self, plan: Plan, index: int = 0) -> None:
        if not self._follow:
            self._check_has_clips(plan)
        self._check_credit(plan)
        self._plan_now, self._index, self._announced = plan, index, False

    def _plan(self, cursor: Cursor) -> Plan:
        return make_plan(self._catalog, self._request, order=self._order, cursor=cursor)

    def _extents_now(self) -> dict[str, Extent]:
        return extents_now(self._catalog, self._request.recordings, follow=self._follow)

    def _check_has_clips(self, plan: Plan) -> None:
        """Refuse a plan that would never send a clip; what is followed may still grow one."""
        where, request = self._catalog.store.location, self._request
        if not plan.start.extents:
            there = ", ".join(self._catalog.store.recordings()[:5]) or "none"
            raise ServerError(
                f"{where}: no recording matches {request.recordings!r}; there are: {there}"
            )
        if plan.total == 0:
            frames = sum(extent.length for extent in plan.start.extents.values())
            raise ServerError(
                f"{where}: no triplet to train on: one spans {request.clip.overlap + 1} frames, "
                f"and the training part of {frames} frames has no such run without a gap"
            )
        if not plan.clips:
            raise ServerError(
                f"{where}: shard {request.shard} of {request.shards} gets none of {plan.total} "
                "clips; use fewer trainers or a smaller clip_length"
            )

    def _check_credit(self, plan: Plan) -> None:
        """Refuse clips that the credit never covers."""
        commits = [self._catalog.commit(name) for name in plan.start.extents]
        frame = max((commit.height * commit.width * 3 for commit in commits), default=0)
        # besides its pixels a frame costs two times and a mark, a clip a name and some numbers
        clip = self._request.clip.frames * (frame + 32) + 1024
        if self.want.credit < 2 * clip:
            raise ServerError(
                f"credit of {self.want.credit} bytes is below two clips of {clip} bytes; "
                f"raise credit_bytes to {2 * clip} or lower clip_length"
            )

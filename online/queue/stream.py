"""One trainer's stream: which message comes next, and whether its credit allows it. No sockets.

Whatever takes time (planning, reading a clip) is done a few milliseconds at a time, so that other
trainers have their turns in between.

Epoch  Clip  Clip  ...  Clip  Epoch  Clip  ...  End
  |      each clip is sent only if all of it lies within the credit
  the cursor that makes the same plan again
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgspec

from ingest.errors import IngestError, NoAnswerError, ReleasedError
from ingest.frame import Frames
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipSpec
from online.clips.cursor import Cursor, Extent
from online.clips.holdout import DEFAULT_HOLDOUT
from online.clips.plan import Plan, has_grown, looking, planning
from online.clips.request import Order
from online.clips.steps import WAITING, Steps
from online.errors import ServerError
from online.queue import messages

_Message = messages.Epoch | messages.ClipHeader | messages.Released | messages.End

FOLLOW_SECONDS = 0.25
"""How often a growing store is looked at."""
SLICE_BYTES = 4 << 20
"""Pixels that are read at a time: some ten milliseconds."""
CLIPS_AHEAD, BYTES_AHEAD = 128, 512 << 20
"""How many clips before their turn a store in object storage is asked to send them: all that a
shuffle mixes, but of large ones no more pixels than this."""
MAX_CLIP_BYTES = 64 << 20
"""Pixels of the largest clip that is sent."""

MayHold = Callable[[int], bool]
"""Whether the server has room for so many bytes of a clip, and if so keeps it free."""


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
        """Begin the stream that `want` asks for, from its cursor on; nothing is planned yet."""
        self.want = msgspec.structs.replace(want, cursor=None)  # which may be large
        self.credit = want.credit
        self.is_finishing = False
        """Whether a stream that follows the store is to end after what there is."""
        self.sent_bytes = 0
        self.planned_bytes = 0
        """What the plan takes in memory, as far as it is made."""
        self.held_bytes = 0
        """Of the clip that is being read, or waits for its turn to be sent."""
        self._catalog = catalog
        self._follow = config.follow
        self._request = want.request
        self._order: Order = want.request.order or config.order
        self._sequence = 0
        self._message: _Message | None = None
        self._parts: list[Any] = []
        self._cost = 0
        self._next_cost: tuple[int, int] | None = None
        self._finished = False
        self._looked_at = 0.0
        self._plan_now: Plan | None = None
        self._index = 0
        self._ahead = 0
        """Where in the plan reading ahead goes on."""
        self._clips_ahead = 1
        self._coming: dict[int, Future[None]] = {}
        """Of clips by their place in the plan, what is being sent from far away."""
        self._waits_in_step = False
        self._announced = False
        self._work: Steps[None] | None = self._first_plan(want.cursor)

    @property
    def is_waiting(self) -> bool:
        """Whether it can do nothing until what is far away has come."""
        coming = self._coming.get(self._index)
        return self._waits_in_step or (coming is not None and not coming.done())

    @property
    def is_planning(self) -> bool:
        """Whether more clips are being planned."""
        return self.is_busy and not self.held_bytes

    @property
    def is_busy(self) -> bool:
        """Whether there is work to go on with."""
        return self._work is not None

    def recorded(self) -> tuple[str, ...]:
        """Recordings of this round that are being recorded just now."""
        extents = {} if self._plan_now is None else self._plan_now.start.extents
        return tuple(
            name
            for name, extent in extents.items()
            if not extent.closed and self._catalog.store.is_being_written(name)
        )

    def next_message(self, now: float, may_hold: MayHold) -> list[Any] | None:
        """Parts of the next message, if there is one and the credit covers it; until `sent`.

        Does one step of what takes time. A clip is read once the credit covers it and the server
        `may_hold` it.

        Raises ServerError: there is nothing to send, the credit is too small for two clips, a clip
        is too large, or the store is not the one that the cursor comes from.
        """
        if self._work is None and self._message is None and not self._finished:
            self._prepare(now, may_hold)
        if self._work is not None:
            self._go_on()
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
        self._message, self._parts, self.held_bytes = None, [], 0
        return clip

    def close(self) -> None:
        """Give up what is being sent for clips that nobody will take."""
        while self._coming:
            self._coming.popitem()[1].cancel()

    def _go_on(self) -> None:
        assert self._work is not None
        self._waits_in_step = False
        try:
            step = next(self._work)
        except StopIteration:
            self._work = None
        else:
            self._waits_in_step = step == WAITING
            self.planned_bytes = max(step, self.planned_bytes)

    def _prepare(self, now: float, may_hold: MayHold) -> None:
        plan = self._plan_now
        assert plan is not None  # which the first work makes
        if self._announced and self._index == len(plan.clips):
            self._turn_over(plan, now)
        elif not self._announced:
            self._set(
                messages.Epoch(
                    session=self.want.session,
                    sequence=self._sequence,
                    cursor=plan.start,
                    clips=len(plan.clips),
                    recorded=self.recorded(),
                )
            )
        else:
            self._read_ahead(plan)
            if not self.is_waiting:  # or it would keep room from others
                self._begin_clip(plan.clips[self._index], may_hold)

    def _read_ahead(self, plan: Plan) -> None:
        """Have a store that is far away send what the next clips need, each once."""
        if not self._catalog.store.is_remote:
            return
        self._ahead = max(self._index, self._ahead)
        stop = min(self._index + self._clips_ahead, len(plan.clips))
        for spec in plan.clips[self._ahead : stop]:
            after = self._ahead - self._index
            coming = self._catalog.bring(spec.recording, spec.start, spec.length, after=after)
            if coming is None:
                break
            self._coming[self._ahead] = coming
            self._ahead += 1

    def _turn_over(self, plan: Plan, now: float) -> None:
        """After a plan's last clip: begin the next plan, end the stream, or change nothing."""
        if not self._follow:
            self._begin_epoch(plan)
        elif now - self._looked_at >= FOLLOW_SECONDS:
            self._looked_at = now
            self._work = self._next_round(plan, is_last=self.is_finishing)

    def _begin_epoch(self, plan: Plan) -> None:
        """Go through the store again, with what has been added meanwhile; end after the last."""
        epoch = plan.start.epoch + 1
        if self._request.max_epochs and epoch >= self._request.max_epochs:
            self._end()
        else:
            self._work = self._epoch(epoch)

    def _epoch(self, epoch: int) -> Steps[None]:
        extents = yield from self._looking()
        plan = yield from self._planning(Cursor(epoch=epoch, extents=extents))
        self._begin(plan)

    def _first_plan(self, cursor: Cursor | None) -> Steps[None]:
        if cursor is None:
            yield from self._epoch(0)
            return
        plan = yield from self._planning(cursor)
        if plan.start.fingerprint != cursor.fingerprint:
            raise ServerError(
                f"{self._catalog.store.location}: the plan that the trainer was following cannot "
                "be made again; serve the same store with the same --holdout and --recordings"
            )
        self._begin(plan, cursor.index)

    def _next_round(self, before: Plan, *, is_last: bool) -> Steps[None]:
        """Plan what was added since the last round, which may give no clip yet.

        Footage first, then the end: what was committed just before the server was asked to finish
        still belongs to the stream. Until there is either, the stream is paused, and `_turn_over`
        comes here again.
        """
        start = before.start
        extents = yield from self._looking()
        if any(has_grown(start.extents.get(name), extents[name]) for name in extents):
            plan = yield from self._planning(
                Cursor(round=start.round + 1, base=start.extents, extents=extents)
            )
            # Recordings that grew by less than a clip are no round yet: each look would announce
            # an empty one. The base stays, so their new frames are part of the next look as well.
            if plan.total:
                self._begin(plan)
                return
        if is_last:
            self._end()

    def _end(self) -> None:
        self._set(messages.End(self.want.session, self._sequence))

    def _begin_clip(self, spec: ClipSpec, may_hold: MayHold) -> None:
        """Read a clip, where it can be sent as soon as it is read."""
        if self._next_cost is None:
            self._next_cost = self._cost_of(spec)
        cost, frame = self._next_cost
        if self.sent_bytes + cost <= self.credit and may_hold(cost):
            self.held_bytes, self._next_cost = cost, None
            self._work = self._reading(spec, max(1, SLICE_BYTES // frame))

    def _cost_of(self, spec: ClipSpec) -> tuple[int, int]:
        """Bytes of a clip that is not read yet, and of the pixels of one of its frames."""
        commit = self._catalog.commit(spec.recording)
        frame = commit.height * commit.width * 3
        images = spec.length * frame
        if images > MAX_CLIP_BYTES:
            raise ServerError(self._too_large(f"{spec} has {images} bytes", frame))
        blank = self._blank(spec, (commit.height, commit.width), live=commit.live)
        return messages.clip_bytes(messages.encode(blank), images), frame

    def _reading(self, spec: ClipSpec, step: int) -> Steps[None]:
        if coming := self._coming.pop(self._index, None):
            try:
                coming.result()
            except NoAnswerError:
                raise  # to ask again would keep others waiting
            except (IngestError, OSError):
                pass  # reading it says what is wrong
        try:
            frames = yield from self._read(spec, step)
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
        self._set(self._clip_header(spec, header))
        self._parts += buffers
        self._cost = messages.clip_bytes(self._parts[0], buffers[0].nbytes)

    def _read(self, spec: ClipSpec, step: int) -> Steps[Frames]:
        """The frames of a clip, `step` of them at a time."""
        if spec.length <= step:
            return self._catalog.fetch(spec.recording, spec.start, spec.length)
        whole: Frames | None = None
        for first in range(0, spec.length, step):
            count = min(step, spec.length - first)
            some = self._catalog.fetch(spec.recording, spec.start + first, count)
            whole = some.room_for(spec.length) if whole is None else whole
            whole.part(first, first + count).fill(some)
            yield 0
        assert whole is not None  # no clip is without frames
        return whole

    def _clip_header(self, spec: ClipSpec, frames: messages.FramesHeader) -> messages.ClipHeader:
        return messages.ClipHeader(
            session=self.want.session,
            sequence=self._sequence,
            index=self._index,
            recording=spec.recording,
            start=spec.start,
            frames=frames,
        )

    def _blank(self, spec: ClipSpec, size: tuple[int, int], *, live: bool) -> messages.ClipHeader:
        """A header as long as that of a clip will be, or in one of 30,000 cases longer."""
        times = bytes(8 * spec.length)
        return self._clip_header(
            spec,
            messages.FramesHeader(
                shape=(spec.length, *size, 3),
                pts_ns=times,
                gap=bytes(spec.length),
                captured_ns=times if live else None,
                checksums=((1 << 32) - 1,) if self.want.checksum else (),
            ),
        )

    def _set(self, message: _Message) -> None:
        self._message, self._parts, self._cost = message, [messages.encode(message)], 0

    def _begin(self, plan: Plan, index: int = 0) -> None:
        if not self._follow:
            self._check_has_clips(plan)
        largest = self._checked_size(plan)
        self._clips_ahead = max(1, min(CLIPS_AHEAD, BYTES_AHEAD // max(1, largest)))
        self.planned_bytes = plan.clips.nbytes
        self._plan_now, self._index, self._announced = plan, index, False
        self._ahead = index
        self.close()

    def _planning(self, cursor: Cursor) -> Steps[Plan]:
        return planning(self._catalog, self._request, order=self._order, cursor=cursor)

    def _looking(self) -> Steps[dict[str, Extent]]:
        return looking(self._catalog, self._request.recordings, follow=self._follow)

    def _check_has_clips(self, plan: Plan) -> None:
        """Refuse a plan that would never send a clip; what is followed may still grow one."""
        where, request = self._catalog.store.location, self._request
        if not plan.start.extents:
            there = ", ".join(self._catalog.names()[:5]) or "none"
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

    def _checked_size(self, plan: Plan) -> int:
        """Bytes of the pixels of the largest clip, unless the credit never covers it."""
        frame = max(map(self._catalog.frame_bytes, plan.start.extents), default=0)
        frames = self._request.clip.frames
        if frames * frame > MAX_CLIP_BYTES:
            raise ServerError(
                self._too_large(f"a clip of {frames} frames takes {frames * frame} bytes", frame)
            )
        # besides its pixels a frame costs two times and a mark, a clip a name and some numbers
        clip = frames * (frame + 32) + 1024
        if self.want.credit < 2 * clip:
            raise ServerError(
                f"credit of {self.want.credit} bytes is below two clips of {clip} bytes; "
                f"raise credit_bytes to {2 * clip} or lower clip_length"
            )
        return frames * frame

    def _too_large(self, what: str, frame: int) -> str:
        longest = MAX_CLIP_BYTES // frame - self._request.clip.overlap
        remedy = f"use a clip_length of {longest} or less" if longest > 0 else "use smaller frames"
        return (
            f"{self._catalog.store.location}: {what}, and this server sends up to "
            f"{MAX_CLIP_BYTES}; {remedy}"
        )

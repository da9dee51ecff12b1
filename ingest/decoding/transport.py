"""Lost packets of MPEG-TS, found by their continuity counters.

Every packet of 188 bytes belongs to a stream (PID) and bears a number from 0 to 15, which grows by
one from packet to packet of that stream. FFmpeg sees a number missing as well, but marks the frame
before the damaged one, and no key frame whose beginning is intact.
"""

from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np
from av.packet import Packet
from jaxtyping import Bool, UInt8

from ingest.closing import Closing
from ingest.errors import SourceStopped

_SYNC = 0x47
_SIZES = (188, 192, 204)
"""Of packets: plain, with a time before it as on Blu-ray, with a checksum after it."""
_BLOCK_BYTES = 1 << 20
_PACKETS_TO_SYNC = 5
_BYTES_TO_SYNC = _PACKETS_TO_SYNC * _SIZES[-1]
_LOOKED_AT = 1 << 14
"""Bytes in which a packet is looked for at once: most often one begins near."""
_REMEMBERED = 1000


class TransportLosses(Closing):
    """Follows one stream of a file, alongside the demuxer."""

    show_in_following = True
    can_hide_in_first = False

    def __init__(
        self, path: Path, *, pid: int, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._file = path.open("rb")
        self._should_stop = should_stop
        self._pid = pid
        self._size = 0  # of a packet
        self._read_to = -1
        self._tail = b""
        self._is_over = False
        self._last: UInt8[np.ndarray, " size"] | None = None
        self._lost_before: list[int] = []  # positions of the first packets after a loss
        self._starts: list[int] = []  # positions of packets with which a frame begins

    def is_between(self, packet: Packet, following: Packet | None) -> bool:
        """Whether a packet of the stream is missing between two frames, or in the first of them.

        Raises SourceStopped when it `should_stop`.
        """
        begin = packet.pos
        if begin is None:
            return False
        if self._read_to < 0:
            self._read_to = begin
            self._file.seek(begin)
        end = begin if following is None or following.pos is None else following.pos
        while not self._is_over and (not self._starts or self._starts[-1] <= max(begin, end)):
            if self._should_stop():  # junk may be long
                raise SourceStopped(self._file.name)
            self._read()
        next_start = bisect_right(self._starts, begin)
        # a frame whose beginning is lost counts as a part of the one before it
        end = max(
            end, self._starts[next_start] if next_start < len(self._starts) else self._read_to
        )
        loss = bisect_right(self._lost_before, begin)
        is_lost = loss < len(self._lost_before) and self._lost_before[loss] <= end
        if next_start > _REMEMBERED:  # hours of footage have a million of them
            del self._starts[: next_start - _REMEMBERED // 2], self._lost_before[:loss]
        return is_lost

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self) -> None:
        """Look at the next block of packets."""
        block = self._file.read(_BLOCK_BYTES)
        self._is_over = len(block) < _BLOCK_BYTES
        data = np.frombuffer(self._tail + block, np.uint8)
        at = 0
        while at < len(data):
            at, size = _synchronized(data, at, self._size)
            if not size:
                break
            self._size = size
            rows = (len(data) - at) // size
            packets = data[at : at + rows * size].reshape(rows, size)
            in_sync = packets[:, 0] == _SYNC
            rows = rows if in_sync.all() else int(in_sync.argmin())
            self._look_at(packets[:rows], self._read_to + at)
            at += rows * size
            if len(data) - at < _BYTES_TO_SYNC:
                break
        self._tail = data[at:].tobytes()
        self._read_to += at

    def _look_at(self, packets: UInt8[np.ndarray, "n size"], begin: int) -> None:
        """Note what is missing before each packet of the stream, and which begin a frame."""
        pid = (packets[:, 1].astype(np.int32) & 0x1F) << 8 | packets[:, 2]
        has_payload = packets[:, 3] & 0x10 != 0
        mine = np.flatnonzero((pid == self._pid) & has_payload)
        if not len(mine):
            return
        positions = begin + mine * packets.shape[1]
        ours = packets[mine]
        before = np.concatenate([ours[:1] if self._last is None else self._last[None], ours[:-1]])
        step = (ours[:, 3].astype(np.int32) - before[:, 3]) & 0x0F
        is_repeated = (ours == before).all(axis=1)
        # a stream that was cut on purpose says so
        is_cut = (ours[:, 3] & 0x20 != 0) & (ours[:, 4] > 0) & (ours[:, 5] & 0x80 != 0)
        is_damaged = ours[:, 1] & 0x80 != 0
        is_lost = ((step != 1) & ~is_repeated & ~is_cut) | is_damaged
        self._lost_before += positions[is_lost].tolist()
        self._starts += positions[ours[:, 1] & 0x40 != 0].tolist()
        self._last = ours[-1].copy()


def _synchronized(data: UInt8[np.ndarray, " n"], at: int, size: int) -> tuple[int, int]:
    """Position from which packets follow on each other, and their size, 0 where none do: then from
    which position that may be seen with what comes next.
    """
    end = max(at, len(data) - _BYTES_TO_SYNC) + 1
    for begin in range(at, end, _LOOKED_AT):
        count = min(_LOOKED_AT, end - begin)
        is_sync = data[begin : begin + count + _BYTES_TO_SYNC] == _SYNC
        found = [
            (int(places[0]), length)
            for length in ((size,) if size else _SIZES)
            if len(places := np.flatnonzero(_in_step(is_sync, count, length)))
        ]
        if found:
            place, length = min(found)
            return begin + place, length
    return end - 1, 0


def _in_step(
    is_sync: Bool[np.ndarray, " n"], count: int, length: int
) -> Bool[np.ndarray, " count"]:
    """Whether packets of a length may begin at each of the first `count` bytes."""
    may_begin = np.ones(count, np.bool_)
    for step in range(0, _PACKETS_TO_SYNC * length, length):
        known = is_sync[step : step + count]  # fewer at the end of a file
        may_begin[: len(known)] &= known
    return may_begin

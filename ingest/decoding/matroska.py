"""Lost blocks of Matroska and WebM: what is between two frames is not a chain of elements.

    element = kind (1 to 4 bytes), size (1 to 8), content
    block   = element whose content is track (1 byte or more), time (2), flags (1), frame

A demuxer that meets bytes which are no element goes on at the next cluster, without a word.
"""

from pathlib import Path

from av.packet import Packet

from ingest.closing import Closing

_BLOCKS = {0xA3, 0xA1}
_ENTERED = {0x18538067, 0x1F43B675, 0xA0}
"""Segment, cluster and group of a block: what is in these is looked at, not passed over."""
_PASSED_OVER = {
    *(0xE7, 0xA7, 0xAB, 0x5854, 0xAF),  # of a cluster
    *(0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A1, 0x75A2, 0x8E, 0xC8),  # of a group
    *(0x1C53BB6B, 0x1254C367, 0x114D9B74, 0x1941A469, 0x1043A770, 0x1549A966, 0x1654AE6B),
    *(0xEC, 0xBF, 0x1A45DFA3),  # anywhere
}
_HEAD_BYTES = 12
_CLOSE = 64
"""Bytes between two frames in which none can have been."""


class MatroskaLosses(Closing):
    """Follows the elements of a file, alongside the demuxer."""

    show_in_following = True
    can_hide_in_first = False

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def is_between(self, packet: Packet, following: Packet | None) -> bool:
        """Whether no chain of elements leads from the block of a frame to that of the next one, or
        a block in it shows none of the frames that it should.
        """
        if following is None or packet.pos is None or following.pos is None:
            return False
        if following.pos - (packet.pos + packet.size) <= _CLOSE:
            return False
        at = self._end_of_block(packet.pos)
        if at is None:  # several frames share it
            return False
        track = self._track(packet.pos)
        while at < following.pos:
            kind, begin, end = self._element(at)
            if kind in _BLOCKS and begin == following.pos:
                return False
            if kind not in _BLOCKS | _ENTERED | _PASSED_OVER:
                return True
            if kind in _BLOCKS and self._track(begin) in (0, track):
                return True
            at = begin if kind in _ENTERED else end
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _end_of_block(self, begins_at: int) -> int | None:
        """Where the block ends whose content begins at a position."""
        for size_length in range(1, 9):
            kind, begin, end = self._element(max(0, begins_at - size_length - 1))
            if kind in _BLOCKS and begin == begins_at:
                return end
        return None

    def _track(self, begins_at: int) -> int:
        """First byte of the content of a block: its track, if there are fewer than 128."""
        self._file.seek(begins_at)
        return int.from_bytes(self._file.read(1))

    def _element(self, at: int) -> tuple[int, int, int]:
        """Kind of an element, where its content begins and where it ends; kind 0 for none."""
        self._file.seek(at)
        head = self._file.read(_HEAD_BYTES)
        kind_length = _length(head, 4)
        size_length = _length(head[kind_length:], 8) if kind_length else 0
        if not size_length:
            return 0, at, at
        begin = kind_length + size_length
        size = int.from_bytes(head[kind_length:begin]) & ((1 << 7 * size_length) - 1)
        return int.from_bytes(head[:kind_length]), at + begin, at + begin + size


def _length(head: bytes, most: int) -> int:
    """How many bytes a number has that begins here; 0 where it is none."""
    length = 9 - head[0].bit_length() if head else 0
    return length if length <= min(most, len(head)) else 0

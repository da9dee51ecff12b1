"""Fields of H.264: packets that hold the lines of every other row, of which two make a frame.

Television is stored so where it moves. A decoder shows one frame for both, so both become one
packet. Whether a stream may have fields is said by its parameter set, and whether a slice is of one
by its header, of which the first few bits are read here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_PARAMETERS, _SLICE, _KEY_SLICE = 7, 1, 5
_MOST_ORDER_STEPS = 255
"""By the standard (H.264, 7.4.2.1.1)."""
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_HEAD_BYTES = 64
"""Enough for what is read of a slice."""

Units = Iterator[tuple[int, bytes]]
"""Kind and content of what a packet or a header consists of."""


@dataclass(frozen=True, slots=True)
class Field:
    """The first field of a packet."""

    frame: int
    is_bottom: bool
    is_key: bool

    def completes(self, first: "Field") -> bool:
        """Whether it is the other field of a frame."""
        is_other = self.is_bottom != first.is_bottom and self.frame == first.frame
        return is_other and not (self.is_key and not first.is_key)


@dataclass(frozen=True, slots=True)
class FieldCoding:
    """What is known of the slices of a stream that may have fields."""

    number_bits: int
    """Of the number of a frame."""
    has_planes: bool
    """Whether a slice says which plane of colour it is of."""

    def field(self, units: Units) -> Field | None:
        """The field that the first slice of a packet is of; None where it is of a whole frame."""
        for kind, data in units:
            if kind in (_SLICE, _KEY_SLICE):
                bits = _Bits(data[:_HEAD_BYTES])
                for _ in range(3):  # first block, kind of slice, parameter set
                    bits.number()
                bits.skip(2 * self.has_planes)
                frame = bits.take(self.number_bits)
                is_field, is_bottom = bits.take(1), bits.take(1)
                return Field(frame, bool(is_bottom), kind == _KEY_SLICE) if is_field else None
        return None


def field_coding(units: Units) -> FieldCoding | None:
    """How to know fields, from the header of a stream; None where it has none."""
    return next((_coding(data) for kind, data in units if kind == _PARAMETERS), None)


def _coding(data: bytes) -> FieldCoding | None:
    bits = _Bits(data)
    profile = bits.take(8)
    bits.skip(16)
    bits.number()
    has_planes = False
    if profile in _HIGH_PROFILES:
        chroma = bits.number()
        has_planes = chroma == 3 and bool(bits.take(1))
        bits.number()
        bits.number()
        bits.skip(1)
        if bits.take(1):
            for index in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    bits.skip_scaling(16 if index < 6 else 64)
    number_bits = bits.number() + 4
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        bits.skip(1)
        for _ in range(2):
            bits.number()
        steps = bits.number()
        if steps > _MOST_ORDER_STEPS:
            return None
        for _ in range(steps):
            bits.number()
    bits.number()
    bits.skip(1)
    for _ in range(2):  # width and height
        bits.number()
    return None if bits.take(1) else FieldCoding(number_bits, has_planes)


class _Bits:
    """Bits of a unit, from the first on; zeros after the last."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")  # what keeps start codes from appearing within
        self._bits = "".join(f"{byte:08b}" for byte in plain)
        self._at = 0

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._at += count
        return int(self._bits[self._at - count : self._at].ljust(count, "0") or "0", 2)

    def skip(self, count: int) -> None:
        """Pass bits over."""
        self._at += count

    def number(self) -> int:
        """A number of Exp-Golomb code: as many zeros as it has bits after the first."""
        one = self._bits.find("1", self._at)
        zeros = max(0, one - self._at)
        self._at += zeros
        return self.take(zeros + 1) - 1

    def skip_scaling(self, count: int) -> None:
        """Pass over a list of factors, of which each is a step from the one before."""
        last = following = 8
        for _ in range(count):
            if following:
                code = self.number()
                step = (code + 1) // 2 if code % 2 else -(code // 2)
                following = (last + step) % 256
            last = following or last

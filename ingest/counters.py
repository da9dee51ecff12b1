"""What became of the frames of a source or a recording."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What became of the frames so far: decoded = stored + dropped + duplicate + resampled."""

    decoded: int = 0
    stored: int = 0
    """Frames handed on, and so kept."""
    dropped: int = 0
    """Frames that refer to damaged or missing ones, or that a live source had no room for."""
    duplicate: int = 0
    """Frames that bear the time of the frame before them."""
    resampled: int = 0
    """Frames left out because fewer frames per second were asked for."""
    corrupt_packets: int = 0
    """Packets that are damaged; not frames, so beside the sum."""
    gaps: int = 0
    """Stored frames that do not continue the one before them, the first included."""

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(
            **{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)}
        )

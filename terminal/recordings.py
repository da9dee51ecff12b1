"""Recordings as text: what a store holds, and the progress of reading, writing and checking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ingest.addresses import without_secrets
from ingest.printable import harmless

if TYPE_CHECKING:
    from ingest.live.capture import Captured
    from ingest.publish import Published, PublishProgress
    from ingest.recorder import RecordProgress
    from ingest.store.records import CommitRecord
    from ingest.verify import Verified, VerifyProgress


def recording_text(name: str, commit: CommitRecord, size_bytes: int) -> str:
    """What is known of a recording besides its frames; three lines."""
    state = "complete" if commit.complete else "not complete"
    codec = "" if commit.codec == "zstd" else f", codec {commit.codec}"
    share = f", {size_bytes / commit.raw_bytes:.0%} of raw" if commit.raw_bytes else ""
    counts = msgspec.to_builtins(commit.counters)
    del counts["gaps"]
    named = [f"{key.replace('_', ' ')} {count}" for key, count in counts.items()]
    return (
        f"  {name}: {footage_text(commit)}, {state}, {size_bytes / 1e6:.1f} MB{share}{codec}\n"
        f"    {', '.join([*named, breaks_text(commit)])}\n"
        f"    from {harmless(without_secrets(commit.source.path))}"
    )


def uncommitted_text(name: str) -> str:
    """The line for a recording's folder that has no committed frames."""
    return f"{harmless(name)}: no committed frames; ingest its source again"


def footage_text(commit: CommitRecord) -> str:
    """Length, size and duration of the committed frames."""
    masks = ", masks" if commit.has_masks else ""
    frames = f"{counted(commit.length, 'frame')} of {commit.width}x{commit.height}"
    released = f", the first {commit.released} deleted" if commit.released else ""
    return f"{frames}{masks}, {commit.duration_seconds:.1f} s{released}"


def breaks_text(commit: CommitRecord) -> str:
    """How often the footage is interrupted; the first frame is a gap, but interrupts nothing."""
    breaks = max(0, commit.counters.gaps - 1)
    return counted(breaks, "break") if breaks else "no breaks"


def left_out_text(commit: CommitRecord) -> str:
    """A part of a sentence about frames that the source has and the recording has not, if any."""
    return f", {commit.counters.losses_text}" if commit.counters.left_out else ""


def counted(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def ingest_parts(progress: RecordProgress) -> list[str]:
    """How much of a recording is written, as parts of a progress line."""
    of = f"/{progress.expected_frames}" if progress.expected_frames else ""
    parts = [f"ingesting {progress.name}", f"{progress.frames}{of} frames"]
    if progress.eta_seconds is not None:
        parts.append(f"{progress.eta_seconds:.0f} s left")
    return [*parts, f"{progress.fps:.0f} fps", f"{progress.times_real_time:.1f}x real time"]


def verifying_parts(progress: VerifyProgress) -> list[str]:
    """How much of a recording is checked, as parts of a progress line."""
    rate = progress.read_bytes / 1e6 / progress.seconds if progress.seconds else 0
    share = progress.read_bytes / progress.total_bytes
    return [f"verifying {progress.name}", f"{share:.0%}", f"{rate:.0f} MB/s"]


def verified_text(verified: Verified) -> str:
    """What checking a recording has found."""
    if not verified.ok:
        said = [*verified.faults]
        if verified.damaged_chunks:  # none if only the commit record is wrong
            said.insert(0, counted(verified.damaged_chunks, "damaged chunk"))
        return f"{verified.name}: {'; '.join(said)}"
    rate = verified.read_bytes / 1e6 / verified.seconds if verified.seconds else 0
    parts = [f"ok, {counted(verified.frames, 'frame')}, {rate:.0f} MB/s"]
    if not verified.complete:
        parts.append("not complete")
    if verified.leftovers:
        parts.append(f"ignored partial files of a killed writer: {' '.join(verified.leftovers)}")
    return f"{verified.name}: {', '.join(parts)}"


def publishing_parts(progress: PublishProgress) -> list[str]:
    """How much of a recording is copied, as parts of a progress line."""
    return [f"publishing {progress.name}", f"{progress.frames}/{progress.total_frames} frames"]


def published_text(published: Published) -> str:
    """What became of a recording that was to be copied."""
    assert published.commit is not None  # there was no error
    took = f", took {published.seconds:.1f} s" if published.frames_this_run else ""
    return f"{published.name}: {published.status}, {footage_text(published.commit)}{took}"


def capture_parts(captured: Captured) -> list[str]:
    """The state of a capture, as parts of a progress line."""
    return [
        f"capturing {captured.name}",
        f"{captured.commit.length} frames",
        f"{captured.delay_seconds:.1f} s behind",
        *lost_parts(captured),
        *([f"{released} deleted"] if (released := captured.commit.released) else []),
        f"{captured.fps:.1f} fps",
    ]


def lost_parts(captured: Captured) -> list[str]:
    """Frames that were dropped and connections that were lost."""
    dropped, reconnects = captured.commit.counters.dropped, captured.reconnects
    return [f"{dropped} dropped", counted(reconnects, "reconnect")]

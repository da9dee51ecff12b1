"""Messages between server and trainer: a typed header, then raw buffers that are never copied.

    part 0   b"SC" + protocol version + CRC-32C of all the rest + msgpack of a struct below
    part 1   images, uint8 (n, h, w, 3)      only with ClipHeader and Fetched
    part 2   masks, uint8 (n, h, w)          only with Fetched, where asked for and known

Trainer to server: Hello, Credit, Alive, Bye, List, Fetch. Server to trainer: Epoch, ClipHeader,
Released, End, Alive, Lost, Listed, Fetched, Refused. Nothing here executes what it reads, and every
number has a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from ingest.disk.checksum import crc32c
from ingest.frame import Frames
from ingest.printable import MOST_CHARACTERS
from online.clips.cursor import Cursor
from online.clips.holdout import RecordingSummary
from online.clips.limits import Checksum, Count, Name, Side, Small
from online.clips.request import ClipRequest
from online.errors import MessageDamaged, WireError

PROTOCOL = 5
MAX_HEADER_BYTES = 16 << 20
"""Largest header: a list of some ten thousand recordings."""
MAX_REPLY_BYTES = 32 << 20
"""Images in one Fetched message, unless a single frame is larger."""
MAX_FRAME_BYTES = 256 << 20
"""Largest frame that travels."""
SHARED_BYTES = 8 << 10
"""libzmq reads this much at once, and hands out what fits as parts of one buffer."""
HEARTBEAT_SECONDS = 1.0
MAX_DAMAGED = 3
"""This many messages damaged in a row are not an accident any more."""
SILENCE_SECONDS = 3.0
"""A peer that says nothing for so long is taken for hung or dead."""
MAX_SILENCE_SECONDS = 30.0
"""A server is given twice as long each time that it is asked again, up to this: it may be slow."""

_MAGIC = b"SC" + bytes([PROTOCOL])

Session = Annotated[str, Meta(min_length=8, max_length=64)]


class FramesHeader(Struct, frozen=True, kw_only=True):
    """Shape of the buffers that follow, and everything small about the frames."""

    dtype: Literal["uint8"] = "uint8"
    shape: tuple[Small, Side, Side, Literal[3]]
    pts_ns: bytes
    """int64, little-endian."""
    gap: bytes
    """One byte per frame, 0 or 1."""
    captured_ns: bytes | None = None
    masks: bool = False
    checksums: tuple[Checksum, ...] = ()
    """CRC-32C of each buffer; empty where the connection needs none."""


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """Opens a session: what the trainer asks for, and its first credit."""

    session: Session
    credit: Count
    """Bytes that the server may send in this session until it is granted more."""
    request: ClipRequest
    cursor: Cursor | None = None
    checksum: bool = False


class Credit(Struct, frozen=True, tag="credit"):
    """The server may send up to byte `offset` of the session, counted from its beginning."""

    session: Session
    offset: Count


class Alive(Struct, frozen=True, tag="alive"):
    """Heartbeat, both ways, once a second."""

    session: Session
    recorded: tuple[Name, ...] = ()
    """From a server: recordings of the round that are being recorded just now."""


class Bye(Struct, frozen=True, tag="bye"):
    """The trainer leaves the session."""

    session: Session


class List(Struct, frozen=True, tag="list"):
    """Asks what recordings there are."""

    request: Count


class Fetch(Struct, frozen=True, kw_only=True, tag="fetch"):
    """Asks for frames start..start+length; the reply may hold only the first of them."""

    request: Count
    recording: Name
    start: Count
    length: Small
    masks: bool = False
    checksum: bool = False


class Epoch(Struct, frozen=True, kw_only=True, tag="epoch"):
    """An epoch, or the next round of a growing store, begins at `cursor`."""

    session: Session
    sequence: Count
    cursor: Cursor
    clips: Count
    """Clips in this shard's plan."""
    recorded: tuple[Name, ...] = ()
    """As in Alive."""


class ClipHeader(Struct, frozen=True, kw_only=True, tag="clip"):
    """One clip; its images follow."""

    session: Session
    sequence: Count
    index: Count
    """Position in this shard's plan of the epoch."""
    recording: Name
    start: Count
    frames: FramesHeader


class Released(Struct, frozen=True, kw_only=True, tag="released"):
    """In the place of a clip whose frames were deleted after its plan was made."""

    session: Session
    sequence: Count
    index: Count
    """Position in this shard's plan of the epoch."""
    recording: Name
    start: Count
    length: Small


class End(Struct, frozen=True, tag="end"):
    """All epochs asked for have been sent."""

    session: Session
    sequence: Count


class Lost(Struct, frozen=True, tag="lost"):
    """The server does not know the session: it was restarted."""

    session: Session


class Listed(Struct, frozen=True, tag="listed"):
    """The recordings there are."""

    request: Count
    recordings: list[RecordingSummary]


class Fetched(Struct, frozen=True, tag="fetched"):
    """The frames asked for; images and masks follow."""

    request: Count
    frames: FramesHeader


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """What was asked for cannot be done, in one line for people."""

    message: Annotated[str, Meta(max_length=MOST_CHARACTERS)]
    session: Session | None = None
    request: Count | None = None
    released: bool = False
    """Whether frames were asked for that have been deleted."""


ToServer = Hello | Credit | Alive | Bye | List | Fetch
ToTrainer = Epoch | ClipHeader | Released | End | Alive | Lost | Listed | Fetched | Refused

_encoder = msgspec.msgpack.Encoder()
_from_trainer = msgspec.msgpack.Decoder(ToServer)
_from_server = msgspec.msgpack.Decoder(ToTrainer)


def encode(message: ToServer | ToTrainer) -> bytes:
    """The header part of a message."""
    return seal(_encoder.encode(message))


def seal(body: bytes) -> bytes:
    """A header with what precedes it."""
    return _MAGIC + _checksum(_MAGIC, body) + body


def decode_request(part: bytes | memoryview) -> ToServer:
    """What a trainer says; WireError if it is not that, MessageDamaged if bits were changed."""
    return _decode(part, _from_trainer)


def decode_reply(part: bytes | memoryview) -> ToTrainer:
    """What a server says; WireError if it is not that, MessageDamaged if bits were changed."""
    return _decode(part, _from_server)


def pack_frames(frames: Frames, *, checksum: bool) -> tuple[FramesHeader, list[np.ndarray]]:
    """A header and the buffers to send after it, which are the frames' own memory."""
    arrays = [frames.images] if frames.masks is None else [frames.images, frames.masks]
    buffers = [np.ascontiguousarray(array) for array in arrays]
    n, h, w, _ = frames.images.shape
    header = FramesHeader(
        shape=(n, h, w, 3),
        pts_ns=_int64_bytes(frames.pts_ns),
        gap=frames.gap.tobytes(),
        captured_ns=None if frames.captured_ns is None else _int64_bytes(frames.captured_ns),
        masks=frames.masks is not None,
        checksums=tuple(crc32c(b) for b in buffers) if checksum else (),
    )
    return header, buffers


def unpack_frames(header: FramesHeader, buffers: Sequence[memoryview]) -> Frames:
    """Frames over the received memory, without copying unless it is shared with other messages.

    Raises WireError: sizes are not what the header says; MessageDamaged if checksums are not.
    """
    n, h, w, _ = header.shape
    sizes = [n * h * w * 3, n * h * w] if header.masks else [n * h * w * 3]
    if (found := [len(buffer) for buffer in buffers]) != sizes:
        raise WireError(f"frames {header.shape} need buffers of {sizes} bytes, got {found}")
    if header.checksums and (sums := tuple(map(crc32c, buffers))) != header.checksums:
        raise MessageDamaged(f"checksums of the frames are {sums}, sent were {header.checksums}")
    gap = np.frombuffer(header.gap, np.uint8)
    if len(gap) != n or gap.max() > 1:
        raise WireError(f"{n} frames need {n} gap marks of 0 or 1, got {header.gap[:16]!r}")
    captured = header.captured_ns
    images = np.frombuffer(buffers[0], np.uint8).reshape(header.shape)
    return Frames(
        # whoever keeps a small clip would keep the buffer, and all other messages in it
        images=images.copy() if images.nbytes <= SHARED_BYTES else images,
        pts_ns=_int64_array(header.pts_ns, n),
        gap=gap.astype(np.bool_),
        captured_ns=None if captured is None else _int64_array(captured, n),
        masks=np.frombuffer(buffers[1], np.uint8).reshape(n, h, w) if header.masks else None,
    )


def clip_bytes(header: bytes | memoryview, images: int) -> int:
    """What a clip costs of a session's credit: the bytes of all its parts."""
    return len(header) + images


def _decode(part: bytes | memoryview, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
    magic, checksum, body = bytes(part[:3]), bytes(part[3:7]), bytes(part[7:])
    if checksum == _checksum(_MAGIC, body):
        if magic != _MAGIC:
            raise MessageDamaged("the beginning of a message was damaged on its way")
    elif magic[:2] != _MAGIC[:2]:
        raise WireError(f"not a message of this program: it begins with {magic!r}")
    elif checksum in (_checksum(magic, body), _checksum(b"", body)):  # protocol 2 sealed less
        raise WireError(
            f"the other side speaks protocol {magic[2]}, this one {PROTOCOL}; run the same version "
            "of setcon on both"
        )
    else:
        raise MessageDamaged("a message was damaged on its way")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # the last: too deep
        raise WireError(f"a malformed message: {error}") from error


def _checksum(magic: bytes, body: bytes) -> bytes:
    """Checksum of a header and its version, so another version's header is not taken for damage."""
    return crc32c(magic + body).to_bytes(4, "little")


def _int64_bytes(values: np.ndarray) -> bytes:
    return values.astype("<i8").tobytes()


def _int64_array(data: bytes, n: int) -> np.ndarray:
    if len(data) != 8 * n:
        raise WireError(f"{n} frames need {8 * n} bytes of times, got {len(data)}")
    return np.frombuffer(data, "<i8").astype(np.int64)

"""What can go wrong between a source and a store.

IngestError
├── VideoError                 a source cannot be opened, read or matched with its masks
├── SourceStopped              reading a source was stopped
├── ExportError                a recording cannot be exported as the video that was asked for
└── StoreError                 a store or a recording cannot be read or written
    ├── NotAStoreError         the path holds something else
    ├── NoAnswerError          object storage refuses, or does not answer
    ├── NoSuchRecordingError   the store has no recording of that name
    ├── RecordingExistsError   the recording holds another source or was made with other settings
    ├── RecordingLockedError   another process is writing the recording
    ├── ReleasedError          the frames were deleted, as `capture --keep` says
    ├── DamagedChunkError      a committed chunk is missing or fails its checksum
    └── StorageFullError       the disk, quota or file size limit is exhausted

Every message is one line: what, where, the value found, and the remedy.
"""

from ingest import printable


class IngestError(Exception):
    """Anything a user can fix; the message is one line, whatever names and values it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(printable.one_line(printable.message(message)))


class VideoError(IngestError):
    """A source cannot be opened, read or matched with its masks."""


class SourceStopped(IngestError):  # noqa: N818 - not an error of the source
    """Reading a source was stopped, by Ctrl-C."""

    def __init__(self, source: object) -> None:
        super().__init__(f"{source}: stopped; run the same command again")
        self._source = str(source)

    def __reduce__(self) -> tuple[type["SourceStopped"], tuple[str]]:
        """Another process gets the same message, not one of this message."""
        return type(self), (self._source,)


class ExportError(IngestError):
    """A recording cannot be exported as the video that was asked for."""


class StoreError(IngestError):
    """A store or one of its recordings cannot be read or written."""


class NotAStoreError(StoreError):
    """The path exists and is not a store."""


class NoAnswerError(StoreError):
    """Object storage refuses or does not answer, which may pass."""


class NoSuchRecordingError(StoreError, KeyError):
    """The store has no recording of that name."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class RecordingExistsError(StoreError):
    """The recording holds another source, or was made with other settings."""


class RecordingLockedError(StoreError):
    """Another process is writing this recording."""


class ReleasedError(StoreError):
    """The frames were committed and have been deleted, as `capture --keep` says."""


class DamagedChunkError(StoreError):
    """A committed chunk is missing or fails its checksum."""


class StorageFullError(StoreError, OSError):
    """The disk, the quota or the file size limit is exhausted."""

    __str__ = Exception.__str__

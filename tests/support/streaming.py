"""Which triplets clips own, and the clips of a stream, for tests that count them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from online.clips.catalog import StoreCatalog
from online.clips.clip import Clip, ClipConfig, ClipSpec
from online.queue.client import Client


class TripletId(NamedTuple):
    """A triplet's name: it is the same in every epoch and for every way of cutting."""

    recording: str
    last_frame: int


def triplets_of(spec: ClipSpec, config: ClipConfig) -> list[TripletId]:
    """Names of the triplets that a clip owns, in time order."""
    lasts = range(spec.start + config.overlap, spec.start + spec.length)
    return [TripletId(spec.recording, last) for last in lasts]


def triplets(clips: Iterable[Clip], config: ClipConfig) -> list[TripletId]:
    """Names of the triplets of clips."""
    return [triplet for clip in clips for triplet in triplets_of(clip.spec, config)]


def planned(store, config: ClipConfig) -> list[TripletId]:
    """Triplets of the training parts of all recordings, in time order."""
    catalog = StoreCatalog(store)
    return [
        triplet
        for name in catalog.names()
        for spec in catalog.clips(name, config, length=catalog.commit(name).length, closed=True)
        for triplet in triplets_of(spec, config)
    ]


def next_clip(client: Client, timeout_seconds: float) -> Clip:
    """The next clip; there must be one."""
    delivery = client.next_clip(timeout_seconds)
    assert delivery is not None
    return delivery.clip


def clips(client: Client, timeout_seconds: float) -> Iterator[Clip]:
    """All clips that are still to come."""
    while (delivery := client.next_clip(timeout_seconds)) is not None:
        yield delivery.clip

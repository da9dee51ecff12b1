from collections.abc import Callable

import numpy as np

from ingest.frame import Frames
from ingest.store.protocols import Store
from online.clips.catalog import StoreCatalog
from online.clips.holdout import RecordingSummary
from online.clips.joined import JoinedSource


def indices(images: np.ndarray) -> np.ndarray:
    """Frame numbers out of the stamped pixels."""
    return images[..., 0, 0, 0] + 256 * images[..., 0, 0, 1].astype(int)


def test_several_servers_are_told_apart(store: Store, record: Callable[..., int]) -> None:
    record("a", 50)

    class Marked:
        def recordings(self) -> list[RecordingSummary]:
            return StoreCatalog(store).recordings()

        def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
            assert recording == "a"
            return StoreCatalog(store).fetch(recording, start + 1, length)

    source = JoinedSource([StoreCatalog(store), Marked()])
    assert [summary.name for summary in source.recordings()] == ["0:a", "1:a"]
    assert indices(source.fetch("0:a", 3, 2).images).tolist() == [3, 4]
    assert indices(source.fetch("1:a", 3, 2).images).tolist() == [4, 5]
    assert JoinedSource([StoreCatalog(store)]).recordings()[0].name == "a"

from collections.abc import Callable

import numpy as np
import pytest

from ingest.frame import UNKNOWN_LABEL
from ingest.store.protocols import Store
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.errors import FootageError
from online.probing.footage import gather

CLIP = ClipConfig(clip_length=3, frame_stride=2)  # 7 frames


def indices(images: np.ndarray) -> np.ndarray:
    """Frame numbers out of the stamped pixels."""
    return images[..., 0, 0, 0] + 256 * images[..., 0, 0, 1].astype(int)


def test_clips_are_consecutive_frames_spread_over_the_part(
    store: Store, record: Callable[..., int]
) -> None:
    record("a", 200, masks=True)
    catalog = StoreCatalog(store, holdout=0.25)
    train = gather(catalog, "train", clips=10, config=CLIP)
    held_out = gather(catalog, "held_out", clips=4, config=CLIP)
    assert train.images.shape == (10, 7, 8, 8, 3)
    for footage in (train, held_out):
        starts = indices(footage.images)[:, 0]
        assert (indices(footage.images) == starts[:, None] + np.arange(7)).all()
        assert (np.diff(starts) > 5).all()
    assert indices(train.images).max() < 150 <= indices(held_out.images).min()
    assert held_out.masks is not None
    assert (held_out.masks == held_out.images[..., 0]).all()
    assert held_out.pts_ns.shape == (4, 7)


def test_the_masks_of_a_recording_without_any_are_not_known(
    store: Store, record: Callable[..., int]
) -> None:
    record("a", 60, masks=True)
    record("b", 60)
    footage = gather(StoreCatalog(store, holdout=0.0), "train", clips=4, config=CLIP)
    assert footage.masks is not None
    names = [spec.recording for spec in footage.specs]
    assert set(names) == {"a", "b"}
    for name, masks, images in zip(names, footage.masks, footage.images, strict=True):
        assert (masks == (images[..., 0] if name == "a" else UNKNOWN_LABEL)).all()


def test_no_clip_crosses_a_gap(store: Store, record: Callable[..., int]) -> None:
    record("a", 120, gaps=tuple(range(8, 120, 8)))  # runs of 8 frames
    footage = gather(StoreCatalog(store, holdout=0.0), "train", clips=9, config=CLIP)
    numbers = indices(footage.images)
    assert len(footage) >= 8
    assert (numbers[:, 0] // 8 == numbers[:, -1] // 8).all()


def test_a_short_part_gives_each_clip_once(store: Store, record: Callable[..., int]) -> None:
    record("a", 50)
    footage = gather(StoreCatalog(store, holdout=0.2), "held_out", clips=100, config=CLIP)
    assert [spec.start for spec in footage.specs] == [40, 43]


def test_several_recordings_take_part_by_their_length(
    store: Store, record: Callable[..., int]
) -> None:
    record("long", 300)
    record("short", 100, mark=1)
    footage = gather(StoreCatalog(store, holdout=0.0), "train", clips=8, config=CLIP)
    names = [spec.recording for spec in footage.specs]
    assert (names.count("long"), names.count("short")) == (6, 2)


def test_too_little_footage_says_how_much_there_is(
    store: Store, record: Callable[..., int]
) -> None:
    record("a", 20)
    with pytest.raises(FootageError, match=r"no run of 7 held-out frames .*\(there: a 4 frames\)"):
        gather(StoreCatalog(store, holdout=0.2), "held_out", clips=2, config=CLIP)


def test_what_would_give_held_out_footage_is_said(store: Store, record: Callable[..., int]) -> None:
    record("a", 64, live=True)
    with pytest.raises(
        FootageError, match="of a camera every 5th minute is held out: record at least 5"
    ):
        gather(StoreCatalog(store, holdout=0.2), "held_out", clips=2, config=CLIP)
    store.remove("a")
    record("a", 64)
    with pytest.raises(FootageError, match="hold out more with --holdout"):
        gather(StoreCatalog(store, holdout=0.0), "held_out", clips=2, config=CLIP)


def test_frames_of_several_sizes_are_refused(store: Store, record: Callable[..., int]) -> None:
    record("a", 50)
    record("b", 50, size=16)
    with pytest.raises(FootageError, match="a 8x8, b 16x16"):
        gather(StoreCatalog(store), "train", clips=2, config=CLIP)


@pytest.mark.parametrize("length", [7, 8, 20, 61, 150])
def test_no_frame_counts_twice(store: Store, record: Callable[..., int], length: int) -> None:
    record("a", length, gaps=(length // 2,) if length > 30 else ())
    footage = gather(StoreCatalog(store, holdout=0.0), "train", clips=50, config=CLIP)
    owned = indices(footage.images)[:, CLIP.overlap :].ravel()
    assert len(owned) == len(set(owned.tolist()))
    assert len(owned) >= 0.6 * (length - 4) - 6

"""Targets are cut out of footage once, and each has the slots of its own frame."""

import numpy as np
import pytest
import torch

from ingest.store.protocols import Store
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.errors import Diverged
from online.probing.encoded import CutFootage, encode
from online.probing.footage import gather
from online.training.batch import to_images
from online.training.models import untrained_model
from setcon.config import SetConConfig
from setcon.model import SetCon

CLIP = ClipConfig(clip_length=3, frame_stride=2)
CPU = torch.device("cpu")


@pytest.fixture
def cut(store: Store, record) -> CutFootage:
    record("a", 40, fps=10.0, masks=True)
    footage = gather(StoreCatalog(store, holdout=0.0), "train", clips=3, config=CLIP)
    return CutFootage.of(footage, CLIP)


@pytest.fixture
def model() -> SetCon:
    return untrained_model(SetConConfig(), seed=0).eval()


def test_targets_are_the_last_frames_of_every_clip_and_keep_their_masks_and_names(
    cut: CutFootage,
) -> None:
    starts = [spec.start for spec in cut.footage.specs]
    numbers = [start + 4 + frame for start in starts for frame in range(3)]
    assert len(starts) == cut.clips == 3
    assert cut.targets[:, 0, 0, 0].tolist() == numbers
    assert cut.image_size == (8, 8)
    assert cut.masks is not None
    np.testing.assert_array_equal(cut.masks[:, 0, 0], numbers)
    assert [cut.caption(row) for row in range(9)] == [f"a {n / 10:.1f} s" for n in numbers]


def test_each_target_has_the_slots_of_its_frame(cut: CutFootage, model: SetCon) -> None:
    found = encode(model, cut, device=CPU)
    with torch.no_grad():
        current = model.encode(to_images(cut.targets))
        before = model.encode(to_images(cut.footage.images[:, 2:-2].reshape(-1, 8, 8, 3)))
        earliest = model.encode(to_images(cut.footage.images[:, :-4].reshape(-1, 8, 8, 3)))
        predicted = model.transition.step(earliest.slots, before.slots)
    torch.testing.assert_close(found.current, current.slots)
    torch.testing.assert_close(found.attention, current.attention)
    torch.testing.assert_close(found.copied, before.slots)
    torch.testing.assert_close(found.predicted, predicted)


@torch.no_grad()
def test_slots_that_are_not_finite_are_refused(cut: CutFootage, model: SetCon) -> None:
    model.slot_attention.starts[0, 0] = torch.nan
    with pytest.raises(Diverged, match="slots contain NaN or inf: the model has diverged"):
        encode(model, cut, device=CPU)

"""Supervoxels of clips: those of their frames, found once for as long as a clip is held."""

import gc
import weakref

import numpy as np
import pytest
import torch
from moving_squares import Square, scene

from ingest.frame import Frames
from online.clips.clip import Clip, ClipConfig, ClipSpec
from online.training.augment import AugmentConfig, augmented
from online.training.batch import Batch, collate
from online.training.pieces import Pieces
from setcon.supervoxels.supervoxels import Supervoxels

CONFIG = ClipConfig(clip_length=6, frame_stride=1)


def clip(length: int = 8, *, seed: int = 0, fps: float = 10.0) -> Clip:
    frames, _ = scene(
        [Square(side=12, start=(4, 4), velocity=(1, 1))],
        num_frames=length,
        size=(32, 32),
        seed=seed,
    )
    return Clip(
        ClipSpec("squares", 8 * seed, length),
        Frames(
            images=frames.numpy(),
            pts_ns=(np.arange(length) * 1e9 / fps).astype(np.int64),
            gap=np.zeros(length, np.bool_),
        ),
    )


@pytest.fixture
def count(monkeypatch) -> list[int]:
    """How many frames each call for supervoxels was about, and how far apart it compared."""
    calls: list[tuple[int, int]] = []
    found = Supervoxels.of

    def counted(
        frames: torch.Tensor, *, distance: int = 1, filled_from: int | None = None
    ) -> Supervoxels:
        calls.append((len(frames), distance))
        return found(frames, distance=distance, filled_from=filled_from)

    monkeypatch.setattr(Supervoxels, "of", counted)
    return calls


def same(one: Supervoxels, other: Supervoxels) -> bool:
    return torch.equal(one.labels, other.labels) and torch.equal(one.evidence, other.evidence)


def test_each_clip_of_a_batch_has_its_own_found_once(count):
    clips, pieces = [clip(seed=0), clip(seed=1)], Pieces()
    first = pieces.added(collate(clips, CONFIG), clips)
    again = pieces.added(collate(clips[::-1], CONFIG), clips[::-1])
    assert count == [(8, 1), (8, 1)]
    assert first.pieces is not None
    assert again.pieces == first.pieces[::-1]
    for run, found in zip(first.frames, first.pieces, strict=True):
        assert same(found, Supervoxels.of(run, distance=1))
    assert not same(*first.pieces)
    assert torch.equal(first.frames, collate(clips, CONFIG).frames)


def test_a_clip_that_is_filled_up_has_those_of_as_many_frames(count):
    long, short, pieces = clip(), clip(5, seed=1), Pieces()
    for clips, lengths in (([long, short], [8, 8]), ([short], [5]), ([short], [5])):
        batch = pieces.added(collate(clips, CONFIG), clips)
        assert [len(found.labels) for found in batch.pieces] == lengths
    assert [length for length, _ in count] == [8, 8, 5]


def test_that_nothing_moves_where_a_clip_is_filled_up_is_no_evidence_of_rest():
    long, short = clip(8), clip(5, seed=1)
    batch = Pieces().added(collate([long, short], CONFIG), [long, short])
    alone = Supervoxels.of(torch.from_numpy(short.frames.images))
    filled = batch.pieces[1]
    evidence = filled.evidence[filled.labels]
    assert evidence[1:4].max() > 0.5 * alone.evidence.max() > 0.5
    assert evidence.min() > -0.41


def test_neighbours_are_compared_at_a_distance_in_time(count):
    for fps in (10, 30, 1000):
        fast = [clip(fps=fps)]
        Pieces().added(collate(fast, CONFIG), fast)
    assert count == [(8, 1), (8, 2), (8, 2)]  # a third of the run at most


def test_those_of_clips_that_are_gone_are_let_go():
    clips, pieces = [clip()], Pieces()
    batch = pieces.added(collate(clips, CONFIG), clips)
    found = weakref.ref(batch.pieces[0].labels)
    del batch
    assert found() is not None
    clips.clear()
    gc.collect()
    assert found() is None


def test_clips_are_mirrored_with_their_supervoxels():
    clips = [clip(seed=seed) for seed in range(6)]
    batch = Pieces().added(collate(clips, CONFIG), clips)
    turned = augmented(batch, AugmentConfig(flip=True), key="0/0")
    assert turned.pieces is not None
    mirrored = []
    for before, after, old, new in zip(
        batch.frames, turned.frames, batch.pieces, turned.pieces, strict=True
    ):
        mirrored.append(not torch.equal(before, after))
        assert torch.equal(after, before.flip(2) if mirrored[-1] else before)
        expected = old.mirrored() if mirrored[-1] else old
        assert same(new, expected)
        np.testing.assert_array_equal(new.places, expected.places)
    assert {True, False} == set(mirrored)


def test_without_supervoxels_a_batch_is_augmented_as_ever():
    batch = collate([clip()], CONFIG)
    assert isinstance(batch, Batch)
    assert augmented(batch, AugmentConfig(flip=True, colour=0.1), key="0/0").pieces is None

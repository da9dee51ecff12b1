"""Clips and triplets for other people's training code."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from online.errors import FootageError
from online.training.clip_dataset import ClipDataset

Record = Callable[..., int]
Served = Callable[..., AbstractContextManager[str]]
Place = tuple[str, int]


def places(items: Iterable[dict[str, Any]]) -> list[Place]:
    return [(item["recording"], item["start"]) for item in items]


@pytest.fixture
def footage(record: Record, tmp_path: Path) -> Path:
    """Two recordings; pixels spell the number of their frame, and a gap."""
    record("a", 100, mark=1, gaps=(40,))
    record("b", 60, mark=2)
    return tmp_path / "store"


def test_an_item_is_a_clip_in_time_order(footage: Path) -> None:
    item = next(iter(ClipDataset(footage, clip_length=4, shuffled=False)))
    assert item["frames"].shape == (6, 3, 8, 8)
    assert item["frames"].dtype == torch.uint8
    assert item["frames"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert item["seconds"].tolist() == pytest.approx([i / 30 for i in range(6)])
    assert (item["recording"], item["start"]) == ("a", 0)


def test_every_triplet_of_the_training_part_comes_once_and_none_crosses_a_gap(
    footage: Path,
) -> None:
    items = list(ClipDataset(footage, triplets=True, frame_stride=2, holdout=0.2))
    assert all(item["frames"].shape == (3, 3, 8, 8) for item in items)
    numbers = [item["frames"][:, 0, 0, 0].tolist() for item in items]
    assert all(n == [n[0], n[0] + 2, n[0] + 4] for n in numbers)
    wanted = [("a", i) for i in (*range(36), *range(40, 76))] + [("b", i) for i in range(44)]
    assert sorted(places(items)) == sorted(wanted)
    assert places(items) != sorted(places(items))


def test_workers_share_a_pass_and_a_loader_stacks_it(footage: Path) -> None:
    dataset = ClipDataset(footage, clip_length=4)
    batches = list(DataLoader(dataset, batch_size=3, num_workers=2))
    assert batches[0]["frames"].shape == (3, 6, 3, 8, 8)
    seen = [
        place
        for batch in batches
        for place in zip(batch["recording"], batch["start"].tolist(), strict=True)
    ]
    assert sorted(seen) == sorted(places(dataset))


def test_shards_have_nothing_in_common_and_everything_together(footage: Path) -> None:
    parts = [places(ClipDataset(footage, shard=i, shards=3)) for i in range(3)]
    every = [place for part in parts for place in part]
    assert sorted(every) == sorted(places(ClipDataset(footage)))
    assert all(parts)


def test_each_pass_is_shuffled_anew_and_can_be_repeated(footage: Path) -> None:
    dataset = ClipDataset(footage, triplets=True)
    first, second = places(dataset), places(dataset)
    assert first != second
    assert sorted(first) == sorted(second)
    dataset.set_epoch(0)
    assert places(dataset) == first


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_a_pass_that_was_cut_off_goes_on_after_its_last_item(taken: int, footage: Path) -> None:
    whole = places(ClipDataset(footage, clip_length=4))
    dataset = ClipDataset(footage, clip_length=4)
    items = iter(dataset)
    before = [next(items) for _ in range(taken)]
    resumed = ClipDataset(footage, clip_length=4)
    resumed.load_state_dict(dataset.state_dict())
    assert places(before) + places(resumed) == whole
    assert places(resumed) == places(dataset_of_epoch(footage, 1))


def dataset_of_epoch(footage: Path, epoch: int) -> ClipDataset:
    dataset = ClipDataset(footage, clip_length=4)
    dataset.set_epoch(epoch)
    return dataset


def test_a_state_of_other_footage_is_refused(footage: Path, record: Record) -> None:
    dataset = ClipDataset(footage, clip_length=4)
    next(iter(dataset))
    other = ClipDataset(footage, clip_length=5)
    other.load_state_dict(dataset.state_dict())
    with pytest.raises(FootageError, match="holds other clips than when the state was saved"):
        next(iter(other))


def test_footage_without_a_clip_is_an_error_that_says_so(footage: Path) -> None:
    with pytest.raises(FootageError, match="no recording that matches 'c' is long enough"):
        list(ClipDataset(footage, recordings="c"))


def test_footage_with_short_clips_only_is_refused(record: Record, tmp_path: Path) -> None:
    record("short", 9)
    with pytest.raises(FootageError, match=r"is long enough for clips of 10 frames; lower"):
        list(ClipDataset(tmp_path / "store", clip_length=8, holdout=0.0))
    assert len(list(ClipDataset(tmp_path / "store", clip_length=7, holdout=0.0))) == 1


@pytest.mark.parametrize("shards", [1, 2])
def test_a_server_with_short_clips_only_is_refused(
    shards: int, record: Record, served: Served
) -> None:
    record("short", 18, gaps=(9,))
    with (
        served(holdout=0.0) as address,
        pytest.raises(FootageError, match="is long enough for clips of 10 frames"),
    ):
        list(ClipDataset(address, clip_length=8, shards=shards))


def test_a_shard_with_short_clips_only_is_empty(record: Record, served: Served) -> None:
    record("a", 19, gaps=(9,))
    with served(holdout=0.0) as address:
        counts = [len(list(ClipDataset(address, clip_length=8, shard=i, shards=2))) for i in (0, 1)]
    assert sorted(counts) == [0, 1]


def test_a_server_sends_what_a_store_holds(footage: Path, served: Served) -> None:
    from_store = places(ClipDataset(footage, clip_length=4))
    with served(holdout=0.2) as address:
        dataset = ClipDataset(address, clip_length=4)
        items = iter(dataset)
        before = [next(items) for _ in range(3)]
        resumed = ClipDataset(address, clip_length=4)
        resumed.load_state_dict(dataset.state_dict())
        assert places(before) + places(resumed) == from_store
        items.close()  # pyright: ignore[reportAttributeAccessIssue]

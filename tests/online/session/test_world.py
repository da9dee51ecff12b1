"""Which process of a run this is, and the shards of a run, which any number of processes hold."""

from pathlib import Path

import pytest
import torch
from small_runs import Learn, config, learned, lines, stop_at

from online.errors import CheckpointError, ConfigError
from online.queue.client import Client
from online.ranks import Rank, rank_here
from online.runs.checkpoint import load_checkpoint
from online.session.agreement import Found
from online.session.shards import packed, saved_shards, unpacked
from online.session.state import RunState
from online.session.wiring import check_world
from online.session.world import World
from online.stop import StopRequested, StopSignals

TWO = ("training.shards=2", "replay.fifo_bytes=61440", "replay.long_term_bytes=61440")


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_that_is_not_in_its_world_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match="rank must lie in"):
        World(rank=rank, size=size)


def test_shards_are_dealt_in_order_and_each_once() -> None:
    dealt = [shard for rank in range(3) for shard in World(rank, 3).share_of(6)]
    assert dealt == [*range(6)]


def test_a_number_of_ranks_that_the_shards_cannot_be_dealt_to_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.shards is 4, which 3 ranks cannot share"):
        check_world(World(0, 3), config("training.shards=4"))


def test_shards_that_a_batch_cannot_be_dealt_to_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_clips is 4, which 3 shards .*\.batch_clips=6,"):
        config("training.shards=3")


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # a cluster's scheduler may set this one alone
    assert rank_here() == Rank()
    for name, value in (("RANK", "5"), ("MASTER_ADDR", "h"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank_here() == Rank(rank=5, size=8, local_rank=1)


def test_a_process_alone_does_what_it_has_found(tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/s") as client:
        state = RunState(config(), [[client]], device=torch.device("cpu"), world=World())
    agreed = state.agreed(Found(reason="stream ended", is_save_due=True))
    assert (agreed.reason, agreed.failure, agreed.is_save_due) == ("stream ended", None, True)
    assert state.world.gathered_bytes(b"one") == [b"one"]
    assert not state.world.is_stopping()


def test_a_stop_elsewhere_is_a_stop_here() -> None:
    asked: list[bool] = []
    with StopSignals(lambda: bool(asked)) as stop:
        stop.check()
        asked.append(True)
        with pytest.raises(StopRequested):
            stop.check()


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_run_of_two_shards_that_is_interrupted_learns_the_same(
    learn: Learn, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = config(*TWO, "replay.long_term=minred")
    learn(whole, settings)
    learn(cut, settings, observe=stop_at(5))
    learn(cut, settings)
    assert learned(cut) == learned(whole)
    found = load_checkpoint(whole / "checkpoints" / "step-00000012")
    first, second = saved_shards(found.run, found.replay)
    assert first.replay["rng"] != second.replay["rng"]
    ours = {tuple(clip) for clip in first.replay["fifo"]}
    assert ours
    assert ours.isdisjoint(tuple(clip) for clip in second.replay["fifo"])
    again = unpacked(*packed([first, second]))
    assert [shard.replay for shard in again] == [first.replay, second.replay]
    for shard, same in zip((first, second), again, strict=True):
        assert shard.arrays.keys() == same.arrays.keys() == {"index", "direction"}
        assert all(torch.equal(shard.arrays[name], same.arrays[name]) for name in shard.arrays)
    assert lines(whole, "step")[-1]["clips_inserted"] == sum(
        shard.feed["counters"]["inserted"] for shard in (first, second)
    )


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_checkpoint_of_other_shards_is_refused(stopped_at_8: Path, tmp_path: Path) -> None:
    found = load_checkpoint(stopped_at_8 / "checkpoints" / "step-00000008")
    with Client(f"ipc://{tmp_path}/a") as one, Client(f"ipc://{tmp_path}/b") as other:
        device = torch.device("cpu")
        state = RunState(config(*TWO), [[one], [other]], device=device, world=World())
        with pytest.raises(CheckpointError, match=r"has 1 shards, .*use training\.shards=1"):
            state.restore(found, where=tmp_path, progress=lambda share: None)

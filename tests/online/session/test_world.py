"""Several trainers of one run: each asks for its share, and the first one writes."""

from pathlib import Path

import pytest
import torch
from small_runs import config

from online.queue.client import Client
from online.session.start import train
from online.session.state import RunState
from online.session.wiring import Start
from online.session.world import World


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_asks_for_a_share_of_its_own(rank: int, tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/s") as client:
        world = World(rank=rank, size=3)
        state = RunState(config(), [client], device=torch.device("cpu"), world=world)
        request = state.feed.state()["request"]
    assert (request["shard"], request["shards"]) == (rank, 3)


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_that_is_not_in_its_world_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match="rank must lie in"):
        World(rank=rank, size=size)


@pytest.mark.usefixtures("unchecked_shapes")
def test_only_the_first_writes_checkpoints_and_the_report(balls: Path, tmp_path: Path) -> None:
    outcomes = []
    for rank in (0, 1):
        world, run = World(rank=rank, size=2), tmp_path / f"run-{rank}"
        settings = config("training.steps=2")
        outcomes.append(train(Start(run=run, config=settings, store=balls, world=world)))
        assert (run / "checkpoints").exists() == (run / "report.html").exists() == (rank == 0)
    assert [outcome.step for outcome in outcomes] == [2, 2]
    assert outcomes[1].report is None

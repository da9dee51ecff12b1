"""Several trainers of one run: each asks for its share, and the first one writes."""

from pathlib import Path

import pytest
import torch
from small_runs import config, lines

from ingest.open import open_store
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipSpec
from online.clips.plan import extents_now
from online.config import RunConfig
from online.queue.client import Client
from online.queue.feed import Fate
from online.runs.directory import RunDirectory
from online.session.outcome import Outcome
from online.session.start import train
from online.session.state import RunState
from online.session.wiring import Start
from online.session.world import World


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_that_is_not_in_its_world_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match="rank must lie in"):
        World(rank=rank, size=size)


def test_every_rank_can_continue_from_what_another_has_saved(tmp_path: Path) -> None:
    def state(world: World) -> dict[str, object]:
        with Client(f"ipc://{tmp_path}/s") as client:
            run = RunState(config(), [client], device=torch.device("cpu"), world=world)
            return run.feed.state()

    assert state(World(rank=0, size=3)) == state(World(rank=2, size=3))
    assert state(World(rank=0, size=3)) != state(World(rank=0, size=2))


class Rank:
    """One of two trainers of a run, and the clips that it has learned from."""

    def __init__(self, rank: int, run: Path, store: Path) -> None:
        self.rank, self.run, self.store = rank, run, store
        self.clips: list[ClipSpec] = []

    def train(self, settings: RunConfig) -> Outcome:
        def note(fate: Fate) -> None:
            self.clips.append(fate.spec)

        start = Start(
            run=self.run,
            config=settings,
            store=self.store,
            world=World(rank=self.rank, size=2),
            observe_clips=note,
        )
        return train(start)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def clips_of(store: Path, settings: RunConfig) -> set[ClipSpec]:
    catalog = StoreCatalog(open_store(store), holdout=0.2)
    extents = extents_now(catalog, "*", follow=False)
    clip = settings.stream.clip
    return {
        spec
        for name, extent in extents.items()
        for spec in catalog.clips(name, clip, length=extent.length, closed=extent.closed)
    }


ONE_EPOCH = ("stream.max_epochs=1", "stream.order=stream", "training.steps=100")


@pytest.mark.usefixtures("unchecked_shapes")
def test_two_share_a_directory_and_the_footage_and_the_first_writes(
    balls: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first, second = Rank(0, run, balls), Rank(1, run, balls)
    settings = config(*ONE_EPOCH)
    ended = first.train(settings)
    assert ended.report == run / "report.html"
    assert ended.evaluation is not None
    (run / "checkpoints").rename(tmp_path / "kept")  # the second begins, too, at step 0
    before = contents(run)
    with RunDirectory(run):  # as it is while the first is at work
        ended = second.train(settings)
    assert (ended.reason, ended.report, ended.evaluation) == ("stream ended", None, None)
    assert ended.step > 0
    assert contents(run) == before
    assert not set(first.clips) & set(second.clips)
    assert set(first.clips) | set(second.clips) == clips_of(balls, settings)


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_second_continues_in_its_share_from_the_checkpoint_of_the_first(
    balls: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first, second = Rank(0, run, balls), Rank(1, run, balls)
    first.train(config("stream.max_epochs=1", "stream.order=stream", "training.steps=2"))
    before = contents(run)
    ended = second.train(config(*ONE_EPOCH))
    assert ended.step > 2
    assert contents(run) == before
    assert second.clips
    assert not set(first.clips) & set(second.clips)
    assert [line["step"] for line in lines(run, "step")] == [1, 2]

"""What a run is held against later must be what it never learned from."""

import shutil
import threading
from contextlib import nullcontext

import pytest

from online.analysis.opened import opened_run
from online.config import load_preset
from online.errors import RunError
from online.queue.feed import Fate
from online.runs.checkpoint import newest_readable, save_checkpoint
from online.session.start import train
from online.session.wiring import Start

SETTINGS = (
    *("training.batch_clips=2", "training.precision=float32", "training.threads=1"),
    *("replay.samples_per_insert=1", "stream.clip_length=8", "stream.credit_bytes=100000"),
    *("evaluation.train_clips=4", "evaluation.held_out_clips=2", "evaluation.panel_frames=1"),
    *("evaluation.every_steps=1000000", "probe.steps=2"),
)

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def config(*settings):
    return load_preset("demo", [*SETTINGS, *settings])


def learn(address, run, config, **options) -> dict[str, set[int]]:
    """Train to the end of the stream; frames of every recording that were learned from."""
    frames: dict[str, set[int]] = {}

    def note(fate: Fate) -> None:
        spec = fate.spec
        frames.setdefault(spec.recording, set()).update(range(spec.start, spec.start + spec.length))

    train(Start(run=run, config=config, addresses=[address], observe_clips=note, **options))
    return frames


def held_out(summary) -> set[int]:
    return {index for part in summary.held_out for index in range(part.start, part.stop)}


def test_of_recordings_that_grew_or_came_later_the_share_that_the_server_held_out_is_kept(
    store, record, served, tmp_path
):
    finish, run = threading.Event(), tmp_path / "run"
    record("a", 160, size=16, complete=False)
    has_grown = False

    def observe(status) -> None:
        nonlocal has_grown
        if status.step >= 2 and not has_grown:
            has_grown = True
            record("a", 327, size=16)
            record("b", 100, size=16)
            finish.set()

    with served(follow=True, holdout=0.1, finish=finish) as address:
        learned = learn(address, run, config(), observers=[observe])
    assert max(learned["a"]) > 160
    with opened_run(run, store.location) as opened:
        summaries = opened.catalog.recordings()
    assert [len(held_out(summary)) for summary in summaries] == [32, 10]
    for summary in summaries:
        assert not held_out(summary) & learned[summary.name]
    with (
        pytest.raises(RunError, match=r"has trained on all but 10\.0% of"),
        opened_run(run, store.location, holdout=0.2),
    ):
        pass


@pytest.mark.parametrize(("holdout", "expected"), [(0.0, set()), (0.3, set(range(240, 300)))])
def test_of_a_camera_the_minutes_that_the_server_held_out_are_kept(
    store, record, served, tmp_path, holdout, expected
):
    record("camera", 330, size=16, fps=1, live=True)
    with served(holdout=holdout) as address:
        learned = learn(address, tmp_path / "run", config("stream.max_epochs=1"))
    with opened_run(tmp_path / "run", store.location) as opened:
        assert opened.catalog.holdout == holdout
        (summary,) = opened.catalog.recordings()
    with (
        nullcontext() if expected else pytest.raises(RunError, match=r"all but 0\.0% of camera"),
        opened_run(tmp_path / "run", store.location, holdout=0.5) as opened,
    ):
        assert held_out(opened.catalog.recordings()[0]) == expected
    assert held_out(summary) == expected
    assert not expected & learned["camera"]


def test_a_checkpoint_that_does_not_know_it_has_the_shares_of_complete_recordings(
    store, record, served, tmp_path
):
    record("a", 160, size=16)
    with served(holdout=0.1) as address:
        learn(address, tmp_path / "run", config("stream.max_epochs=1"))
    folder = tmp_path / "run" / "checkpoints"
    newest = newest_readable(folder)
    for cursor in newest.checkpoint.run["feed"]["cursors"]:
        del cursor["holdout"]
    shutil.rmtree(newest.path)
    save_checkpoint(folder, newest.checkpoint, keep=2)
    with opened_run(tmp_path / "run", store.location) as opened:
        assert opened.catalog.holdout == pytest.approx(0.1)

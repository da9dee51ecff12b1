"""Checkpoints, scores and footage that are damaged or missing when a run continues."""

import shutil
from pathlib import Path

import pytest
from small_runs import Learn, config, damage, learned, lines, stop_at

from online.analysis.opened import evaluate_run
from online.errors import (
    CheckpointError,
    RunError,
)
from online.runs.checkpoint import load_checkpoint
from online.runs.directory import RunDirectory
from online.session.outcome import Outcome

# but for the runs that several tests share, which begin before this does
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_a_damaged_checkpoint_is_named_and_the_one_before_continued_bit_for_bit(
    learn: Learn,
    uninterrupted: tuple[Path, Outcome],
    stopped_twice: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = damage(stopped_twice, 8)
    learn(stopped_twice, config(), observe=stop_at(8))
    (said,) = caplog.messages
    assert said.startswith(f"{path}: not a readable checkpoint")
    assert said.endswith("continuing from step 5")
    assert any(str(path) in event["message"] for event in lines(stopped_twice, "event"))
    assert load_checkpoint(path).step == 8  # replaced
    learn(stopped_twice, config())
    assert learned(stopped_twice) == learned(uninterrupted[0])
    assert len(caplog.messages) == 1


def test_where_only_the_untrained_checkpoint_can_be_read_the_run_begins_there(
    learn: Learn, uninterrupted: tuple[Path, Outcome], stopped_twice: Path
) -> None:
    damage(stopped_twice, 5, "state.json")
    damage(stopped_twice, 8)
    learn(stopped_twice, config())
    assert learned(stopped_twice) == learned(uninterrupted[0])


def test_a_start_that_saved_nothing_is_reported_as_the_next_one_begins(
    learn: Learn, stopped_twice: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 8):
        shutil.rmtree(RunDirectory(stopped_twice).checkpoint(step))
    learn(stopped_twice, config())
    assert sum("the previous attempt saved no checkpoint" in m for m in caplog.messages) == 1


def test_evaluating_takes_the_newest_checkpoint_that_can_be_read(
    balls: Path, learn: Learn, stopped_twice: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = evaluate_run(stopped_twice, balls).evaluation
    damage(stopped_twice, 0)  # the seed makes it again
    assert evaluate_run(stopped_twice, balls).evaluation.untrained == whole.untrained
    damage(stopped_twice, 8, "state.json")
    assert evaluate_run(stopped_twice, balls).evaluation.step == 5
    assert sum("evaluating step 5" in message for message in caplog.messages) == 2
    path = damage(stopped_twice, 5)
    for act in (
        lambda: evaluate_run(stopped_twice, balls),
        lambda: learn(stopped_twice, config()),
    ):
        with pytest.raises(CheckpointError, match=r"^[^\n]*no older one can be read; restore"):
            act()
    assert path.exists()


def test_a_damaged_untrained_checkpoint_is_told_of_once_and_written_again(
    learn: Learn,
    uninterrupted: tuple[Path, Outcome],
    stopped_twice: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = stopped_twice / "checkpoints" / "step-00000000"
    whole = {file.name: file.read_bytes() for file in path.iterdir()}
    damage(stopped_twice, 0)
    learn(stopped_twice, config(), observe=stop_at(9))
    (said,) = caplog.messages
    assert said.startswith(f"{path}: not a readable checkpoint")
    assert "made again from training.seed; continuing from step 8" in said
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (path / name).read_bytes() == whole[name]
    learn(stopped_twice, config())
    assert len(caplog.messages) == 1
    assert learned(stopped_twice) == learned(uninterrupted[0])
    assert load_checkpoint(path).step == 0


def test_scores_that_cannot_be_read_are_made_again(learn: Learn, tmp_path: Path) -> None:
    outcome = learn(tmp_path / "run", config("training.steps=2"))
    (tmp_path / "run" / "probes" / "step-00000002" / "scores.json").write_bytes(b'{"step": \xff')
    again = learn(tmp_path / "run", config("training.steps=2"))
    assert outcome.evaluation is not None
    assert again.evaluation is not None
    assert again.evaluation.trained == outcome.evaluation.trained


def test_probes_of_steps_that_are_lost_are_lost_with_them(
    learn: Learn, stopped_twice: Path
) -> None:
    learn(stopped_twice, config("training.steps=8"))
    assert (stopped_twice / "probes" / "step-00000008").exists()
    damage(stopped_twice, 8)
    learn(stopped_twice, config(), observe=stop_at(6))
    assert not (stopped_twice / "probes" / "step-00000008").exists()


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(
    learn: Learn, stopped_twice: Path
) -> None:
    log = (stopped_twice / "metrics.jsonl").read_bytes()
    shutil.rmtree(stopped_twice / "checkpoints")
    with pytest.raises(RunError, match=r"has 8 steps, but there is no checkpoint; restore"):
        learn(stopped_twice, config())
    assert (stopped_twice / "metrics.jsonl").read_bytes() == log


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return [(point.step, point.value) for point in read.Scalars(name)]


def test_tensorboard_shows_each_step_once_also_where_a_run_repeated_itself(
    learn: Learn, uninterrupted: tuple[Path, Outcome], stopped_twice: Path
) -> None:
    damage(stopped_twice, 8)
    learn(stopped_twice, config())  # steps 6 to 8 for the second time
    points = scalars(stopped_twice, "loss")
    assert [step for step, _ in points] == list(range(1, 13))
    for name in ("loss", "top1", "prequential/top1"):
        assert scalars(stopped_twice, name) == scalars(uninterrupted[0], name)
    logged = [step["loss"] for step in lines(stopped_twice, "step")]
    assert [loss for _, loss in points] == pytest.approx(logged, rel=1e-6)
    evaluation = uninterrupted[1].evaluation
    assert evaluation is not None
    assert evaluation.trained.current.alphas is not None
    expected = pytest.approx(evaluation.trained.current.alphas.fg_ari)
    assert scalars(stopped_twice, "probe/fg_ari") == [(12, expected)]
    assert len(scalars(stopped_twice, "triplets_per_second")) == 12

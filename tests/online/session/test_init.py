"""A run that begins with the model of another one."""

from pathlib import Path

import pytest
import torch
from small_runs import Learn, config, damage, lines

import setcon
from online.errors import CheckpointError, RunError
from online.runs.checkpoint import load_checkpoint
from online.runs.directory import RunDirectory

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_it_goes_on_from_the_others_weights_and_compares_with_the_untrained(
    learn: Learn, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    learn(first, config("training.steps=3"))
    still = ("training.steps=1", "optimizer.learning_rate=1e-30", "training.seed=7")
    learn(second, config(*still), init=first)
    before, after = setcon.load(first).model, setcon.load(second).model
    for name, weights in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weights)
    untrained = load_checkpoint(RunDirectory(second).checkpoint(0)).model
    assert not torch.equal(
        untrained["slot_attention.starts"], before.state_dict()["slot_attention.starts"]
    )
    (event,) = lines(second, "event")
    assert event["message"] == f"begins with the model of step 3 of {first}"
    (source,) = lines(second, "source")
    assert (source["device"], source["precision"]) == (str(setcon.load(second).device), "float32")
    assert source["footage"] == ["balls: 240 frames of 16x16, 48 held out"]


def test_another_model_and_no_model_at_all_are_refused(learn: Learn, tmp_path: Path) -> None:
    learn(tmp_path / "first", config("training.steps=1"))
    with pytest.raises(CheckpointError, match="it belongs to another configuration"):
        learn(tmp_path / "second", config("model.encoder.width=16"), init=tmp_path / "first")
    with pytest.raises((CheckpointError, RunError), match="has no checkpoint yet"):
        learn(tmp_path / "third", config(), init=tmp_path / "nothing")


def test_it_is_taken_again_from_step_0_and_else_said_to_be_ignored(
    learn: Learn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    learn(first, config("training.steps=1"))
    still = ("optimizer.learning_rate=1e-30", "training.seed=7")
    learn(second, config(*still, "training.steps=1"), init=first)
    learn(second, config(*still, "training.steps=2"), init=first)
    assert caplog.messages == []  # the same command again
    learn(second, config(*still, "training.steps=3"), init=second)
    assert [message for message in caplog.messages if "is ignored" in message] == [
        f"--init {second} is ignored: {second} has begun without it; choose a new --run directory "
        "to begin with that model"
    ]
    for folder in (second / "checkpoints").glob("step-*[1-9]"):
        damage(second, int(folder.name[5:]))
    learn(second, config(*still, "training.steps=1"), init=first)
    before, after = setcon.load(first).model, setcon.load(second).model
    for name, weights in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weights)

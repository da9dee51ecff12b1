"""Runs whose loss, gradients or weights are NaN or infinite."""

import re
from pathlib import Path

import pytest
from small_runs import RUINOUS, Learn, config, learned, lines, stop_at

from online.errors import (
    Diverged,
)
from online.session.outcome import Outcome

# but for the runs that several tests share, which begin before this does
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_a_model_that_its_last_step_ruined_is_told_and_not_probed(
    learn: Learn, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"has diverged; lower optimizer\.learning_rate"):
        learn(tmp_path / "run", config(*RUINOUS, "training.steps=1"))


def test_a_run_that_diverges_names_the_batch_and_goes_on_from_the_last_good_checkpoint(
    balls: Path, learn: Learn, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    learn(run, config(), observe=stop_at(5))
    with pytest.raises(Diverged) as caught:  # the update of step 6 is what ruins the weights
        learn(run, config(*RUINOUS))
    said = str(caught.value)
    batch = r"balls\[\d+:\d+\], balls\[\d+:\d+\], balls\[\d+:\d+\] and 1 more"
    assert re.match(rf"step 7: loss nan, gradient norm nan; the batch was {batch}[^\n]*$", said)
    assert said.endswith(f"continues from {run / 'checkpoints' / 'step-00000005'}")
    (event,) = (event for event in lines(run, "event") if event["message"] == said)
    assert len(event["batch"]) == 4
    assert learn(run, config()).reason == "complete"
    assert learned(run) == learned(uninterrupted[0])


def test_a_checkpoint_of_weights_that_then_fail_is_set_aside(learn: Learn, tmp_path: Path) -> None:
    run, often = tmp_path / "run", "training.checkpoint_every_seconds=1e-9"
    learn(run, config(often), observe=stop_at(5))
    with pytest.raises(Diverged, match=r"^step 7: .* continues from [^\n]*step-00000005$"):
        learn(run, config(often, *RUINOUS))
    assert (run / "checkpoints" / "damaged-step-00000006").exists()
    assert learn(run, config("training.steps=6")).step == 6


def test_exploding_gradients_are_told_of_also_right_after_a_resume(
    learn: Learn, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    plain = ("loss.similarity=dot", "loss.standardise=false", "training.steps=32")
    learn(run, config(*plain), observe=stop_at(25))
    learn(run, config(*plain, "optimizer.learning_rate=10"))
    alarms = [e for e in lines(run, "event") if e["message"].startswith("exploding gradient: norm")]
    assert alarms  # by gradients from before, for there are too few since
    assert alarms[0]["step"] >= 28
    (continued,) = [e["message"] for e in lines(run, "event") if "continued" in e["message"]]
    assert continued.endswith(", with optimizer.learning_rate 10.0 (was 0.002)")

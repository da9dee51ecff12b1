"""What a run does from its first clip to its last step, and how it ends."""

import signal
from pathlib import Path

import pytest
from small_runs import Learn, config, lines

from online.analysis.opened import evaluate_run
from online.session.clock import FIRST_STEPS
from online.session.outcome import Outcome
from online.session.status import Status

# but for the runs that several tests share, which begin before this does
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_a_run_leaves_all_that_a_person_looks_for(uninterrupted: tuple[Path, Outcome]) -> None:
    run, outcome = uninterrupted
    assert (outcome.reason, outcome.step) == ("complete", 12)
    assert outcome.report == run / "report.html"
    assert outcome.evaluation is not None
    assert outcome.evaluation.trained.current.alphas is not None
    assert {p.name for p in run.iterdir()} >= {
        "config.toml",
        "metrics.jsonl",
        "checkpoints",
        "probes",
        "report.html",
    }
    assert {p.name for p in (run / "probes" / "step-00000012").iterdir()} >= {
        "scores.json",
        "panels.npz",
    }
    assert [s["step"] for s in lines(run, "step")] == list(range(1, 13))
    assert lines(run, "prequential")


def test_samples_per_insert_are_kept(uninterrupted: tuple[Path, Outcome]) -> None:
    last = lines(uninterrupted[0], "step")[-1]
    assert last["clips_inserted"] == 16  # 12 steps x 4 clips / 3
    assert (last["clips_received"], last["discarded_messages"]) == (16, 0)
    assert last["samples_per_insert"] == pytest.approx(3.0)


def test_an_observer_is_told_how_long_it_will_take(learn: Learn, tmp_path: Path) -> None:
    seen: list[Status] = []
    steps = FIRST_STEPS + 2
    learn(tmp_path / "run", config(f"training.steps={steps}"), observe=seen.append)
    told = [status.eta_seconds for status in seen if status.activity == "learning"]
    assert told[:FIRST_STEPS] == [None] * FIRST_STEPS
    assert len(told) == steps
    assert (told[-2] or 0) > 0
    assert told[-1] == 0
    seen.clear()
    longer = config("training.steps=1000000")
    learn(tmp_path / "b", longer, minutes=0.01, observe=seen.append)
    assert all((status.eta_seconds or 0) <= 0.6 for status in seen)


def interrupt_probe(status: Status) -> None:
    if status.activity.startswith("probing"):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_during_the_probe_gives_it_up_and_the_next_start_makes_it(
    learn: Learn, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome = learn(run, config("evaluation.every_steps=6"), observe=interrupt_probe)
    assert (outcome.reason, outcome.step, outcome.lacks_only_probe) == ("stopped", 6, False)
    assert not (run / "probes" / "step-00000006" / "scores.json").exists()
    learn(run, config("evaluation.every_steps=6"))
    assert (run / "probes" / "step-00000006" / "scores.json").exists()


def test_a_signal_during_the_last_probe_leaves_a_run_that_lacks_only_the_rest_of_it(
    learn: Learn, tmp_path: Path
) -> None:
    run, short = tmp_path / "run", config("training.steps=2")
    fitted = run / "probes" / "step-00000002" / "probe.safetensors"
    seen: list[Status] = []

    def fitting() -> list[Status]:
        return [s for s in seen if s.activity == "probing" and 0.1 < (s.share or 0) < 0.38]

    def interrupt(status: Status) -> None:
        seen.append(status)
        if status.activity == "probing untrained":
            signal.raise_signal(signal.SIGINT)

    outcome = learn(run, short, observe=interrupt)
    assert (outcome.reason, outcome.step, outcome.lacks_only_probe) == ("stopped", 2, True)
    assert fitting()
    before = fitted.read_bytes()
    seen.clear()
    again = learn(run, short, observe=seen.append)
    assert (again.first_step, again.step, again.made_probe) == (2, 2, True)
    assert again.evaluation is not None
    assert not fitting()
    assert fitted.read_bytes() == before
    assert not learn(run, short).made_probe


def test_a_single_pass_ends_with_the_stream(learn: Learn, tmp_path: Path) -> None:
    outcome = learn(
        tmp_path / "run",
        config("stream.max_epochs=1", "training.steps=1000", "replay.samples_per_insert=1"),
    )
    assert outcome.reason == "stream ended"
    step = lines(tmp_path / "run", "step")[-1]
    assert step["clips_inserted"] == 24  # 192 training frames hold 190 triplets, 8 to a clip
    assert outcome.step == 6


def test_evaluating_again_gives_the_scores_of_the_last_probe(
    balls: Path, uninterrupted: tuple[Path, Outcome]
) -> None:
    run, outcome = uninterrupted
    again = evaluate_run(run, balls).evaluation
    assert outcome.evaluation is not None
    assert again.trained == outcome.evaluation.trained
    assert again.untrained == outcome.evaluation.untrained

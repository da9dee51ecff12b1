"""Runs that were stopped and continued: the losses they log are those of a run left alone."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import zmq
from click.testing import CliRunner
from small_runs import Learn, config, learned, lines, stop_at

import cli
from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.errors import (
    OnlineError,
    RunError,
)
from online.runs.checkpoint import newest_readable
from online.runs.directory import RunDirectory
from online.session.outcome import Outcome
from online.session.start import train_connected, train_on_store
from online.session.status import Status

# but for the runs that several tests share, which begin before this does
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_a_run_that_was_stopped_continues_bit_for_bit(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for step in (5, 8):
        outcome = train_on_store(balls, run, config(), observe=stop_at(step))
        assert (outcome.reason, outcome.step) == ("stopped", step)
        assert outcome.signal_number == signal.SIGTERM
    told: list[tuple[str, float | None]] = []

    def watch(status: Status) -> None:
        told.append((status.activity, status.share))

    assert train_on_store(balls, run, config(), observe=watch).reason == "complete"
    assert learned(run) == learned(uninterrupted[0])
    assert ("connecting", None) in told
    fetched = [share for activity, share in told if activity == "restoring the replay buffer"]
    assert len(fetched) > 5
    assert fetched == [count / (len(fetched) - 1) for count in range(len(fetched))]
    assert ("learning", 1.0) in told


def test_the_clock_goes_on_after_the_last_probe_and_not_from_the_checkpoint_before_it(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted[0], run)
    log = run / "metrics.jsonl"
    *before, last = log.read_text().splitlines(keepends=True)
    assert '"kind": "probe"' in last
    probe = json.loads(last) | {"seconds": 1000.0, "probe_share": 0.75, "checkpoint_share": 0.125}
    log.write_text("".join([*before, json.dumps(probe) + "\n"]))
    outcome = train_on_store(balls, run, config("training.steps=13"))
    (step,) = [line for line in lines(run, "step") if line["step"] == 13]
    assert 1000 < step["seconds"] < 1500
    assert step["probe_share"] == pytest.approx(750 / step["seconds"], rel=1e-3)
    assert step["checkpoint_share"] == pytest.approx(125 / step["seconds"], rel=1e-3)
    assert outcome.spent is not None
    assert outcome.spent.seconds > step["seconds"]


def test_a_running_mean_that_is_asked_for_later_or_no_longer_changes_no_loss(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_on_store(balls, run, config(), observe=stop_at(3))
    train_on_store(balls, run, config("optimizer.average_steps=5"), observe=stop_at(6))
    newest = newest_readable(RunDirectory(run).checkpoints).checkpoint
    assert newest.learning.keys() == newest.model.keys()
    assert any(not torch.equal(newest.learning[n], w) for n, w in newest.model.items())
    train_on_store(balls, run, config())
    losses = [[line["loss"] for line in lines(at, "step")] for at in (run, uninterrupted[0])]
    assert losses[0] == losses[1]


def test_a_run_does_not_go_on_from_footage_that_was_replaced(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    shutil.copytree(uninterrupted[0], run)
    render_scene(BallsConfig(num_frames=240, fps=15, size=32, seed=9), tmp_path / "balls.mp4")
    (outcome,) = ingest_sources([str(tmp_path / "balls.mp4")], store, RecordSettings(size=16))
    assert outcome.error is None
    # one step more, for which no new clip is due
    with pytest.raises(OnlineError, match=r"plan .* cannot be made again; serve the same store"):
        train_on_store(store, run, config("training.steps=13"))


def test_recordings_that_were_not_there_before_are_told_of_once(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    shutil.copytree(uninterrupted[0], run)
    shutil.copytree(balls, store)
    render_scene(BallsConfig(num_frames=60, seed=7), tmp_path / "more.mp4")
    (outcome,) = ingest_sources([str(tmp_path / "more.mp4")], store, RecordSettings(size=16))
    assert outcome.error is None
    for steps in (13, 14):
        train_on_store(store, run, config(f"training.steps={steps}"))
    told = [event["message"] for event in lines(run, "event") if "not there" in event["message"]]
    assert told == ["learns from recordings that were not there before: more"]


def test_so_does_one_whose_replay_keeps_the_least_alike_clips(
    learn: Learn, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    whole, interrupted, minred = tmp_path / "whole", tmp_path / "run", "replay.long_term=minred"
    learn(whole, config(minred))
    for step in (5, 8):
        learn(interrupted, config(minred), observe=stop_at(step))
    learn(interrupted, config(minred))
    assert learned(interrupted) == learned(whole)
    assert learned(whole) != learned(uninterrupted[0])


def test_what_was_logged_after_the_checkpoint_is_cut_back(
    learn: Learn, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    learn(run, config(), observe=stop_at(5))
    with (run / "metrics.jsonl").open("a") as log:  # as a killed process leaves it
        log.write('{"kind": "step", "step": 6, "loss": 1.0}\n{"kind": "st')
    learn(run, config())
    assert learned(run) == learned(uninterrupted[0])


def test_a_log_that_is_no_text_any_more_does_not_stop_a_run(
    learn: Learn, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    learn(run, config(), observe=stop_at(5))
    with (run / "metrics.jsonl").open("ab") as log:
        log.write(b'{"kind": "event", "step": 3, "message": "\xc3"}\n\x00\x00\n' + b"[" * 99999)
    learn(run, config())
    assert learned(run) == learned(uninterrupted[0])


@contextmanager
def silent_server(folder: Path) -> Iterator[str]:
    """The address of a server that answers nothing and sends us SIGTERM when it is asked."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(f"ipc://{folder}/s")

        def wait_and_signal() -> None:
            if router.poll(20_000):
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=wait_and_signal)
        thread.start()
        yield f"ipc://{folder}/s"
        thread.join()
        router.close(linger=0)


# a signal may come while a socket is made, which is then closed when it is forgotten
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_while_a_run_begins_or_continues_is_obeyed_without_waiting_for_the_server(
    learn: Learn, uninterrupted: tuple[Path, Outcome], stopped_twice: Path, tmp_path: Path
) -> None:
    with silent_server(tmp_path) as address:
        arguments = ["train", "--connect", address, "--run", str(tmp_path / "new")]
        done = CliRunner().invoke(cli.main, arguments)
        assert done.exit_code == 128 + signal.SIGTERM, done.output
        assert "stopped before the first step; the same command continues" in done.output
    with silent_server(tmp_path) as address:
        outcome = train_connected([address], stopped_twice, config())
        assert (outcome.reason, outcome.step) == ("stopped", 8)
    learn(stopped_twice, config())
    assert learned(stopped_twice) == learned(uninterrupted[0])


def test_a_complete_run_is_left_as_it_is(learn: Learn, tmp_path: Path) -> None:
    run = tmp_path / "run"
    learn(run, config("training.steps=4"))
    before = learned(run)
    outcome = learn(run, config("training.steps=4"))
    assert outcome.step == 4
    assert learned(run) == before
    longer = learn(run, config("training.steps=6"))
    assert longer.step == 6
    assert learned(run)[:4] == before[:4]


def test_another_configuration_is_refused_by_name(learn: Learn, tmp_path: Path) -> None:
    run = tmp_path / "run"
    learn(run, config("training.steps=2"))
    with pytest.raises(RunError, match=r"loss\.temperature 0\.5 \(was 0\.1\)"):
        learn(run, config("loss.temperature=0.5"))

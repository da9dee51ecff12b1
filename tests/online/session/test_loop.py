"""Runs of a real trainer on a real served store, interrupted and continued."""

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from click.testing import CliRunner

import cli
from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.analysis.opened import evaluate_run
from online.config import RunConfig, load_preset
from online.errors import (
    CheckpointError,
    Diverged,
    FootageError,
    OnlineError,
    RunError,
    TrainingError,
)
from online.queue.server_process import EmbeddedServer
from online.queue.stream import ServeConfig
from online.runs.checkpoint import latest_checkpoint, load_checkpoint
from online.runs.directory import RunDirectory
from online.session.clock import FIRST_STEPS
from online.session.loop import Outcome
from online.session.start import train_connected, train_on_store
from online.session.status import Status

# but for the runs that several tests share, which begin before this does
pytestmark = pytest.mark.usefixtures("unchecked_shapes")

SMALL = (
    "training.steps=12",
    "training.batch_clips=4",
    "training.log_every_steps=1",
    "training.precision=float32",
    "training.prequential_candidates=8",
    "training.prequential_gap_seconds=1",
    "replay.samples_per_insert=3",
    "replay.fifo_bytes=30720",  # 4 clips of 10 frames
    "replay.long_term_bytes=30720",
    "stream.clip_length=8",
    "evaluation.train_clips=8",
    "evaluation.held_out_clips=4",
    "evaluation.panel_frames=2",
    "probe.steps=3",
)
RUINOUS = ("optimizer.learning_rate=1e30", "optimizer.warmup_steps=0")


def config(*settings: str) -> RunConfig:
    return load_preset("demo", [*SMALL, *settings])


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["kind"] == kind]


def learned(run: Path) -> list[Any]:
    """All that must not depend on interruptions: losses, gradients, scores of new clips."""
    steps = [(s["step"], s["loss"], s["top1"], s["grad_norm"]) for s in lines(run, "step")]
    new = [(p["step"], p["top1"], p["top1_untrained"]) for p in lines(run, "prequential")]
    return [*steps, *new]


def stop_at(step: int) -> Callable[[Status], None]:
    def observe(status: Status) -> None:
        if status.step == step and status.activity == "learning":
            signal.raise_signal(signal.SIGTERM)

    return observe


@pytest.fixture(scope="module")
def uninterrupted(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    return run, train_on_store(balls, run, config())


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
    fetched = [share for activity, share in told if activity == "fetching what is replayed"]
    assert len(fetched) > 5
    assert fetched == [count / (len(fetched) - 1) for count in range(len(fetched))]
    assert ("learning", 1.0) in told


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


def test_a_model_that_its_last_step_ruined_is_told_and_not_probed(
    balls: Path, tmp_path: Path
) -> None:
    with pytest.raises(Diverged, match=r"has diverged; lower optimizer\.learning_rate"):
        train_on_store(balls, tmp_path / "run", config(*RUINOUS, "training.steps=1"))


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
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    whole, interrupted, minred = tmp_path / "whole", tmp_path / "run", "replay.long_term=minred"
    train_on_store(balls, whole, config(minred))
    for step in (5, 8):
        train_on_store(balls, interrupted, config(minred), observe=stop_at(step))
    train_on_store(balls, interrupted, config(minred))
    assert learned(interrupted) == learned(whole)
    assert learned(whole) != learned(uninterrupted[0])


def test_what_was_logged_after_the_checkpoint_is_cut_back(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_on_store(balls, run, config(), observe=stop_at(5))
    with (run / "metrics.jsonl").open("a") as log:  # as a killed process leaves it
        log.write('{"kind": "step", "step": 6, "loss": 1.0}\n{"kind": "st')
    train_on_store(balls, run, config())
    assert learned(run) == learned(uninterrupted[0])


def test_a_log_that_is_no_text_any_more_does_not_stop_a_run(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_on_store(balls, run, config(), observe=stop_at(5))
    with (run / "metrics.jsonl").open("ab") as log:
        log.write(b'{"kind": "event", "step": 3, "message": "\xc3"}\n\x00\x00\n' + b"[" * 99999)
    train_on_store(balls, run, config())
    assert learned(run) == learned(uninterrupted[0])


@pytest.fixture(scope="module")
def stopped_at_8(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    for step in (5, 8):
        train_on_store(balls, run, config(), observe=stop_at(step))
    return run


@pytest.fixture
def stopped_twice(stopped_at_8: Path, tmp_path: Path) -> Path:
    """A run with checkpoints of the steps 0, 5 and 8."""
    return shutil.copytree(stopped_at_8, tmp_path / "run")


def damage(run: Path, step: int, file: str = "model.safetensors") -> Path:
    path = run / "checkpoints" / f"step-{step:08}"
    (path / file).write_bytes((path / file).read_bytes()[:-100])
    return path


def test_a_damaged_checkpoint_is_named_and_the_one_before_continued_bit_for_bit(
    balls: Path,
    uninterrupted: tuple[Path, Outcome],
    stopped_twice: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = damage(stopped_twice, 8)
    train_on_store(balls, stopped_twice, config(), observe=stop_at(8))
    (said,) = caplog.messages
    assert said.startswith(f"{path}: not a readable checkpoint")
    assert said.endswith("continuing from step 5")
    assert any(str(path) in event["message"] for event in lines(stopped_twice, "event"))
    assert load_checkpoint(path).step == 8  # replaced
    train_on_store(balls, stopped_twice, config())
    assert learned(stopped_twice) == learned(uninterrupted[0])
    assert len(caplog.messages) == 1


def test_where_only_the_untrained_checkpoint_can_be_read_the_run_begins_there(
    balls: Path, uninterrupted: tuple[Path, Outcome], stopped_twice: Path
) -> None:
    damage(stopped_twice, 5, "state.json")
    damage(stopped_twice, 8)
    train_on_store(balls, stopped_twice, config())
    assert learned(stopped_twice) == learned(uninterrupted[0])


def test_a_start_of_which_nothing_was_saved_is_told_of_as_the_next_begins_anew(
    balls: Path, stopped_twice: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 8):
        shutil.rmtree(RunDirectory(stopped_twice).checkpoint(step))
    train_on_store(balls, stopped_twice, config())
    assert sum("nothing was saved of the start before" in m for m in caplog.messages) == 1


def test_evaluating_takes_the_newest_checkpoint_that_can_be_read(
    balls: Path, stopped_twice: Path, caplog: pytest.LogCaptureFixture
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
        lambda: train_on_store(balls, stopped_twice, config()),
    ):
        with pytest.raises(CheckpointError, match=r"^[^\n]*no older one can be read; restore"):
            act()
    assert path.exists()


def test_a_damaged_untrained_checkpoint_is_told_of_once_and_written_again(
    balls: Path,
    uninterrupted: tuple[Path, Outcome],
    stopped_twice: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = stopped_twice / "checkpoints" / "step-00000000"
    whole = {file.name: file.read_bytes() for file in path.iterdir()}
    damage(stopped_twice, 0)
    train_on_store(balls, stopped_twice, config(), observe=stop_at(9))
    (said,) = caplog.messages
    assert said.startswith(f"{path}: not a readable checkpoint")
    assert "made again from training.seed; continuing from step 8" in said
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (path / name).read_bytes() == whole[name]
    train_on_store(balls, stopped_twice, config())
    assert len(caplog.messages) == 1
    assert learned(stopped_twice) == learned(uninterrupted[0])
    assert load_checkpoint(path).step == 0


def test_scores_that_cannot_be_read_are_made_again(balls: Path, tmp_path: Path) -> None:
    outcome = train_on_store(balls, tmp_path / "run", config("training.steps=2"))
    (tmp_path / "run" / "probes" / "step-00000002" / "scores.json").write_bytes(b'{"step": \xff')
    again = train_on_store(balls, tmp_path / "run", config("training.steps=2"))
    assert outcome.evaluation is not None
    assert again.evaluation is not None
    assert again.evaluation.trained == outcome.evaluation.trained


def test_probes_of_steps_that_are_lost_are_lost_with_them(balls: Path, stopped_twice: Path) -> None:
    train_on_store(balls, stopped_twice, config("training.steps=8"))
    assert (stopped_twice / "probes" / "step-00000008").exists()
    damage(stopped_twice, 8)
    train_on_store(balls, stopped_twice, config(), observe=stop_at(6))
    assert not (stopped_twice / "probes" / "step-00000008").exists()


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(
    balls: Path, stopped_twice: Path
) -> None:
    log = (stopped_twice / "metrics.jsonl").read_bytes()
    shutil.rmtree(stopped_twice / "checkpoints")
    with pytest.raises(RunError, match=r"tells of 8 steps, and there is no checkpoint; restore"):
        train_on_store(balls, stopped_twice, config())
    assert (stopped_twice / "metrics.jsonl").read_bytes() == log


def test_a_damaged_frame_that_was_held_out_costs_the_probe_and_not_the_run(
    balls: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(balls, tmp_path / "store")
    chunks = sorted((tmp_path / "store" / "recordings" / "balls" / "frames").glob("c.*"))
    last = chunks[-1]  # frames 192 to 240: what is held out
    last.write_bytes(b"garbage")
    outcome = train_on_store(tmp_path / "store", tmp_path / "run", config("training.steps=2"))
    assert (outcome.reason, outcome.evaluation) == ("complete", None)
    assert outcome.report is not None
    (said,) = caplog.messages
    assert "no probe at step 2" in said
    assert "damaged" in said


def test_what_the_server_leaves_out_is_said_where_a_person_sees_it(
    balls: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(balls, tmp_path / "store")
    recordings = tmp_path / "store" / "recordings"
    shutil.copytree(recordings / "balls", recordings / "worn")
    (recordings / "worn" / "commit.json").write_text("garbage")
    train_on_store(tmp_path / "store", tmp_path / "run", config("training.steps=1"))
    (said,) = caplog.messages
    assert said.startswith("left out: ")
    assert "worn" in said


def test_frames_of_two_sizes_are_refused_before_anything_is_learned(
    balls: Path, tmp_path: Path
) -> None:
    shutil.copytree(balls, tmp_path / "store")
    render_scene(BallsConfig(num_frames=60, fps=15, size=32), tmp_path / "large.mp4")
    ingest_sources([str(tmp_path / "large.mp4")], tmp_path / "store", RecordSettings(size=24))
    with pytest.raises(FootageError, match=r"balls 16x16, large 24x24.*--recordings GLOB"):
        train_on_store(tmp_path / "store", tmp_path / "run", config())
    settings = [word for setting in SMALL for word in ("--set", setting)]
    arguments = ["train", str(tmp_path / "store"), "--run", str(tmp_path / "run"), *settings]
    done = CliRunner().invoke(cli.main, [*arguments, "--recordings", "b*", "--steps", "1"])
    assert done.exit_code == 0, done.output
    (source,) = lines(tmp_path / "run", "source")
    assert source["recordings"] == ["balls"]


def test_an_observer_is_told_how_long_it_will_take(balls: Path, tmp_path: Path) -> None:
    seen: list[Status] = []
    steps = FIRST_STEPS + 2
    train_on_store(balls, tmp_path / "run", config(f"training.steps={steps}"), observe=seen.append)
    told = [status.eta_seconds for status in seen if status.activity == "learning"]
    assert told[:FIRST_STEPS] == [None] * FIRST_STEPS
    assert len(told) == steps
    assert (told[-2] or 0) > 0
    assert told[-1] == 0
    seen.clear()
    longer = config("training.steps=1000000")
    train_on_store(balls, tmp_path / "b", longer, minutes=0.01, observe=seen.append)
    assert all((status.eta_seconds or 0) <= 0.6 for status in seen)


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return [(point.step, point.value) for point in read.Scalars(name)]


def test_tensorboard_shows_each_step_once_also_where_a_run_repeated_itself(
    balls: Path, uninterrupted: tuple[Path, Outcome], stopped_twice: Path
) -> None:
    damage(stopped_twice, 8)
    train_on_store(balls, stopped_twice, config())  # steps 6 to 8 for the second time
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
    balls: Path, uninterrupted: tuple[Path, Outcome], stopped_twice: Path, tmp_path: Path
) -> None:
    with silent_server(tmp_path) as address:
        arguments = ["train", "--connect", address, "--run", str(tmp_path / "new")]
        done = CliRunner().invoke(cli.main, arguments)
        assert done.exit_code == 128 + signal.SIGTERM, done.output
        assert "stopped before the first step; the same command continues" in done.output
    with silent_server(tmp_path) as address:
        outcome = train_connected([address], stopped_twice, config())
        assert (outcome.reason, outcome.step) == ("stopped", 8)
    train_on_store(balls, stopped_twice, config())
    assert learned(stopped_twice) == learned(uninterrupted[0])


def interrupt_probe(status: Status) -> None:
    if status.activity.startswith("probing"):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_during_the_probe_gives_it_up_and_the_next_start_makes_it(
    balls: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome = train_on_store(
        balls, run, config("evaluation.every_steps=6"), observe=interrupt_probe
    )
    assert (outcome.reason, outcome.step, outcome.lacks_only_probe) == ("stopped", 6, False)
    assert not (run / "probes" / "step-00000006" / "scores.json").exists()
    train_on_store(balls, run, config("evaluation.every_steps=6"))
    assert (run / "probes" / "step-00000006" / "scores.json").exists()


def test_a_signal_during_the_last_probe_leaves_a_run_that_lacks_only_probe(
    balls: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome = train_on_store(balls, run, config("training.steps=2"), observe=interrupt_probe)
    assert (outcome.reason, outcome.step, outcome.lacks_only_probe) == ("stopped", 2, True)
    again = train_on_store(balls, run, config("training.steps=2"))
    assert (again.first_step, again.step, again.made_probe) == (2, 2, True)
    assert again.evaluation is not None
    assert not train_on_store(balls, run, config("training.steps=2")).made_probe


def test_a_complete_run_is_left_as_it_is(balls: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_on_store(balls, run, config("training.steps=4"))
    before = learned(run)
    outcome = train_on_store(balls, run, config("training.steps=4"))
    assert outcome.step == 4
    assert learned(run) == before
    longer = train_on_store(balls, run, config("training.steps=6"))
    assert longer.step == 6
    assert learned(run)[:4] == before[:4]


def test_another_configuration_is_refused_by_name(balls: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_on_store(balls, run, config("training.steps=2"))
    with pytest.raises(RunError, match=r"loss\.temperature 0\.5 \(was 0\.1\)"):
        train_on_store(balls, run, config("loss.temperature=0.5"))


def test_a_single_pass_ends_with_the_stream(balls: Path, tmp_path: Path) -> None:
    outcome = train_on_store(
        balls,
        tmp_path / "run",
        config("stream.max_epochs=1", "training.steps=1000", "replay.samples_per_insert=1"),
    )
    assert outcome.reason == "stream ended"
    step = lines(tmp_path / "run", "step")[-1]
    assert step["clips_inserted"] == 24  # 192 training frames hold 190 triplets, 8 to a clip
    assert outcome.step == 6


def test_two_trainers_learn_from_one_server_and_one_from_two(balls: Path, tmp_path: Path) -> None:
    with EmbeddedServer(balls, ServeConfig()) as one, EmbeddedServer(balls, ServeConfig()) as two:
        steps = config("training.steps=3")
        first = train_connected([one.address], tmp_path / "a", steps)
        second = train_connected([one.address, two.address], tmp_path / "b", steps)
    assert (first.step, second.step) == (3, 3)
    checkpoint = latest_checkpoint(tmp_path / "b" / "checkpoints")
    assert checkpoint is not None
    held = json.loads((checkpoint / "state.json").read_text())["run"]["replay"]["fifo"]
    assert {spec[-1] for spec in held} == {0, 1}


def test_a_run_may_begin_before_its_server(balls: Path, tmp_path: Path) -> None:
    server = EmbeddedServer(balls, ServeConfig(), bind=f"ipc://{tmp_path}/late/s")
    with ExitStack() as stack:

        def start_late(status: Status) -> None:
            if status.activity == "connecting":
                threading.Timer(1.0, stack.enter_context, [server]).start()

        outcome = train_connected(
            [f"ipc://{tmp_path}/late/s"],
            tmp_path / "run",
            config("training.steps=2"),
            observe=start_late,
        )
    assert outcome.step == 2


def test_a_recording_without_a_triplet_is_one_clear_line(tmp_path: Path) -> None:
    render_scene(BallsConfig(num_frames=2, size=16), tmp_path / "short.mp4")
    ingest_sources([str(tmp_path / "short.mp4")], tmp_path / "store", RecordSettings(size=16))
    with pytest.raises(OnlineError, match=r"^[^\n]*no triplet to train on[^\n]*$"):
        train_on_store(tmp_path / "store", tmp_path / "run", config())


def test_a_recording_of_one_triplet_is_one_clear_line(tmp_path: Path) -> None:
    render_scene(BallsConfig(num_frames=3, size=16), tmp_path / "short.mp4")
    ingest_sources([str(tmp_path / "short.mp4")], tmp_path / "store", RecordSettings(size=16))
    with pytest.raises(TrainingError, match=r"^step 1: a batch of 1 triplet [^\n]*$"):
        train_on_store(tmp_path / "store", tmp_path / "run", config())


def test_a_model_larger_than_memory_ends_the_command_with_one_line(
    balls: Path, tmp_path: Path
) -> None:
    settings = ["--set", "model.slot_attention.num_slots=10000000000000"]
    arguments = ["train", str(balls), "--run", str(tmp_path / "run"), *settings]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert done.output.startswith("error: model: 160,000,000,")


def test_a_run_that_diverges_names_the_batch_and_goes_on_from_the_last_good_checkpoint(
    balls: Path, uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_on_store(balls, run, config(), observe=stop_at(5))
    with pytest.raises(Diverged) as caught:  # the update of step 6 is what ruins the weights
        train_on_store(balls, run, config(*RUINOUS))
    said = str(caught.value)
    batch = r"balls\[\d+:\d+\], balls\[\d+:\d+\], balls\[\d+:\d+\] and 1 more"
    assert re.match(rf"step 7: loss nan, gradient norm nan; the batch was {batch}[^\n]*$", said)
    assert said.endswith(f"continues from {run / 'checkpoints' / 'step-00000005'}")
    (event,) = (event for event in lines(run, "event") if event["message"] == said)
    assert len(event["batch"]) == 4
    assert train_on_store(balls, run, config()).reason == "complete"
    assert learned(run) == learned(uninterrupted[0])


def test_a_checkpoint_of_weights_that_then_fail_is_set_aside(balls: Path, tmp_path: Path) -> None:
    run, often = tmp_path / "run", "training.checkpoint_every_seconds=1e-9"
    train_on_store(balls, run, config(often), observe=stop_at(5))
    with pytest.raises(Diverged, match=r"^step 7: .* continues from [^\n]*step-00000005$"):
        train_on_store(balls, run, config(often, *RUINOUS))
    assert (run / "checkpoints" / "damaged-step-00000006").exists()
    assert train_on_store(balls, run, config("training.steps=6")).step == 6


def test_exploding_gradients_are_told_of_also_right_after_a_resume(
    balls: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    plain = ("loss.similarity=dot", "loss.standardise=false", "training.steps=32")
    train_on_store(balls, run, config(*plain), observe=stop_at(25))
    train_on_store(balls, run, config(*plain, "optimizer.learning_rate=10"))
    alarms = [e for e in lines(run, "event") if e["message"].startswith("exploding gradient: norm")]
    assert alarms  # by gradients from before, for there are too few since
    assert alarms[0]["step"] >= 28
    (continued,) = [e["message"] for e in lines(run, "event") if "continued" in e["message"]]
    assert continued.endswith(", with optimizer.learning_rate 10.0 (was 0.002)")


def test_evaluating_again_gives_the_scores_of_the_last_probe(
    balls: Path, uninterrupted: tuple[Path, Outcome]
) -> None:
    run, outcome = uninterrupted
    again = evaluate_run(run, balls).evaluation
    assert outcome.evaluation is not None
    assert again.trained == outcome.evaluation.trained
    assert again.untrained == outcome.evaluation.untrained


def test_a_store_of_other_frame_sizes_is_refused(
    uninterrupted: tuple[Path, Outcome], balls: Path, tmp_path: Path
) -> None:
    video = str(balls.parent / "balls.mp4")
    ingest_sources([video], tmp_path / "store", RecordSettings(size=24))
    with pytest.raises(RunError, match=r"24x24, .* learned from 16x16; ingest it with --size 16"):
        evaluate_run(uninterrupted[0], tmp_path / "store")


def test_a_directory_that_is_no_run_is_refused(balls: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        evaluate_run(tmp_path, balls)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and not a run"):
        train_on_store(balls, tmp_path, config())
    assert (tmp_path / "notes.txt").read_text() == "mine"

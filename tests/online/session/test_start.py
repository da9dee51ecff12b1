"""How a run starts: its servers, its footage, its directory."""

import json
import resource
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from small_runs import SMALL, config, lines

import cli
from ingest.errors import StorageFullError
from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.analysis.opened import evaluate_run
from online.errors import (
    ConfigError,
    FootageError,
    OnlineError,
    RunError,
    TrainingError,
)
from online.queue.keys import KeyPair, TrainerKeys
from online.queue.server_process import ServerProcess
from online.queue.stream import ServeConfig
from online.runs.checkpoint import latest_checkpoint
from online.session.outcome import Outcome
from online.session.start import train, train_connected, train_on_store
from online.session.status import Status
from online.session.wiring import Start

# but for the runs that several tests share, which begin before this does
pytestmark = pytest.mark.usefixtures("unchecked_shapes")

KEYS = TrainerKeys(KeyPair(b"public", b"secret"), b"server")


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


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "nothing to learn from"),
        ({"store": "store", "addresses": ["ipc:///s"]}, "a store and addresses; give one"),
        ({"addresses": ["ipc:///s"], "keys": [KEYS, KEYS]}, "2 keys for 1 addresses"),
        ({"store": "store", "keys": [KEYS]}, "1 keys for 0 addresses"),
    ],
)
def test_a_start_that_cannot_be_is_refused_before_anything_is_written(
    given: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"^[^\n]*{complaint}[^\n]*$"):
        Start(run=tmp_path / "run", config=config(), **given)
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_at_the_start_is_one_line_and_leaves_no_folder(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # less than config.toml has
    try:
        with pytest.raises(StorageFullError, match=r"run: .* free some space"):
            train_connected([f"ipc://{tmp_path}/none"], tmp_path / "run", config())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "run").exists()


def test_paths_of_a_start_may_be_text(balls: Path, tmp_path: Path) -> None:
    start = Start(run=str(tmp_path / "run"), config=config("training.steps=1"), store=str(balls))
    assert start.run == tmp_path / "run"
    assert train(start).step == 1


def test_two_trainers_learn_from_one_server_and_one_from_two(balls: Path, tmp_path: Path) -> None:
    with ServerProcess(balls, ServeConfig()) as one, ServerProcess(balls, ServeConfig()) as two:
        steps = config("training.steps=3")
        first = train_connected([one.address], tmp_path / "a", steps)
        second = train_connected([one.address, two.address], tmp_path / "b", steps)
    assert (first.step, second.step) == (3, 3)
    checkpoint = latest_checkpoint(tmp_path / "b" / "checkpoints")
    assert checkpoint is not None
    held = json.loads((checkpoint / "state.json").read_text())["run"]["replay"]["fifo"]
    assert {spec[-1] for spec in held} == {0, 1}


def test_a_run_may_begin_before_its_server(balls: Path, tmp_path: Path) -> None:
    server = ServerProcess(balls, ServeConfig(), bind=f"ipc://{tmp_path}/late/s")
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
    (error,) = [line for line in done.output.splitlines() if line.startswith("error:")]
    assert error == done.output.splitlines()[-1]
    assert error.startswith("error: model: 160,000,000,")


def test_a_store_of_other_frame_sizes_is_refused(
    uninterrupted: tuple[Path, Outcome], balls: Path, tmp_path: Path
) -> None:
    video = str(balls.parent / "balls.mp4")
    ingest_sources([video], tmp_path / "store", RecordSettings(size=24))
    with pytest.raises(RunError, match=r"24x24, .* learned from 16x16; ingest it with --size 16"):
        evaluate_run(uninterrupted[0], tmp_path / "store")


def test_a_directory_that_is_no_run_is_refused(balls: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run"):
        evaluate_run(tmp_path, balls)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and not a run"):
        train_on_store(balls, tmp_path, config())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_start_that_is_refused_leaves_no_folder_and_no_other_run(
    balls: Path, tmp_path: Path
) -> None:
    refused = config("training.steps=1", "stream.recordings=nothing")
    with pytest.raises(OnlineError, match="no recording matches 'nothing'"):
        train_on_store(balls, tmp_path / "run", refused)
    assert not (tmp_path / "run").exists()
    train_on_store(balls, tmp_path / "run", config("training.steps=1"))
    more = config("training.steps=2", "stream.recordings=nothing")
    with pytest.raises(RunError, match="was started with another configuration"):
        train_on_store(balls, tmp_path / "run", more)
    assert latest_checkpoint(tmp_path / "run" / "checkpoints") is not None

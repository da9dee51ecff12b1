"""A stream of two recordings, learned from in order, and probed segment by segment."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import cli
from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.analysis.continual import evaluate_continual
from online.config import RunConfig, load_preset
from online.errors import CheckpointError, ConfigError, RunError
from online.runs.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from online.runs.segments import find_segments, load_segment
from online.session.start import train_on_store
from online.session.status import Status

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

SETTINGS = (
    "training.keep_segments=true",
    "training.batch_clips=2",
    "training.precision=float32",
    "stream.max_epochs=1",
    "stream.order=stream",
    "stream.clip_length=8",
    "stream.credit_bytes=100000",
    "replay.samples_per_insert=1",
    "evaluation.every_steps=1000000",
    "evaluation.train_clips=4",
    "evaluation.held_out_clips=2",
    "evaluation.panel_frames=1",
    "probe.steps=3",
)


def config(*more: str) -> RunConfig:
    return load_preset("demo", [*SETTINGS, *more])


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    for seed, name in enumerate(("a", "b")):
        scene = BallsConfig(num_frames=80, fps=15, size=16, seed=seed)
        render_scene(scene, folder / f"{name}.mp4")
    ingest_sources([str(folder)], folder / "store", RecordSettings(size=16))
    return folder / "store"


@pytest.fixture(scope="module")
def run(stream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    outcome = train_on_store(stream, path, config())
    assert outcome.reason == "stream ended"
    return path


def test_weights_are_kept_where_the_stream_passes_on_and_at_its_end(run):
    first, last = find_segments(run / "segments")
    assert (first.recording, last.recording) == ("a", "b")
    assert 0 < first.step < last.step
    newest = load_checkpoint(latest_checkpoint(run / "checkpoints"))
    assert last.step == newest.step
    kept = load_segment(last)
    assert kept.keys() == newest.model.keys()
    assert all(torch.equal(kept[name], newest.model[name]) for name in kept)
    assert any(not torch.equal(load_segment(first)[name], kept[name]) for name in kept)


def with_more_keys(state: Any) -> Any:
    """What a later version may write: something besides all that this one knows by name."""
    if not isinstance(state, dict):
        return state
    whole = ("held_out", "base", "extents", "clip")  # by recording; and what must stay the same
    known = {k: v if k in whole else with_more_keys(v) for k, v in state.items()}
    return {**known, "added": [1]}


def rewrite_as_a_later_version(folder: Path) -> None:
    newest = latest_checkpoint(folder)
    assert newest is not None
    checkpoint = load_checkpoint(newest)
    shutil.rmtree(newest)
    save_checkpoint(folder, replace(checkpoint, run=with_more_keys(checkpoint.run)), keep=9)


@pytest.mark.parametrize(
    ("at", "is_later"), [(2, False), (4, True), pytest.param(5, False, marks=pytest.mark.soak)]
)
def test_a_run_that_was_stopped_keeps_the_same_weights(at, is_later, run, stream, tmp_path):
    def stop(status: Status) -> None:
        if status.step == at and status.activity == "learning":
            signal.raise_signal(signal.SIGTERM)

    assert train_on_store(stream, tmp_path, config(), observe=stop).reason == "stopped"
    if is_later:
        rewrite_as_a_later_version(tmp_path / "checkpoints")
    assert train_on_store(stream, tmp_path, config()).reason == "stream ended"
    ours, theirs = (find_segments(path / "segments") for path in (tmp_path, run))
    assert [(s.recording, s.step) for s in ours] == [(s.recording, s.step) for s in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        kept = load_segment(other)
        assert all(torch.equal(tensor, kept[name]) for name, tensor in load_segment(mine).items())


def test_the_matrix_has_a_row_for_each_segment_and_the_last_is_what_eval_finds(run, stream):
    found = evaluate_continual(run, stream, against=run)
    assert (found.recordings, found.segments) == (["a", "b"], ["a", "b"])
    assert found.measure == "FG-ARI"
    assert [len(row) for row in found.scores] == [2, 2]
    assert found.reference == found.scores[-1]
    assert found.scores[0] != found.scores[1]
    for column, name in enumerate(found.recordings):
        told = CliRunner().invoke(
            cli.main, ["eval", str(run), str(stream), "--recordings", name, "--json"]
        )
        scores = json.loads(told.stdout)
        assert scores["trained"]["current"]["alphas"]["fg_ari"] == found.scores[-1][column]
        assert scores["untrained"]["current"]["alphas"]["fg_ari"] == found.untrained[column]


def test_the_command_shows_it_draws_it_and_puts_it_into_the_report(run, stream, tmp_path):
    told = CliRunner().invoke(
        cli.main,
        ["continual", str(run), str(stream), "--out", str(tmp_path)],
        catch_exceptions=False,
    )
    assert told.exit_code == 0
    assert "after a" in told.stdout
    assert "forgotten since the best" in told.stdout
    assert (tmp_path / "continual.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "continual.json").read_text())["final"] is not None
    assert "What was kept" in (run / "report.html").read_text()


def test_what_cannot_be_kept_has_been_said_and_written_where_it_was_wanted(
    run: Path, stream: Path, tmp_path: Path
) -> None:
    copy, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("continual.json"))
    (copy / "continual.json").mkdir()
    arguments = ["continual", str(copy), str(stream), "--out", str(out)]
    told = CliRunner().invoke(cli.main, arguments)
    assert told.exit_code == 1
    assert "after a" in told.stdout
    assert f"error: {copy / 'continual.json'}: cannot write (Is a directory)" in told.stderr
    assert json.loads((out / "continual.json").read_text())["final"] is not None


def test_what_was_not_kept_is_one_line(run, stream, tmp_path):
    path = tmp_path / "run"
    train_on_store(stream, path, config("training.keep_segments=false", "training.steps=2"))
    with pytest.raises(RunError, match=r"kept no segments; train with .*keep_segments=true"):
        evaluate_continual(path, stream)
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "segments" / "000000.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"000000\.safetensors: weights of a segment that"):
        evaluate_continual(tmp_path / "damaged", stream)


def test_a_changed_bit_in_kept_weights_is_noticed(run, stream, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "segments" / "000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="its checksum does not hold"):
        evaluate_continual(tmp_path / "run", stream)


def test_a_run_that_was_stopped_is_probed_as_it_stands(stream, tmp_path):
    def stop(status: Status) -> None:
        if status.step == 6 and status.activity == "learning":
            signal.raise_signal(signal.SIGTERM)

    train_on_store(stream, tmp_path, config(), observe=stop)
    found = evaluate_continual(tmp_path, stream)
    assert (found.segments, found.steps[-1]) == (["a", "b"], 6)


def test_recordings_shorter_than_a_batch_end_when_they_were_learned_from(tmp_path):
    for seed, name in enumerate(("a", "b", "c")):
        render_scene(BallsConfig(num_frames=30, size=16, seed=seed), tmp_path / f"{name}.mp4")
    ingest_sources([str(tmp_path)], tmp_path / "store", RecordSettings(size=16))
    settings = config("training.batch_clips=5", "stream.clip_length=4", "replay.min_clips=9")
    train_on_store(tmp_path / "store", tmp_path / "run", settings, holdout=0.0)
    ends = [(s.recording, s.step) for s in find_segments(tmp_path / "run" / "segments")]
    assert [name for name, _ in ends] == ["a", "b", "c"]
    assert ends[0][1] > 0


@pytest.mark.parametrize("order", ["stream.order=shuffled", None])
def test_only_a_stream_in_order_has_segments(order):
    with pytest.raises(ConfigError, match=r"needs stream\.order=stream"):
        load_preset("demo", ["training.keep_segments=true", *([order] if order else [])])

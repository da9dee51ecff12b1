"""A run whose slots start at objects: it learns, is stopped and resumed, scored, and read out."""

from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import torch
from moving_squares import RED, Square, scene, stored
from shape_checks import without_shape_checks
from small_runs import learned, lines, stop_at

import online.probing.reading
from ingest.open import open_store
from online.analysis.continual import evaluate_continual
from online.analysis.embed import embed_run
from online.analysis.opened import evaluate_run
from online.analysis.render import render_run
from online.config import RunConfig, load_preset
from online.runs.glimpse import load_glimpse
from online.session.start import train_on_store

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

BREAK = 40
SETTINGS = (
    "model.encoder.width=8",
    "model.slot_attention.num_slots=4",
    "model.slot_attention.slot_size=24",
    "model.slot_attention.hidden_size=16",
    "model.slot_attention.foreground_threshold=0.5",
    "training.steps=8",
    "training.batch_clips=2",
    "training.log_every_steps=1",
    "training.precision=float32",
    "training.prequential_candidates=8",
    "training.prequential_gap_seconds=1",
    "replay.samples_per_insert=3",
    "replay.fifo_bytes=184320",  # 4 clips of 10 frames
    "replay.long_term_bytes=184320",
    "stream.clip_length=8",
    "stream.order=stream",
    "training.keep_segments=true",
    "stream.credit_bytes=400000",
    "evaluation.train_clips=2",
    "evaluation.held_out_clips=2",
    "evaluation.clip_length=6",
    "evaluation.panel_frames=2",
    "probe.steps=3",
    "probe.frames_per_step=4",
    "probe.decoder.hidden_size=8",
)


def config(*settings: str) -> RunConfig:
    return load_preset("things", [*SETTINGS, *settings])


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 100 frames, wider than high, of two squares that go to and fro, and a break."""
    parts = [
        scene(
            [
                Square(side=12, start=(2, 2 if i % 2 == 0 else 18), velocity=(0, 1 - i % 2 * 2)),
                Square(side=8, start=(20, 22), velocity=(0, -1), colour=RED),
            ],
            num_frames=20,
            size=(32, 48),
        )
        for i in range(5)
    ]
    images, masks = (torch.cat(each) for each in zip(*parts, strict=True))
    return stored(images, masks, tmp_path_factory.mktemp("squares") / "store", breaks=(0, BREAK))


@pytest.fixture(scope="module")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    with without_shape_checks():
        assert train_on_store(squares, path, config()).reason == "complete"
    return path


def losses(path: Path) -> list[float]:
    return [step["foreground"] for step in lines(path, "step")]


def test_it_learns_where_objects_are(run: Path) -> None:
    assert len(losses(run)) == 8
    assert min(losses(run)[4:]) < min(losses(run)[:3])
    assert lines(run, "prequential")


def test_its_newest_frame_is_pictured_with_the_outlines_of_objects(run: Path) -> None:
    newest = load_glimpse(run / "newest.npz")
    assert newest is not None
    assert newest.segments is not None
    assert newest.segments.shape == (32, 48)
    cells = newest.attention.argmax(axis=0).repeat(4, axis=0).repeat(4, axis=1)
    assert set(np.unique(newest.segments)) == set(np.unique(cells))
    assert (newest.segments == cells).mean() > 0.8


def test_only_at_the_end_does_finding_no_object_raise_an_alarm(
    squares: Path, tmp_path: Path
) -> None:
    nothing = config(
        "model.slot_attention.foreground_threshold=1",
        "training.steps=4",
        "evaluation.every_steps=2",
    )
    train_on_store(squares, tmp_path / "run", nothing)
    early, late = (event["message"] for event in lines(tmp_path / "run", "event"))
    assert early == "no object was found yet, after 2 of 4 steps: too early to tell"
    assert late.startswith("collapse: no object was found")


def test_stopped_twice_and_resumed_it_is_the_same_bit_for_bit(
    squares: Path, run: Path, tmp_path: Path
) -> None:
    assert config().augment.flip
    for step in (3, 6):
        outcome = train_on_store(squares, tmp_path / "run", config(), observe=stop_at(step))
        assert (outcome.reason, outcome.step) == ("stopped", step)
    train_on_store(squares, tmp_path / "run", config())
    assert learned(tmp_path / "run") == learned(run)
    assert losses(tmp_path / "run") == losses(run)
    newest = Path("checkpoints") / "step-00000008" / "model.safetensors"
    assert (tmp_path / "run" / newest).read_bytes() == (run / newest).read_bytes()


def test_what_it_keeps_of_a_stream_is_the_mbo_of_its_segments(
    run: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.delattr(online.probing.reading, "fit_probe")  # it needs none
        kept = evaluate_continual(run, squares)
    scores = evaluate_run(run, squares).evaluation.trained
    assert scores.attention is not None
    assert kept.measure == "mBO"
    assert kept.scores == [[scores.attention.mbo]]


def test_where_no_frame_shows_two_objects_the_probe_is_scored(run: Path, tmp_path: Path) -> None:
    one = [Square(side=12, start=(2, 2), velocity=(0, 1))]
    images, masks = scene(one, num_frames=90, size=(32, 48))
    path = tmp_path / "run"
    settings = config("training.steps=2", "stream.max_epochs=1")
    store = stored(images, masks, tmp_path / "store")
    train_on_store(store, path, settings)
    kept = evaluate_continual(path, store)
    assert kept.measure == "explained"


def test_it_is_scored_by_its_segments(run: Path, squares: Path) -> None:
    found = evaluate_run(run, squares)
    assert found.panels.attention.shape[-2:] == (32, 48)  # as fine as the picture
    assert set(np.unique(found.panels.attention)) <= {0.0, 1.0}
    assert (found.panels.attention.sum(axis=1) == 1).all()
    assert found.panels.alphas.shape == found.panels.attention.shape


def images(store: Path) -> np.ndarray:
    with open_store(store).reader("squares") as reader:
        return reader.read(0, 100).images


@pytest.fixture(scope="module")
def embedded(run: Path, squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embedded") / "out.h5"
    with without_shape_checks():
        assert embed_run(run, squares, path).frames == 100
    return path


def test_objects_are_numbered_and_placed(embedded: Path, squares: Path) -> None:
    with h5py.File(embedded) as file:
        columns = {name: values[:] for name, values in file["squares"].items()}
    assert sorted(columns) == [
        *("alphas", "centres", "colours", "gap", "held_out", "objects", "pts_ns", "segments"),
        *("slots", "spreads", "velocities"),
    ]
    objects, segments = columns["objects"], columns["segments"]
    assert (objects.dtype, objects.shape) == (np.int32, (100, 4))
    assert (segments.dtype, segments.shape) == (np.uint8, (100, 32, 48))
    assert (objects[:, 1:] != 0).all()
    for name in ("centres", "spreads"):
        assert columns[name].shape == (100, 4, 2)
        assert np.array_equal(np.isnan(columns[name]).any(axis=-1), objects == -1)
        assert np.nanmin(columns[name]) >= 0
        assert (np.nanmax(columns[name], axis=(0, 1)) <= (31, 47)).all()
    pictures = images(squares)
    for frame, slot in np.argwhere(objects > 0)[::20]:
        seen = pictures[frame][segments[frame] == slot].mean(axis=0)
        assert np.abs(columns["colours"][frame, slot] - seen).max() < 20  # cells, not outlines
    numbers = [set(part[part > 0].tolist()) for part in np.split(objects, [BREAK])]
    assert not numbers[0] & numbers[1]  # a break makes new ones


def test_an_embedding_without_a_probe_has_the_objects_all_the_same(
    run: Path, squares: Path, embedded: Path, tmp_path: Path
) -> None:
    embed_run(run, squares, tmp_path / "out.h5", alphas=False)
    with h5py.File(tmp_path / "out.h5") as file, h5py.File(embedded) as whole:
        assert "alphas" not in file["squares"]
        for name in ("objects", "segments", "centres", "slots"):
            np.testing.assert_array_equal(file["squares"][name], whole["squares"][name])


def test_it_is_drawn(run: Path, squares: Path, tmp_path: Path) -> None:
    done = render_run(run, squares, tmp_path / "out.mp4", part="all", seconds=2.0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == done.frames == 20

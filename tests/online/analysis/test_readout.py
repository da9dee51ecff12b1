"""Slots and pictures of a run, as `setcon embed` and `setcon render` write them."""

import shutil
from dataclasses import replace
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import torch

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.records import Counters, RecordSettings, Source
from online.analysis.embed import embed_run
from online.analysis.opened import evaluate_run, opened_run
from online.analysis.readout import Readout
from online.analysis.render import render_run
from online.clips.clip import Interval
from online.config import load_preset
from online.errors import FootageError, RunError
from online.probing.evaluator import Evaluator
from online.reports.figures import GAP, LINE, MARGIN
from online.reports.tiles import panel_colours
from online.scores.evaluation import load_evaluation, load_panels, save_evaluation
from online.session.start import train_on_store

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

SETTINGS = (
    "training.steps=4",
    "training.batch_clips=2",
    "training.precision=float32",
    "replay.samples_per_insert=1",
    "stream.clip_length=8",
    "stream.credit_bytes=100000",
    "evaluation.train_clips=4",
    "evaluation.held_out_clips=2",
    "evaluation.panel_frames=1",
    "probe.steps=3",
)


@pytest.fixture(scope="module")
def run(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    train_on_store(balls, path, load_preset("demo", SETTINGS))
    return path


@pytest.fixture(scope="module")
def embedded(run, balls, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("embedded") / "out.h5"
    done = embed_run(run, balls, path)
    assert (done.recordings, done.frames, done.step) == (1, 240, 4)
    return path


def test_slots_are_those_of_the_model_for_every_frame(run, balls, embedded):
    with open_store(balls).reader("balls") as reader:
        frames = reader.read(0, 240)
    with h5py.File(embedded) as file:
        assert file.attrs["step"] == 4
        group = file["balls"]
        np.testing.assert_array_equal(group["pts_ns"], frames.pts_ns)
        np.testing.assert_array_equal(group["gap"], frames.gap)
        assert np.flatnonzero(group["held_out"]).tolist() == list(range(192, 240))
        slots, alphas = group["slots"][:], group["alphas"][:]
        attention = group["attention"][:]
    with opened_run(run, balls) as opened, torch.no_grad():
        images = torch.from_numpy(frames.images).permute(0, 3, 1, 2) / 255
        expected = opened.trained.model.encode(images)
    np.testing.assert_allclose(slots, expected.slots, atol=1e-5)
    assert attention.shape == (240, 4, 8, 8)
    np.testing.assert_allclose(attention, 255 * expected.attention.unflatten(-1, (8, 8)), atol=1)
    assert alphas.shape == (240, 4, 16, 16)
    np.testing.assert_allclose(alphas.astype(int).sum(axis=1), 255, atol=2)


def test_the_probe_is_the_one_that_eval_scores(run, balls):
    panels = evaluate_run(run, balls).panels
    with opened_run(run, balls) as opened:
        probe = opened.evaluator.fit(opened.trained.model)
        images = np.stack(
            [f.images[0] for f in (opened.catalog.fetch("balls", i, 1) for i in range(192, 240))]
        )
        number = 192 + int((images == panels.frames[0]).all(axis=(1, 2, 3)).argmax())
        readout = Readout(
            opened.trained.model, probe, opened.catalog, device=opened.evaluator.device
        )
        (read,) = readout.read("balls", Interval(number, number + 1))
    np.testing.assert_allclose(read.alphas[0], panels.alphas[0], atol=1e-4)
    assert np.abs(read.reconstruction[0].astype(int) - panels.reconstruction[0]).max() <= 1


def test_a_file_in_the_way_stays_unless_asked(run, balls, embedded, tmp_path):
    before = embedded.read_bytes()
    with pytest.raises(RunError, match="exists; name another file, or use --overwrite"):
        embed_run(run, balls, embedded)
    assert embedded.read_bytes() == before
    (tmp_path / "out.h5").write_text("of yesterday")
    embed_run(run, balls, tmp_path / "out.h5", overwrite=True)
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file) == ["balls"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_without_alphas_there_are_slots_and_no_probe(run, balls, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "fit", None)
    embed_run(run, balls, tmp_path / "out.h5", alphas=False)
    with h5py.File(tmp_path / "out.h5") as file, h5py.File(embedded) as whole:
        assert sorted(file["balls"]) == ["attention", "gap", "held_out", "pts_ns", "slots"]
        np.testing.assert_array_equal(file["balls/slots"], whole["balls/slots"])


def test_a_gap_is_not_waited_for_and_slow_footage_is(run, tmp_path):
    times = [0, 1000, 2000, 3000, 90_000, 90_001, 91_000, 92_000]  # milliseconds
    store = open_store(tmp_path / "store", create_format="zarr")
    frames = Frames(
        images=np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8),
        pts_ns=np.array([*range(-32_000, 0, 1000), *times]) * 1_000_000 + 32_000_000_000,
        gap=np.isin(np.arange(40), [0, 36]),
    )
    with store.writer(
        "slow",
        source=Source(path="slow", digest="slow"),
        settings=RecordSettings(size=16),
        height=16,
        width=16,
        has_masks=False,
    ) as writer:
        writer.finish(frames, Counters(decoded=40, stored=40, gaps=2))
    assert render_run(run, tmp_path / "store", tmp_path / "out.mp4").frames == 8
    _, times_seen = frames_of(tmp_path / "out.mp4")
    np.testing.assert_allclose(times_seen, [0, 1, 2, 3, 3.5, 3.501, 4.5, 5.5], atol=1e-3)


def test_what_cannot_be_written_leaves_nothing(run, balls, tmp_path):
    with pytest.raises(RunError, match="nowhere: no such folder; make it"):
        embed_run(run, balls, tmp_path / "nowhere" / "out.h5")
    with pytest.raises(RunError, match=r"written as \.mp4, not \.avi"):
        render_run(run, balls, tmp_path / "out.avi")
    with pytest.raises(RunError, match="no recording matches 'other'"):
        render_run(run, balls, tmp_path / "out.mp4", recordings="other")
    assert list(tmp_path.iterdir()) == []


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in decoded], [f.time for f in decoded]


def test_the_video_shows_the_held_out_frames_at_their_pace(run, balls, tmp_path):
    done = render_run(run, balls, tmp_path / "out.mp4")
    assert (done.frames, done.step) == (48, 4)
    images, times = frames_of(tmp_path / "out.mp4")
    np.testing.assert_allclose(times, np.arange(48) / 15, atol=1e-3)
    with open_store(balls).reader("balls") as reader:
        truth = reader.read(192, 240).images
    for image, frame in zip(images, truth, strict=True):
        shown = image[50 : 50 + 256 : 16, 28 : 28 + 256 : 16]
        assert np.abs(shown.astype(int) - frame).mean() < 12


def test_as_much_is_drawn_as_was_asked_for(run, balls, tmp_path):
    for name, part, seconds, frames, is_all in (
        ("a", "held_out", 1.0, 15, False),
        ("b", "all", 4.0, 60, False),
        ("c", "held_out", 5.0, 48, True),
    ):
        done = render_run(run, balls, tmp_path / f"{name}.mp4", part=part, seconds=seconds)
        assert (done.frames, done.is_all) == (frames, is_all)
        assert done.seconds == pytest.approx(frames / 15, abs=0.01)


def test_without_held_out_footage_there_is_one_line(balls, tmp_path):
    train_on_store(balls, tmp_path / "run", load_preset("demo", SETTINGS), holdout=0.0)
    with pytest.raises(FootageError, match="no footage is held out; use --part all"):
        render_run(tmp_path / "run", balls, tmp_path / "out.mp4")


def test_slots_have_the_colours_of_the_report(run, balls, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    folder = next((copied / "probes").iterdir())
    panels = load_panels(folder)
    covered = np.bincount(panels.alphas.argmax(axis=1).ravel())
    most = int(covered.argmax())
    assert 2 * covered[most] > covered.sum()
    alphas = np.zeros_like(panels.alphas)
    alphas[:, most - 1] = 1.0  # so that this one is slate, which `most` would be by itself
    panels = replace(panels, alphas=alphas)
    save_evaluation(folder, load_evaluation(folder), panels)
    colours = panel_colours(panels).astype(int)

    render_run(copied, balls, tmp_path / "out.mp4", seconds=0.2)
    left, top = MARGIN + 2 * (256 + GAP), MARGIN + LINE
    shown = frames_of(tmp_path / "out.mp4")[0][0][top + 8 : top + 248, left + 8 : left + 248]
    nearest = np.abs(shown[:, :, None].astype(int) - colours).max(axis=-1).argmin(axis=-1)
    assert np.bincount(nearest.ravel()).argmax() == most

"""A run keeps a picture of its newest frame, which changes nothing of what it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import Learn, config, learned

from ingest.frame import Frames
from online.clips.clip import Clip, ClipSpec
from online.runs.directory import RunDirectory
from online.runs.glimpse import load_glimpse
from online.session.glimpses import EVERY_SECONDS, Glimpses
from online.session.state import new_trainer
from online.session.status import Status
from online.training.pieces import Pieces

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_a_run_has_a_picture_and_a_report_from_its_first_step_on(
    learn: Learn, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    there: list[tuple[int, bool, bool]] = []

    def observe(status: Status) -> None:
        if status.activity == "learning":
            files = (run / "newest.npz", run / "report.html")
            there.append((status.step, *(file.exists() for file in files)))

    learn(run, config(), observe=observe)
    assert there[0] == (1, False, False)
    assert there[1:] == [(step, True, True) for step in range(2, 13)]
    found = load_glimpse(run / "newest.npz")
    assert found is not None
    assert found.step == 12
    assert found.recording == "balls"
    assert found.frame.shape == (16, 16, 3)
    assert found.segments is None
    np.testing.assert_allclose(found.attention.sum(axis=0, dtype=int), 255, atol=2)


def test_pictures_change_nothing_of_what_is_learned(
    learn: Learn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("online.session.glimpses.EVERY_SECONDS", 0.0)
    learn(tmp_path / "with", config("training.picture_share=1"))
    learn(tmp_path / "without", config("training.picture_share=0"))
    assert learned(tmp_path / "with") == learned(tmp_path / "without")
    assert not (tmp_path / "without" / "newest.npz").exists()


class Clock:
    """Time that passes as a test says, and with every look at it."""

    def __init__(self, *, each: float) -> None:
        self.at, self.each = 0.0, each

    def __call__(self) -> float:
        self.at += self.each
        return self.at


@pytest.mark.parametrize("seconds", [0.001, 0.5])
def test_pictures_take_their_share_of_the_time_and_no_more(seconds: float, tmp_path: Path) -> None:
    images = np.zeros((10, 16, 16, 3), np.uint8)
    frames = Frames(images=images, pts_ns=np.arange(10), gap=np.zeros(10, np.bool_))
    clip = Clip(ClipSpec("a", 0, 10), frames)
    trainer = new_trainer(config(), torch.device("cpu"))
    with RunDirectory(tmp_path / "run") as directory:
        clock = Clock(each=seconds / 3)  # a picture looks at it twice, and each step once
        glimpses = Glimpses(directory, trainer, Pieces(), share=0.01, now=clock)
        while clock.at < 600:
            clock.at += 0.5
            glimpses.stepped(clip)
    assert glimpses.taken > 2
    assert glimpses.taken <= 1 + 600 / EVERY_SECONDS
    assert glimpses.seconds <= 0.01 * 600 + seconds

"""The sections of the page follow the files of a run, however they stand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import glimpse, make_run, panels, scored

from online.errors import RunError
from online.runs.glimpse import save_glimpse
from online.scores.evaluation import save_evaluation
from online.watch.followed import FollowedRun, Sections
from online.watch.footage import FollowedStore
from online.watch.runs import Runs


class Watched:
    """A followed run, whose clock goes on by more than any pause between two looks."""

    def __init__(self, run: Path) -> None:
        self._at = 0.0
        self._followed = FollowedRun(run, now=lambda: self._at)

    def look(self) -> Sections:
        self._at += 60.0
        return self._followed.sections()


def test_an_ended_run_is_shown_whole(tmp_path: Path) -> None:
    shown = Watched(make_run(tmp_path / "run")).look()
    assert "Not at work at step 200" in shown["state"]
    assert "FG-ARI 0.50" in shown["words"]
    assert "<svg" in shown["curves"]
    assert "data:image/png" in shown["probe"]
    assert "glimpse" not in shown or shown["glimpse"] == ""


def test_what_is_added_is_shown_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    watched = Watched(run)
    before = watched.look()
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "step", "step": 210, "loss": 4.0, "top1": 0.5}) + "\n")
    after = watched.look()
    changed = {key for key in after if before.get(key) != after[key]}
    assert changed == {"state", "numbers", "curves", "counters"}
    assert watched.look() == after


def test_pictures_need_no_probe_and_change_with_the_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "probes")
    watched = Watched(run)
    assert "No probe has been made yet" in watched.look()["probe"]
    save_glimpse(run / "newest.npz", glimpse(step=1))
    first = watched.look()["glimpse"]
    assert "as the model of step 1 sees it" in first
    assert first.count("<img") == 3 + 3
    save_glimpse(run / "newest.npz", glimpse(step=2))
    assert watched.look()["glimpse"] != first
    save_evaluation(run / "probes/step-00000300", scored(300, 0.9), panels())
    assert "Step 300" in watched.look()["probe"]


def test_only_slots_that_hold_an_object_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    save_glimpse(run / "newest.npz", glimpse(step=3, has_segments=True))
    shown = Watched(run).look()["glimpse"]
    assert "No object was found in it." in shown
    assert shown.count("<img") == 3 + 1


def test_names_in_a_run_are_text_and_never_markup(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    source = {"kind": "source", "step": 0, "recordings": ["<img src=x onerror=alert(1)>"]}
    event = {"kind": "event", "step": 1, "message": "<script>alert(1)</script>"}
    with (run / "metrics.jsonl").open("a") as log:
        log.write("".join(json.dumps(line) + "\n" for line in (source, event)))
    markup = "".join(Watched(run).look().values())
    assert "&lt;script&gt;" in markup
    assert "<script" not in markup
    assert "<img src=x" not in markup


def test_a_run_that_begins_and_one_that_is_cut_back_are_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    watched = Watched(run)
    assert "There is no run here yet" in watched.look()["state"]
    make_run(run)
    assert "step 200" in watched.look()["state"]
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:5]))
    assert "step 50" in watched.look()["state"]


def test_runs_are_found_by_name_and_in_folders_as_they_begin(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    runs = Runs([tmp_path])
    assert runs.names() == ["a"]
    make_run(tmp_path / "b")
    assert sorted(runs.names()) == ["a", "b"]
    assert runs.find("b") is runs.find("b")
    assert runs.find("c") is None
    both = Runs([tmp_path / "a", tmp_path])
    assert sorted(both.names()) == ["a", "b"]


def test_two_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        make_run(tmp_path / folder / "a")
    names = Runs([tmp_path / "x" / "a", tmp_path / "y" / "a"]).names()
    assert names == ["a", str(tmp_path / "y" / "a")]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such directory"):
        Runs([tmp_path / "typo"])
    with pytest.raises(RunError, match="is neither a run"):
        Runs([tmp_path])


def test_a_store_shows_its_newest_frame_and_what_was_counted(
    record: Callable[..., int], tmp_path: Path
) -> None:
    record("camera", 100, complete=False, live=True)
    at = [0.0]
    followed = FollowedStore(tmp_path / "store", now=lambda: at[0])
    shown = followed.sections()
    assert "camera: 96 frames so far." in shown["state"]
    assert shown["glimpse"].count("<img") == 1
    assert "delay to the disk" in shown["counters"]
    record("camera", 200, live=True)
    assert followed.sections() == shown  # looked at a moment ago
    at[0] += 60.0
    later = followed.sections()
    assert "camera is complete." in later["state"]
    assert later["glimpse"] != shown["glimpse"]
    assert "delay to the disk" not in later["counters"]


def test_a_store_and_a_run_are_shown_next_to_each_other(
    record: Callable[..., int], tmp_path: Path
) -> None:
    record("a", 20)
    make_run(tmp_path / "learned")
    runs = Runs([tmp_path / "learned", tmp_path / "store"])
    assert runs.names() == ["learned", "store"]
    assert isinstance(runs.find("store"), FollowedStore)
    assert "<img" in runs.find("store").sections()["glimpse"]

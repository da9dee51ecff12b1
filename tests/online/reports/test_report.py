import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.errors import StoreError
from online.errors import RunError
from online.reports.report import write_report
from online.reports.verdict import evaluation_verdict, recent_top1, so_far, verdict
from online.runs.entries import PrequentialEntry
from online.runs.log import read_run
from online.scores.evaluation import (
    LEAST_CLIPS,
    EncoderScores,
    Evaluation,
    MaskScores,
    Panels,
    Placed,
    ReconstructionScores,
    WithoutModel,
    load_evaluation,
    save_evaluation,
)
from online.scores.matrix import Continual, to_json
from online.scores.measures import measures
from online.scores.numbers import ABSENT
from online.scores.parts import BLOCKS
from terminal.runs import evaluation_text

EVIL = "<script>alert(1)</script>&\"'"
VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """A parsed report; fails on tags that are not closed in turn."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag != "style")

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(name))

    def charts(self) -> list[str]:
        return [str(attrs["aria-label"]) for tag, attrs in self.tags if tag == "svg"]

    def images(self) -> list[Image.Image]:
        sources = [str(attrs["src"]) for tag, attrs in self.tags if tag == "img"]
        assert all(source.startswith("data:image/") for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(s.split(",")[1]))) for s in sources]


def masks(fg_ari: float) -> MaskScores:
    return MaskScores(
        fg_ari=fg_ari,
        fg_ari_video=fg_ari - 0.011,
        ari=fg_ari * 0.9,
        mbo=fg_ari * 0.77,
        miou=fg_ari * 0.75,
    )


def simple(blocks: float, colours: float, frame_k_means: float, frame_ward: float) -> WithoutModel:
    return WithoutModel(
        blocks=masks(blocks),
        colours=masks(colours),
        frame_k_means=replace(masks(frame_k_means), fg_ari_video=None),
        frame_ward=replace(masks(frame_ward), fg_ari_video=None),
    )


def encoder(mse: float, fg_ari: float | None) -> EncoderScores:
    def part(factor: float) -> ReconstructionScores:
        return ReconstructionScores(
            mse=mse * factor,
            mse_share=mse * factor / 0.0321,
            psnr=-10 * math.log10(mse * factor),
            alphas=None if fg_ari is None else masks(fg_ari / factor),
        )

    return EncoderScores(
        current=part(1.0),
        predicted=part(1.37),
        attention=None if fg_ari is None else masks(fg_ari * 0.71),
        probe_train_mse=mse * 0.83,
        slot_entropy=0.8765,
        effective_rank=9.314,
        places=None
        if fg_ari is None
        else [
            Placed(label=1, slot=3, r2=0.991),
            Placed(label=2, slot=3, r2=0.962),
            Placed(label=4, slot=1, r2=fg_ari),
        ],
    )


def evaluation(step: int = 1500, *, with_masks: bool = True) -> Evaluation:
    return Evaluation(
        step=step,
        trained=encoder(0.00387, 0.931 if with_masks else None),
        untrained=encoder(0.0123, 0.083 if with_masks else None),
        mean_frame_mse=0.0321,
        mean_frame_psnr=14.93,
        frames_train=1000,
        frames_held_out=240,
        frames_without_two_objects=3 if with_masks else 0,
        seconds=41.0,
        copied=encoder(0.00387 * 1.91, 0.931 / 1.91 if with_masks else None).current,
        without_model=simple(0.713, 0.922, 0.871, 0.644) if with_masks else None,
    )


def panels(*, frames: int = 3, slots: int = 4, side: int = 32, with_masks: bool = True) -> Panels:
    rng = np.random.default_rng(0)

    def noise() -> np.ndarray:
        return rng.integers(0, 256, (frames, side, side, 3), dtype=np.uint8)

    alphas = rng.dirichlet(np.ones(slots), (frames, side, side)).transpose(0, 3, 1, 2)
    return Panels(
        names=[f"{EVIL} {i / 10:.1f} s" for i in range(frames)],
        frames=noise(),
        truth=rng.integers(0, 4, (frames, side, side), dtype=np.uint8) if with_masks else None,
        reconstruction=noise(),
        predicted=noise(),
        untrained=noise(),
        slots=rng.integers(0, 256, (frames, slots, side, side, 3), dtype=np.uint8),
        alphas=alphas,
        attention=alphas[:, :, ::4, ::4],
    )


def step_line(step: int) -> dict[str, object]:
    return {
        "kind": "step",
        "step": step,
        "seconds": step * 0.1,
        "loss": 5.0 - step / 1000,
        "top1": step / 2000,
        "chance_loss": 5.5,
        "grad_norm": 1.0,
        "learning_rate": 2e-3,
        "triplets_per_second": 1234.0,
        "wait_share": 0.02,
        "clips_inserted": step,
        "samples_per_insert": 4.0,
        "epoch": 0,
    }


def prequential_line(step: int) -> dict[str, object]:
    tops = {"top1": 0.75, "top1_copy": 0.25, "top1_untrained": 0.125}
    return {"kind": "prequential", "step": step, "seconds": 1.0, "candidates": 32, **tops}


def write_log(run: Path, lines: list[dict[str, object]], *, tail: str = "") -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text + tail)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run after two probes."""
    path = tmp_path / "my run"
    path.mkdir()
    (path / "config.toml").write_text('[stream]\nrecordings = "<i>*</i>"\n')
    lines = [step_line(step) for step in range(10, 1501, 10)]
    lines += [prequential_line(step) for step in range(10, 1501, 10)]
    lines.append({"kind": "event", "step": 700, "seconds": 70, "message": f"continued {EVIL}"})
    write_log(path, lines)
    save_evaluation(path / "probes/step-00000750", evaluation(750), panels(frames=1))
    save_evaluation(path / "probes/step-00001500", evaluation(1500), panels())
    return path


def test_report_loads_nothing_and_runs_nothing(run: Path) -> None:
    page = Page(write_report(run))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "action"):
            assert str(attributes.get(key) or "#").startswith(("data:", "#"))
        assert not any(key.startswith("on") for key in attributes)
    assert "url(" not in page.source.replace("url(#", "")
    assert "@import" not in page.source
    policy = next(attrs for tag, attrs in page.tags if "http-equiv" in attrs)
    assert str(policy["content"]).startswith("default-src 'none'")


def test_names_messages_and_settings_are_text_and_not_markup(run: Path) -> None:
    page = Page(write_report(run))
    assert f"SetCon on {EVIL}" in page.text
    assert f"continued {EVIL}" in page.text
    assert 'recordings = "<i>*</i>"' in page.text
    assert not {"script", "i"} & {tag for tag, _ in page.tags}


def test_page_is_called_after_the_run(run: Path) -> None:
    page = Page(write_report(run))
    assert ("title", "my run · SetCon") in page.texts
    assert ("h1", "my run") in page.texts


def test_a_folder_whose_name_says_nothing_is_called_after_its_parent_too(tmp_path: Path) -> None:
    (tmp_path / "my demo" / "run").mkdir(parents=True)
    page = Page(write_report(tmp_path / "my demo" / "run"))
    assert ("h1", "my demo/run") in page.texts


def test_table_shows_what_the_latest_scores_say(run: Path) -> None:
    page = Page(write_report(run))
    scores = json.loads((run / "probes/step-00001500/scores.json").read_text())
    drawn = [
        scores[who][part] for part in ("current", "predicted") for who in ("trained", "untrained")
    ]
    drawn.append(scores["copied"])
    attended = [scores[who]["attention"] for who in ("trained", "untrained")]
    simple = [
        scores["without_model"][name]
        for name in ("blocks", "colours", "frame_k_means", "frame_ward")
    ]
    mean_frame = scores["mean_frame_mse"]

    def readings(key: str, form: str, of_mean_frame: str) -> list[str]:
        values = [format(part[key], form) for part in drawn]
        return [*values, ABSENT, ABSENT, of_mean_frame, *[ABSENT] * 4]

    assert page.row("MSE ↓")[1:13] == readings("mse", "#.3g", f"{mean_frame:#.3g}")
    assert page.row("MSE share")[1:13] == readings("mse_share", ".3f", "1.000")
    assert page.row("PSNR")[1:13] == readings("psnr", ".2f", "14.93")
    for name, key in (
        ("FG-ARI ↑", "fg_ari"),
        ("FG-ARI, video", "fg_ari_video"),
        ("ARI ↑", "ari"),
        ("mBO", "mbo"),
        ("mIoU", "miou"),
    ):
        values = [part["alphas"][key] for part in drawn] + [part[key] for part in attended]
        values += [None, *(part[key] for part in simple)]
        assert page.row(name)[1:13] == [ABSENT if v is None else f"{v:.3f}" for v in values]
    assert page.row("FG-ARI, video")[11:13] == [ABSENT] * 2  # labels of one frame each
    assert page.row("Probe training MSE")[1:3] == ["0.00321", "0.0102"]
    assert page.row("Slot entropy")[1:3] == ["0.876", "0.876"]
    assert page.row("Effective rank")[1:3] == ["9.31", "9.31"]
    assert page.row("Objects placed")[1:3] == ["2 of 3, by 1 slot", "2 of 3, by 1 slot"]
    assert "1 by slot 3 (0.99), 2 by slot 3 (0.96), 4 by slot 1 (0.93)" in page.text


def test_a_table_with_many_columns_has_its_meanings_below_and_not_in_one_more(run: Path) -> None:
    page = Page(write_report(run))
    assert len(page.row("mBO")) == 1 + 12
    said = {data for tag, data in page.texts if tag == "dd"}
    assert {measure.meaning for measure in measures("page", "drawing", "masks")} <= said
    assert BLOCKS.meaning in said
    assert page.row("Slot entropy")[-1].startswith("How evenly slots are used")


def test_verdict_and_numbers_name_the_untrained_encoder(run: Path) -> None:
    page = Page(write_report(run))
    words = "Held-out FG-ARI 0.93, untrained encoder 0.08; MSE share 0.12."
    told = (
        "The slots tell objects apart no better than a segmentation that needs no model (colours: "
        "FG-ARI 0.92): this footage is too easy to demonstrate object knowledge."
    )
    assert f"{told} {words}" in page.text
    assert "top-1 of 33, up to step 1,500; last state copied 0.25, untrained 0.12" in page.text
    assert "in 2 min 30 s, probes included; 1,234 triplets/s; each clip seen 4.0 times" in page.text
    assert "3 of these show fewer than two objects" in page.text


@pytest.mark.parametrize("fg_ari", [0.625, 0.735])
def test_slots_that_score_below_the_best_simple_segmentation_are_not_excused_by_the_footage(
    fg_ari: float,
) -> None:
    found = evaluation()
    assert found.trained.current.alphas is not None
    alphas = replace(found.trained.current.alphas, fg_ari=fg_ari)
    current = replace(found.trained.current, alphas=alphas)
    said = evaluation_verdict(replace(found, trained=replace(found.trained, current=current)))
    assert said.startswith(
        "The slots tell objects apart less well than a segmentation that needs no model (colours: "
        f"FG-ARI 0.92). Held-out FG-ARI {fg_ari:.2f}"
    )


def test_a_run_that_its_minutes_ended_says_how_far_it_is_and_what_it_has_learned() -> None:
    said = so_far(1_200, 3_000, evaluation())
    assert said.startswith("1,200 of 3,000 steps are learned so far. The slots tell objects apart")
    assert so_far(3_000, 3_000, evaluation()) == ""


def test_every_curve_that_was_logged_is_drawn(run: Path) -> None:
    assert Page(write_report(run)).charts() == [
        "Held-out MSE share",
        "Held-out FG-ARI",
        "Held-out mIoU",
        "Training loss",
        "Training top-1",
        "Next frame found, on new footage",
        "Throughput",
        "Waiting for data",
    ]


def test_pictures_of_small_frames_are_lossless_and_large_enough_to_see(run: Path) -> None:
    images = Page(write_report(run)).images()
    assert [image.format for image in images] == ["PNG", "PNG"]
    assert all(image.width > 7 * 128 and image.height > 3 * 128 for image in images)


def test_report_stays_small_with_large_noisy_frames_and_many_slots(run: Path) -> None:
    save_evaluation(
        run / "probes/step-00002000", evaluation(2000), panels(frames=10, slots=12, side=128)
    )
    path = write_report(run)
    assert path.stat().st_size < 3_000_000
    assert [image.format for image in Page(path).images()] == ["JPEG", "JPEG"]


def test_the_same_run_gives_the_same_report_and_leaves_nothing_beside_it(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert {path.name for path in run.iterdir()} == before | {"report.html"}


def test_without_masks_their_scores_are_left_out_and_nothing_claims_objects(run: Path) -> None:
    for step in (750, 1500):
        folder = run / f"probes/step-{step:08d}"
        save_evaluation(folder, evaluation(step, with_masks=False), panels(with_masks=False))
    page = Page(write_report(run))
    for name in ("FG-ARI ↑", "FG-ARI, video", "ARI ↑", "mBO", "mIoU"):
        assert all(row[0] != name for row in page.rows)
    assert len(page.row("MSE ↓")) == 1 + 6  # s_t and p_t with their baselines, the mean frame
    assert ABSENT not in page.row("MSE ↓")
    assert "This footage has no object masks" in page.text
    below_panels = page.text.split("What each slot holds")[1]
    assert "Attention segments:" in below_panels
    assert "Held-out FG-ARI" not in page.text
    assert "Held-out FG-ARI" not in page.charts()
    assert len(page.images()) == 2


def test_a_run_of_before_baselines_without_a_model_is_shown_without_them(run: Path) -> None:
    for scores in run.glob("probes/*/scores.json"):
        found = json.loads(scores.read_text())
        del found["copied"], found["without_model"]
        del found["trained"]["places"], found["untrained"]["places"]
        scores.write_text(json.dumps(found))
    page = Page(write_report(run))
    assert len(page.row("FG-ARI ↑")) == 1 + 7
    assert page.row("FG-ARI ↑").count(ABSENT) == 1  # of the mean frame, which has no masks
    assert "The slots tell the objects apart. Held-out FG-ARI 0.93" in page.text
    told = evaluation_text(load_evaluation(run / "probes/step-00001500"))
    assert "untrained p_t" in told
    assert "objects" not in told
    assert "copied" not in told
    assert "colours" not in told


def test_before_the_first_probe_there_are_curves_and_no_scores(tmp_path: Path) -> None:
    write_log(tmp_path, [step_line(10), step_line(20)])
    page = Page(write_report(tmp_path))
    assert "After 20 steps the training loss is 4.98 (chance 5.50)." in page.text
    assert page.charts() == ["Training loss", "Training top-1", "Throughput", "Waiting for data"]
    assert page.rows == []
    assert page.images() == []


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_an_empty_run_has_a_report_that_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    page = Page(write_report(tmp_path))
    assert "Nothing has been learned yet" in page.text
    assert "could not be read" not in page.text
    assert page.charts() == []


def test_a_line_cut_short_by_a_kill_is_left_out_and_counted(tmp_path: Path) -> None:
    write_log(tmp_path, [step_line(10)], tail='{"kind": "step", "step": 20, "lo')
    assert [entry.step for entry in read_run(tmp_path).steps] == [10]
    assert "1 line of metrics.jsonl could not be read." in Page(write_report(tmp_path)).text


def test_a_line_cut_within_a_letter_is_left_out_too(tmp_path: Path) -> None:
    event = '{"kind":"event","step":1,"message":"küche"}'.encode()
    (tmp_path / "metrics.jsonl").write_bytes(event + b"\n" + event[:-5])
    log = read_run(tmp_path)
    assert [entry.message for entry in log.events] == ["küche"]
    assert len(log.unreadable) == 1


@pytest.mark.parametrize(
    "odd",
    [
        f'{{"kind":"step","step":1{"0" * 400},"loss":1,"top1":0}}',
        '{"kind":"step","step":9,"loss":1.7e308,"top1":0}',
    ],
)
def test_numbers_beyond_all_counting_are_left_out(run: Path, odd: str) -> None:
    known = read_run(run)
    with (run / "metrics.jsonl").open("a") as log:
        log.write(f"{odd}\n")
    log = read_run(run)
    assert log.steps == known.steps
    assert log.unreadable == ["1 line of metrics.jsonl could not be read"]
    write_report(run)


def test_a_probe_that_did_not_finish_does_not_count(run: Path) -> None:
    (run / "probes/step-00002000").mkdir()
    (run / "probes/step-00002000/panels.npz").write_bytes(b"PK")
    page = Page(write_report(run))
    assert "Step 1,500. A probe fitted" in page.text
    assert "could not be read" not in page.text


def test_damaged_scores_and_panels_are_named_and_the_rest_is_shown(run: Path) -> None:
    (run / "probes/step-00002000").mkdir()
    (run / "probes/step-00002000/scores.json").write_text('{"step": 2000')
    (run / "probes/step-00001500/panels.npz").write_bytes(b"PK\x03\x04 torn")
    (run / "continual.json").write_text("[")
    page = Page(write_report(run))
    assert "probes/step-00002000/scores.json could not be read" in page.text
    assert "probes/step-00001500/panels.npz could not be read" in page.text
    assert "continual.json could not be read" in page.text
    assert "Step 1,500. A probe fitted" in page.text
    assert page.images() == []


def test_the_last_collapse_alarm_stands_at_the_top(run: Path) -> None:
    message = "collapse: loss 5.5 at chance"
    line = json.dumps({"kind": "event", "step": 1400, "seconds": 140.0, "message": message})
    with (run / "metrics.jsonl").open("a") as log:
        log.write(line + "\n")
    page = Page(write_report(run))
    assert ("p", f"Step 1,400: {message}") in page.texts
    hot = [attrs for tag, attrs in page.tags if tag == "li" and attrs["class"] == "hot"]
    assert len(hot) == 1


def test_commands_can_be_pasted_into_a_shell(run: Path) -> None:
    page = Page(write_report(run))
    assert f"setcon train STORE --run '{run}'\nsetcon eval '{run}' STORE" in page.text


def test_the_source_of_a_run_gives_its_recordings_and_its_command(run: Path) -> None:
    source = {
        "kind": "source",
        "step": 0,
        "seconds": 0.0,
        "recordings": [f"cam {i}" for i in range(14)],
        "store": "my store",
        "command": ["setcon", "train", "my store", "--run", "r"],
    }
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(source) + "\n")
    page = Page(write_report(run))
    assert "SetCon on cam 0, cam 1, " in page.text
    assert "cam 11 and 2 more" in page.text
    assert f"setcon train 'my store' --run r\nsetcon eval '{run}' 'my store'" in page.text


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("s3://bucket/store", "s3://bucket/store"),
        ("tcp://10.0.0.1:5555 tcp://10.0.0.2:5555", "STORE"),
    ],
)
def test_a_store_is_named_where_a_command_can_open_it(run: Path, store: str, shown: str) -> None:
    source = {"kind": "source", "step": 0, "store": store}
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(source) + "\n")
    assert f"setcon eval '{run}' {shown}" in Page(write_report(run)).text


@pytest.mark.parametrize(("steps", "goal"), [(2000, 2000), (1500, 3000)])
def test_the_command_that_goes_on_has_a_goal_that_is_not_reached_yet(
    run: Path, steps: int, goal: int
) -> None:
    source = {"kind": "source", "step": 0, "command": ["setcon", "train", "s", "--run", "r"]}
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(source | {"steps": steps}) + "\n")
    page = Page(write_report(run))
    assert f"setcon train s --run r --steps {goal}\n" in page.text
    assert f"from its last checkpoint, until step {goal:,}." in page.text


def test_steps_are_those_that_were_taken_and_not_those_that_were_logged(run: Path) -> None:
    lines = [
        {"kind": "probe", "step": 1507, "seconds": 190.0},
        {"kind": "prequential", **{**prequential_line(1508)}},
    ]
    with (run / "metrics.jsonl").open("a") as log:
        log.write("".join(json.dumps(line) + "\n" for line in lines))
    page = Page(write_report(run))
    assert ("strong", "1,507") in page.texts
    assert "in 3 min 10 s, probes included; 1,234 triplets/s" in page.text


def test_what_was_kept_is_said_to_be_of_its_step_once_the_run_has_gone_on(run: Path) -> None:
    kept = Continual(
        recordings=["a", "b"],
        segments=["a", "b"],
        steps=[600, 1500],
        measure="FG-ARI",
        scores=[[0.5, 0.2], [0.4, 0.6]],
        untrained=[0.1, 0.1],
    )
    (run / "continual.json").write_bytes(to_json(kept))
    page = Page(write_report(run))
    assert "Step 1,500; average at the end 0.500" in page.text
    assert "since reached" not in page.text
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(step_line(1510)) + "\n")
    assert "Step 1,500 (the run has since reached step 1,510); " in Page(write_report(run)).text


def test_a_name_of_undecodable_bytes_can_be_written(run: Path) -> None:
    found = replace(panels(), names=["bad \udcff 0.1 s"] * 3)
    save_evaluation(run / "probes/step-00001500", evaluation(), found)
    assert "SetCon on bad ?" in Page(write_report(run)).text


def test_a_missing_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such directory") as caught:
        write_report(tmp_path / "none")
    assert "\n" not in str(caught.value)


def test_a_report_that_cannot_be_written_is_an_error_and_leaves_no_scraps(run: Path) -> None:
    (run / "report.html").mkdir()
    with pytest.raises(StoreError, match=r"report\.html: cannot write \(Is a directory\)"):
        write_report(run)
    assert not list(run.glob(".report*"))


def judged(run: Path, trained: EncoderScores, *, with_masks: bool = True) -> str:
    others = simple(0.05, 0.05, 0.05, 0.05) if with_masks else None
    found = replace(evaluation(with_masks=with_masks), trained=trained, without_model=others)
    return verdict(replace(read_run(run), evaluations=[found]))


def test_verdict_says_where_no_model_is_needed(run: Path) -> None:
    def judged_beside(*fg_ari: float, colours_mbo: float = 0.9) -> str:
        others = simple(*fg_ari)
        others = replace(others, colours=replace(others.colours, mbo=colours_mbo))
        found = replace(evaluation(), without_model=others)  # its FG-ARI is 0.931, its mBO 0.717
        return verdict(replace(read_run(run), evaluations=[found]))

    needs_none = "than a segmentation that needs no model"
    easy = judged_beside(0.7, 0.89, 0.7, 0.7)
    assert f"no better {needs_none} (colours: FG-ARI 0.89): this footage is too easy" in easy
    assert "needs no model" not in judged_beside(0.7, 0.88, 0.88, 0.88)
    for found, name in (
        (judged_beside(0.95, 0.94, 0.3, 0.3), "blocks"),
        (judged_beside(0.3, 0.3, 0.95, 0.94), "k-means in each frame"),
        (judged_beside(0.3, 0.3, 0.94, 0.95), "Ward in each frame"),
    ):  # the best one alone
        assert f"no better {needs_none} ({name}: FG-ARI 0.95): this footage is too easy" in found
    behind = judged_beside(0.3, 0.3, 0.99, 0.3)
    assert f"less well {needs_none} (k-means in each frame: FG-ARI 0.99). Held-out" in behind


def test_verdict_grants_outlines_to_slots_that_have_the_best_of_all(run: Path) -> None:
    def judged_beside(others: WithoutModel) -> str:
        return verdict(
            replace(read_run(run), evaluations=[replace(evaluation(), without_model=others)])
        )

    poor = replace(simple(0.3, 0.3, 0.94, 0.3), frame_k_means=replace(masks(0.94), mbo=0.6))
    outlines = "only outlines (mBO 0.72 against at most 0.60) demonstrate object knowledge"
    assert f"(k-means in each frame: FG-ARI 0.94); {outlines}" in judged_beside(poor)
    good_elsewhere = replace(poor, colours=replace(poor.colours, mbo=0.7))
    assert "only outlines" not in judged_beside(good_elsewhere)


def test_verdict_claims_no_more_than_the_scores_do(run: Path) -> None:
    assert judged(run, encoder(0.003, 0.95)).startswith("The slots tell the objects apart.")
    assert judged(run, encoder(0.003, 0.70)).startswith("The slots tell some of the objects apart")
    begun = encoder(0.003, 0.30)
    alphas = replace(masks(0.30), mbo=0.3)
    begun = replace(begun, current=replace(begun.current, alphas=alphas))
    assert judged(run, begun).startswith("The slots have begun")
    assert judged(run, encoder(0.003, 0.10)).startswith("The slots do not tell objects apart")
    assert judged(run, encoder(0.031, None), with_masks=False).startswith("The probe reads next to")
    assert judged(run, encoder(0.045, None), with_masks=False).startswith("What the probe draws")
    patches = encoder(0.003, 0.70)
    alphas = replace(masks(0.70), ari=0.01, mbo=0.11)
    patches = replace(patches, current=replace(patches.current, alphas=alphas))
    assert judged(run, patches).startswith(
        "The slots divide the picture into patches, not into objects"
    )
    split = encoder(0.003, 0.95)
    alphas = replace(masks(0.95), ari=0.2)
    split = replace(split, current=replace(split.current, alphas=alphas))
    assert "share the background" in judged(run, split)


def test_segments_are_judged_by_outlines_as_pieces_of_everything_have_a_high_fg_ari(
    run: Path,
) -> None:
    def judged_beside(untrained_mbo: float) -> str:
        trained = replace(encoder(0.003, None), attention=replace(masks(0.9), mbo=0.72, ari=0.8))
        before = replace(masks(0.92), mbo=untrained_mbo, ari=0.02)
        found = replace(
            evaluation(),
            has_segments=True,
            trained=trained,
            untrained=replace(encoder(0.09, None), attention=before),
            without_model=simple(0.3, 0.3, 0.3, 0.3),
        )
        return verdict(replace(read_run(run), evaluations=[found]))

    assert judged_beside(0.39).startswith("The slots tell the objects apart.")
    assert (
        "Held-out mBO of the segments 0.72 (FG-ARI 0.90, ARI 0.80), untrained encoder 0.39 "
        "(FG-ARI 0.92, ARI 0.02)"
    ) in judged_beside(0.39)
    assert judged_beside(0.70).startswith("The slots do not tell objects apart better")


def of_segments(found: Evaluation, *, mbo: float) -> Evaluation:
    """An evaluation of slots that start at objects, whose alphas have other scores."""
    attention = replace(masks(0.9), mbo=mbo, ari=0.8)
    return replace(found, has_segments=True, trained=replace(found.trained, attention=attention))


def test_where_no_object_was_found_the_verdict_says_so_and_how_far_the_run_was(run: Path) -> None:
    poor = replace(encoder(0.0321 * 1.41, None), slot_entropy=0.0)
    found = replace(evaluation(54, with_masks=False), has_segments=True, trained=poor)
    worse = "What the probe draws from the slots is worse than the mean frame. Held-out MSE share"
    early = "No object was found yet, after 54 of 500 steps: too early to tell."
    assert evaluation_verdict(found, planned_steps=500).startswith(f"{early} {worse} 1.41")
    assert so_far(54, 500, found).startswith(early)
    for planned, said in ((54, "54 of 54"), (None, "54"), (40, "54")):
        told = evaluation_verdict(found, planned_steps=planned)
        assert told.startswith(f"No object was found, after {said} steps. {worse}")
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "source", "step": 0, "steps": 1600}) + "\n")
    for step in (750, 1500):
        save_evaluation(run / f"probes/step-{step:08d}", replace(found, step=step), panels())
    page = Page(write_report(run))
    assert "No object was found, after 1,500 of 1,600 steps. What the probe" in page.text
    assert ("strong", "1,500 of 1,600") in page.texts


def test_without_masks_found_segments_are_left_to_the_pictures_whatever_the_probe_draws() -> None:
    def judged_at(share: float) -> str:
        found = replace(evaluation(with_masks=False), has_segments=True)
        return evaluation_verdict(replace(found, trained=encoder(0.0321 * share, None)))

    untold = "This footage has no object masks: judge the slots by the pictures."
    assert judged_at(0.9).startswith(f"{untold} Held-out MSE share 0.90")
    assert judged_at(0.97).startswith(f"{untold} The probe reads next to nothing from the slots.")
    assert judged_at(1.41).startswith(f"{untold} What the probe draws from the slots is worse than")


def test_the_tile_shows_the_number_that_the_verdict_judges_by(run: Path) -> None:
    def numbers() -> list[str]:
        page = Page(write_report(run))
        return [data for tag, data in page.texts if tag in ("h3", "strong")][:4]

    assert numbers() == ["Held-out FG-ARI", "0.931", "Held-out MSE share", "0.121"]
    folder = run / "probes/step-00001500"
    save_evaluation(folder, of_segments(evaluation(), mbo=0.72), panels())
    assert numbers() == ["Held-out mBO of the segments", "0.720", "Held-out MSE share", "0.121"]
    assert "Held-out mBO of the segments 0.72 (" in verdict(read_run(run))


def test_a_verdict_on_new_footage_says_when_that_was_long_ago(run: Path) -> None:
    assert "No footage was new after" not in verdict(read_run(run))
    lines = [step_line(step) for step in range(10, 1501, 10)]
    write_log(run, [*lines, *(prequential_line(step) for step in range(10, 210, 10))])
    assert "No footage was new after step 200, so" in verdict(read_run(run))


def test_recent_top1_forgets_the_beginning() -> None:
    entries = [
        PrequentialEntry(step=i, top1=float(i >= 10), top1_copy=0, top1_untrained=0, candidates=32)
        for i in range(60)
    ]
    recent = recent_top1(entries)
    assert recent is not None
    assert recent.top1 == 1.0
    assert recent_top1(entries[:LEAST_CLIPS]) is not None
    assert recent_top1(entries[: LEAST_CLIPS - 1]) is None


@pytest.mark.parametrize(
    ("top1", "copied", "how", "end"),
    [
        (0.90, 0.50, "more often than", "."),
        (0.86, 0.83, "about as often as", ": nothing shows that it foresees motion."),
        (0.83, 0.86, "about as often as", ": nothing shows that it foresees motion."),
        (0.40, 0.90, "less often than", ": nothing shows that it foresees motion."),
    ],
)
def test_verdict_says_whether_predicting_beats_copying(
    run: Path, top1: float, copied: float, how: str, end: str
) -> None:
    entries = [
        PrequentialEntry(step=i, top1=top1, top1_copy=copied, top1_untrained=0, candidates=32)
        for i in range(LEAST_CLIPS)
    ]
    log = replace(read_run(run), reached=entries[-1])
    figures = f"({top1:.2f} against {copied:.2f} of the time)"
    said = f" find the next frame {how} a copy of the last state does {figures}{end}"
    for known in (log, replace(log, evaluations=[])):
        assert verdict(replace(known, prequential=entries)).endswith(said)
    assert "a copy of" not in verdict(replace(log, prequential=entries[1:]))


def test_verdict_does_not_hold_an_easy_test_against_a_model(run: Path) -> None:
    entries = [
        PrequentialEntry(step=i, top1=0.99, top1_copy=0.96, top1_untrained=0, candidates=32)
        for i in range(LEAST_CLIPS)
    ]
    said = verdict(replace(read_run(run), prequential=entries, reached=entries[-1]))
    assert "too easy to show whether the model foresees motion" in said
    assert "nothing shows" not in said


def test_the_terminal_shows_the_same_numbers_with_the_same_baselines() -> None:
    head, names, *lines = evaluation_text(evaluation()).split("\n")
    assert head == "held-out footage: 240 frames, step 1500"
    assert re.split(r" {2,}", names.strip()) == [
        "MSE",
        "MSE share",
        "PSNR",
        "FG-ARI",
        "ARI",
        "mBO",
        "mIoU",
    ]
    cells = {line[:21].strip(): line[21:].split() for line in lines}
    assert cells["s_t"] == ["0.00387", "0.121", "24.12", "0.931", "0.838", "0.717", "0.698"]
    assert cells["copied as p_t"][:2] == ["0.00739", "0.230"]
    assert cells["mean frame"] == ["0.0321", "1.000", "14.93", *[ABSENT] * 4]
    assert cells["blocks"] == [*[ABSENT] * 3, "0.713", "0.642", "0.549", "0.535"]
    assert cells["colours"] == [*[ABSENT] * 3, "0.922", "0.830", "0.710", "0.692"]
    assert cells["k-means in each frame"] == [*[ABSENT] * 3, "0.871", "0.784", "0.671", "0.653"]
    assert cells["Ward in each frame"] == [*[ABSENT] * 3, "0.644", "0.580", "0.496", "0.483"]
    assert max(map(len, [names, *lines])) <= 80
    assert lines[-1] == "objects placed: 2 of 3, by 1 slot; untrained 2 of 3, by 1 slot"


def test_the_terminal_leaves_out_what_needs_masks_where_there_are_none() -> None:
    shown = evaluation_text(evaluation(with_masks=False))
    assert "blocks" not in shown
    assert "objects" not in shown
    assert ABSENT not in shown

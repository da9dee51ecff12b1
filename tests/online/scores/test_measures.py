"""The contract of the table: a measure that has a row is shown everywhere, by that row alone."""

import json
import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import pytest
from made_runs import make_run, panels, scored

from online.config import flat_defaults
from online.reports.compare_page import comparison_html
from online.reports.groups import group_runs
from online.reports.report import report_html
from online.runs.entries import PrequentialEntry, StepEntry
from online.runs.log import read_run
from online.runs.tensorboard import evaluation_points, prequential_points, step_points
from online.scores import measures
from online.scores.evaluation import (
    EncoderScores,
    MaskScores,
    ReconstructionScores,
    find_evaluation,
    save_evaluation,
)
from online.scores.matrix import Continual
from online.scores.measures import MEASURES, Measure
from online.scores.numbers import ABSENT
from terminal.runs import comparison_text, evaluation_text

SOURCES = {
    "drawing": {field.name for field in fields(ReconstructionScores)},
    "masks": {field.name for field in fields(MaskScores)},
    "encoder": {field.name for field in fields(EncoderScores)},
    "step": {field.name for field in msgspec.structs.fields(StepEntry)},
    "prequential": {field.name for field in msgspec.structs.fields(PrequentialEntry)},
    "continual": set(dir(Continual)),
}
OF_MASKS = Measure(
    key="boundary",
    name="BF1",
    meaning="How well outlines agree.",
    kind="masks",
    better="higher",
    read=lambda masks: masks.mbo / 2 + 0.0004,
)
OF_STEPS = Measure(
    key="spread",
    name="spread of slots",
    meaning="How far slots lie apart.",
    kind="step",
    chart="Spread of slots",
    read=lambda entry: 0.625,
)
OF_ENCODERS = Measure(
    key="stability",
    name="stability",
    meaning="How still slots are.",
    kind="encoder",
    read=lambda scores: scores.slot_entropy - 0.0123,
)


def test_every_row_reads_a_field_that_there_is() -> None:
    for measure in MEASURES:
        assert measure.key in SOURCES[measure.kind]
        assert {b.key for b in measure.baselines} <= {"", *SOURCES[measure.kind]}


def test_rows_say_what_they_mean_and_no_two_are_one() -> None:
    assert all(re.match(r"[A-Z].{15,}\.$", measure.meaning) for measure in MEASURES)
    assert max(Counter((m.kind, m.key) for m in MEASURES).values()) == 1
    assert max(Counter(m.meaning for m in MEASURES).values()) == 1


def test_every_number_that_is_stored_of_masks_and_drawings_has_a_row() -> None:
    rows = {(m.kind, m.key) for m in MEASURES}
    assert {("masks", name) for name in SOURCES["masks"]} <= rows
    assert {("drawing", name) for name in SOURCES["drawing"] - {"alphas"}} <= rows


@pytest.mark.parametrize("row", [OF_MASKS, OF_ENCODERS], ids=lambda row: row.kind)
def test_a_new_row_of_an_evaluation_is_shown_everywhere(
    row: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, row))
    runs = [make_run(tmp_path / f"r{seed}", seed=seed) for seed in range(2)]
    evaluation = read_run(runs[0]).evaluation
    assert evaluation is not None
    number = row.shown(row.value(_trained(row, evaluation)))

    page = report_html(read_run(runs[0]))
    (line,) = re.findall(rf'<th scope="row">[^<]*{row.name[1:]}[^<]*</th>(.*?)</tr>', page)
    assert f">{number}</td>" in line
    assert row.meaning in page.split("<h2>Curves")[0]  # a chart says it too
    assert f'aria-label="{row.title}"' in page

    assert row.name in evaluation_text(evaluation)
    assert number in evaluation_text(evaluation)

    points = evaluation_points(evaluation)
    assert points[f"probe/{row.key}"] == row.value(_trained(row, evaluation))
    assert f"probe/{row.key}_untrained" in points

    groups = group_runs(runs, defaults=flat_defaults())
    assert re.search(rf"{row.name} .* {number} ± 0.000$", comparison_text(groups), re.MULTILINE)
    compared = comparison_html(groups)
    assert f"<td>{number} ± 0.000" in compared
    assert f'aria-label="{row.title}"' in compared


def test_a_new_row_of_the_log_is_shown_wherever_the_log_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, OF_STEPS))
    runs = [make_run(tmp_path / f"r{seed}", seed=seed) for seed in range(2)]
    assert 'aria-label="Spread of slots"' in report_html(read_run(runs[0]))
    assert step_points(read_run(runs[0]).steps[0])["spread"] == 0.625
    groups = group_runs(runs, defaults=flat_defaults())
    assert "0.625 ± 0.000" in comparison_text(groups)
    assert 'aria-label="Spread of slots"' in comparison_html(groups)


def test_what_tensorboard_shows_of_the_log_has_its_baselines() -> None:
    entry = PrequentialEntry(step=1, top1=0.5, top1_copy=0.25, top1_untrained=0.125, candidates=9)
    assert prequential_points(entry) == {
        "prequential/top1": 0.5,
        "prequential/top1_untrained": 0.125,
        "prequential/top1_copy": 0.25,
    }


def test_scores_older_than_a_measure_are_read_and_shown_without_it(tmp_path: Path) -> None:
    folder = tmp_path / "probes/step-00000100"
    save_evaluation(folder, scored(100, fg_ari=0.5), panels())
    file = folder / "scores.json"
    known = json.loads(file.read_text())
    assert known["trained"]["current"]["alphas"].pop("miou") == 0.3
    file.write_text(re.sub(r',\s*"miou": [\d.]+', "", file.read_text()))
    assert "miou" not in file.read_text()

    old = find_evaluation(folder)
    assert old is not None
    assert ">mIoU ↑</th>" not in report_html(read_run(tmp_path))
    assert "mIoU" not in evaluation_text(old)
    assert old == _without_miou(scored(100, fg_ari=0.5))


def _trained(row: Measure, evaluation):
    trained = evaluation.trained
    return trained if row.kind == "encoder" else trained.current.alphas


def _without_miou(value):
    """The same evaluation, with every `miou` in it None."""
    if hasattr(value, "__dataclass_fields__"):
        found = {f.name: _without_miou(getattr(value, f.name)) for f in fields(value)}
        return replace(value, **found | ({"miou": None} if "miou" in found else {}))
    return value


def test_scores_older_than_clusters_of_each_frame_are_shown_without_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "probes/step-00000100"
    save_evaluation(folder, scored(100, fg_ari=0.5), panels())
    file = folder / "scores.json"
    known = json.loads(file.read_text())
    del known["without_model"]["frame_k_means"], known["without_model"]["frame_ward"]
    file.write_text(json.dumps(known))

    old = find_evaluation(folder)
    assert old is not None
    assert "in each frame" not in evaluation_text(old)
    (line,) = re.findall(r">FG-ARI ↑</th>(.*?)</tr>", report_html(read_run(tmp_path)))
    *_, mean_frame, blocks, colours = re.findall(r'<td class="\w+">([^<]*)</td>', line)
    assert [mean_frame, blocks, colours] == [ABSENT, "0.350", "0.500"]

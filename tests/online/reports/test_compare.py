import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import made_runs
import numpy as np
import pytest
from click.testing import CliRunner
from made_runs import scored

import cli
from online.config import flat_defaults
from online.errors import RunError
from online.reports.compare import (
    late_exclusivity,
    most_exclusive,
    remarks,
    spread,
)
from online.reports.compare_page import comparison_html
from online.reports.groups import Group, group_runs
from online.runs.log import latest_panels
from online.scores.evaluation import load_panels, save_evaluation
from online.scores.numbers import ABSENT
from terminal.runs import comparison_text

MakeRun = Callable[..., Path]


def grouped(paths: Sequence[Path]) -> list[Group]:
    return group_runs(paths, defaults=flat_defaults())


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str, *settings: str, seed: int = 0, fg_ari: float = 0.5) -> Path:
        return made_runs.make_run(tmp_path / name, *settings, seed=seed, fg_ari=fg_ari)

    return make


def test_runs_that_differ_in_their_seed_alone_are_one_group(make_run: MakeRun) -> None:
    set_runs = [make_run(f"set {s}", seed=s, fg_ari=0.8 + 0.1 * (s == 2)) for s in range(3)]
    slot_runs = [make_run(f"slot {s}", "loss.unit=slot", seed=s) for s in range(2)]
    groups = grouped([set_runs[0], slot_runs[0], *set_runs[1:], slot_runs[1]])
    assert [group.name for group in groups] == ["loss.unit=set", "loss.unit=slot"]
    assert [[run.path for run in group.runs] for group in groups] == [set_runs, slot_runs]
    (row,) = re.findall(r"^s_t FG-ARI(.*)$", comparison_text(groups), re.MULTILINE)
    # of 0.8, 0.8 and 0.9: standard deviation 0.0577, by the root of three
    assert re.split(r" {2,}", row.strip()) == ["0.833 ± 0.033", "0.500 ± 0.000"]


def on(run: Path, *footage: str, store: str = "store") -> Path:
    """The run, as if it had learned from this footage; none is that of an older log."""
    source = {"kind": "source", "step": 0, "recordings": ["balls"], "store": store}
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(source | {"footage": list(footage)}) + "\n")
    return run


def test_runs_on_other_footage_are_not_seeds_of_one(make_run: MakeRun) -> None:
    held_out = "balls: 1200 frames of 32x32, 240 held out"
    runs = [
        on(make_run("a", seed=0), held_out, store="store"),
        on(make_run("b", seed=1), held_out, store="tcp://127.0.0.1:5555"),
        on(make_run("c", seed=2), held_out.replace("240", "120")),
        on(make_run("d", seed=3), "other: 500 frames of 32x32, 100 held out"),
    ]
    groups = grouped(runs)
    assert [len(group.runs) for group in groups] == [2, 1, 1]
    assert [group.settings for group in groups] == [
        f"footage={held_out}",
        "footage=balls: 1200 frames of 32x32, 120 held out",
        "footage=other: 500 frames of 32x32, 100 held out",
    ]


def test_long_settings_head_no_column_and_stand_below(make_run: MakeRun) -> None:
    texts = [f"{name}: 1200 frames of 32x32, {'x' * 300}" for name in ("balls", "cubes")]
    runs = [
        on(make_run("a", seed=0), texts[0]),
        on(make_run("b", seed=1), texts[0]),
        on(make_run("c"), texts[1]),
    ]
    groups = grouped(runs)
    head, *_, first, second = comparison_text(groups).splitlines()
    assert head.split("  ")[-2:] == ["a and 1 more (2)", "c (1)"]
    assert first == f"a and 1 more: footage={texts[0][:120]}…: {runs[0]}, {runs[1]}"
    assert second == f"c: footage={texts[1][:120]}…: {runs[2]}"
    assert f"<b>c: footage={texts[1][:120]}…</b>" in comparison_html(groups)


def cut(run: Path, *, after_step: int) -> Path:
    log = run / "metrics.jsonl"
    kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= after_step]
    log.write_text("".join(f"{line}\n" for line in kept))
    return run


def test_runs_of_very_different_length_are_not_pooled(make_run: MakeRun) -> None:
    runs = [make_run(f"r{s}", seed=s, fg_ari=0.5 + s / 10) for s in range(3)]
    cut(runs[0], after_step=70)
    cut(runs[2], after_step=190)
    groups = grouped(runs)
    assert [group.name for group in groups] == ["step=70", "step=190 to 200"]
    assert [[run.path for run in group.runs] for group in groups] == [runs[:1], runs[1:]]
    text = comparison_text(groups)
    (row,) = re.findall(r"^s_t FG-ARI(.*)$", text, re.MULTILINE)
    assert re.split(r" {2,}", row.strip()) == ["0.500", "0.650 ± 0.050"]
    assert text.splitlines()[-2:] == [
        f"step=70: {runs[0]}",
        f"step=190 to 200: {runs[1]}, {runs[2]}",
    ]
    cut(runs[2], after_step=180)
    assert len(grouped(runs)) == 3


def test_older_runs_are_told_apart_by_where_their_footage_is(make_run: MakeRun) -> None:
    runs = [
        on(make_run("a", seed=0), "balls: 1200 frames of 32x32, 240 held out", store="x"),
        on(make_run("b", seed=1), store="x"),
        on(make_run("c", seed=2), store="y"),
    ]
    groups = grouped(runs)
    assert [len(group.runs) for group in groups] == [2, 1]
    assert [group.name for group in groups] == ["footage=balls in x", "footage=balls in y"]


def test_what_needs_no_model_stands_beside_the_scores(make_run: MakeRun) -> None:
    runs = [make_run(f"r{s}", seed=s, fg_ari=0.6 + 0.2 * s) for s in range(2)]
    head, *lines = comparison_text(grouped(runs)).splitlines()
    assert head.split() == [str(runs[0]), str(runs[1]), "mean", "of", "2"]
    cells = [re.split(r" {2,}", line) for line in lines]
    assert {name: (a, b) for name, a, b, _ in cells}["s_t FG-ARI"] == ("0.600", "0.800")
    table = {name: mean for name, _, _, mean in cells}
    assert table["blocks FG-ARI"] == "0.350 ± 0.000"
    assert table["colours FG-ARI"] == table["s_t FG-ARI"] == "0.700 ± 0.100"
    assert table["k-means in each frame FG-ARI"] == "0.700 ± 0.100"
    assert table["Ward in each frame FG-ARI"] == "0.350 ± 0.000"
    assert table["copied as p_t MSE share"] == "0.750 ± 0.000"
    assert table["objects placed"] == "0.667 ± 0.000"
    assert table["untrained objects placed"] == "0.333 ± 0.000"


def test_exclusivity_is_that_of_the_end_of_training(make_run: MakeRun) -> None:
    runs = [make_run(f"r{s}", seed=s) for s in range(3)]
    for run, at_the_end in zip(runs, (0.9, 0.7, None), strict=True):
        log = run / "metrics.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines if at_the_end is not None else []:
            line["exclusivity"] = at_the_end if line["step"] > 180 else 0.3
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    of_all, without = grouped(runs), grouped(runs[2:])
    assert [late_exclusivity(run) for run in of_all[0].runs] == [pytest.approx(0.9), 0.7, None]
    assert re.search(r"^exclusivity .* 0\.800 ± 0\.100$", comparison_text(of_all), re.MULTILINE)
    assert "exclusivity" not in comparison_text(without)
    told = f"{runs[0]}: has the most exclusive slots of its seeds, 0.900"
    assert remarks(of_all) == [told]
    assert remarks(without) == []
    page = comparison_html(of_all)
    assert told in page
    assert most_exclusive([*of_all[0].runs[:1], *of_all[0].runs]) == (of_all[0].runs[0], 0.9)
    short = replace(of_all[0].runs[0], steps=of_all[0].runs[0].steps[:10])
    assert late_exclusivity(short) is not None
    assert most_exclusive([short, *of_all[0].runs[1:]]) is None
    assert f'<br><span class="quiet">0.900 0.700 {ABSENT}</span>' in page


def test_groups_of_other_seeds_are_remarked(make_run: MakeRun) -> None:
    pairs = [("a", 1e-3, 0), ("b", 1e-3, 1), ("c", 1e-2, 1)]
    runs = [
        make_run(name, f"optimizer.learning_rate={rate}", seed=seed, fg_ari=0.5 + seed / 10)
        for name, rate, seed in pairs
    ]
    assert remarks(grouped(runs)) == [
        "Seeds differ too: optimizer.learning_rate=0.001 has 0, 1; "
        "optimizer.learning_rate=0.01 has 1"
    ]
    assert remarks(grouped(runs[1:])) == []


def test_uneven_lengths_and_damage_are_remarked(make_run: MakeRun) -> None:
    runs = [make_run(f"r{s}", seed=s) for s in range(2)]
    groups = grouped(runs)
    assert remarks(groups) == []
    scores = runs[1] / "probes/step-00000200/scores.json"
    scores.unlink()
    scores.mkdir()
    (runs[0] / "probes/step-00000200/panels.npz").write_bytes(b"PK")
    groups = grouped(runs)
    damage, of_scores, uneven = remarks(groups)
    assert of_scores.startswith(f"{runs[1]}: probes/step-00000200/scores.json could not be read: ")
    assert damage.startswith(f"{runs[0]}: probes/step-00000200/panels.npz could not be read: ")
    assert uneven == f"Scores are of step 100 in {runs[1]} and of step 200 in {runs[0]}"
    assert uneven in comparison_html(groups)
    shutil.rmtree(runs[1] / "probes")
    assert f"{runs[1]}: has no scores, the means are of the others" in remarks(grouped(runs))


@pytest.mark.parametrize("flipped", [(8, 1), (10, 16), (6, 64)], ids=["key", "method", "version"])
def test_pictures_that_cannot_be_read_are_told_of_and_left_out(
    make_run: MakeRun, flipped: tuple[int, int]
) -> None:
    run, (offset, bit) = make_run("a"), flipped
    path = run / "probes/step-00000200/panels.npz"
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] ^= bit  # of the first entry of the directory
    path.write_bytes(data)
    found, (damage,) = latest_panels(run)
    assert found is None
    assert damage.startswith("probes/step-00000200/panels.npz could not be read: ")


@pytest.mark.usefixtures("unchecked_shapes")
def test_pictures_that_do_not_belong_together_are_left_out(make_run: MakeRun) -> None:
    run = make_run("a")
    folder = run / "probes/step-00000200"
    good = load_panels(folder)
    for bad in (
        replace(good, alphas=good.alphas[:, :1]),
        replace(good, frames=good.frames.astype(np.float32)),
        replace(good, names=[]),
        replace(good, alphas=np.full_like(good.alphas, np.nan)),
    ):
        save_evaluation(folder, scored(200, 0.5), bad)
        assert latest_panels(run)[1] == [
            "probes/step-00000200/panels.npz could not be read: the arrays are not those of one "
            "evaluation"
        ]


def test_a_run_of_before_a_setting_was_there_is_one_with_its_default(make_run: MakeRun) -> None:
    old, new = make_run("old", seed=1), make_run("new", seed=2)
    config = (old / "config.toml").read_text()
    section = '[model.transition]\nkind = "paper"\nhidden_size = 64\n'
    assert section in config
    (old / "config.toml").write_text(config.replace(section, ""))
    (group,) = grouped([old, new])
    assert group.name == "all runs"


def test_a_run_with_settings_that_there_no_longer_are_is_one_with_those_without(
    make_run: MakeRun,
) -> None:
    old, new = make_run("old", seed=1), make_run("new", seed=2)
    config = (old / "config.toml").read_text()
    (old / "config.toml").write_text(config.replace("[stream]\n", "[stream]\nhop = 1\n"))
    assert "hop" in (old / "config.toml").read_text()
    (group,) = grouped([old, new])
    assert group.name == "all runs"


def test_seeds_of_one_setting_need_no_name(make_run: MakeRun) -> None:
    (group,) = grouped([make_run("a", seed=1), make_run("b", seed=2)])
    assert group.name == "all runs"


def test_curves_are_compared_over_the_steps_that_all_have() -> None:
    first = np.array([[0, 0], [10, 10], [20, 20], [30, 30]], dtype=np.float64)
    other = np.array([[5, 25], [15, 35], [25, 45]], dtype=np.float64)  # 20 more, everywhere
    found = spread([first, other], stretches=10)
    assert found is not None
    assert found.steps.tolist() == [10, 20]
    assert found.low.tolist() == [10, 20]
    assert found.mean.tolist() == [20, 30]
    assert found.high.tolist() == [30, 40]
    assert spread([first, other[:1]], stretches=10) is None
    assert spread([first, other + np.array([100, 0])], stretches=10) is None


def test_a_long_curve_is_drawn_as_means_of_stretches() -> None:
    points = np.stack([np.arange(100.0), np.arange(100.0) % 2], axis=1)
    found = spread([points, points], stretches=10)
    assert found is not None
    assert len(found.steps) == 10
    assert found.mean.tolist() == [0.5] * 10


def test_the_page_shows_each_group_with_its_band_scores_and_picture(make_run: MakeRun) -> None:
    runs = [make_run(f"r{s}", seed=s, fg_ari=0.6 + 0.1 * s) for s in range(3)]
    html = comparison_html(grouped([*runs, make_run("<slot>", "loss.unit=slot")]))
    assert "0.700 ± 0.058" in html
    assert "0.600 0.700 0.800" in html
    assert html.count("data:image/png") == 2
    assert "&lt;slot&gt;" in html
    assert "<slot>" not in html
    charts = re.findall(r'<svg.*?aria-label="([^"]+)".*?</svg>', html, re.DOTALL)
    assert charts[:2] == ["Held-out MSE share", "Held-out FG-ARI"]
    # a group of several runs has a band, a single run has none
    assert html.count("fill-opacity") == len(charts)


def test_a_run_of_one_probe_costs_the_others_no_chart(make_run: MakeRun) -> None:
    runs = [make_run(f"r{s}", seed=s) for s in range(3)]
    shutil.rmtree(runs[2] / "probes/step-00000100")
    html = comparison_html(grouped(runs))
    assert "Held-out FG-ARI" in html
    assert "all runs (2 of 3)" in html


def test_what_cannot_be_compared_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a")
    with pytest.raises(RunError, match="no such directory"):
        grouped([run, tmp_path / "absent"])
    for again in (run, tmp_path / "b" / ".." / "a"):
        with pytest.raises(RunError, match="named twice"):
            grouped([run, again])
    shutil.copytree(run, tmp_path / "copy")
    with pytest.raises(RunError, match=r"copy: has the losses of .*/a, so it is a copy"):
        grouped([run, tmp_path / "copy"])
    widths = [make_run(f"w{w}", f"model.encoder.width={w}") for w in (8, 16, 24, 40, 48)]
    with pytest.raises(RunError, match="5 different settings; one page can distinguish at most 4"):
        grouped(widths)
    (run / "config.toml").write_text("[stream")
    with pytest.raises(RunError, match=r"config\.toml cannot be read"):
        grouped([run])
    (run / "config.toml").write_text("\n")
    with pytest.raises(RunError, match=r"config\.toml is empty"):
        grouped([run])
    (run / "config.toml").unlink()
    with pytest.raises(RunError, match=r"not a run \(no config\.toml\); name the --run of a"):
        grouped([run])
    with pytest.raises(RunError, match=f"did you mean {widths[-1].parent}/copy"):
        grouped([run.parent])


def test_the_command_prints_the_table_and_replaces_nothing_unasked(
    make_run: MakeRun, tmp_path: Path
) -> None:
    words = ["compare", str(make_run("a", seed=1)), str(make_run("b", seed=2))]
    words += ["--out", str(tmp_path / "page.html")]
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 0, done.output
    assert "s_t FG-ARI" in done.output
    again = CliRunner().invoke(cli.main, words)
    assert again.exit_code == 1
    assert "exists" in again.output
    assert CliRunner().invoke(cli.main, [*words, "--overwrite"]).exit_code == 0

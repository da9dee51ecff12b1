import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from online.reports.charts import HEIGHT, LEFT, WIDTH, Curve, chart_svg
from online.scores.measures import Tone


def ticks(svg: str) -> list[float]:
    """Values of all labels, on both axes."""
    factors = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    found = re.findall(r">([^<>]+?)([kMGT]?)</text>", svg)
    return [float(n.replace("\N{MINUS SIGN}", "-")) * factors[unit] for n, unit in found]


def names(svg: str, anchor: str) -> list[str]:
    """Labels of the step axis (`middle`) or of the value axis (`end`)."""
    return re.findall(rf'text-anchor="{anchor}">([^<]+)<', svg)


def drawn(svg: str) -> list[tuple[float, float]]:
    """Points of the only line."""
    (points,) = re.findall(r'<polyline points="([^"]*)"', svg)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


def curve(values: list[float]) -> Curve:
    steps = np.arange(len(values), dtype=np.float64)
    return Curve(label="loss", steps=steps, values=np.array(values), tone="trained")


def test_a_chart_takes_its_colours_from_the_page_and_has_no_ids_that_could_clash() -> None:
    svg = chart_svg([curve([1.0, 0.5, 0.2])], label="a <b>")
    assert "var(--trained)" in svg
    assert not re.search(r"#[0-9a-f]{3,6}|\bid=", svg)
    assert 'aria-label="a &lt;b&gt;"' in svg
    assert "<style" not in svg
    assert "<title>a &lt;b&gt;</title>" in svg


def test_a_long_curve_is_thinned_and_keeps_its_dips() -> None:
    values = [1.0] * 100_000
    values[50_123] = -7.0
    svg = chart_svg([curve(values)], label="dip")
    assert len(svg) < 60_000
    assert min(ticks(svg)) <= -6


@pytest.mark.parametrize(
    "values", [[], [math.nan], [math.inf, math.nan], [0.0], [-1.0], [1e9], [3e38], [-3e38, 3e38]]
)
def test_any_values_make_a_chart(values: list[float]) -> None:
    svg = chart_svg([curve(values)], label="any")
    assert svg.endswith("</svg>")
    assert not re.search(r"\b(nan|inf)\b", svg)
    assert len(ticks(svg)) >= 4


def test_a_line_goes_from_the_first_step_to_the_last_and_up_where_values_rise() -> None:
    points = drawn(chart_svg([curve([0.0, 0.25, 1.0])], label="x", limits=(0.0, 1.0)))
    xs, ys = zip(*points, strict=True)
    assert xs[0] == LEFT
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)
    assert WIDTH > xs[2] > 0.9 * WIDTH
    assert HEIGHT > ys[0] > ys[1] > ys[2] > 0
    assert (ys[0] - ys[1]) / (ys[0] - ys[2]) == pytest.approx(0.25, abs=0.01)


def test_axes_have_a_few_round_labels() -> None:
    svg = chart_svg([curve([0.2, 0.9])], label="x", limits=(0.0, 1.0), until=2500.0)
    assert names(svg, "middle") == ["0", "500", "1k", "1.5k", "2k", "2.5k"]
    assert names(svg, "end") == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert names(chart_svg([curve([1234.0])], label="x"), "end") == ["0", "500", "1k"]


def test_steps_are_whole_numbers_in_a_short_run_too() -> None:
    assert names(chart_svg([curve([1.0, 2.0])], label="x", until=2.0), "middle") == ["0", "1", "2"]


def test_several_runs_have_a_band_around_their_mean() -> None:
    mean = curve([0.4, 0.5])
    low, high = mean.values - 0.1, mean.values + 0.1
    with_band = Curve(
        label="runs", steps=mean.steps, values=mean.values, tone="second", around=(low, high)
    )
    (band,) = re.findall(r'<polygon points="([^"]*)"', chart_svg([with_band], label="x"))
    edges = [float(pair.split(",")[1]) for pair in band.split()]
    line = [y for _, y in drawn(chart_svg([with_band], label="x"))]
    assert edges[0] > line[0] > edges[3]
    assert edges[1] > line[1] > edges[2]
    assert "polygon" not in chart_svg([mean], label="x")


def test_a_band_of_stretches_can_be_left_out() -> None:
    long = curve([0.0, 1.0] * 500)
    assert "polygon" in chart_svg([long], label="x")
    assert "polygon" not in chart_svg([long], label="x", band=False)


@pytest.mark.parametrize(("tone", "dashed"), [("trained", 0), ("untrained", 1), ("chance", 1)])
def test_baselines_are_dashed(tone: Tone, dashed: int) -> None:
    values = np.array([1.0, 2.0])
    svg = chart_svg([Curve(label="a", steps=values, values=values, tone=tone)], label="x")
    assert svg.count("stroke-dasharray") == dashed


def test_every_line_says_what_it_is_and_where_it_has_come_to() -> None:
    titles: list[str] = []

    class Titles(HTMLParser):
        def handle_data(self, data: str) -> None:
            titles.append(data)

    Titles().feed(chart_svg([curve([1.0] * 1000 + [0.25])], label="Training loss"))
    assert titles[0] == "Training loss"
    assert "loss: 0.25 at step 1,000" in titles

import io

import msgspec
import pytest
from PIL import Image

from online.reports.heat_map import heat_map_figure
from online.scores.matrix import Continual, load_continual, to_json

WORKED = Continual(
    recordings=["a", "b", "c"],
    segments=["a", "b", "c"],
    steps=[10, 20, 30],
    measure="FG-ARI",
    scores=[[0.8, 0.3, 0.1], [0.5, 0.9, 0.2], [0.6, 0.7, 0.95]],
    untrained=[0.1, 0.2, 0.3],
    reference=[0.9, 0.9, 0.9],
)


def test_worked_example():
    assert WORKED.final == pytest.approx((0.6 + 0.7 + 0.95) / 3)
    assert WORKED.forgetting == pytest.approx(((0.8 - 0.6) + (0.9 - 0.7)) / 2)
    assert WORKED.backward_transfer == pytest.approx(((0.6 - 0.8) + (0.7 - 0.9)) / 2)
    assert WORKED.forward_transfer == pytest.approx(((0.3 - 0.2) + (0.2 - 0.3)) / 2)
    assert WORKED.lowest == pytest.approx((0.5 + 0.7 + 0.95) / 3)  # of c its own
    assert WORKED.reached == pytest.approx((0.75 - 0.2) / (0.9 - 0.2))


def test_forgetting_is_of_the_best_there_was_and_transfer_of_what_was_just_learned():
    better_later = Continual(
        recordings=["a", "b"],
        segments=["a", "b"],
        steps=[1, 2],
        measure="FG-ARI",
        scores=[[0.4, 0.0], [0.6, 0.5]],
        untrained=[0.0, 0.0],
    )
    assert better_later.forgetting == pytest.approx(-0.2)  # it grew: nothing was forgotten
    assert better_later.backward_transfer == pytest.approx(0.2)
    assert better_later.reached is None
    assert better_later.lowest == pytest.approx((0.6 + 0.5) / 2)


def test_one_segment_can_forget_nothing():
    one = Continual(
        recordings=["a"],
        segments=["a"],
        steps=[1],
        measure="FG-ARI",
        scores=[[0.4]],
        untrained=[0.1],
        reference=[0.14],
    )
    assert (one.final, one.lowest) == (0.4, 0.4)
    assert one.forgetting is one.backward_transfer is one.forward_transfer is None
    assert one.reached is None  # the other run gained next to nothing


def test_a_stream_that_comes_by_twice_counts_from_the_first_time():
    twice = Continual(
        recordings=["a", "b"],
        segments=["a", "b", "a"],
        steps=[1, 2, 3],
        measure="FG-ARI",
        scores=[[0.8, 0.0], [0.2, 0.6], [0.7, 0.5]],
        untrained=[0.0, 0.1],
    )
    assert twice.lowest == pytest.approx((0.2 + 0.5) / 2)
    assert twice.forgetting == pytest.approx(((0.8 - 0.7) + (0.6 - 0.5)) / 2)
    assert twice.forward_transfer == pytest.approx(-0.1)


def test_it_is_read_back(tmp_path):
    (tmp_path / "good.json").write_bytes(to_json(WORKED))
    assert load_continual(tmp_path / "good.json") == WORKED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"untrained": [', '"untrained": [0.5,'),
        ('"scores": [', '"scores": [[0.1, 0.2, 0.3],'),
        ('"recordings": [', '"recordings": ["no such segment",'),
        ('"steps"', '"stops"'),
        ('"reference": [', '"reference": [], "old": ['),
        ("}", ""),
    ],
)
def test_what_is_no_matrix_is_not_read(tmp_path, old, new):
    text = to_json(WORKED).decode()
    assert old in text
    (tmp_path / "bad.json").write_text(text.replace(old, new, 1))
    with pytest.raises(msgspec.DecodeError):
        load_continual(tmp_path / "bad.json")


def test_the_heat_map_is_brighter_where_scores_are_higher():
    with Image.open(io.BytesIO(heat_map_figure(WORKED))) as image:
        pixels = image.convert("L")
    left, top = 20 + 190 + 8, 20 + 44 + 8
    brightness = [
        [pixels.getpixel((left + 120 * j, top + 48 * i)) for j in range(3)] for i in range(5)
    ]
    scores = [WORKED.untrained, *WORKED.scores, WORKED.reference]
    pairs = sorted(
        (s, b)
        for s_row, b_row in zip(scores, brightness, strict=True)
        for s, b in zip(s_row, b_row, strict=True)
    )
    assert [b for _, b in pairs] == sorted(b for _, b in pairs)
    assert pairs[0][1] < pairs[-1][1]

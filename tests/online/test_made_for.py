"""Footage that a preset is not made for is noticed before hours are spent on it."""

import pytest

from online.config import load_preset, preset_comment, preset_names
from online.made_for import MADE_FOR, Footage, mismatch


def test_every_preset_says_what_it_is_made_for_and_its_text_agrees() -> None:
    assert sorted(MADE_FOR) == preset_names()
    for name in preset_names():
        text = " ".join(preset_comment(name))
        if "--size" in text:
            assert MADE_FOR[name].options in text
        load_preset(name)


@pytest.mark.parametrize(("width", "height"), [(128, 128), (128, 72), (96, 96), (160, 160)])
def test_about_the_right_size_is_no_mismatch(width: int, height: int) -> None:
    assert mismatch("things", [Footage(width=width, height=height, fps=30.0)]) is None


def test_the_wrong_size_names_the_remedy_and_what_it_costs() -> None:
    said = mismatch("demo", [Footage(width=32, height=32), Footage(width=128, height=128)])
    assert said is not None
    assert "demo is made for frames of --size 32, these are 128x128" in said
    assert "about 16 times as long" in said
    assert "these are 32x32" in (mismatch("things", [Footage(width=32, height=32)]) or "")


def test_a_rate_at_which_nothing_moves_is_a_mismatch() -> None:
    fits = Footage(width=64, height=64, fps=5.0)
    assert mismatch("tabletop", [fits]) is None
    said = mismatch("tabletop", [fits, Footage(width=64, height=64, fps=29.97)])
    assert said is not None
    assert "this footage has 30 frames a second" in said

import math
import subprocess
import sys

import pytest

from setcon.checks import check_above, check_at_least, check_below, check_choice, check_within


def test_a_choice_is_one_of_those_named():
    check_choice("kind", "b", ("a", "b"))
    with pytest.raises(ValueError, match=r"^kind must be one of a, b, got 'c'$"):
        check_choice("kind", "c", ("a", "b"))


def test_bounds_belong_to_the_range_or_not_as_the_names_say():
    check_at_least(1, size=1)
    check_within(1, 2, low=1, high=2)
    with pytest.raises(ValueError, match=r"^size must be above 1, got 1$"):
        check_above(1, size=1)
    with pytest.raises(ValueError, match=r"^size must be below 1, got 1$"):
        check_below(1, size=1)


@pytest.mark.parametrize("value", [-1, 3, math.nan])
def test_the_first_value_out_of_range_is_named_with_the_bound(value):
    with pytest.raises(ValueError, match=rf"^bad must lie in 0\.\.2, got {value}$"):
        check_within(0, 2, good=1, bad=value, worse=value)


@pytest.mark.parametrize("check", [check_at_least, check_above, check_below])
def test_not_a_number_passes_no_bound(check):
    with pytest.raises(ValueError, match=r"^rate must be .* 0, got nan$"):
        check(0, rate=math.nan)


def test_packages_that_check_their_settings_do_not_load_torch():
    code = (
        "import sys, ingest.scenes.balls, ingest.store.records, online.clips.clip, "
        "online.replay.mixing; print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == "False"

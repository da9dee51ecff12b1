from dataclasses import replace

import pytest

from online.session.clock import Spent
from online.session.status import Status
from terminal.progress import fitted
from terminal.runs import spent_text, status_parts

STATUS = Status(
    activity="learning",
    share=0.4,
    step=1400,
    steps=3500,
    loss=1.2345,
    top1=0.812,
    prequential_top1=0.774,
    prequential_step=1400,
    triplets_per_second=310.4,
    samples_per_insert=21.3,
    reconnects=0,
    damaged=0,
    discarded=0,
    queued_bytes=21_300_000,
    skipped=0,
    delay_seconds=None,
    eta_seconds=124.6,
)


def line(status: Status, columns: int = 1000) -> str:
    return fitted(status_parts(status), columns)


def test_a_line_of_progress_says_how_far_how_well_and_how_long() -> None:
    assert line(STATUS) == (
        "learning 40%  step 1400/3500  ETA 2:05  top-1 .81  new footage .77  loss 1.23  "
        "310 triplets/s  clips seen 21x  21.3 MB queued"
    )


def test_what_went_wrong_is_shown_once_there_is_something_to_show() -> None:
    troubled = replace(STATUS, delay_seconds=2.53, skipped=4, reconnects=1, damaged=2, discarded=3)
    assert "  2.5 s behind  4 skipped  1 reconnect  2 damaged  3 discarded  " in line(troubled)


@pytest.mark.parametrize(
    ("eta_seconds", "shown"), [(0.2, "ETA 0:00"), (59.7, "ETA 1:00"), (36_000.0, "ETA 10:00:00")]
)
def test_time_left_is_shown_like_a_clock(eta_seconds: float, shown: str) -> None:
    assert f"  {shown}  " in line(replace(STATUS, eta_seconds=eta_seconds))


def test_what_is_not_known_yet_is_left_out() -> None:
    early = replace(
        STATUS,
        activity="waiting for data",
        step=0,
        share=0.0,
        loss=None,
        top1=None,
        prequential_top1=None,
        triplets_per_second=0.0,
        samples_per_insert=0.0,
        queued_bytes=0,
        eta_seconds=60.0,
    )
    assert line(early) == "waiting for data 0%  step 0/3500"


def test_a_probe_is_told_without_rates_of_learning_that_stands_still() -> None:
    probing = replace(STATUS, activity="probing", share=0.3, delay_seconds=2.5, skipped=4)
    assert line(probing) == (
        "probing 30%  step 1400/3500  ETA 2:05  2.5 s behind  4 skipped  clips seen 21x  "
        "21.3 MB queued"
    )


def test_footage_that_was_new_long_ago_is_not_told_of_as_new() -> None:
    old = replace(STATUS, prequential_step=1299)
    assert "  new footage .77 until step 1299  loss 1.23" in line(old)
    assert "until" not in line(replace(STATUS, prequential_step=1300))


def test_a_narrow_terminal_shows_whole_fields_and_the_most_important_ones() -> None:
    assert line(STATUS, 80) == (
        "learning 40%  step 1400/3500  ETA 2:05  top-1 .81  new footage .77  loss 1.23"
    )
    live = line(replace(STATUS, delay_seconds=2.5), 80)
    assert live.endswith("top-1 .81  new footage .77  2.5 s behind")
    assert len(live) == 80
    long = replace(
        STATUS,
        step=100_000,
        steps=100_000,
        top1=1.0,
        prequential_top1=1.0,
        prequential_step=100_000,
        eta_seconds=36_000.0,
    )
    for columns in (80, 60, 40, 20):
        assert len(line(long, columns)) <= columns
    assert line(long, 80) == (
        "learning 40%  step 100000/100000  ETA 10:00:00  top-1 1.00  new footage 1.00"
    )
    assert line(long, 20) == "learning 40%"


def test_what_probes_cost_is_told_and_what_goes_on_beside_learning() -> None:
    assert line(replace(STATUS, probe_share=0.004)) == line(STATUS)
    assert line(replace(STATUS, probe_share=0.123)) == f"{line(STATUS)}  probes 12%"
    beside = replace(STATUS, probe_share=0.123, beside="probe of step 1000 40%")
    assert line(beside) == f"{line(STATUS)}  probe of step 1000 40%"


def test_what_time_went_into_is_told_in_shares() -> None:
    spent = Spent(seconds=20.0, probe_share=0.3, checkpoint_share=0.2)
    assert spent_text(spent) == (
        "took 0:20: learning was paused for probes for 30.0% of it, for checkpoints for 20.0%"
    )

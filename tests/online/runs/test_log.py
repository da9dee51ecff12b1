"""What is read of a run that was continued."""

import json
from pathlib import Path

from made_runs import make_run

from online.runs.log import read_run


def test_what_a_continued_run_spent_is_what_its_last_line_says(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    spent = [(200, 444.0, "probe", 0.86), (210, 62.0, "step", 0.3), (210, 90.0, "probe", 0.51)]
    with (run / "metrics.jsonl").open("a") as log:
        for step, seconds, kind, share in spent:
            entry = {"kind": kind, "step": step, "seconds": seconds, "probe_share": share}
            log.write(json.dumps(entry | {"loss": 1.0, "top1": 0.5}) + "\n")
    read = read_run(run)
    assert read.spent is not None
    assert (read.spent.seconds, read.spent.probe_share) == (90.0, 0.51)
    assert read.reached is read.spent


def test_a_line_that_was_logged_later_counts_even_if_its_clock_went_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as log:
        for seconds in (444.0, 62.0):
            entry = {"kind": "event", "step": 200, "seconds": seconds, "message": "continued"}
            log.write(json.dumps(entry) + "\n")
    read = read_run(run)
    assert read.reached is not None
    assert read.reached.seconds == 62.0

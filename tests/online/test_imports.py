"""Reading pages of numbers and text never waits for torch or ZeroMQ."""

import subprocess
import sys
from pathlib import Path

from made_runs import make_run

HEAVY = ("torch", "zmq", "zarr", "matplotlib.pyplot")


def imported_by(code: str) -> list[str]:
    found = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", found], capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.splitlines()[-1:]


def test_a_run_is_read_and_its_page_written_without_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    code = f"""
from pathlib import Path
from online.reports.report import write_report
from online.reports.verdict import verdict
from online.runs.log import read_run
from terminal.runs import evaluation_text
run = read_run(Path({str(run)!r}))
write_report(run.path), verdict(run), evaluation_text(run.evaluation)
"""
    assert imported_by(code) == ["[]"]
    assert (run / "report.html").exists()


def test_runs_are_compared_without_torch(tmp_path: Path) -> None:
    runs = [str(make_run(tmp_path / name, seed=seed)) for seed, name in enumerate("ab")]
    words = ["compare", *runs, "--out", str(tmp_path / "page.html")]
    code = f"import cli\ncli.main({words!r}, standalone_mode=False)"
    assert imported_by(code) == ["[]"]
    assert (tmp_path / "page.html").exists()

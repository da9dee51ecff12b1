"""A few of the faults that `benchmarks/queue/faults.py` injects by the thousand."""

import subprocess
import sys
from pathlib import Path

import pytest

LONGEST_SECONDS = 600.0
"""Two runs of 240 steps with as many checkpoints take 100 s on two idle cores."""

FAULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "queue" / "faults.py"


@pytest.mark.soak
@pytest.mark.timeout(LONGEST_SECONDS + 30)
def test_a_run_among_faults_inserts_every_clip_once_and_logs_the_losses_of_a_run_left_alone():
    done = subprocess.run(
        [sys.executable, FAULTS, "--faults", "5", "--seed", "4"],
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "every clip inserted once, every loss equal" in done.stdout

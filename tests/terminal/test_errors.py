"""A signal ends a command, wherever in it Python would lose the exception."""

import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from terminal.errors import OneLineErrors

LOST = """
import signal, sys
import click
from terminal.errors import OneLineErrors

number, times = int(sys.argv[1]), 3
set_alarm = signal.setitimer

class Kept:
    def __del__(self):
        signal.raise_signal(number)

def early(which, seconds):
    "The alarm comes before the hook has ended that sets it."
    global times
    times -= 1
    if times:
        signal.raise_signal(signal.SIGALRM)
    else:
        set_alarm(which, seconds)

signal.setitimer = early

@click.group(cls=OneLineErrors)
def group():
    pass

@group.command()
def work():
    kept = Kept()
    del kept
    while True:
        pass

group(["work"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_exception_that_is_lost_is_raised_again_out_of_where_it_would_be_lost(number) -> None:
    script = [sys.executable, "-c", LOST, str(int(number))]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "stopped; run the same command again\n"


def test_of_several_ranks_only_the_first_says_that_they_were_stopped() -> None:
    group = OneLineErrors(commands=[click.Command("work", callback=interrupted)])
    ranks = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    said = [CliRunner().invoke(group, ["work"], env=ranks | {"RANK": rank}) for rank in "01"]
    assert [done.exit_code for done in said] == [128 + signal.SIGINT] * 2
    assert [done.stderr for done in said] == ["stopped; run the same command again\n", ""]


def interrupted() -> None:
    raise KeyboardInterrupt


OTHER = """
import click
from terminal.errors import OneLineErrors

class Broken:
    def __del__(self):
        raise ValueError("in vain")

@click.group(cls=OneLineErrors)
def group():
    pass

@group.command()
def work():
    Broken()
    click.echo("done")

group(["work"])
"""


def test_any_other_exception_that_is_lost_is_printed_as_ever() -> None:
    script = [sys.executable, "-c", OTHER]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "ValueError: in vain" in done.stderr

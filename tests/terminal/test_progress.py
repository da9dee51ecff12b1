"""Progress where there is no terminal: lines now and then, and the last one."""

import pytest

from terminal.progress import progress_line


def test_the_last_line_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_line("begins") as show:
        for done in (1, 2, 3):
            show("writing", f"{done}/3")
    assert capsys.readouterr().err == "begins\nwriting  1/3\nwriting  3/3\n"


def test_a_command_that_fails_says_only_why(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="full"):
        fail_after_two()
    assert capsys.readouterr().err == "1/3\n"


def fail_after_two() -> None:
    with progress_line() as show:
        for done in (1, 2):
            show(f"{done}/3")
        raise ValueError("full")

"""Python examples of a page: run, and compared with the values that their comments give."""

import ast
import re
from pathlib import Path

_VALUE = re.compile(r"^ *(.+?)  # (.+)$")


def python_snippets(page: Path) -> list[str]:
    """The code of every Python block, in the order of the page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Every command in an indented block."""
    lines = [line.strip() for line in page.read_text().splitlines() if line.startswith("    ")]
    return [line for line in lines if line.startswith("setcon ")]


def run_snippet(code: str) -> int:
    """Run an example and check each `expression  # value` in it; return how many there were.

    A line that is an expression and ends in a comment must have the value, as `repr` shows it.
    """
    checked: list[tuple[str, str, str]] = []
    lines = [_checking(line) for line in code.splitlines()]
    exec("\n".join(lines), {"_check": lambda *found: checked.append(found)})
    for expression, value, expected in checked:
        assert value == expected, expression
    return len(checked)


def _checking(line: str) -> str:
    found = _VALUE.match(line)
    if found is None or not _is_expression(found[1]):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return f"{indent}_check({found[1]!r}, repr(({found[1]})), {found[2]!r})"


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True

"""The README and the pages are true: commands do what is said, help is what they print."""

import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from commands import setcon

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
PAGES = [README, ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PIP_OR_PYTEST = re.compile(r"pip install|pytest")
SHORTER = {
    "--minutes 2": "--minutes 0.05",
    "--steps 200": "--steps 2",
    "--frames 1200": "--frames 300",
    "setcon demo": "setcon demo --minutes 0.05",
}
FASTER = [
    *("--set", "stream.credit_bytes=2500000"),
    *("--set", "probe.steps=2"),
    *("--set", "evaluation.train_clips=2"),
    *("--set", "evaluation.held_out_clips=1"),
]


def commands() -> list[list[str]]:
    """Every command in an indented block, shortened."""
    text = README.read_text()
    text = re.sub(r"``python\n.*?``", "", text, flags=re.DOTALL)
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    found = [part for line in lines for part in line.split(" && ")]
    for long, short in SHORTER.items():
        found = [command.replace(long, short) for command in found]
    port = free_port()
    found = [command.replace(":5555", f":{port}") for command in found]
    return [shlex.split(command) for command in found if not PIP_OR_PYTEST.search(command)]


def python_snippets() -> list[str]:
    return re.findall(r"``python\n(.*?)``", README.read_text(), re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    assert command[0] == "setcon"
    extra = FASTER if command[1] in ("train", "demo") else []
    return setcon(*command[1:], *extra, cwd=folder)


@pytest.mark.timeout(400)
def test_every_command_does_what_it_says(tmp_path: Path) -> None:
    every = commands()
    assert len(every) >= 10
    server: subprocess.Popen[str] | None = None
    try:
        for command in every:
            if command[1] == "serve":
                server = subprocess.Popen(
                    [sys.executable, "-m", "setcon", *command[1:]],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert server.stdout is not None
                assert server.stdout.readline().startswith("serving store at tcp://127.0.0.1:")
                continue
            done = run(command, tmp_path)
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
            if command[1] == "demo":
                assert "steps are learned so far; to continue, repeat the command" in done.stdout
        assert server is not None
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
    finally:
        if server is not None:
            server.kill()
            server.communicate(timeout=20)
    assert (tmp_path / "runs/balls/report.html").exists()
    assert (tmp_path / "scores/panels.png").exists()
    assert (tmp_path / "seen.mp4").exists()
    assert (tmp_path / "slots.h5").exists()
    assert (tmp_path / "comparison.html").exists()
    assert (tmp_path / "setcon-demo/demo.png").exists()
    scope: dict[str, object] = {}
    with chdir(tmp_path):
        exec("\n".join(python_snippets()), scope)
    assert scope["slots"].shape == (8, 4, 16)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_place_that_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    local = [link.partition("#") for link in links if not link.startswith("http")]
    for path, _, place in local:
        target = page.parent / path if path else page
        assert target.exists()
        assert not place or place in headings(target)


def headings(page: Path) -> set[str]:
    """The places of a page, as a browser names them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_page_of_commands_has_each_of_them_and_the_help_that_it_prints() -> None:
    from cli import main

    titles = re.findall(r"^### setcon (\w+)$", COMMANDS.read_text(), re.MULTILINE)
    assert sorted(titles) == sorted(main.commands)
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "--diff", str(COMMANDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"run: cog -r docs/commands.md\n{done.stdout}"


def test_the_library_example_gives_the_shapes_it_names() -> None:
    code = python_snippets()[0]
    scope: dict[str, object] = {}
    exec(code, scope)
    shapes = re.findall(r"output\.(\w+) +# \(([\d, ]+)\)", code)
    assert len(shapes) == 3
    for name, shape in shapes:
        assert tuple(getattr(scope["output"], name).shape) == tuple(map(int, shape.split(", ")))


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "line", ["pip install -e . && setcon demo", "pip install -e '.[test]' && pytest"]
)
def test_the_two_lines_that_do_everything_are_there(line: str) -> None:
    assert f"    {line}\n" in README.read_text()

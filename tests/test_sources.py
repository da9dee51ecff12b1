"""What no module may do, read off its syntax tree: run what it reads, or let in what it is sent."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("setcon", "ingest", "online", "terminal")
SOURCES = [
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "cli.py", *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))]
]
EXECUTING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Calls of functions, written like this: `torch.load` or `*.socket`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in names or f"*.{called.rpartition('.')[2]}" in names:
                yield node


def imports(tree: ast.AST) -> Iterator[str]:
    """The packages that are imported, wherever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def says(call: ast.Call, keyword: str, value: bool) -> bool:
    return any(
        k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value
        for k in call.keywords
    )


@pytest.fixture
def tree(source: str) -> ast.AST:
    return ast.parse((ROOT / source).read_text())


def test_every_package_is_looked_at():
    known = ["cli.py", "setcon/seed_checkpoint.py", "ingest/frame.py", "online/queue/messages.py"]
    assert set(known) <= set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_that_is_read_or_received_is_executed(tree):
    assert not EXECUTING & set(imports(tree))
    assert not list(calls(tree, "eval", "exec", "*.recv_pyobj", "*.send_pyobj"))
    assert all(says(call, "weights_only", True) for call in calls(tree, "torch.load"))
    assert all(says(call, "allow_pickle", False) for call in calls(tree, "np.load"))


@pytest.mark.parametrize("source", SOURCES)
def test_sockets_of_zeromq_are_made_in_the_one_place_that_limits_them(source, tree):
    made = len(list(calls(tree, "*.socket"))) - len(list(calls(tree, "socket.socket")))
    assert made == (source == "online/queue/sockets.py"), source

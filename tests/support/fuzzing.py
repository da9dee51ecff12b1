"""What fuzz targets have in common: changed bytes and tables, and what an error must be like.

The suite tries a few examples, always the same. `pytest -m fuzz --hypothesis-profile=fuzz` tries
many, others each time; what it finds becomes an `@example`.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from ingest.printable import one_line

ROOM_BYTES = 3 << 30
"""Address space that one example may take: twice the largest chunk, and threads."""

PHASES = tuple(phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain)
"""Explaining what a failure depends on runs for minutes where each example opens a store."""

TEXTS = (
    *("", "a", "*", "\x00", "a\nb", "\x1b[2J", "../../a", "[" * 200, "x" * 300, "\u202e", "train"),
    *("uint8", "1", "nan", "stream", "shuffled"),
)
NUMBERS = (
    *(-1, 0, 1, 2, 3, 255, 1 << 10, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 53, 1 << 62),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63)),
)
ODD = st.one_of(
    st.sampled_from([*NUMBERS, *TEXTS]),
    st.sampled_from([None, True, False, 0.5, -0.5, 1e-300, 1e39, 1e308, float("nan")]),
    st.integers(-5, 5),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.sampled_from([*NUMBERS[:8], "a", None, [], {}]), max_size=4),
    st.dictionaries(
        st.sampled_from(TEXTS[:8]), st.sampled_from([0, "a", None, [], {}]), max_size=2
    ),
)
"""Values of any kind, which MessagePack, JSON and TOML can all express but for None in TOML."""


def few_unless_asked(count: int, *, times: int = 20) -> hypothesis.settings:
    """`count` examples that are always the same; `times` as many, and others, where asked for."""
    if hypothesis.settings.get_current_profile_name() == "fuzz":
        return hypothesis.settings(max_examples=times * count, phases=PHASES)
    return hypothesis.settings(max_examples=count, derandomize=True, database=None, phases=PHASES)


@st.composite
def changed(draw: st.DrawFn, tree: Any, odd: st.SearchStrategy[Any] = ODD) -> Any:
    """A table or list like `tree`, in which some values are others, gone, twice there or new."""
    tree = deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            return draw(odd)
        within, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.integers(0, 5)):
            case 0:
                del within[key]
            case 1 if isinstance(within, dict):
                within[draw(st.sampled_from(TEXTS))] = deepcopy(within[key])
            case 1:
                within.insert(key, deepcopy(within[key]))
            case 2:  # a value of another place
                other, name = places[draw(st.integers(0, len(places) - 1))]
                within[key] = deepcopy(other.get(name) if isinstance(other, dict) else other)
            case _:
                within[key] = draw(odd)
    return tree


@st.composite
def garbled(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes like `data`: cut, flipped, with others among them, or none of it."""
    at = draw(st.integers(0, len(data)))
    match draw(st.integers(0, 5)) if data else 3:
        case 0:
            return data[:at]
        case 1:
            return data[:at] + draw(st.binary(max_size=40)) + data[at:]
        case 2:
            return data[:at] + draw(st.binary(max_size=40))
        case 3:
            return draw(st.binary(max_size=200))
        case _:
            flipped = bytearray(data)
            for place in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=4)):
                flipped[place] = draw(st.integers(0, 255))
            return bytes(flipped)


def assert_one_line(error: BaseException | str) -> None:
    """It is for a person to read, on a terminal that it must not steer."""
    text = str(error)
    assert text
    assert text == one_line(text)


@contextmanager
def limited_memory(room_bytes: int = ROOM_BYTES) -> Iterator[None]:
    """Let what is inside fail with MemoryError where it asks for much more than it needs."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def contents(folder: Path) -> dict[str, bytes | str | int]:
    """All files below a folder, of huge ones the size, and where links lead."""
    found: dict[str, bytes | str | int] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            size = path.stat().st_size
            found[name] = path.read_bytes() if size < 1 << 24 else size
    return found


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each place of a value in nested tables and lists: what it is in, and under which key."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])

"""`python -m setcon` and the console script: run the program that this package belongs to.

The packages around this one have common names. A user's `cli.py` or `ingest/` that comes first on
Python's path must not replace them, so here they are looked up next to this package before that.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_ROOT = str(Path(__file__).resolve().parents[1])
_NEIGHBOURS = ("cli", "ingest", "online", "terminal")


class _Neighbours(MetaPathFinder):
    """Finds the packages next to this one, whatever else Python's path holds."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a neighbour; None leaves every other module to Python."""
        return PathFinder.find_spec(fullname, [_ROOT]) if fullname in _NEIGHBOURS else None


def main() -> None:
    """Run the command line."""
    sys.meta_path.insert(0, _Neighbours())
    from cli import main as command_line

    command_line(prog_name="setcon")


if __name__ == "__main__":
    main()

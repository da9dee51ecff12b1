"""`python -m` for modules of these packages, which need not be installed."""

import os
import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module with this interpreter."""
    # -P: a folder called `ingest` where the command was typed must not replace the package
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment() -> dict[str, str]:
    """The environment in which that command finds the packages from any folder."""
    packages = str(Path(__file__).resolve().parents[1])
    there = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [packages, there]))}

"""What pip makes of the project."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = "import setuptools.build_meta as build; build.build_editable('../site')"
IMPORT = "import site; site.addsitedir('site'); import setcon; print(setcon.__file__)"
"""Run with -S: what lies on this Python's path already, perhaps setcon too, must not help."""


def python(code: str, folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_clone_called_setcon_does_not_hide_the_package_it_holds(tmp_path: Path) -> None:
    clone, site = tmp_path / "setcon", tmp_path / "site"
    for package in ("setcon", "ingest", "online", "terminal"):
        shutil.copytree(ROOT / package, clone / package)
    for file in ("cli.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, clone)
    (clone / "setcon" / "__init__.py").write_text("")
    site.mkdir()
    python(BUILD, clone)
    (wheel,) = site.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert python(IMPORT, tmp_path, "-S").strip() == str(clone / "setcon" / "__init__.py")


def test_a_user_s_modules_of_the_same_names_do_not_replace_the_program(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_text("raise SystemExit('the wrong cli')")
    for name in ("ingest", "online", "terminal"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    script = (
        "import sys; from setcon.__main__ import main; sys.argv = ['setcon', 'info', 'x']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import setcon; {script}"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "error: x: " in done.stderr

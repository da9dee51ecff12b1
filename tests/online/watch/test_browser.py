"""The page in a headless Chromium, with a server of its own that is killed and comes back."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import CHROMIUM, chromium
from made_runs import glimpse, make_run

from online.runs.glimpse import save_glimpse

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

PICTURE = "document.querySelector('#glimpse img')?.src"
SEGMENTS = "document.querySelectorAll('#glimpse img')[1].src"


@contextmanager
def served(runs: Path, port: str) -> Iterator[str]:
    command = [sys.executable, "-m", "setcon", "watch", str(runs), "--port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            assert line.startswith("watch at http://127.0.0.1:")
            yield line.split()[2]
        finally:
            server.send_signal(signal.SIGKILL)


def test_the_page_lives_in_two_tabs_on_small_and_dark_screens(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    make_run(runs / "other")
    run = make_run(runs / "balls")
    save_glimpse(run / "newest.npz", glimpse(step=1))
    with chromium(tmp_path / "profile") as browser:
        with served(runs, "0") as address:
            wide = browser.tab(f"{address}?run=balls")
            narrow = browser.tab(f"{address}?run=balls", width=400, dark=True)
            for tab in (wide, narrow):
                tab.wait_for(PICTURE)
                assert tab.value("document.documentElement.scrollWidth <= innerWidth")
            background = "getComputedStyle(document.body).backgroundColor"
            assert wide.value(background) != narrow.value(background)

            before = wide.value(SEGMENTS)
            save_glimpse(run / "newest.npz", glimpse(step=2))
            for tab in (wide, narrow):
                tab.wait_for(f"{SEGMENTS} !== {before!r}")

            wide.press("Tab")
            assert wide.value("document.activeElement.textContent") in ("other", "balls")
            wide.value(
                "[...document.querySelectorAll('nav a')].find(a => a.text == 'other').focus()"
            )
            wide.press("Enter")
            wide.wait_for("document.title.startsWith('other')")
            port = address.rstrip("/").rpartition(":")[2]
        narrow.wait_for("document.getElementById('link').textContent.startsWith('Connection lost')")
        save_glimpse(run / "newest.npz", glimpse(step=3))
        before = narrow.value(SEGMENTS)
        with served(runs, port):
            narrow.wait_for("document.getElementById('link').textContent === ''")
            narrow.wait_for(f"{SEGMENTS} !== {before!r}")

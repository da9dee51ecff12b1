"""Pages in a headless Chromium, driven over a pipe by the DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SECONDS = 30.0
"""How long anything may take."""


class Tab:
    """One page."""

    def __init__(
        self, browser: "Browser", url: str, *, width: int, height: int, dark: bool
    ) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        # several tabs of one window would be hidden but for one
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.call("Page.navigate", url=url)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        return self._browser.call(method, session=self._session, **parameters)

    def value(self, expression: str) -> Any:
        """What JavaScript makes of an expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = SECONDS) -> Any:
        """The value of an expression once it is true."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)
        return found

    def press(self, key: str) -> None:
        """Press a key and release it."""
        codes = {"Tab": 9, "Enter": 13}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """A running browser."""

    def __init__(self, to: int, from_: int) -> None:
        self._to, self._from = to, from_
        self._count = 0
        self._begun = b""

    def tab(self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> Tab:
        """A new page that is being opened."""
        return Tab(self, url, width=width, height=height, dark=dark)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._count:
                assert "error" not in found, found
                return found["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._begun:
            ready, _, _ = select.select([self._from], [], [], SECONDS)
            assert ready, "the browser says nothing"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._begun += data
        whole, _, self._begun = self._begun.partition(b"\0")
        return json.loads(whole)


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile, which is ended on leaving."""
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
        *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        "--disable-dev-shm-usage",
    ]
    from_us, to_it = os.pipe()
    from_it, to_us = os.pipe()

    def place() -> None:  # the browser reads from 3 and writes to 4
        high = [os.dup(from_us), os.dup(to_us)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    process = subprocess.Popen(
        command, close_fds=False, preexec_fn=place, stderr=subprocess.DEVNULL
    )
    os.close(from_us)
    os.close(to_us)
    try:
        yield Browser(to_it, from_it)
    finally:
        process.terminate()
        process.wait(SECONDS)
        os.close(to_it)
        os.close(from_it)

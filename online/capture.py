"""A camera that is recorded and served at once, so that a model learns from it while it looks.

Camera ──▶ store ──▶ server, in a process of its own ──▶ setcon train --connect
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ingest.live.camera import Camera
from ingest.live.capture import Captured, capture
from ingest.store.protocols import Store
from ingest.store.records import Codec
from online.errors import ServerError
from online.queue.keys import ServerKeys
from online.queue.server_process import ServerProcess
from online.queue.stream import ServeConfig

log = logging.getLogger(__name__)

FINISH_SECONDS, STOPPED_SECONDS = 300.0, 60.0
"""How long trainers may take to learn from the rest and to probe, also after a signal."""


def capture_and_serve(
    camera: Camera,
    store: Store,
    address: str,
    *,
    keys: ServerKeys | None = None,
    ready: Callable[[str], None],
    name: str | None = None,
    seconds: float | None = None,
    keep_seconds: float | None = None,
    codec: Codec = "zstd",
    progress: Callable[[Captured], None],
    should_stop: Callable[[], bool],
    waiting: Callable[[], None] = lambda: None,
) -> Captured:
    """Do what `capture` does, and serve all of the store at `address` meanwhile.

    `ready` is called with the address that trainers connect to; `keys` are as in `serve`. If
    the server dies, a warning says so and the camera is still recorded.

    When the camera has ended, trainers take what is left, make their last probe and leave;
    `waiting` is called if that takes a while.

    Raises ServerError: the address is refused or in use, or the server did not start; StoreError:
    as `capture`.
    """
    with ServerProcess(store.location, ServeConfig(follow=True), bind=address, keys=keys) as server:
        ready(server.address)
        is_up = True

        def watch(captured: Captured) -> None:
            nonlocal is_up
            progress(captured)
            if is_up:
                try:
                    server.check()
                except ServerError as error:
                    is_up = False
                    log.warning("%s; the camera is still recorded, but no longer served", error)

        captured = capture(
            camera,
            store,
            name=name,
            seconds=seconds,
            keep_seconds=keep_seconds,
            codec=codec,
            progress=watch,
            should_stop=should_stop,
        )
        if is_up:
            was_stopped = should_stop()

            def limit() -> float:
                if was_stopped:
                    return STOPPED_SECONDS
                return 0.0 if should_stop() else FINISH_SECONDS

            server.finish(within_seconds=limit, waiting=waiting)
        return captured

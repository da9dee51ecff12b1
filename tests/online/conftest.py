"""Small stores whose every frame says where it comes from, and servers of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ingest.frame import Frames
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.protocols import Store
from ingest.store.records import RecordSettings, Source
from ingest.video.reader import Counters
from online.queue.keys import ServerKeys
from online.queue.server import serve
from online.queue.stream import ServeConfig

SECOND_NS = 1_000_000_000


def stamped_frames(
    start: int,
    stop: int,
    *,
    mark: int = 0,
    size: int = 8,
    fps: float = 30.0,
    gaps: tuple[int, ...] = (),
    live: bool = False,
    masks: bool = False,
) -> Frames:
    """Frames start..stop; their pixels spell (index % 256, index // 256, mark)."""
    index = np.arange(start, stop)
    colours = np.stack([index % 256, index // 256, np.full_like(index, mark)], axis=1)
    images = np.broadcast_to(
        colours[:, None, None].astype(np.uint8), (len(index), size, size, 3)
    ).copy()
    pts_ns = (index * SECOND_NS / fps).astype(np.int64)
    return Frames(
        images=images,
        pts_ns=pts_ns,
        gap=np.isin(index, (0, *gaps)),
        captured_ns=pts_ns + 1 if live else None,
        masks=images[..., 0] if masks else None,
    )


@pytest.fixture(scope="session")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 240 frames of three balls at 16x16, with masks."""
    folder = tmp_path_factory.mktemp("balls")
    render_scene(BallsConfig(num_frames=240, fps=15, size=32), folder / "balls.mp4")
    (outcome,) = ingest_sources(
        [str(folder / "balls.mp4")], folder / "store", RecordSettings(size=16)
    )
    assert outcome.error is None
    return folder / "store"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create_format="zarr")


@pytest.fixture
def record(store: Store) -> Callable[..., int]:
    """Write frames to a recording, continuing where it stands; returns its committed length.

    A recording that is left incomplete holds whole blocks of frames only.
    """

    def write(
        name: str,
        length: int,
        *,
        complete: bool = True,
        mark: int = 0,
        size: int = 8,
        fps: float = 30.0,
        gaps: tuple[int, ...] = (),
        live: bool = False,
        masks: bool = False,
    ) -> int:
        with store.writer(
            name,
            source=Source(path=name, digest=name),
            settings=RecordSettings(size=size),
            height=size,
            width=size,
            has_masks=masks,
            live=live,
            max_chunk_length=16,
        ) as writer:

            def frames(start: int, stop: int) -> Frames:
                return stamped_frames(
                    start, stop, mark=mark, size=size, fps=fps, gaps=gaps, live=live, masks=masks
                )

            while writer.commit.length + writer.block_length <= length:
                start = writer.commit.length
                writer.append(frames(start, start + writer.block_length), Counters())
            if complete:
                writer.finish(frames(writer.commit.length, length), Counters())
            return writer.commit.length

    return write


@pytest.fixture
def served(store: Store, tmp_path: Path) -> Callable[..., object]:
    """A context in which the store is served by a thread; gives the address."""

    @contextmanager
    def serving(
        address: str = "",
        *,
        of: Store | None = None,
        keys: ServerKeys | None = None,
        finish: threading.Event | None = None,
        **config: object,
    ) -> Iterator[str]:
        stop, bound = threading.Event(), threading.Event()
        found: list[str] = []
        failed: list[BaseException] = []

        def ready(endpoint: str) -> None:
            found.append(endpoint)
            bound.set()

        def run() -> None:
            try:
                serve(
                    of or store,
                    address or f"ipc://{tmp_path}/sockets/s",
                    config=ServeConfig(**config),
                    keys=keys,
                    ready=ready,
                    stop=stop,
                    finish=finish,
                )
            except BaseException as error:
                failed.append(error)
                bound.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert bound.wait(30)
            if found:
                yield found[0]
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()
        if failed:
            raise failed[0]

    return serving

"""Sources that the workers of a Ray cluster ingest."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from object_store import ObjectServer

from ingest.errors import IngestError
from ingest.fleet import Fleet
from ingest.job import Order, Target
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.recorder import RecordProgress
from ingest.store.records import RecordSettings

SETTINGS = RecordSettings(size=16)


@pytest.fixture(scope="module")
def videos(media, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "b"):
        media.video(folder / f"{name}.mp4", 40)
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:500])
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A cluster that this process is connected to, whose workers reach an object store."""
    import ray  # importing it takes seconds in every test process

    with pytest.MonkeyPatch.context() as patch, ObjectServer() as server:
        for name, value in {"RAY_worker_niceness": "0", **server.environment}.items():
            patch.setenv(name, value)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


def write_two_tracks(path: Path) -> None:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width = stream.height = 32
        for index in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * index, np.uint8))
            frame.pts = index
            for stream in streams:
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())


def files(store: Path) -> dict[str, bytes]:
    recordings = store / "recordings"
    return {
        str(path.relative_to(recordings)): path.read_bytes()
        for path in recordings.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.usefixtures("cluster")
def test_workers_of_a_cluster_ingest_what_one_process_does(videos, tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").symlink_to(videos)
    write_two_tracks(tmp_path / "two.mkv")
    sources = ["videos", "two.mkv", "missing.mp4"]
    told = []
    here = ingest_sources(sources, tmp_path / "here", SETTINGS)
    lines = [*caplog.messages]
    assert "two.mkv: 2 video tracks" in lines[0]
    caplog.clear()
    far = ingest_sources(sources, tmp_path / "far", SETTINGS, fleet=Fleet(), progress=told.append)
    assert [(o.source, o.name, o.warning, o.error is None) for o in far] == [
        (o.source, o.name, o.warning, o.error is None) for o in here
    ]
    assert [f"{tmp_path}/{line}" for line in lines] == caplog.messages
    became = {o.name: o.recorded and o.recorded.status for o in far}
    assert became == {
        "a": "recorded",
        "b": "recorded",
        "broken": None,
        "two": "recorded",
        None: None,
    }
    assert files(tmp_path / "far") == files(tmp_path / "here")
    again = ingest_sources(["videos/a.mp4"], tmp_path / "far", SETTINGS, fleet=Fleet())
    assert [o.recorded and o.recorded.status for o in again] == ["already complete"]
    assert {now.name for now in told} == {"a", "b", "two"}


@pytest.mark.soak
@pytest.mark.usefixtures("cluster")
def test_a_run_that_is_stopped_keeps_what_was_committed(media, tmp_path):
    media.video(tmp_path / "long.mp4", 20_000)
    stop = threading.Event()
    (outcome,) = ingest_sources(
        [str(tmp_path / "long.mp4")],
        tmp_path / "store",
        SETTINGS,
        fleet=Fleet(),
        progress=lambda now: stop.set(),
        stop=stop,
    )
    recorded = outcome.recorded
    assert outcome.error is not None or (recorded is not None and recorded.status == "stopped")
    commit = open_store(tmp_path / "store").commit("long")
    assert 0 < commit.length < 20_000
    assert not commit.complete


def test_what_is_missing_is_one_line(videos, tmp_path, monkeypatch):
    fleet = Fleet(address="127.0.0.1:9")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(IngestError, match=r"127\.0\.0\.1:9: .*refused; start it"):
        ingest_sources([str(videos)], tmp_path / "store", SETTINGS, fleet=fleet)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(IngestError, match=r"not installed; run pip install -e '.\[fleet\]'"):
        ingest_sources([str(videos)], tmp_path / "store", SETTINGS, fleet=Fleet())
    assert not (tmp_path / "store").exists()


def workers() -> list[int]:
    """Processes that record, of all clusters of this machine."""
    shown = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()[1:]]
    return [int(pid) for pid, words in lines if words.startswith("ray::_record_far")]


def kill_once_each(killed: dict[str, int]):
    """The first progress of each recording kills a worker that records.

    At set times instead, a fast machine would be done before the last of them.
    """

    def told(now: RecordProgress) -> None:
        for pid in workers()[:1]:
            if now.name not in killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed[now.name] = pid

    return told


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("is_remote", [False, True])
def test_recordings_of_killed_workers_go_on(is_remote, media, tmp_path, caplog):
    for name in "abc":
        media.video(tmp_path / f"{name}.mp4", 12_000)
    sources = [str(tmp_path / f"{name}.mp4") for name in "abc"]
    settings = RecordSettings(size=64)
    store = "s3://bucket/store" if is_remote else str(tmp_path / "far")
    killed: dict[str, int] = {}
    kill = kill_once_each(killed)
    outcomes = ingest_sources(sources, store, settings, fleet=Fleet(), progress=kill)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert len(killed) >= 2
    assert "its worker died, and another goes on" in caplog.text
    ingest_sources(sources, tmp_path / "here", settings)
    here, far = open_store(tmp_path / "here"), open_store(store)
    for name in "abc":
        alone, together = (each.reader(name).read(0, 12_000) for each in (here, far))
        assert far.commit(name).complete
        np.testing.assert_array_equal(alone.images, together.images)
        np.testing.assert_array_equal(alone.pts_ns, together.pts_ns)


@pytest.mark.soak
def test_machines_that_share_a_folder_and_its_locks_ingest_into_it(videos, tmp_path):
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()  # of the tests before
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        two.add_node(num_cpus=1)
        fleet = Fleet(address=two.address)
        outcomes = ingest_sources([str(videos)], tmp_path / "far", SETTINGS, fleet=fleet)
        assert len(two.list_all_nodes()) == 2
    finally:
        two.shutdown()
    assert [o.recorded and o.recorded.status for o in outcomes] == ["recorded", "recorded", None]
    assert not list(tmp_path.glob(".setcon-*"))


def test_a_store_is_made_once_by_all_who_come_at_the_same_time(tmp_path):
    def opened(number: int) -> str:
        return Target(Order(store=tmp_path / str(number // 8), settings=SETTINGS)).store().format

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(opened, range(64))) == ["zarr"] * 64


def test_addresses_that_cannot_work_are_refused(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    fleet = Fleet(address="ray://head:10001")
    with pytest.raises(IngestError, match="on a machine of the cluster"):
        ingest_sources([str(videos)], tmp_path / "store", SETTINGS, fleet=fleet)

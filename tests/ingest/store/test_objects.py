"""Stores in object storage: an S3 server over HTTP, its conditional PUTs, and what is kept here."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import obstore
import pytest
import zarr
from click.testing import CliRunner
from killed import Killed
from object_store import ObjectServer
from obstore.exceptions import PreconditionError
from obstore.store import MemoryStore
from zarr.storage import ObjectStore

import cli
from ingest.errors import (
    DamagedChunkError,
    NoAnswerError,
    NotAStoreError,
    RecordingExistsError,
    RecordingLockedError,
    StoreError,
)
from ingest.frame import Frames
from ingest.live.capture import open_live_store
from ingest.open import open_store
from ingest.publish import publish_store
from ingest.store.blocks import Blocks
from ingest.store.cache import ChunkCache
from ingest.store.objects import ObjectBlobs
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import Codec, Counters, RecordSettings, Source
from ingest.verify import verify_store

URL = "s3://bucket/a store"
SHARD = 64 * 8
"""Frames: a shard has 64 chunks, and these have 8 frames."""
LENGTH = 2 * SHARD + 100


def footage(length: int = LENGTH, *, seed: int = 0, masks: bool = True) -> Frames:
    random = np.random.default_rng(seed)
    return Frames(
        images=random.integers(0, 256, (length, 9, 7, 3), np.uint8),
        pts_ns=np.arange(length) * 1000,
        gap=np.arange(length) % 50 == 0,
        masks=random.integers(0, 4, (length, 9, 7), np.uint8) if masks else None,
    )


def begin(
    store: Store,
    name: str = "a b (é)",
    *,
    overwrite: bool = False,
    of: str = "x",
    masks: bool = True,
    codec: Codec = "zstd",
) -> RecordingWriter:
    return store.writer(
        name,
        source=Source(path=f"/{of}.mp4", size_bytes=10, digest=of),
        settings=RecordSettings(size=None),
        height=9,
        width=7,
        has_masks=masks,
        max_chunk_length=8,
        codec=codec,
        overwrite=overwrite,
    )


def write_all(writer: RecordingWriter, frames: Frames) -> None:
    step = writer.block_length
    for start in range(writer.commit.length, len(frames), step):
        stop = min(start + step, len(frames))
        counted = Counters(decoded=stop, stored=stop, gaps=int(frames.gap[:stop].sum()))
        part = frames.part(start, stop)
        writer.append(part, counted) if stop - start == step else writer.finish(part, counted)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectServer]:
    with ObjectServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SETCON_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def filled(server: ObjectServer) -> Store:
    store = open_store(URL, create_format="zarr")
    with begin(store) as writer:
        write_all(writer, footage())
    return open_store(URL)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "local", create_format="zarr", durable=False)
    with begin(store, "whole") as writer:
        write_all(writer, footage())
    with begin(store, "short", of="s", masks=False) as writer:
        write_all(writer, footage(SHARD + 20, masks=False))
    with begin(store, "growing", of="y") as writer:
        step = writer.block_length
        for start in range(0, SHARD + step, step):
            frames = footage(SHARD + step).part(start, start + step)
            writer.append(frames, Counters(decoded=start + step, stored=start + step))
    return store


def test_a_recording_reads_back_over_http_bit_for_bit(filled: Store) -> None:
    expected = footage()
    with filled.reader("a b (é)") as reader:
        read = reader.read(0, LENGTH, masks=True)
    for field in ("images", "masks", "pts_ns", "gap"):
        np.testing.assert_array_equal(getattr(read, field), getattr(expected, field), field)
    assert filled.recordings() == ["a b (é)"]
    assert filled.uncommitted() == []
    (verified,) = verify_store(filled)
    assert verified.ok, verified


def test_plain_zarr_opens_the_same_address(filled: Store) -> None:
    objects = ObjectStore(obstore.store.from_url(URL), read_only=True)
    group = zarr.open_group(objects, mode="r")["recordings/a b (é)"]
    frames = group["frames"]
    assert frames.shape == (LENGTH, 9, 7, 3)
    assert (frames.chunks[0], frames.shards[0]) == (8, SHARD)
    np.testing.assert_array_equal(frames[:], footage().images)
    np.testing.assert_array_equal(group["masks"][SHARD - 3 : SHARD + 3], footage().masks[509:515])


def test_a_copy_in_a_folder_can_be_read_and_not_written(
    filled: Store, server: ObjectServer, tmp_path: Path
) -> None:
    for key, data in server.objects.items():
        path = tmp_path / key.removeprefix("bucket/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    copy = open_store(tmp_path / "a store")
    (verified,) = verify_store(copy)
    assert verified.ok, verified
    with pytest.raises(StoreError, match="a copy of a store from object storage"):
        begin(copy, "new")


def test_an_epoch_needs_few_requests(filled: Store, server: ObjectServer) -> None:
    server.requests.clear()
    with open_store(URL).reader("a b (é)", cache=ChunkCache(0)) as reader:
        for start in np.random.default_rng(0).permutation(np.arange(0, LENGTH - 34, 32)):
            reader.read(int(start), int(start) + 34)
    shards = 3
    # mark, record, three arrays, times and gaps; the index of each shard, and its only block
    assert server.requests["GET"] == 7 + 2 * shards


def test_what_was_read_ahead_is_there_when_it_is_read(
    filled: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(URL).reader("a b (é)") as reader:
        reader.bring(SHARD - 10, SHARD + 10)
        server.requests.clear()
        reader.read(SHARD - 10, SHARD + 10)
    assert server.requests["GET"] == 0


def test_damage_to_what_is_kept_here_is_read_past(filled: Store, tmp_path: Path) -> None:
    with filled.reader("a b (é)", cache=ChunkCache(0)) as reader:
        reader.read(0, LENGTH)
        for number, block in enumerate(sorted((tmp_path / "cache").iterdir())):
            data = bytearray(block.read_bytes())
            data[:: max(1, len(data) // 500)] = b"\0" * len(data[:: max(1, len(data) // 500)])
            block.write_bytes(data[: len(data) // 2] if number % 2 else data)
        np.testing.assert_array_equal(reader.read(0, LENGTH).images, footage().images)


def test_damage_in_the_object_store_is_damage(filled: Store, server: ObjectServer) -> None:
    (key,) = (key for key in server.objects if key.endswith("frames/c.1.0.0.0"))
    server.objects[key] = b"\0" * 100 + server.objects[key][100:]
    with filled.reader("a b (é)") as reader:
        reader.read(0, SHARD)
        with pytest.raises(DamagedChunkError, match="chunk 64 of `frames` is damaged"):
            reader.read(0, SHARD + 1)
    del server.objects[key]
    with (
        open_store(URL).reader("a b (é)") as reader,
        pytest.raises(DamagedChunkError, match=r"damaged \(the chunk is missing\)"),
    ):
        reader.read(0, SHARD + 1)


def test_a_damaged_index_is_damage_to_who_fetches(server: ObjectServer) -> None:
    store = open_store(URL, create_format="zarr")
    with begin(store, masks=False) as writer:
        writer.finish(footage(9, masks=False), Counters(decoded=9, stored=9, gaps=1))
    (key,) = (key for key in server.objects if key.endswith("frames/c.0.0.0.0"))
    server.objects[key] = server.objects[key][:-9] + bytes(9)
    with (
        open_store(URL).reader("a b (é)") as reader,
        pytest.raises(DamagedChunkError, match="the index of a shard"),
    ):
        reader.bring(0, 9)


def test_a_removal_that_is_killed_leaves_nothing_that_passes_for_whole(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(URL, create_format="zarr")
    with begin(store, masks=False) as writer:
        writer.finish(footage(9, masks=False), Counters(decoded=9, stored=9, gaps=1))

    def killed(blobs: ObjectBlobs, name: str) -> None:
        raise Killed

    monkeypatch.setattr(ObjectBlobs, "remove_folder", killed)
    with pytest.raises(Killed):
        store.remove("a b (é)")
    commit = store.commit("a b (é)")
    assert (commit.length, commit.complete) == (0, False)
    monkeypatch.undo()


def test_threads_that_make_room_for_each_other_go_on_keeping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = Blocks(tmp_path / "cache", 3_000, block_bytes=1000)

    def fetch(number: int) -> bytes:
        return blocks.read(f"{number}", 0, 1000, 1000, lambda start, stop: bytes(stop - start))

    with ThreadPoolExecutor(16) as pool:
        assert all(len(data) == 1000 for data in pool.map(fetch, range(2000)))
    assert blocks._works
    assert caplog.messages == []


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/full/x", ""])
def test_where_nothing_can_be_kept_reading_goes_on(
    filled: Store, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    if folder:
        monkeypatch.setenv("SETCON_CACHE", folder)
    else:
        monkeypatch.setenv("SETCON_CACHE_GB", "0")
    with open_store(URL).reader("a b (é)") as reader:
        reader.bring(0, 10)
        np.testing.assert_array_equal(reader.read(0, LENGTH).images, footage().images)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("s3://bucket/store#a", "has no # in it"),
        ("s3://bucket/store?version=2", r"has no \? in it"),
        ("s3://bucket/a%20b", "has no % in it"),
        ("s3://bucket?version=2", r"has no \? in it"),
        ("s3://bucket#a/b", "has no # in it"),
        ("s3://bucket:80/b", "has no : in it"),
        ("s3://bucket/a/../b", r"no //, \. or \.\. in it"),
        ("s3://bucket//b", r"no //, \. or \.\. in it"),
        ("s3://me:secret@bucket/b", "holds no name and no password"),
    ],
)
def test_an_address_that_would_mean_another_place_is_refused(
    server: ObjectServer, address: str, why: str
) -> None:
    with pytest.raises(NotAStoreError, match=f"^s3://.*: .*{why}.*; name a bucket") as refused:
        open_store(address, create_format="zarr")
    assert "secret" not in str(refused.value)
    assert not server.requests


def test_an_empty_shard_is_damage(filled: Store, server: ObjectServer) -> None:
    (key,) = (key for key in server.objects if key.endswith("frames/c.1.0.0.0"))
    server.objects[key] = b""
    with (
        open_store(URL).reader("a b (é)") as reader,
        pytest.raises(DamagedChunkError, match=r"frames` is damaged \(the index of a shard of 0 b"),
    ):
        reader.read(0, SHARD + 1)


def test_a_missing_description_is_told_shortly(filled: Store, server: ObjectServer) -> None:
    server.drop("bucket/a store/recordings/a b (é)/frames/zarr.json")
    with (
        open_store(URL).reader("a b (é)") as reader,
        pytest.raises(DamagedChunkError, match=r"is damaged \(zarr.json is missing\); restore"),
    ):
        reader.read(0, 1)


def test_what_breaks_off_is_asked_for_again(filled: Store, server: ObjectServer) -> None:
    server.broken_off = 2
    assert filled.recordings() == ["a b (é)"]
    assert server.broken_off == 0
    whole = filled.size_bytes("a b (é)")
    server.broken_off = 2
    assert filled.size_bytes("a b (é)") == whole
    assert server.broken_off == 0
    server.broken_off = 100
    with pytest.raises(NoAnswerError, match="refuses or does not answer"):
        filled.size_bytes("a b (é)")


def test_an_object_with_an_odd_name_is_named(filled: Store, server: ObjectServer) -> None:
    server.objects["bucket/a store/commits//odd.json"] = b""
    with pytest.raises(NoAnswerError, match=r"commits//odd\.json.*; delete that object, or give"):
        filled.recordings()


@pytest.mark.parametrize(
    ("command", "number"),
    [("info", signal.SIGINT), ("verify", signal.SIGTERM), ("serve", signal.SIGINT)],
)
def test_a_signal_ends_a_command_that_gets_no_answer(
    monkeypatch: pytest.MonkeyPatch, command: str, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            monkeypatch.setenv(name, value)
        setcon = [sys.executable, "-m", "setcon", command, URL]
        with subprocess.Popen(setcon, stderr=subprocess.PIPE, text=True) as running:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)  # it has asked
                running.send_signal(number)
                said = running.communicate(timeout=60)[1]
    assert (running.returncode, said) == (128 + number, "stopped; run the same command again\n")


def test_without_the_extra_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ingest.store.objects", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(NotAStoreError, match=rf"{URL}: .* needs obstore; run pip install -e"):
        open_store(URL)


def test_a_capture_into_object_storage_is_refused() -> None:
    with pytest.raises(NotAStoreError, match=rf"^{URL}: captures are kept in local folders;"):
        open_live_store(URL)


def test_commands_take_addresses(
    server: ObjectServer, local: Store, clip: Path, tmp_path: Path
) -> None:
    def setcon(*words: str | Path) -> str:
        done = CliRunner().invoke(cli.main, [*map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    url = "s3://bucket/cli"
    assert "whole: published, 1124 frames" in setcon("publish", local.location, url)
    assert "whole: already there" in setcon("publish", local.location, url)
    assert "clip: recorded, 60 frames of 32x32" in setcon("ingest", clip, url, "--size", "32")
    assert f"{url}: zarr, 4 recordings" in setcon("info", url)
    assert setcon("verify", url).count(": ok, ") == 4
    setcon("export", url, "clip", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_a_wrong_size_of_what_is_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETCON_CACHE_GB", "many")
    with pytest.raises(NotAStoreError, match="SETCON_CACHE_GB='many' is not a number of gigabytes"):
        open_store(URL)


def test_what_is_kept_is_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, data = tmp_path / "cache", bytes(1000)
    blocks = Blocks(folder, 10_000, block_bytes=1000)
    assert blocks.read("object", 0, 9, 1000, lambda a, b: data[a:b]) == data[:9]
    (kept,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o700, 0o600)
    kept.write_bytes(b"x" * 1000)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    others = Blocks(folder, 10_000, block_bytes=1000)
    for _ in range(2):
        assert others.read("object", 0, 9, 1000, lambda a, b: data[a:b]) == data[:9]
    assert caplog.text.count("it belongs to another user") == 1


def test_a_home_folder_is_needed_only_where_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for name in ("SETCON_CACHE", "SETCON_CACHE_GB", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotAStoreError, match=rf"^{URL}: no folder .*name one with SETCON_CACHE,"):
        Blocks.of_this_user(URL)
    monkeypatch.setenv("SETCON_CACHE_GB", "0")
    Blocks.of_this_user(URL)
    monkeypatch.delenv("SETCON_CACHE_GB")
    monkeypatch.setenv("SETCON_CACHE", str(tmp_path))
    Blocks.of_this_user(URL)


def test_what_is_kept_stays_within_its_bound(tmp_path: Path) -> None:
    blocks = Blocks(tmp_path, 10_000, block_bytes=1000)
    data = np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes()
    for start in range(0, 49_000, 700):
        read = blocks.read("object", start, start + 900, len(data), lambda a, b: data[a:b])
        assert read == data[start : start + 900]
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10_000


def test_an_object_store_that_refuses_is_told_in_a_line(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.before_put = lambda key: (_ for _ in ()).throw(PermissionError(key))
    with pytest.raises(StoreError, match=rf"^{URL}.* refuses \([^\n]*rights, or set AWS_[^\n]*$"):
        open_store(URL, create_format="zarr")


def test_without_credentials_a_line_says_how_they_are_given(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    # where a machine of a cloud asks for its own rights: here are none
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.environment["AWS_ENDPOINT_URL"])
    with pytest.raises(StoreError, match=r"json: no credentials were found; set AWS_ACCESS_KEY_ID"):
        open_store(URL)


def test_publishing_gives_the_bytes_of_writing_there(
    filled: Store, server: ObjectServer, local: Store
) -> None:
    directly = {key: data for key, data in server.objects.items() if "/recordings/" in key}
    growing, _, whole = publish_store(local, "s3://bucket/p")
    assert (whole.status, whole.frames_this_run) == ("published", LENGTH)
    assert (growing.status, growing.frames_this_run) == ("not complete yet", SHARD)
    for key, data in directly.items():
        copied = key.replace("a store", "p").replace("a b (é)", "whole")
        assert server.objects[copied] == data, key
    target = open_store("s3://bucket/p")
    assert all(verified.ok for verified in verify_store(target))
    with begin(local, "growing", of="y") as writer:
        writer.finish(None, Counters(decoded=writer.commit.length, stored=writer.commit.length))
    again = {published.name: published for published in publish_store(local, "s3://bucket/p")}
    assert again["whole"].status == "already there"
    assert (again["growing"].status, again["growing"].frames_this_run) == ("continued", 64)


def test_a_published_copy_keeps_its_codec(server: ObjectServer, tmp_path: Path) -> None:
    frames = footage(SHARD + 20)
    store = open_store(tmp_path / "store", create_format="zarr", durable=False)
    with begin(store, "a", codec="none") as writer:
        write_all(writer, frames)
    (published,) = publish_store(store, "s3://bucket/copy")
    assert (published.status, published.frames_this_run) == ("published", len(frames))
    copy = open_store("s3://bucket/copy")
    assert copy.commit("a").codec == "none"
    with copy.reader("a") as reader:
        np.testing.assert_array_equal(reader.read(3, 500).images, frames.images[3:500])
    assert [verified.faults for verified in verify_store(copy)] == [()]


def test_another_source_is_published_only_to_overwrite(
    server: ObjectServer, local: Store, tmp_path: Path
) -> None:
    other = open_store(tmp_path / "other", create_format="zarr", durable=False)
    with begin(other, "whole", of="z") as writer:
        write_all(writer, footage(SHARD + 9, seed=1))
    list(publish_store(local, "s3://bucket/p", recordings="whole"))
    (refused,) = publish_store(other, "s3://bucket/p")
    assert "use --overwrite" in str(refused.error)
    reader = open_store("s3://bucket/p").reader("whole", cache=ChunkCache(0))
    reader.read(0, 10)
    (replaced,) = publish_store(other, "s3://bucket/p", overwrite=True)
    assert replaced.status == "published"
    assert [verified.ok for verified in verify_store(open_store("s3://bucket/p"))] == [True]
    with pytest.raises(DamagedChunkError):  # it has been replaced: no reader sees frames of both
        reader.read(SHARD, SHARD + 1)


def test_a_copy_that_is_not_a_part_of_it_is_not_continued(
    server: ObjectServer, tmp_path: Path
) -> None:
    def made(name: str, length: int, seed: int) -> Store:
        store = open_store(tmp_path / name, create_format="zarr", durable=False)
        with begin(store, "a", masks=False) as writer:
            step, frames = writer.block_length, footage(length, seed=seed, masks=False)
            for start in range(0, length, step):
                counted = Counters(decoded=start + step, stored=start + step)
                writer.append(frames.part(start, start + step), counted)
        return store

    url = "s3://bucket/p"
    list(publish_store(made("first", SHARD, 0), url))
    objects = dict(server.objects)
    (other,) = publish_store(made("other", SHARD, 1), url)
    assert "its frames 504..512 are not those" in str(other.error)
    (shorter,) = publish_store(made("shorter", 64, 0), url)
    assert "has 512 frames, more than the 64" in str(shorter.error)
    assert server.objects == objects


def test_no_store_is_made_where_nothing_can_be_copied(server: ObjectServer, tmp_path: Path) -> None:
    store = open_store(tmp_path / "local", create_format="zarr", durable=False)
    with begin(store, masks=False) as writer:
        step = writer.block_length
        writer.append(footage(step, masks=False), Counters(decoded=step, stored=step))
        writer.release(step)
    (refused,) = publish_store(store, "s3://bucket/p")
    assert "only whole recordings are published" in str(refused.error)
    assert not server.objects


def test_killed_at_any_put_it_continues_to_the_same_bytes(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts_left, put = 1 << 30, obstore.put

    def then_killed(*args, **kwargs):
        nonlocal puts_left
        if puts_left <= 0:  # nothing is sent by a process that is dead
            raise Killed
        result = put(*args, **kwargs)
        puts_left -= 1
        if puts_left == 0:
            raise Killed
        return result

    def publish(objects: MemoryStore, most_puts: int) -> int:
        nonlocal puts_left
        monkeypatch.setattr("ingest.store.asking.from_url", lambda url: objects)
        puts_left = most_puts
        list(publish_store(local, URL, recordings="short"))
        return most_puts - puts_left

    def held(objects: MemoryStore) -> dict[str, bytes]:
        paths = [meta["path"] for page in objects.list() for meta in page]
        return {path: bytes(objects.get(path).bytes()) for path in paths}

    monkeypatch.setattr(obstore, "put", then_killed)
    whole = MemoryStore()
    puts = publish(whole, 1 << 30)
    assert puts > 15
    for kill_at in range(1, puts + 1):
        objects = MemoryStore()
        with pytest.raises(Killed):
            publish(objects, kill_at)
        publish(objects, 1 << 30)
        assert held(objects) == held(whole), kill_at


@pytest.mark.parametrize("committed", [0, SHARD])
def test_of_eight_racing_writers_one_wins_and_the_others_name_it(
    server: ObjectServer, committed: int
) -> None:
    store, frames = open_store(URL, create_format="zarr"), footage()
    if committed:
        with begin(store) as writer:
            writer.append(frames.part(0, SHARD), Counters(decoded=SHARD, stored=SHARD))
    ready = threading.Barrier(8)
    claimed = threading.Barrier(8 if committed else 1)  # a new recording is had by the first one

    def race(number: int) -> RecordingLockedError | None:
        mine = open_store(URL)
        ready.wait(60)
        try:
            with begin(mine) as writer:
                claimed.wait(60)
                write_all(writer, frames)
        except RecordingLockedError as error:
            return error
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(race, range(8)))
    assert outcomes.count(None) == 1
    for error in filter(None, outcomes):
        assert f"process {os.getpid()} on " in str(error)
    (verified,) = verify_store(open_store(URL))
    assert verified.ok, verified
    assert verified.complete


def test_a_writer_that_was_away_does_no_harm(server: ObjectServer) -> None:
    store = open_store(URL, create_format="zarr")
    zombie = begin(store, "a")
    zombie.append(footage().part(0, SHARD), Counters(decoded=SHARD, stored=SHARD, gaps=11))
    assert store.is_being_written("a")
    with begin(store, "a", overwrite=True, of="other") as writer:
        write_all(writer, footage(seed=1))
    objects = dict(server.objects)
    assert not store.is_being_written("a")
    with pytest.raises(RecordingLockedError, match=r"process \d+ on .* has written it meanwhile"):
        zombie.append(footage().part(SHARD, 2 * SHARD), Counters())
    zombie.close()
    assert server.objects == objects


def test_who_only_looks_or_is_refused_leaves_a_writer_alone(
    server: ObjectServer, local: Store
) -> None:
    store, frames = open_store(URL, create_format="zarr"), footage()
    with begin(store, "whole", of="other") as writer:
        writer.append(frames.part(0, SHARD), Counters(decoded=SHARD, stored=SHARD, gaps=11))
        objects = dict(server.objects)
        for command in ("info", "verify"):
            assert CliRunner().invoke(cli.main, [command, URL]).exit_code == 0
        (refused,) = publish_store(local, URL, recordings="whole")
        assert isinstance(refused.error, RecordingExistsError)
        with pytest.raises(RecordingExistsError, match="its frames are 7x9"):
            begin(store, "whole", of="other", masks=False)
        assert server.objects == objects
        write_all(writer, frames)


def test_a_put_whose_answer_was_lost_is_not_taken_for_anothers(
    server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, lost = obstore.put, set()

    def sent_again(objects, path: str, data: bytes, **kwargs):
        result = put(objects, path, data, **kwargs)
        if (path, data) not in lost:
            lost.add((path, data))
            raise PreconditionError("412")  # what the second attempt of the same request is told
        return result

    store = open_store(URL, create_format="zarr")
    with begin(store) as writer:
        monkeypatch.setattr(obstore, "put", sent_again)
        writer.append(footage().part(0, SHARD), Counters(decoded=SHARD, stored=SHARD, gaps=11))
        monkeypatch.setattr(obstore, "put", put)
        write_all(writer, footage())
    (verified,) = verify_store(store)
    assert verified.ok, verified


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_of_a_reader_is_refused_and_does_not_hang(filled: Store) -> None:
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        try:
            filled.recordings()
        except StoreError as error:
            os.write(writes, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"start processes by 'spawn' or 'forkserver'" in os.read(reads, 1000)

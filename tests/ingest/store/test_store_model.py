"""Both formats of store against a list in memory, whatever is done to them in whatever order."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from killed import killed_in

from ingest.errors import (
    NoSuchRecordingError,
    RecordingLockedError,
    ReleasedError,
    StoreError,
)
from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.cache import ChunkCache
from ingest.store.layout import StoreLayout
from ingest.store.protocols import RecordingReader, RecordingWriter, Store
from ingest.store.records import Counters, RecordSettings, Source

WAIT_SECONDS = 30
NAMES = st.sampled_from(["a", "b"])
HEIGHT, WIDTH, CHUNK = 3, 5, 2


def footage(start: int, stop: int, seed: int) -> Frames:
    """Frames that are the same whenever they are asked for, and differ from all others."""
    index = np.arange(start, stop, dtype=np.int64)
    pixels = np.arange(HEIGHT * WIDTH * 3, dtype=np.int64).reshape(HEIGHT, WIDTH, 3)
    values = (index[:, None, None, None] * 7919 + pixels * (seed + 1)) % 251
    return Frames(
        images=values.astype(np.uint8),
        pts_ns=index * 1000 + seed,
        gap=(index + seed) % 5 == 0,
        masks=(values[..., 0] % 4).astype(np.uint8),
    )


def begin(store: Store, name: str, seed: int, *, overwrite: bool = False) -> RecordingWriter:
    return store.writer(
        name,
        source=Source(path="/a.mp4", digest=str(seed)),
        settings=RecordSettings(size=None),
        height=HEIGHT,
        width=WIDTH,
        has_masks=True,
        max_chunk_length=CHUNK,
        overwrite=overwrite,
    )


def counted(length: int) -> Counters:
    return Counters(decoded=length, stored=length)


def other_process(pipe: Connection) -> None:
    """Read, or write until killed, in a process of its own, on request."""
    readers: dict[str, RecordingReader] = {}
    with suppress(EOFError):
        while True:
            what, path, name, *rest = pipe.recv()
            store = open_store(path)
            if what == "write":
                append_for_ever(pipe, store, name, *rest)
            if what == "forget":
                readers.pop(name).close()
                pipe.send(None)
            if what == "read":
                if name not in readers:
                    readers[name] = store.reader(name)
                commit = readers[name].refresh()
                pipe.send(readers[name].read(commit.released, commit.length, masks=True))


def append_for_ever(pipe: Connection, store: Store, name: str, seed: int) -> None:
    with begin(store, name, seed) as writer:
        pipe.send(writer.commit.length)
        while True:
            start, stop = writer.commit.length, writer.commit.length + writer.block_length
            writer.append(footage(start, stop, seed), counted(stop))


@dataclass
class Helper:
    """Another process, and the way to it."""

    process: SpawnProcess
    pipe: Connection

    @classmethod
    def start(cls) -> "Helper":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=other_process, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def ask(self, *request: object) -> Any:
        self.pipe.send(request)
        assert self.pipe.poll(WAIT_SECONDS), "the other process does not answer"
        return self.pipe.recv()

    def kill(self) -> None:
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(WAIT_SECONDS)
        self.pipe.close()


@dataclass
class Model:
    """What one recording must be."""

    seed: int
    length: int = 0
    released: int = 0
    complete: bool = False
    seen_by_reader: int | None = None
    """What the reader that stays open has read, None before it is opened."""
    known_elsewhere: bool = False
    writer: RecordingWriter | None = field(default=None, repr=False)

    def frames(self, start: int, stop: int) -> Frames:
        return footage(start, stop, self.seed)


def assert_equal(read: Frames, expected: Frames) -> None:
    for name in ("images", "pts_ns", "gap", "captured_ns", "masks"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name), name)


class StoreMachine(RuleBasedStateMachine):
    """Two recordings of one store, each with a writer, a reader and a reader elsewhere."""

    path: Path
    helper: Helper
    format: Any

    def __init__(self) -> None:
        super().__init__()
        type(self).count = getattr(type(self), "count", 0) + 1
        self.models: dict[str, Model] = {}
        self.readers: dict[str, RecordingReader] = {}
        self.seeds = iter(range(1000))

    @initialize()
    def make(self) -> None:
        path = self.path / str(type(self).count)
        self.store = open_store(path, create_format=self.format)

    def teardown(self) -> None:
        for name in list(self.models):
            self.forget(name)

    def forget(self, name: str) -> None:
        model = self.models.pop(name)
        if model.writer is not None:
            model.writer.close()
        if name in self.readers:
            self.readers.pop(name).close()
        if model.known_elsewhere:
            self.helper.ask("forget", self.store.location, name)

    @rule(name=NAMES)
    def open_writer(self, name: str) -> None:
        """Begin a recording, or go on with it; a second writer is kept off."""
        model = self.models.setdefault(name, Model(next(self.seeds)))
        if model.writer is not None:
            with pytest.raises(RecordingLockedError):
                begin(self.store, name, model.seed)
            return
        model.writer = begin(self.store, name, model.seed)
        assert model.writer.commit.length == model.length

    def open_models(self) -> list[str]:
        return [name for name, model in self.models.items() if model.writer is not None]

    @precondition(lambda self: self.open_models())
    @rule(data=st.data(), blocks=st.integers(1, 2))
    def append(self, data: st.DataObject, blocks: int) -> None:
        model = self.models[data.draw(st.sampled_from(self.open_models()))]
        assert model.writer is not None
        for _ in range(blocks):
            stop = model.length + model.writer.block_length
            frames = model.frames(model.length, stop)
            if model.complete:
                with pytest.raises(StoreError, match="complete"):
                    model.writer.append(frames, counted(stop))
                return
            model.writer.append(frames, counted(stop))
            model.length = stop

    @precondition(lambda self: self.open_models())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        model = self.models[data.draw(st.sampled_from(self.open_models()))]
        assert model.writer is not None
        if model.complete:
            return
        tail = data.draw(st.integers(0, model.writer.block_length))
        stop = model.length + tail
        frames = model.frames(model.length, stop) if tail else None
        model.writer.finish(frames, counted(stop))
        model.length, model.complete = stop, True

    @precondition(lambda self: self.open_models())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Let go of the oldest, as far as they are whole blocks."""
        model = self.models[data.draw(st.sampled_from(self.open_models()))]
        assert model.writer is not None
        before = data.draw(st.integers(0, model.length))
        if model.complete:
            with pytest.raises(StoreError, match="complete"):
                model.writer.release(before)
            return
        model.released = max(model.released, before - before % model.writer.block_length)
        assert model.writer.release(before).released == model.released

    @precondition(lambda self: self.open_models())
    @rule(data=st.data())
    def close_writer(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.open_models()))
        model = self.models[name]
        assert model.writer is not None
        model.writer.close()
        model.writer = None
        assert not self.store.leftovers(name)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), cache=st.sampled_from([0, 100, 1 << 20]))
    def read(self, data: st.DataObject, cache: int) -> None:
        """A range, in a reader that may not have seen the newest frames yet."""
        name = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[name]
        if name not in self.readers:
            self.readers[name] = self.store.reader(name, cache=ChunkCache(cache))
            model.seen_by_reader = model.length
        length = model.seen_by_reader
        assert length is not None
        ends = st.integers(0, length)
        for _ in range(3):
            start, stop = sorted((data.draw(ends), data.draw(ends)))
            if start < model.released and start < stop:
                with suppress(ReleasedError):  # a reader may still have them in its cache
                    read = self.readers[name].read(start, stop, masks=True)
                    assert_equal(read, model.frames(start, stop))
                continue
            read = self.readers[name].read(start, stop, masks=True)
            assert_equal(read, model.frames(start, stop))
        with pytest.raises(IndexError):
            self.readers[name].read(start, length + 1)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def refresh(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.readers)))
        model, commit = self.models[name], self.readers[name].refresh()
        assert (commit.length, commit.complete) == (model.length, model.complete)
        model.seen_by_reader = model.length
        np.testing.assert_array_equal(
            self.readers[name].pts_ns(), model.frames(0, model.length).pts_ns
        )

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def read_elsewhere(self, data: st.DataObject) -> None:
        """All of it in another process, which keeps its reader open alongside the writer."""
        name = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[name]
        model.known_elsewhere = True
        read = self.helper.ask("read", self.store.location, name)
        assert_equal(read, model.frames(model.released, model.length))

    @precondition(lambda self: self.open_models())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """The data of a block is written and the commit is not, and litter stays next to it."""
        name = data.draw(st.sampled_from(self.open_models()))
        model = self.models[name]
        assert model.writer is not None
        if not model.complete:
            stop = model.length + model.writer.block_length
            with killed_in(StoreLayout, "write_commit"):
                model.writer.append(model.frames(model.length, stop), counted(stop))
            (Path(self.store.location) / "recordings" / name / ".x.1.partial").write_bytes(b"half")
        model.writer.close()  # what the kernel does with the lock of the dead
        model.writer = None
        assert bool(self.store.leftovers(name)) == (not model.complete)

    @rule(name=NAMES)
    def overwrite(self, name: str) -> None:
        if name in self.models:
            self.forget(name)
        self.models[name] = Model(next(self.seeds))
        self.models[name].writer = begin(self.store, name, self.models[name].seed, overwrite=True)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.models)))
        if self.models[name].writer is not None:
            with pytest.raises(RecordingLockedError):
                self.store.remove(name)
            return
        self.forget(name)
        self.store.remove(name)
        with pytest.raises(NoSuchRecordingError):
            self.store.reader(name)

    @invariant()
    def a_newcomer_sees_all_that_is_committed(self) -> None:
        if not hasattr(self, "store"):
            return
        store = open_store(self.store.location)
        assert store.recordings() == sorted(self.models)
        for name, model in self.models.items():
            commit = store.commit(name)
            assert (commit.length, commit.complete) == (model.length, model.complete)
            assert commit.released == model.released


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    helper = Helper.start()
    yield helper
    helper.kill()


def few_or_many(few: int, many: int) -> list[Any]:
    """So many examples in each run of the tests, and so many where there is time."""
    return [few, pytest.param(many, marks=pytest.mark.soak)]


@pytest.mark.parametrize("examples", few_or_many(3, 12))
@pytest.mark.parametrize("store_format", ["zarr", "h5"])
def test_a_store_is_what_a_list_of_frames_is(tmp_path, helper, store_format, examples):
    class Machine(StoreMachine):
        path = tmp_path

    Machine.helper, Machine.format = helper, store_format
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=16,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("kills", few_or_many(1, 3))
@pytest.mark.parametrize("store_format", ["zarr", "h5"])
def test_a_writer_killed_while_it_appends_leaves_a_prefix_and_is_followed(
    tmp_path, store_format, kills
):
    store = open_store(tmp_path / "store", create_format=store_format)
    begin(store, "a", 1).close()
    random = np.random.default_rng(0)
    committed = 0
    for _ in range(kills):
        helper = Helper.start()
        try:
            assert helper.ask("write", store.location, "a", 1) == committed
            helper.process.join(random.uniform(0.02, 0.2))
            assert helper.process.is_alive()
        finally:
            helper.kill()
        with store.reader("a") as reader:
            length = reader.commit.length
            assert_equal(reader.read(0, length, masks=True), footage(0, length, 1))
        assert length >= committed
        committed = length
    with begin(store, "a", 1) as writer:
        writer.finish(footage(committed, committed + 3, 1), counted(committed + 3))
    with store.reader("a") as reader:
        assert_equal(reader.read(0, committed + 3, masks=True), footage(0, committed + 3, 1))
    assert not store.leftovers("a")

"""What trainers and probes make of frames that were deleted, as `capture --keep` does."""

import json
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from replay_feedback import made_of

from ingest.errors import ExportError, ReleasedError
from ingest.export import export_recording
from ingest.frame import Frames
from ingest.store.protocols import Store
from ingest.store.records import RecordSettings, Source
from online.clips.catalog import StoreCatalog
from online.clips.clip import Clip, ClipConfig, ClipSpec
from online.clips.config import StreamConfig
from online.clips.cursor import Cursor
from online.clips.plan import extents_now, make_plan
from online.clips.request import ClipRequest
from online.config import load_preset
from online.probing.footage import gather
from online.queue.client import Client
from online.queue.feed import Fate, Feed
from online.replay.mixing import Replay, ReplayConfig
from online.session.start import train_on_store
from online.session.status import Status

BOUND = 20.0
CONFIG = StreamConfig(clip_length=4, frame_stride=2, max_delay_seconds=0.0)
WANT = ClipRequest(clip=CONFIG.clip)


@pytest.fixture
def release(store: Store) -> Callable[[int], int]:
    """Delete the beginning of recording `a`, which `record` has made; returns how much went."""

    def delete(before: int) -> int:
        a = store.commit("a")
        with store.writer(
            "a",
            source=Source(path="a", digest="a"),
            settings=RecordSettings(size=a.width),
            height=a.height,
            width=a.width,
            live=True,
            max_chunk_length=16,
        ) as writer:
            return writer.release(before).released

    return delete


@contextmanager
def feeding(address: str, **options):
    with Client(address) as client:
        yield Feed([client], CONFIG.request(seed=3), **options)


def test_what_was_let_go_of_is_neither_planned_nor_listed_nor_given(
    store, record, release, served
) -> None:
    record("a", 640, live=True, fps=1.0, complete=False)
    before = make_plan(
        catalog := StoreCatalog(store),
        WANT,
        order="stream",
        cursor=Cursor(extents=extents_now(catalog, "*", follow=True)),
    )
    released = release(200)
    assert released == 192
    (summary,) = catalog.recordings()
    assert min(i.start for i in (*summary.train, *summary.held_out)) == released
    extents = extents_now(catalog, "*", follow=True)
    parts = [
        make_plan(
            catalog,
            msgspec.structs.replace(WANT, shard=shard, shards=2),
            order="stream",
            cursor=Cursor(extents=extents),
        ).clips
        for shard in (0, 1)
    ]
    assert sorted([*parts[0], *parts[1]]) == [c for c in before.clips if c.start >= released]
    with served() as address, Client(address) as client:
        with pytest.raises(ReleasedError, match=f"those before {released} were deleted"):
            client.fetch("a", 10, 5)
        assert len(client.fetch("a", released, 5)) == 5


def test_a_clip_let_go_of_since_it_was_planned_is_skipped_and_told(
    store, record, release, served
) -> None:
    record("a", 320, live=True, fps=1.0, complete=False)
    fates: list[Fate] = []
    with served(follow=True) as address:
        with feeding(address, observe=fates.append) as feed:
            for _ in range(3):
                feed.inserted(feed.next(BOUND))
            state = json.loads(json.dumps(feed.state()))
        released = release(100)
        with feeding(address, observe=fates.append) as feed:
            feed.restore(state)
            feed.agree()  # the plan is the one that it was, whatever has gone since
            clip = feed.next(BOUND)
            assert clip is not None
            assert clip.spec.start >= released
            feed.inserted(clip)
            counters = feed.counters
    assert [fate.index for fate in fates] == list(range(counters.offered))
    kinds = ["inserted"] * 3 + ["skipped"] * counters.skipped + ["inserted"]
    assert [fate.kind for fate in fates] == kinds
    skipped = [fate for fate in fates if fate.kind == "skipped"]
    assert skipped
    assert all(fate.spec.start < released for fate in skipped)


def test_a_followed_stream_goes_on_when_only_the_beginning_changes(
    store, record, release, served
) -> None:
    record("a", 160, live=True, fps=1.0, complete=False)
    with served(follow=True) as address, feeding(address) as feed:
        last = 0
        while (clip := feed.next(1.0)) is not None:
            feed.inserted(clip)
            last = clip.spec.start
        release(80)
        record("a", 320, live=True, fps=1.0, complete=False)
        clip = feed.next(BOUND)
        assert clip is not None
        assert clip.spec.start == last + CONFIG.clip_length
        assert not feed.counters.skipped


def test_footage_let_go_of_before_its_round_was_planned_is_counted(
    store, record, release, served
) -> None:
    record("a", 160, live=True, fps=1.0, complete=False)
    with served(follow=True) as address:
        with feeding(address) as feed:
            while (clip := feed.next(1.0)) is not None:
                feed.inserted(clip)
            state = json.loads(json.dumps(feed.state()))
        before = feed.counters.inserted
        record("a", 720, live=True, fps=1.0, complete=False)
        released = release(400)
        catalog = StoreCatalog(store)
        every = catalog.clips("a", CONFIG.clip, length=720, closed=False)
        gone = [clip for clip in every[before:] if clip.start < released]
        assert gone
        for _ in range(2):  # and once, even if something is lost after it
            with feeding(address) as feed:
                feed.restore(state)
                clip = feed.next(BOUND)
                assert clip is not None
                assert clip.spec.start >= released
                feed.inserted(clip)
                counters = feed.counters
            assert counters.skipped == counters.released == len(gone)
            assert counters.offered == before + len(gone) + 1


def test_footage_let_go_of_between_being_listed_and_fetched_is_left_out(
    store, record, release
) -> None:
    record("a", 320, live=True, fps=1.0, complete=False)
    catalog = StoreCatalog(store)

    class Late:
        def recordings(self):
            found = catalog.recordings()
            release(64)
            return found

        def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
            return catalog.fetch(recording, start, length, masks=masks)

    footage = gather(Late(), "train", clips=20, config=ClipConfig(clip_length=3))
    assert 0 < len(footage) < 20
    assert min(spec.start for spec in footage.specs) >= 64


@pytest.mark.parametrize("long_term", ["reservoir", "minred"])
@pytest.mark.parametrize("kept_from", [0, 6, 40])
def test_a_replay_without_what_is_gone_fills_up_again_before_it_is_drawn_from(
    long_term, kept_from
) -> None:
    def clip(start: int) -> Clip:
        images = np.full((2, 1, 1, 3), start, np.uint8)
        return Clip(ClipSpec("a", start, 2), Frames(images, np.arange(2), np.zeros(2, np.bool_)))

    size = clip(0).nbytes
    config = ReplayConfig(
        samples_per_insert=4.0,
        fifo_bytes=3 * size,
        long_term=long_term,
        long_term_bytes=8 * size,
    )
    replay = Replay(config, seed=0, batch_clips=4)
    new = iter(map(clip, range(200)))
    for _ in range(8):
        while replay.inserts_due():
            replay.insert(next(new))
        batch = replay.sample()
        replay.update(batch, made_of(np.eye(4, 5, dtype=np.float32)[: len(batch)]))
    state, arrays = json.loads(json.dumps(replay.state())), replay.arrays()
    held = {c.spec for c in replay.clips()}

    def fetch(spec: ClipSpec) -> Clip | None:
        return clip(spec.start) if spec.start >= kept_from else None

    again = Replay(config, seed=0, batch_clips=4)
    gone = again.restore(state, arrays, fetch)
    assert {c.spec for c in again.clips()} == {s for s in held if s.start >= kept_from}
    assert gone == len(held) - len(again)
    twice = Replay(config, seed=0, batch_clips=4)  # saved before it was full again
    twice.restore(again.state(), again.arrays(), lambda spec: clip(spec.start))
    for resumed, source in ((again, new), (twice, iter(map(clip, range(100, 200))))):
        for _ in range(6):
            while resumed.inserts_due():
                resumed.insert(next(source))
            batch = resumed.sample()
            assert len(batch) == 4
            resumed.update(batch, made_of(np.eye(4, 5, dtype=np.float32)))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("long_term", ["reservoir", pytest.param("minred", marks=pytest.mark.soak)])
def test_a_run_goes_on_without_what_the_capture_has_let_go_of(
    store: Store,
    record: Callable[..., int],
    release: Callable[[int], int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    long_term: str,
) -> None:
    record("a", 960, live=True, fps=1.0, size=16, complete=False)
    config = load_preset(
        "demo",
        [
            "training.batch_clips=4",
            "training.log_every_steps=1",
            "training.precision=float32",
            "training.prequential_candidates=8",
            "replay.samples_per_insert=1",
            f"replay.long_term={long_term}",
            "stream.clip_length=8",
            "stream.credit_bytes=100000",
            "stream.max_epochs=1",
            "evaluation.train_clips=8",
            "evaluation.held_out_clips=4",
            "evaluation.panel_frames=1",
            "probe.steps=3",
        ],
    )

    def stop(status: Status) -> None:
        if status.step == 6:
            signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    assert train_on_store(store.location, run, config, observe=stop).reason == "stopped"
    released = release(480)
    outcome = train_on_store(store.location, run, config)
    assert outcome.reason == "stream ended"
    assert outcome.evaluation is not None
    assert outcome.clips.skipped
    assert "clips of the replay buffers were deleted by the capture" in caplog.text
    assert "were deleted by the capture before their turn" in caplog.text
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "step"]
    assert np.isfinite(losses).all()
    assert released > 0


def test_a_recording_all_let_go_of_is_not_given_out_as_one_that_has_not_begun(
    store, record, release, tmp_path
):
    length = record("a", 400, complete=False)
    assert release(length) == length > 0
    with pytest.raises(ExportError, match="recording 'a': all its frames were deleted"):
        export_recording(store, "a", tmp_path / "a.mp4")
    assert list(tmp_path.glob("*.mp4")) == []

"""Videos in object storage, from a server of this machine."""

import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from object_store import ObjectServer

from ingest.errors import VideoError
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from ingest.video.open import open_source
from ingest.video.sources import expand

SETTINGS = RecordSettings(size=16)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ObjectServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def test_an_object_is_ingested_as_the_file_that_it_is(bucket, clip, tmp_path):
    bucket.objects["tapes/day 1/clip.mp4"] = clip.read_bytes()
    url = "s3://tapes/day 1/clip.mp4"
    ingest_sources([str(clip)], tmp_path / "here", SETTINGS)
    there, again = (ingest_sources([url], tmp_path / "there", SETTINGS)[0] for _ in range(2))
    assert there.recorded is not None, there.error
    assert (there.name, there.recorded.status) == ("clip", "recorded")
    assert again.recorded is not None
    assert again.recorded.status == "already complete"
    one, other = (open_store(tmp_path / name).reader("clip") for name in ("here", "there"))
    with one, other:
        assert other.commit.source.path == url
        assert other.commit.source.digest == one.commit.source.digest
        np.testing.assert_array_equal(
            one.read(0, one.commit.length).images, other.read(0, other.commit.length).images
        )
    assert "Signature" not in (tmp_path / "there/recordings/clip/commit.json").read_text()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("s3://tapes/day 1", ["a2.mp4", "a10.mp4", "b.MKV"]),
        ("s3://tapes/day 1/", ["a2.mp4", "a10.mp4", "b.MKV"]),
        ("s3://tapes/day 1/a*.mp4", ["a2.mp4", "a10.mp4"]),
        ("s3://tapes", ["top.mp4"]),
        ("s3://tapes/*", ["top.mp4"]),
        ("s3://tapes/day 1/b.MKV", ["b.MKV"]),
        ("s3://tapes/day 1/e#[1]?.mp4", ["e#[1]?.mp4"]),
    ],
)
def test_a_folder_means_the_videos_in_it(bucket, source, found):
    for name in ("top.mp4", "day 1/a10.mp4", "day 1/a2.mp4", "day 1/b.MKV", "day 1/c.txt"):
        bucket.objects[f"tapes/{name}"] = b""
    if "#" in source:
        bucket.objects[source.removeprefix("s3://")] = b""
    bucket.objects["tapes/day 1/below/d.mp4"] = b""
    specs = expand(source)
    assert [spec.path.name for spec in specs] == found
    assert all(str(spec).startswith("s3://tapes/") for spec in specs)


@pytest.mark.parametrize("source", ["s3://tapes/none", "s3://tapes/*.mp4"])
def test_a_folder_without_videos_is_told(bucket, source):
    with pytest.raises(VideoError, match=re.escape(f"{source}: no videos there; name a video")):
        expand(source)


def test_names_that_an_address_could_not_hold_tell_recordings_apart(bucket, clip, tmp_path):
    sources = [f"s3://tapes/a{mark}.mp4" for mark in ("#1", "#2", "?b=%20", " c")]
    for source in sources:
        bucket.objects[source.removeprefix("s3://")] = clip.read_bytes() + source.encode()
    outcomes = ingest_sources(sources, tmp_path / "store", SETTINGS)
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == []
    store = open_store(tmp_path / "store")
    assert sorted(store.commit(name).source.path for name in store.recordings()) == sorted(sources)


def test_no_frame_is_lost_behind_an_index_at_the_end_of_a_file(bucket, tmp_path):
    video = tmp_path / "balls.mp4"
    render_scene(
        BallsConfig(num_frames=90, size=96, num_balls=5), video, progress=lambda done: None
    )
    data = bucket.objects["tapes/balls.mp4"] = video.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    (outcome,) = ingest_sources(["s3://tapes/balls.mp4"], tmp_path / "store", SETTINGS)
    assert outcome.warning is None
    assert open_store(tmp_path / "store").commit("balls").length == 90


def test_what_a_reader_is_called_has_no_signature(bucket, clip):
    bucket.objects["tapes/clip.mp4"] = clip.read_bytes()
    (spec,) = expand("s3://tapes/clip.mp4")
    with open_source(spec, SETTINGS) as reader:
        assert reader.info.name == f"{bucket.address}/tapes/clip.mp4"


@pytest.mark.parametrize("key", ["a//b.mp4", "/a.mp4", "../a.mp4", "a/./b.mp4"])
def test_names_that_cannot_be_read_are_refused(bucket, key):
    with pytest.raises(VideoError, match=r"obstore reads no names with //, \. or \.\. in them"):
        expand(f"s3://tapes/{key}")


def test_a_folder_is_named_in_full(bucket):
    with pytest.raises(VideoError, match="only its videos may be matched"):
        expand("s3://tapes/day*/a.mp4")


def test_decord_is_refused(bucket, tmp_path):
    bucket.objects["tapes/a.mp4"] = b"x"
    settings = RecordSettings(size=16, reader="decord")
    (outcome,) = ingest_sources(["s3://tapes/a.mp4"], tmp_path / "store", settings)
    assert "decord reads no object storage; use --reader pyav" in str(outcome.error)


def test_no_bucket_is_told():
    with pytest.raises(VideoError, match=r"s3:///a\.mp4: names no bucket"):
        expand("s3:///a.mp4")


def test_what_is_not_there_or_no_video_is_told_in_a_line(bucket, tmp_path):
    bucket.objects["tapes/text.mp4"] = b"no video"
    bucket.objects["tapes/empty.mp4"] = b""
    sources = ["s3://tapes/none.mp4", "s3://tapes/text.mp4", "s3://tapes/empty.mp4"]
    outcomes = ingest_sources(sources, tmp_path / "store", SETTINGS)
    none, empty, text = sorted((str(outcome.error) for outcome in outcomes), reverse=True)
    assert empty == "s3://tapes/empty.mp4: is empty; name another file"
    assert re.fullmatch(r"s3://tapes/none\.mp4: cannot be read \(.*404.*\); .*", none)
    assert text.startswith(f"{bucket.address}/tapes/text.mp4: cannot be read (Invalid data")


def test_of_a_public_bucket_the_https_address_is_to_be_named(bucket, tmp_path, monkeypatch):
    bucket.objects["tapes/a.mp4"] = b""
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    (outcome,) = ingest_sources(["s3://tapes/a.mp4"], tmp_path / "store", SETTINGS)
    assert "s3://tapes/a.mp4: is public; name the https:// address" in str(outcome.error)


def test_without_the_extra_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ingest.store.asking", None)
    with pytest.raises(VideoError, match=r"needs obstore; run pip install -e '.\[scale\]'"):
        expand("s3://tapes/day 1")

"""What the command line calls: many sources, one store."""

import os
import re
import shutil
import threading

import av
import h5py
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

import ingest.job
from ingest.errors import NotAStoreError, RecordingExistsError, VideoError
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.store.records import RecordSettings

SETTINGS = RecordSettings(size=32)


@pytest.fixture(scope="module")
def videos(media, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, count in (("a", 30), ("b", 40), ("c", 20)):
        media.video(folder / f"{name}.mp4", count)
    return folder


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failed_source_is_reported_and_the_rest_is_stored(videos, media, tmp_path, workers):
    (tmp_path / "text.mp4").write_text("dear diary")
    broken = media.video(tmp_path / "broken.mp4", 420, fps=60)
    media.overwrite_packets(broken, range(20, 420))
    sources = [str(broken), str(videos), str(tmp_path / "text.mp4"), str(tmp_path / "missing.mp4")]
    outcomes = ingest_sources(sources, tmp_path / "store", SETTINGS, workers=workers)
    good = {o.name: o.recorded for o in outcomes if o.recorded}
    bad = {o.source: o.error for o in outcomes if o.error}
    lengths = {name: recorded.commit.length for name, recorded in good.items()}
    assert lengths == {"a": 30, "b": 40, "c": 20}
    assert list(bad) == [str(broken), str(tmp_path / "text.mp4"), str(tmp_path / "missing.mp4")]
    assert all(isinstance(error, VideoError) for error in bad.values())
    assert "400 packets in a row" in str(bad[str(broken)])
    store = open_store(tmp_path / "store")
    assert store.recordings() == ["a", "b", "c"]  # nothing of the other was committed
    assert all(store.commit(name).complete for name in "abc")


def test_several_workers_store_what_one_does(videos, media, tmp_path):
    for workers in (1, 3):
        ingest_sources([str(videos)], tmp_path / str(workers), SETTINGS, workers=workers)
    assert media.files(tmp_path / "1") == media.files(tmp_path / "3")


@pytest.mark.parametrize("store_format", ["zarr", "h5"])
def test_a_second_run_records_only_what_is_new(videos, media, tmp_path, store_format):
    sources = [str(videos / "a.mp4")]
    ingest_sources(sources, tmp_path / "store", SETTINGS, store_format=store_format)
    outcomes = ingest_sources([str(videos / "?.mp4")], tmp_path / "store", SETTINGS)
    assert open_store(tmp_path / "store").format == store_format
    assert [(o.name, o.recorded and o.recorded.status) for o in outcomes] == [
        ("a", "already complete"),
        ("b", "recorded"),
        ("c", "recorded"),
    ]


def test_a_source_named_twice_is_recorded_once(videos, tmp_path):
    sources = [str(videos / "a.mp4"), str(videos / ".." / videos.name / "a.mp4")]
    assert len(ingest_sources(sources, tmp_path / "store", SETTINGS)) == 1


def test_other_settings_are_refused_and_overwrite_replaces_the_named_only(videos, tmp_path):
    store_path = tmp_path / "store"
    ingest_sources([str(videos)], store_path, SETTINGS)
    other = RecordSettings(size=16)
    (refused,) = ingest_sources([str(videos / "a.mp4")], store_path, other)
    assert isinstance(refused.error, RecordingExistsError)
    assert "size=32 (asked: 16)" in str(refused.error)
    (replaced,) = ingest_sources([str(videos / "a.mp4")], store_path, other, overwrite=True)
    assert replaced.recorded is not None
    assert replaced.recorded.commit.height == 16
    store = open_store(store_path)
    assert [store.commit(name).height for name in "abc"] == [16, 32, 32]


@pytest.mark.parametrize("store_format", ["zarr", "h5"])
def test_frames_may_have_any_shape_or_their_own(videos, tmp_path, store_format):
    for size, shape in (((36, 20), (20, 36)), (None, (48, 64))):
        settings, store_path = RecordSettings(size=size), tmp_path / f"{size}"
        (first,), (again,) = (
            ingest_sources([str(videos / "a.mp4")], store_path, settings, store_format=store_format)
            for _ in range(2)
        )
        assert first.recorded is not None
        assert again.recorded is not None
        assert again.recorded.status == "already complete"
        store = open_store(store_path)
        assert store.commit("a").settings.size == size
        with store.reader("a") as reader:
            assert reader.read(0, 30).images.shape == (30, *shape, 3)


def test_a_source_that_changed_is_refused(media, tmp_path):
    video = media.video(tmp_path / "a.mp4", 20)
    ingest_sources([str(video)], tmp_path / "store", SETTINGS)
    media.video(video, 25)
    (outcome,) = ingest_sources([str(video)], tmp_path / "store", SETTINGS)
    assert isinstance(outcome.error, RecordingExistsError)
    assert "use --overwrite" in str(outcome.error)
    assert open_store(tmp_path / "store").commit("a").length == 20


def test_overwrite_with_a_bad_source_loses_nothing(media, tmp_path):
    video = media.video(tmp_path / "a.mp4", 20)
    ingest_sources([str(video)], tmp_path / "store", SETTINGS)
    video.write_text("not any more")
    (outcome,) = ingest_sources([str(video)], tmp_path / "store", SETTINGS, overwrite=True)
    assert isinstance(outcome.error, VideoError)
    assert open_store(tmp_path / "store").commit("a").length == 20


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_path_that_is_not_a_store_is_refused(videos, tmp_path, overwrite):
    (tmp_path / "precious.txt").write_text("keep")
    for path in (tmp_path, tmp_path / "precious.txt"):
        with pytest.raises(NotAStoreError):
            ingest_sources([str(videos)], path, SETTINGS, overwrite=overwrite)
    assert (tmp_path / "precious.txt").read_text() == "keep"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_any_source_no_store_is_made(tmp_path):
    (outcome,) = ingest_sources([str(tmp_path / "none*.mp4")], tmp_path / "store", SETTINGS)
    assert isinstance(outcome.error, VideoError)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("store_format", ["zarr", "h5"])
def test_where_no_source_opens_no_store_is_made(tmp_path, store_format):
    (tmp_path / "a.mp4").write_bytes(bytes(2000))
    (tmp_path / "b.mp4").write_text("no video")
    sources = [str(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    for place in (tmp_path / "store", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        outcomes = ingest_sources(sources, place, SETTINGS, store_format=store_format)
        assert [type(outcome.error) for outcome in outcomes] == [VideoError, VideoError]
    assert not (tmp_path / "store").exists()
    assert not list((tmp_path / "empty").iterdir())


def test_both_parts_of_an_old_archive_become_recordings(media, tmp_path):
    images = np.stack(list(media.square(12)))
    with h5py.File(tmp_path / "old.h5", "w") as file:
        for part, of in (("train", images[:9]), ("test", images[9:])):
            for index, image in enumerate(of):
                file.create_dataset(f"{part}/{index}", data=image, compression="gzip")
    settings = RecordSettings(size=None)
    ingest_sources([str(tmp_path / "old.h5")], tmp_path / "store", settings)
    store = open_store(tmp_path / "store")
    assert store.recordings() == ["old-test", "old-train"]
    with store.reader("old-train") as reader:
        np.testing.assert_array_equal(reader.read(0, 9).images, images[:9])
    assert store.commit("old-train").settings.reader == "archive"


def test_a_source_that_fails_before_its_first_block_leaves_no_recording(media, tmp_path):
    video = media.video(tmp_path / "a.mp4", 30)
    media.overwrite_packets(video, range(1, 30))
    (tmp_path / "b").mkdir()
    for index in range(2):
        Image.new("RGB", (8 + index, 8)).save(tmp_path / "b" / f"{index}.png")
    sources, native = [str(video), str(tmp_path / "b")], RecordSettings(size=None)
    ingest_sources(sources[:1], tmp_path / "store", SETTINGS)
    (failed,) = ingest_sources(sources[1:], tmp_path / "store", native)
    assert "picture 1 would be 9x8" in str(failed.error)
    store = open_store(tmp_path / "store")
    assert "b" not in [*store.recordings(), *store.uncommitted()]
    assert not (tmp_path / "store" / "recordings" / "b").exists()


def test_another_track_of_a_file_is_another_recording(tmp_path, caplog):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        streams[0].disposition, streams[1].disposition = Disposition(0), Disposition.default
        for stream, width in zip(streams, (96, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for stream, width, count in zip(streams, (96, 64), (1, 20), strict=True):
            for _ in range(count):
                picture = np.zeros((48, width, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    native, store = RecordSettings(size=None), tmp_path / "store"
    for track, name, length, width in ((None, "two", 20, 64), (1, "two-track1", 1, 96)):
        (outcome,) = ingest_sources([str(path)], store, native, track=track)
        assert outcome.recorded is not None, outcome.error
        commit = outcome.recorded.commit
        assert (outcome.name, commit.length, commit.width) == (name, length, width)
    assert "2 video tracks (1: 96x48, 2: 64x48); track 2 is taken" in caplog.text
    (outcome,) = ingest_sources([str(path)], store, native, track=3)
    assert "no video track 3" in str(outcome.error)


def test_what_is_encrypted_or_a_pipe_says_what_it_is(tmp_path):
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    with av.open(str(tmp_path / "a.mp4"), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            picture = np.zeros((48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    encrypted, standard_input = ingest_sources(
        [str(tmp_path / "a.mp4"), "-"], tmp_path / "store", SETTINGS
    )
    assert "a.mp4: it is encrypted; decrypt it first" in str(encrypted.error)
    assert "-: standard input cannot be read again" in str(standard_input.error)


def test_stopping_ends_all_sources(videos, tmp_path):
    stop = threading.Event()
    stop.set()
    outcomes = ingest_sources([str(videos)], tmp_path / "store", SETTINGS, stop=stop)
    assert all("stopped before it began" in str(outcome.error) for outcome in outcomes)
    assert not (tmp_path / "store").exists()


def test_progress_is_told_for_every_recording(videos, tmp_path):
    seen = []
    ingest_sources([str(videos)], tmp_path / "store", SETTINGS, progress=seen.append, workers=2)
    assert {(progress.name, progress.frames) for progress in seen} == {
        ("a", 30),
        ("b", 40),
        ("c", 20),
    }


def test_three_files_of_one_name_are_three_recordings(videos, media, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    media.video(tmp_path / "x" / "a.mp4", 20)
    media.video(tmp_path / "y" / "a.mp4", 25)
    sources = [str(tmp_path / "x"), str(tmp_path / "y"), str(videos / "a.mp4")]
    outcomes = ingest_sources(sources, tmp_path / "store", SETTINGS, workers=3)
    assert all(outcome.recorded for outcome in outcomes)
    assert len({outcome.name for outcome in outcomes}) == 3


def test_copies_of_one_file_are_one_recording(videos, tmp_path):
    copy = tmp_path / "copy" / "a.mp4"
    copy.parent.mkdir()
    copy.write_bytes((videos / "a.mp4").read_bytes())
    sources = [str(videos / "a.mp4"), str(copy)]
    outcomes = ingest_sources(sources, tmp_path / "store", SETTINGS, workers=2)
    assert [outcome.source for outcome in outcomes] == sources
    assert {outcome.name for outcome in outcomes} == {"a"}
    assert open_store(tmp_path / "store").recordings() == ["a"]


@pytest.mark.parametrize("store_format", ["zarr", "h5"])
def test_a_damaged_recording_is_replaced_when_asked_and_holds_no_one_up(
    videos, tmp_path, store_format
):
    path = tmp_path / "store"
    ingest_sources([str(videos / "a.mp4")], path, SETTINGS, store_format=store_format)
    (path / "recordings" / "a" / "commit.json").write_text("garbage")
    refused, *others = ingest_sources([str(videos)], path, SETTINGS)
    said = str(refused.error)
    assert re.search(r"damaged commit record.*; restore it, or delete \S+/recordings/a and", said)
    assert [(o.name, o.error) for o in others] == [("b", None), ("c", None)]
    (repaired,) = ingest_sources([str(videos / "a.mp4")], path, SETTINGS, overwrite=True)
    assert (repaired.name, repaired.error) == ("a", None)
    assert [open_store(path).commit(name).length for name in "abc"] == [30, 40, 20]


def test_the_remedy_for_a_damaged_recording_holds_where_two_sources_share_its_name(media, tmp_path):
    for folder, frames in (("x", 20), ("y", 25)):
        (tmp_path / folder).mkdir()
        media.video(tmp_path / folder / "a.mp4", frames)
    sources, store = [str(tmp_path / folder / "a.mp4") for folder in "xy"], tmp_path / "store"
    ingest_sources(sources[:1], store, SETTINGS)
    damaged = store / "recordings" / "a"
    (damaged / "commit.json").write_text("garbage")
    for tried in (sources[:1], sources[1:]):  # the name alone does not tell whose it is
        (refused,) = ingest_sources(tried, store, SETTINGS)
        assert f"delete {damaged} and ingest its source again" in str(refused.error)
    shutil.rmtree(damaged)
    ingest_sources(sources[:1], store, SETTINGS)
    first, second = ingest_sources(sources, store, SETTINGS)
    assert first.recorded is not None
    assert (first.name, first.recorded.status) == ("a", "already complete")
    assert second.error is None
    assert second.name is not None
    assert second.name.startswith("a-")


@pytest.mark.parametrize("name", [b"\xff.mp4", b"x" * 250 + b".mp4", "語".encode() * 83 + b".mp4"])
def test_names_that_are_not_utf_8_or_very_long_are_stored(videos, tmp_path, name):
    odd = tmp_path / os.fsdecode(name)
    odd.write_bytes((videos / "a.mp4").read_bytes())
    for status in ("recorded", "already complete"):
        (outcome,) = ingest_sources([str(odd)], tmp_path / "store", SETTINGS)
        assert outcome.error is None
        assert outcome.recorded is not None
        assert outcome.recorded.status == status
    path = outcome.recorded.commit.source.path
    assert path.encode() == os.fsencode(odd).replace(b"\xff", rb"\xff")
    (replaced,) = ingest_sources([str(odd)], tmp_path / "store", SETTINGS, overwrite=True)
    assert replaced.error is None


def test_a_folder_of_images_may_have_any_names(tmp_path, media):
    folder = tmp_path / os.fsdecode(b"\xfe")
    folder.mkdir()
    for index, image in enumerate(media.square(3)):
        Image.fromarray(image).save(folder / os.fsdecode(b"\xff%d.png" % index))
    (outcome,) = ingest_sources([str(folder)], tmp_path / "store", SETTINGS)
    assert outcome.recorded is not None
    assert outcome.recorded.commit.length == 3


def test_what_the_system_refuses_costs_one_source_only(videos, tmp_path, monkeypatch):
    def open_source(spec, settings, **kwargs):
        if spec.path.stem in broken:
            raise broken[spec.path.stem]
        return original(spec, settings, **kwargs)

    original = ingest.job.open_source
    broken = {"a": PermissionError(13, "Permission denied"), "b": UnicodeError("surrogates")}
    monkeypatch.setattr(ingest.job, "open_source", open_source)
    sources = [str(videos), "x" * 300 + ".mp4"]
    a, b, c, long = ingest_sources(sources, tmp_path / "store", SETTINGS)
    assert "a.mp4: cannot be ingested (Permission denied)" in str(a.error)
    assert "b.mp4: cannot be ingested (surrogates)" in str(b.error)
    assert c.error is None
    assert "cannot be ingested (File name too long)" in str(long.error)


def test_a_file_that_moved_and_a_new_one_in_its_place_are_two_recordings(media, tmp_path):
    media.video(tmp_path / "clip.mp4", 20)
    ingest_sources([str(tmp_path / "clip.mp4")], tmp_path / "store", SETTINGS)
    (tmp_path / "old").mkdir()
    (tmp_path / "clip.mp4").rename(tmp_path / "old" / "clip.mp4")
    media.video(tmp_path / "clip.mp4", 30)
    both = [str(tmp_path / "clip.mp4"), str(tmp_path / "old" / "clip.mp4")]
    new, old = ingest_sources(both, tmp_path / "store", SETTINGS)
    assert new.recorded is not None
    assert old.recorded is not None
    assert (new.recorded.status, new.recorded.commit.length) == ("recorded", 30)
    assert (old.recorded.status, old.recorded.commit.length) == ("already complete", 20)


def test_a_picture_too_large_to_be_one_costs_its_source_only(videos, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    sources = [str(tmp_path / "images"), str(videos / "a.mp4")]
    outcomes = ingest_sources(sources, tmp_path / "store", SETTINGS)
    assert [outcome.error is None for outcome in outcomes] == [False, True]


def ingest_one(video, store_path):
    (outcome,) = ingest_sources([str(video)], store_path, SETTINGS)
    assert outcome.error is None
    assert outcome.recorded is not None
    return outcome


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_file_that_is_cut_says_so_and_keeps_its_frames(container, media, tmp_path):
    whole = media.video(tmp_path / f"whole.{container}", 200)
    if container == "mp4":  # its index comes first, as for the web
        with (
            av.open(str(whole)) as source,
            av.open(str(tmp_path / "web.mp4"), "w", options={"movflags": "faststart"}) as web,
        ):
            stream = web.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    web.mux(packet)
        whole = tmp_path / "web.mp4"
    assert ingest_one(whole, tmp_path / "store").warning is None
    cut = tmp_path / f"cut.{container}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    outcome = ingest_one(cut, tmp_path / "store")
    assert outcome.warning is not None
    assert "its header promises 8.0 s" in outcome.warning
    assert outcome.warning.startswith(f"{cut}: ends after ")
    assert 0 < outcome.recorded.commit.length < 200
    assert outcome.recorded.commit.complete


def box(data: bytes, kind: bytes) -> int:
    """Where the content of a box of an mp4 begins."""
    return data.index(kind) + 4


def test_a_count_of_frames_that_is_too_high_is_no_cut(media, tmp_path):
    """The only entry of stts counts frames; those that are not in stsz are not there."""
    path = media.video(tmp_path / "video.mp4", 100, options={"bf": "0"})
    data = bytearray(path.read_bytes())
    count = box(data, b"stts") + 8
    assert int.from_bytes(data[count : count + 4]) == 100
    data[count : count + 4] = (150).to_bytes(4)
    path.write_bytes(data)
    outcome = ingest_one(path, tmp_path / "store")
    assert outcome.recorded.commit.length == 100
    assert outcome.warning is None


def test_an_edit_list_that_shows_a_part_is_no_cut(media, tmp_path):
    path = media.video(tmp_path / "video.mp4", 100, options={"bf": "0"}, gop=25)
    data = bytearray(path.read_bytes())
    entry = box(data, b"elst") + 8
    assert data[box(data, b"elst")] == 0
    data[entry : entry + 4] = (1000).to_bytes(4)  # in milliseconds
    path.write_bytes(data)
    outcome = ingest_one(path, tmp_path / "store")
    assert outcome.recorded.commit.length == 25
    assert outcome.warning is None


@pytest.mark.parametrize(("damaged", "is_much"), [(range(30, 31), False), (range(30, 34), True)])
def test_what_is_left_out_is_said_with_a_warning_where_it_is_much(
    damaged, is_much, media, tmp_path
):
    path = media.video(tmp_path / "video.mp4", 200, gop=1, options={"bf": "0"})
    media.overwrite_packets(path, damaged)
    outcome = ingest_one(path, tmp_path / "store")
    said = outcome.recorded.commit.counters.losses_text
    assert said.startswith(f"{len(damaged)} of 200 frames left out (1 damaged")
    assert (outcome.warning is not None) == is_much
    if is_much:
        assert outcome.warning.startswith(f"{path}: {said}; ")

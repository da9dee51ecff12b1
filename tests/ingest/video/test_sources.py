import os
from pathlib import Path

import h5py
import pytest

from ingest.errors import VideoError
from ingest.open import open_store
from ingest.store.protocols import Store
from ingest.store.records import RecordSettings, Source
from ingest.video.identity import fingerprint, name_recordings
from ingest.video.paths import image_files
from ingest.video.sources import expand


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def names(specs):
    return [spec.path.name for spec in specs]


def test_a_folder_of_videos_is_its_videos_in_natural_order(tmp_path):
    touch(*(tmp_path / f"take{n}.MP4" for n in (10, 2, 1)), tmp_path / "take1.masks.h5")
    assert names(expand(str(tmp_path))) == ["take1.MP4", "take2.MP4", "take10.MP4"]


def test_a_folder_of_images_is_one_source(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.png")
    (spec,) = expand(str(tmp_path))
    assert (spec.kind, spec.path) == ("images", tmp_path)


def test_images_beside_videos_are_left_out_aloud(tmp_path, caplog):
    touch(tmp_path / "a.mp4", tmp_path / "thumbnail.jpg")
    assert names(expand(str(tmp_path))) == ["a.mp4"]
    assert "1 images next to 1 videos are left out" in caplog.text


def test_a_glob_is_what_it_matches_without_masks(tmp_path):
    touch(*(tmp_path / "deep" / name for name in ("b.mp4", "a.mp4", "a.masks.h5", "c.txt")))
    assert names(expand(str(tmp_path / "**" / "[ab].*"))) == ["a.mp4", "b.mp4"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    touch(tmp_path / "take[1].mp4")
    assert names(expand(str(tmp_path / "take[1].mp4"))) == ["take[1].mp4"]


def test_an_archive_is_its_two_parts(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_group("train")
        file.create_group("test")
    assert [spec.part for spec in expand(str(tmp_path / "old.h5"))] == ["train", "test"]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("weights")
    with pytest.raises(VideoError, match=r"'weights'.*not a frame archive"):
        expand(str(tmp_path / "other.h5"))


@pytest.mark.parametrize("source", ["nothing.mp4", "*.mp4", ""])
def test_a_source_that_names_nothing_is_refused(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError):
        expand(source or str(tmp_path))


def test_a_fingerprint_follows_the_content_and_its_masks_and_not_the_path(tmp_path):
    touch(tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4")
    first, second = (fingerprint(expand(str(tmp_path / d / "x.mp4"))[0]) for d in "ab")
    assert first.same_content(second)
    assert first.path != second.path
    (tmp_path / "a" / "x.masks.h5").write_bytes(b"masks")
    with_masks = fingerprint(expand(str(tmp_path / "a" / "x.mp4"))[0])
    assert not with_masks.same_content(first)


def test_a_fingerprint_sees_the_end_of_a_large_file(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(bytes(3 << 20))
    before = fingerprint(expand(str(path))[0])
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    assert not fingerprint(expand(str(path))[0]).same_content(before)


def test_a_folder_of_images_changes_when_one_is_added(tmp_path):
    touch(tmp_path / "1.png", tmp_path / "2.png")
    before = fingerprint(expand(str(tmp_path))[0])
    touch(tmp_path / "1b.png")
    assert not fingerprint(expand(str(tmp_path))[0]).same_content(before)


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "store", create_format="h5")


def stored(store: Store, name: str, source: Source) -> None:
    store.writer(name, source=source, settings=RecordSettings(), height=8, width=8).close()


def source(path: str, digest: str) -> Source:
    return Source(path=path, size_bytes=1, digest=digest * 8)


def test_names_come_from_file_names(store):
    sources = [source("/v/a.mp4", "11111111"), source("/v/Ünï (1).mkv", "22222222")]
    assert name_recordings(sources, store) == ["a", "Ünï (1)"]
    assert name_recordings([source("/v/.#$!.mp4", "33333333")], store) == ["recording"]


def test_sources_that_would_share_a_name_are_told_apart_by_content(store):
    sources = [source("/v/x/a.mp4", "11111111"), source("/v/y/a.mp4", "22222222")]
    assert name_recordings(sources, store) == ["a-111111", "a-222222"]
    assert name_recordings(sources[::-1], store) == ["a-222222", "a-111111"]


def test_a_source_keeps_the_name_it_has_in_the_store(store):
    first, second = source("/v/x/a.mp4", "11111111"), source("/v/y/a.mp4", "22222222")
    stored(store, "a", first)
    assert name_recordings([first, second], store) == ["a", "a-222222"]
    assert name_recordings([second], store) == ["a-222222"]


def test_a_file_that_changed_keeps_its_name_so_that_the_change_is_noticed(store):
    stored(store, "a", source("/v/a.mp4", "11111111"))
    assert name_recordings([source("/v/a.mp4", "22222222")], store) == ["a"]


def test_digits_that_are_no_numbers_are_sorted_too(tmp_path):
    touch(*(tmp_path / f"1²{n}.mp4" for n in (10, 2)))
    assert names(expand(str(tmp_path))) == ["1²2.mp4", "1²10.mp4"]


def test_only_files_of_a_folder_count(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "b.png")
    for name in ("d.mp4", "x.png"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    assert names(expand(str(tmp_path))) == ["a.mp4"]
    assert image_files(tmp_path) == [tmp_path / "b.png"]


def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", "/dev/null"):
        with pytest.raises(VideoError, match="a live source; record it with"):
            expand(str(path))


@pytest.mark.parametrize("word", ["0", "v4l2:/dev/video9", "/dev/video9", "lavfi:testsrc2"])
def test_a_word_for_a_camera_names_the_command_that_records_one(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        VideoError, match=f"{word}: a live source; record it with `setcon capture {word} STORE`"
    ):
        expand(word)


def test_a_file_is_a_file_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("0").touch()
    assert expand("0")[0].kind == "video"


def test_a_long_name_is_cut_to_what_a_folder_can_be_called(store):
    for letter in ("x", "Ü", "語"):
        (name,) = name_recordings([source(f"/v/{letter * 250}.mp4", "11111111")], store)
        assert 148 <= len(name.encode()) <= 150
        assert set(name) == {letter}


def test_a_damaged_recording_keeps_its_name_and_is_in_no_one_elses_way(store):
    first, second = source("/v/x/a.mp4", "11111111"), source("/v/y/a.mp4", "22222222")
    stored(store, "a", first)
    (Path(store.location) / "recordings" / "a" / "commit.json").write_text("garbage")
    assert name_recordings([first], store) == ["a"]
    assert name_recordings([first, second], store) == ["a-111111", "a-222222"]
    assert name_recordings([source("/v/b.mp4", "33333333")], store) == ["b"]

"""Masks of one's own: next to images, in a data set, and for the frames of a video."""

import json
import os
import re

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from ingest.errors import VideoError
from ingest.frame import UNKNOWN_LABEL
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.store.records import RecordSettings
from ingest.video.annotations import LabelPictures
from ingest.video.coco import CocoAnnotations

NATIVE = RecordSettings(size=None)


def labels(index: int, height: int = 24, width: int = 40) -> np.ndarray:
    """Two objects that move, and a strip that nothing is known of."""
    found = np.zeros((height, width), np.uint8)
    found[4:12, 2 + index : 10 + index] = 1
    found[14:20, 20:30] = 2
    found[:2] = UNKNOWN_LABEL
    return found


def write_labels(path, found: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(found.astype(np.uint16)).save(path)
        return
    image = Image.fromarray(found)
    if mode == "P":
        image.putpalette([value * 37 % 256 for value in range(3 * 256)])
    elif mode == "RGB":
        image = image.convert(mode)
    image.save(path)


def write_frames(folder, names: list[str], size: tuple[int, int] = (24, 40)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        image = np.full((*size, 3), 10 * index, np.uint8)
        Image.fromarray(image).save(folder / f"{name}.png")


def stored(path, name: str) -> np.ndarray | None:
    with open_store(path).reader(name) as reader:
        return reader.read(0, reader.commit.length, masks=True).masks


def ingested(source, store, *, masks=None, settings=NATIVE) -> list[str]:
    """The errors; everything else is stored."""
    outcomes = ingest_sources([str(source)], store, settings, masks=masks)
    return [str(outcome.error) for outcome in outcomes if outcome.error is not None]


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGB"])
def test_a_value_of_a_label_picture_is_a_label(mode, tmp_path):
    write_labels(tmp_path / "00000.png", labels(3), mode)  # RGB: grey in three channels
    pictures = LabelPictures(tmp_path)
    assert pictures.frames == ["00000"]
    assert np.array_equal(pictures.labels("00000"), labels(3))


def test_a_picture_of_black_and_white_is_the_mask_of_one_object(tmp_path):
    white = (labels(0) == 1) * np.uint8(255)
    write_labels(tmp_path / "0.png", white, "L")
    assert np.array_equal(LabelPictures(tmp_path).labels("0"), labels(0) == 1)


def test_white_is_not_known_where_any_picture_of_the_folder_has_other_labels(tmp_path):
    white = (labels(0) == 1) * np.uint8(255)
    write_labels(tmp_path / "0.png", white, "L")
    write_labels(tmp_path / "1.png", labels(1), "L")
    np.testing.assert_array_equal(LabelPictures(tmp_path).labels("0"), white)


def test_pictures_without_labels_are_refused(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    write_labels(tmp_path / "b.png", np.full((4, 4), 26001), "I;16")
    (tmp_path / "c.png").write_bytes(b"nothing of the kind")
    pictures = LabelPictures(tmp_path)
    for frame, message in (
        ("a", r"a picture in colours \(RGB\)"),
        ("b", "label 26001; number objects from 1 to 254"),
        ("c", "does not decode"),
    ):
        with pytest.raises(VideoError, match=message):
            pictures.labels(frame)


@pytest.mark.parametrize("layout", ["480p", "."])
def test_a_data_set_is_its_sequences_with_their_masks(layout, tmp_path):
    """As DAVIS has them, with one for each frame, and YouTube-VOS, with one for every fifth."""
    names = [f"{index:05}" for index in range(11)]
    for sequence, step in (("bear", 1), ("camel", 5)):
        write_frames(tmp_path / "set/JPEGImages" / layout / sequence, names)
        for index in range(0, 11, step):
            path = tmp_path / "set/Annotations" / layout / sequence / f"{index:05}.png"
            write_labels(path, labels(index))
    write_frames(tmp_path / "set/JPEGImages" / layout / "unknown", names)
    assert ingested(tmp_path / "set", tmp_path / "store") == []
    assert stored(tmp_path / "store", "unknown") is None
    bear, camel = (stored(tmp_path / "store", name) for name in ("bear", "camel"))
    assert np.array_equal(bear, [labels(index) for index in range(11)])
    assert camel is not None
    assert np.array_equal(camel[::5], [labels(index) for index in (0, 5, 10)])
    assert (np.delete(camel, [0, 5, 10], axis=0) == UNKNOWN_LABEL).all()


def test_of_several_resolutions_one_is_taken_aloud(tmp_path, caplog):
    for size in ("480p", "Full-Resolution"):
        write_frames(tmp_path / "JPEGImages" / size / "bear", ["00000", "00001"])
    assert ingested(tmp_path, tmp_path / "store") == []
    assert "480p is taken, not ['Full-Resolution']" in caplog.text
    assert open_store(tmp_path / "store").recordings() == ["bear"]


def test_masks_next_to_their_pictures_are_masks_and_no_frames(tmp_path):
    write_frames(tmp_path / "clip", ["0000", "0001", "0002"])
    for index in (0, 2):
        write_labels(tmp_path / "clip" / f"{index:04}_mask.png", labels(index))
    write_frames(tmp_path / "clip", ["._0000"])  # macOS adds such files
    assert ingested(tmp_path / "clip", tmp_path / "store") == []
    found = stored(tmp_path / "store", "clip")
    assert found is not None
    assert np.array_equal(found[::2], [labels(0), labels(2)])
    assert (found[1] == UNKNOWN_LABEL).all()


def test_masks_are_fitted_as_their_pictures(tmp_path):
    write_frames(tmp_path / "clip", ["0"])
    write_labels(tmp_path / "masks" / "0.png", labels(8))
    settings = RecordSettings(size=(20, 12))
    assert (
        ingested(tmp_path / "clip", tmp_path / "s", masks=tmp_path / "masks", settings=settings)
        == []
    )
    found = stored(tmp_path / "s", "clip")
    assert found is not None
    assert np.array_equal(found[0], labels(8)[1::2, 1::2])


@pytest.mark.parametrize(("first", "step"), [(0, 1), (1, 1), (0, 4)])
def test_numbers_of_annotations_count_the_frames_of_a_video(first, step, media, tmp_path):
    video = media.video(tmp_path / "clip.mp4", [np.zeros((24, 40, 3), np.uint8)] * 12)
    for index in range(0, 12, step):
        write_labels(tmp_path / "masks" / "clip" / f"frame_{index + first:03}.png", labels(index))
    assert ingested(video, tmp_path / "store", masks=tmp_path / "masks") == []
    found = stored(tmp_path / "store", "clip")
    assert found is not None
    assert np.array_equal(found[::step], [labels(index) for index in range(0, 12, step)])
    assert step == 1 or (found[1::step] == UNKNOWN_LABEL).all()


def two_tracks(path) -> None:
    """The main track of two is 40x24, the other one 48x32; both have two frames."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        streams[1].disposition = Disposition(0)
        streams[0].disposition = Disposition.default
        for stream, size in zip(streams, ((24, 40), (32, 48)), strict=True):
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
        for stream in streams:
            for _ in range(2):
                picture = np.zeros((stream.height, stream.width, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())


def test_masks_are_of_the_track_that_is_read(media, tmp_path):
    video, store = tmp_path / "two.mp4", tmp_path / "store"
    two_tracks(video)
    maps = np.array([labels(0), labels(1)])
    media.masks(video, maps, np.array([0, 40_000_000]), np.array([True, False]))
    for index in range(2):
        write_labels(tmp_path / f"masks/two/{index}.png", labels(index, 32, 48))
    assert ingested(video, store) == []
    assert np.array_equal(stored(store, "two"), maps)
    (outcome,) = ingest_sources([str(video)], store, NATIVE, track=2)
    assert outcome.error is None
    assert stored(store, "two-track2") is None  # the sidecar is of the main track
    masks = tmp_path / "masks"
    (outcome,) = ingest_sources([str(video)], tmp_path / "s", NATIVE, track=2, masks=masks)
    assert outcome.error is None
    found = stored(tmp_path / "s", "two-track2")
    assert np.array_equal(found, [labels(0, 32, 48), labels(1, 32, 48)])


def test_masks_of_a_turned_video_are_upright(media, tmp_path):
    video = media.video(tmp_path / "v.mp4", [np.zeros((40, 24, 3), np.uint8)] * 3, rotation=90)
    for index in range(3):
        write_labels(tmp_path / "masks" / f"{index}.png", labels(index))
    assert ingested(video, tmp_path / "store", masks=tmp_path / "masks") == []
    assert np.array_equal(stored(tmp_path / "store", "v"), [labels(index) for index in range(3)])


def test_a_video_whose_frames_cannot_be_counted_takes_no_numbered_masks(media, tmp_path):
    video = media.video(tmp_path / "clip.mp4", 40)
    media.overwrite_packets(video, range(20, 22))
    for index in range(40):
        write_labels(tmp_path / "masks" / f"{index}.png", labels(index, 48, 64))
    (error,) = ingested(video, tmp_path / "store", masks=tmp_path / "masks")
    assert re.search(r"clip\.mp4: damaged near frame 1[5-9], so that its annotations", error)


def test_masks_that_do_not_belong_are_refused(media, tmp_path):
    video = media.video(tmp_path / "clip.mp4", 6)
    write_frames(tmp_path / "shots", ["a0", "a1"])
    for name, shape in (("other", (30, 30)), ("more", (48, 64)), ("unnumbered", (48, 64))):
        frame = {"other": "a1", "more": "a6", "unnumbered": "b"}[name]
        write_labels(tmp_path / name / f"{frame}.png", np.zeros(shape, np.uint8))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    sidecar = media.masks(video.with_name("x.mp4"), np.zeros((1, 2, 2)), np.arange(1), np.zeros(1))
    for source, masks, message in (
        (video, "other", "the annotation 'a1' is 30x30, its picture 64x48"),
        (video, "more", "has an annotation 'a6', the video has 6 frames"),
        (video, "unnumbered", "no number in the name of the annotation 'b'"),
        (video, "empty", "no folder 'clip' of PNG files in it"),
        (video, "missing", "no such file or folder"),
        (video, "file.txt", "not the masks of 'clip'"),
        (tmp_path / "shots", "other", "the annotation 'a1' is 30x30, its picture 40x24"),
        (tmp_path / "shots", "more", r"has an annotation 'a6' of no picture in "),
        (tmp_path / "shots", sidecar.name, "the masks of a video, not of pictures"),
    ):
        (error,) = ingested(source, tmp_path / "store", masks=tmp_path / masks)
        assert message in error
        assert "\n" not in error


def test_a_recording_whose_masks_changed_is_refused(tmp_path):
    write_frames(tmp_path / "clip", ["0", "1"])
    for index in (0, 1):
        write_labels(tmp_path / "masks" / f"{index}.png", labels(index))
    for masks, expected in (
        (None, []),
        (tmp_path / "masks", ["made from"]),
    ):
        errors = ingested(tmp_path / "clip", tmp_path / "store", masks=masks)
        assert len(errors) == len(expected)
        assert all(text in error for text, error in zip(expected, errors, strict=True))


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """As COCO counts them: columns first, and zeros before ones."""
    flat = np.concatenate([[0], mask.flatten(order="F").astype(int)])
    ends = [0, *np.flatnonzero(np.diff(flat)).tolist(), mask.size]
    return {"size": list(mask.shape), "counts": np.diff(ends).tolist()}


def youtube_vis(names: list[str], segments: list[list[object]], video: str = "0043f083b5") -> dict:
    return {
        "info": {"version": "1"},
        "videos": [
            {
                "id": 7,
                "width": 40,
                "height": 24,
                "length": len(names),
                "file_names": [f"{video}/{name}.jpg" for name in names],
            }
        ],
        "annotations": [
            {"id": n, "video_id": 7, "category_id": 2, "iscrowd": 0, "segmentations": each}
            for n, each in enumerate(segments)
        ],
        "categories": [],
    }


def known(index: int) -> np.ndarray:
    """What segments can say: nothing is unknown in an annotated frame."""
    return np.where(labels(index) == UNKNOWN_LABEL, 0, labels(index)).astype(np.uint8)


def test_a_youtube_vis_file_next_to_its_frames_is_found(tmp_path):
    pytest.importorskip("pycocotools")
    names = [f"{5 * index:05}" for index in range(4)]
    write_frames(tmp_path / "train/JPEGImages/0043f083b5", names)
    polygon = [[20, 14, 30, 14, 30, 20, 20, 20]]
    segments = [
        [run_lengths(labels(index) == 1) for index in range(4)],
        [polygon, None, run_lengths(labels(2) == 2), polygon],
    ]
    annotated = youtube_vis(names[:4], segments)
    (tmp_path / "train.json").write_text(json.dumps(annotated))
    assert ingested(tmp_path / "train", tmp_path / "store") == []
    found = stored(tmp_path / "store", "0043f083b5")
    expected = np.array([known(index) for index in range(4)])
    expected[1][expected[1] == 2] = 0
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("content", ['{"license": "CC0", "videos": 3}', "[1, 2]", "{", "{}"])
def test_a_file_called_like_a_data_set_may_be_of_anything_else(content, tmp_path, caplog):
    for name in ("a", "b"):
        write_frames(tmp_path / f"clips/JPEGImages/{name}", ["0", "1"])
    (tmp_path / "clips.json").write_text(content)
    assert ingested(tmp_path / "clips", tmp_path / "store") == []
    assert open_store(tmp_path / "store").recordings() == ["a", "b"]
    assert stored(tmp_path / "store", "a") is None
    assert caplog.text.count("clips.json: ") == 1
    assert "no masks are taken from it" in caplog.text
    (error,) = ingested(
        tmp_path / "clips/JPEGImages/a", tmp_path / "other", masks=tmp_path / "clips.json"
    )
    assert "clips.json: " in error


def test_images_of_coco_need_to_say_which_object_is_which(media, tmp_path):
    pytest.importorskip("pycocotools")
    video = media.video(tmp_path / "clip.mp4", [np.zeros((24, 40, 3), np.uint8)] * 6)
    images = [
        {"id": n, "file_name": f"frame_{n:06}.png", "width": 40, "height": 24} for n in (0, 3)
    ]
    annotations = [
        {
            "id": 10 * n + label,
            "image_id": n,
            "iscrowd": 0,
            "segmentation": run_lengths(labels(n) == label),
            "attributes": {"track_id": 100 - label},
        }
        for n in (0, 3)
        for label in (1, 2)
    ]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    assert ingested(video, tmp_path / "store", masks=path) == []
    found = stored(tmp_path / "store", "clip")
    assert found is not None
    assert np.array_equal(found[[0, 3]], [known(0), known(3)])
    assert (found[[1, 2, 4, 5]] == UNKNOWN_LABEL).all()
    del annotations[2]["attributes"]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    (error,) = ingested(video, tmp_path / "store", masks=path)
    assert "annotations without a track_id" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["videos"].clear(), "an annotation of video 7 has 2 segments for 0"),
        (lambda file: file["annotations"][0]["segmentations"].pop(), "has 1 segments for 2 frames"),
        (lambda file: file.clear(), "names no videos and no images"),
        (lambda file: file["videos"][0].update(file_names=3), "not a JSON file in COCO's format"),
        (
            lambda file: file["annotations"][0]["segmentations"][0].update(counts=[1, 5]),
            "a segment of '0'",
        ),
        (
            lambda file: file["videos"][0].update(width=41),
            "a segment of '0' is 40x24, its picture 41x24",
        ),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(change, message, media, tmp_path):
    pytest.importorskip("pycocotools")
    write_frames(tmp_path / "clip", ["0", "1"])
    file = youtube_vis(["0", "1"], [[run_lengths(labels(n) == 1) for n in (0, 1)]])
    change(file)
    (tmp_path / "some.json").write_text(json.dumps(file))
    (error,) = ingested(tmp_path / "clip", tmp_path / "store", masks=tmp_path / "some.json")
    assert message in error
    assert os.linesep not in error


@pytest.mark.parametrize(
    "segment",
    [
        [[1e300, 1, 2, 2, 3, 3]],
        [[-1e9, 1, 2, 2, 3, 3]],
        [[]],
        [],
        [[1, 2]],
        [[1, 2, 3, 4]],
        {"size": [24, 40], "counts": [-1, 961]},
        {"size": [1 << 40, 1 << 40], "counts": [1 << 80]},
    ],
)
def test_a_segment_that_pycocotools_does_not_survive_is_refused(segment, tmp_path):
    pytest.importorskip("pycocotools")
    path = tmp_path / "some.json"
    path.write_text(json.dumps(youtube_vis(["0"], [[segment]])))
    with pytest.raises(VideoError, match="a segment of '0'"):
        CocoAnnotations(path, "0043f083b5").labels("0")

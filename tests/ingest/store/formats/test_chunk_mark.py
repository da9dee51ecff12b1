from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.store.formats.chunk_mark import check_mark, chunk_mark, marked
from ingest.store.formats.codec import PixelCodec, decode_pixels, decode_values, encode_values
from ingest.store.records import CommitRecord, RecordSettings, Source

COMMIT = CommitRecord(
    height=9,
    width=7,
    chunk_length=4,
    source=Source(path="/a", digest="a"),
    settings=RecordSettings(),
)
MARK = chunk_mark(COMMIT, "frames", 3)


def test_a_mark_is_that_of_the_commit_record_as_it_is_read_back() -> None:
    for fps in (None, 5.0, 29.97, 5):
        settings = RecordSettings(size=8)
        object.__setattr__(settings, "fps", fps)  # as unchecked callers may give a whole number
        commit = replace(COMMIT, settings=settings)
        kept = msgspec.json.decode(msgspec.json.encode(commit), type=CommitRecord)
        assert chunk_mark(kept, "frames", 3) == chunk_mark(commit, "frames", 3)


def test_a_mark_is_the_same_in_every_version_of_the_program() -> None:
    assert MARK.hex() == "2635c121ef1dcf830300000000000000"


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@given(
    length=st.integers(1, 9),
    side=st.integers(1, 40),
    name=st.sampled_from(["zstd", "lz4"]),
    level=st.integers(0, 5),
    shuffle=st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
    block_bytes=st.sampled_from([0, 1000, 1 << 20]),
    depth=st.sampled_from([1, 64, 256]),
)
def test_marked_pixels_come_back_whatever_the_settings(length, side, depth, **codec_settings):
    noise = np.random.default_rng(0).integers(0, depth, (length, side, 7, 3), np.uint8)
    data = as_array(marked(PixelCodec(**codec_settings).encode(noise), MARK))
    check_mark(data, MARK)
    np.testing.assert_array_equal(decode_pixels(data, noise.shape), noise)


@pytest.mark.parametrize("top", [10, 1 << 62])
def test_marked_times_come_back(top):
    times = np.random.default_rng(0).integers(0, top, 4096)
    data = as_array(marked(encode_values(times), MARK))
    check_mark(data, MARK)
    np.testing.assert_array_equal(decode_values(data, 4096, times.dtype), times)


def test_a_mark_of_another_place_is_told():
    data = as_array(marked(PixelCodec().encode(np.zeros((4, 9, 7, 3), np.uint8)), MARK))
    with pytest.raises(ValueError, match="it is chunk 3, not 4"):
        check_mark(data, chunk_mark(COMMIT, "frames", 4))
    with pytest.raises(ValueError, match="another recording or field"):
        check_mark(data, chunk_mark(COMMIT, "masks", 3))
    with pytest.raises(ValueError, match="another recording or field"):
        check_mark(data[:7], MARK)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import blosc

from ingest.store.formats.codec import PixelCodec, copy_pixels, decode_pixels, decode_values, padded


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def encoded(pixels: np.ndarray, codec: PixelCodec) -> np.ndarray:
    return np.frombuffer(codec.encode(pixels), np.uint8)


@given(
    length=st.integers(1, 9),
    side=st.integers(1, 40),
    name=st.sampled_from(["zstd", "lz4"]),
    level=st.integers(0, 5),
    shuffle=st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
    block_bytes=st.sampled_from([0, 1000, 1 << 20]),
    flat=st.booleans(),
)
def test_pixels_come_back_whatever_the_settings(length, side, flat, **codec_settings):
    codec = PixelCodec(**codec_settings)
    pixels = noise(length, side, 7, 3) // (64 if flat else 1)
    again = decode_pixels(encoded(pixels, codec), pixels.shape)
    np.testing.assert_array_equal(again, pixels)


def test_pixels_are_decoded_where_they_are_wanted():
    pixels, room = noise(4, 9, 7, 3), np.zeros((8, 9, 7, 3), np.uint8)
    data = encoded(pixels, PixelCodec())
    assert np.shares_memory(decode_pixels(data, pixels.shape, room[2:6]), room)
    copy_pixels(pixels[:2].reshape(-1), (2, 9, 7, 3), room[6:])
    expected = np.concatenate([np.zeros_like(pixels[:2]), pixels, pixels[:2]])
    np.testing.assert_array_equal(room, expected)


@pytest.mark.parametrize("shape", [(3, 9, 7, 3), (5, 9, 7, 3), (4, 9, 8, 3)])
def test_pixels_of_another_shape_are_refused(shape):
    data = encoded(noise(4, 9, 7, 3), PixelCodec())
    with pytest.raises(ValueError, match="a Blosc buffer of"):
        decode_pixels(data, shape)
    with pytest.raises(ValueError, match="asked for"):
        decode_pixels(data, (4, 9, 7, 3), np.empty(shape, np.uint8))


@pytest.mark.parametrize("length", [0, 15, 16, 100])
def test_a_buffer_that_was_cut_is_refused(length):
    data = encoded(noise(4, 9, 7, 3), PixelCodec())
    with pytest.raises(ValueError, match="Blosc buffer"):
        decode_pixels(data[:length], (4, 9, 7, 3))


def test_a_chunk_that_is_not_full_ends_in_black():
    pixels = noise(3, 9, 7, 3)
    full = padded(pixels, 8)
    np.testing.assert_array_equal(full[:3], pixels)
    assert full.shape == (8, 9, 7, 3)
    assert not full[3:].any()
    assert padded(full, 8) is full


def test_values_come_back_and_those_of_another_number_or_type_are_refused():
    values = np.arange(100, dtype=np.int64)
    data = np.frombuffer(blosc.compress(values, b"zstd", 1), np.uint8)
    np.testing.assert_array_equal(decode_values(data, 100, np.dtype(np.int64)), values)
    for count, dtype in [(99, np.int64), (101, np.int64), (100, np.bool_)]:
        with pytest.raises(ValueError, match="a Blosc buffer of"):
            decode_values(data, count, np.dtype(dtype))
    with pytest.raises(ValueError, match="not a Blosc buffer"):
        decode_values(data[:4], 100, np.dtype(np.int64))

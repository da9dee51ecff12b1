import numpy as np
import pytest

from ingest.scenes.textures import PATTERNS, drawn_colour, drawn_texture


def drawn(seed: int, **options: bool) -> np.ndarray:
    return drawn_texture(np.random.default_rng(seed), side=64, **options)


def test_equal_seeds_draw_equal_textures_and_others_do_not() -> None:
    np.testing.assert_array_equal(drawn(3), drawn(3))
    assert (drawn(3) != drawn(4)).any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_a_share_at_every_pixel(pattern) -> None:
    y, x = (np.mgrid[:64, :64] + 0.5) / 64
    for seed in range(10):
        share = pattern(np.random.default_rng(seed), x, y)
        assert share.min() >= 0
        assert share.max() <= 1


def test_patterns_are_different_pictures() -> None:
    y, x = (np.mgrid[:64, :64] + 0.5) / 64
    shares = {pattern(np.random.default_rng(0), x, y).tobytes() for pattern in PATTERNS}
    assert len(shares) == len(PATTERNS)


def test_a_muted_texture_varies_less_than_another() -> None:
    def spread(**options: bool) -> float:
        return float(np.mean([drawn(seed, **options).std(axis=(0, 1)) for seed in range(40)]))

    assert spread(muted=True) < 0.7 * spread()


def test_no_colour_is_nearly_black() -> None:
    colours = np.stack([drawn_colour(np.random.default_rng(seed)) for seed in range(200)])
    assert colours.min() >= 0
    assert colours.max(axis=1).min() >= 0.35
    assert colours.max() <= 1

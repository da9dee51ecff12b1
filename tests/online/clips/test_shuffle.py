import pytest

from online.clips.shuffle import VastShuffle, shuffling
from online.clips.steps import done


def of(kind: str, count: int, key: str) -> list[int]:
    if kind == "packed":
        return done(shuffling(count, key=key)).tolist()
    return list(VastShuffle(range(count), key=key))


@pytest.mark.parametrize("kind", ["packed", "vast"])
def test_shuffling_moves_clips_far_and_keeps_some_neighbours_near(kind):
    shuffled = of(kind, 4096, "0/0/0")
    assert sorted(shuffled) == list(range(4096))
    assert sum(abs(i - clip) for i, clip in enumerate(shuffled)) / 4096 > 1000
    pool = {clip // 8 for clip in shuffled[:128]}
    assert len(pool) == 16
    assert shuffled[:128] != sorted(shuffled[:128])
    assert of(kind, 4096, "1/0/0") != shuffled


@pytest.mark.parametrize("count", [*range(20), 127, 128, 129, 1000, 1024, 1025, 4097])
@pytest.mark.parametrize("kind", ["packed", "vast"])
def test_every_clip_comes_once(kind, count):
    assert sorted(of(kind, count, "k")) == list(range(count))


def test_blocks_of_a_vast_shuffle_come_as_far_from_their_places_as_chance_takes_them():
    shuffle = VastShuffle(range(8 * 1_000_000), key="0/0/0")
    first = [sorted({clip // 8 for clip in shuffle[i : i + 128]}) for i in range(0, 12800, 128)]
    blocks = [block for pool in first for block in pool]
    assert len(set(blocks)) == 1600
    for tenth in range(10):  # 160 are expected, with a deviation of 12
        assert 100 < sum(block // 100_000 == tenth for block in blocks) < 220


def test_a_vast_shuffle_stays_what_it_is():
    """A cursor counts clips of this order, so no version may change it."""
    shuffle = VastShuffle(range(10**8), key="0/0/0")
    assert shuffle[:6] == [45189947, 48352713, 78428166, 16735471, 1508211, 93963088]
    assert shuffle[-1] == shuffle[10**8 - 1]
    with pytest.raises(IndexError):
        shuffle[10**8]

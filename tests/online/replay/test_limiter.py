import json

from online.replay.limiter import Limiter


def limiter(samples_per_insert: float = 2.0, *, min_clips: int = 1) -> Limiter:
    return Limiter(samples_per_insert, batch_clips=4, min_clips=min_clips)


def inserts_before_batches(counts: Limiter, batches: int) -> list[int]:
    found = []
    for _ in range(batches):
        found.append(counts.inserts_due())
        while counts.inserts_due():
            counts.inserted()
        counts.drawn(4)
    return found


def test_the_picture_in_the_module_is_true():
    assert inserts_before_batches(limiter(), 5) == [4, 0, 2, 2, 2]


def test_more_clips_may_be_wanted_before_the_first_batch_and_are_worked_off_first():
    assert inserts_before_batches(limiter(min_clips=9), 7) == [9, 0, 0, 0, 1, 2, 2]


def test_clips_that_were_lost_are_due_again_up_to_what_the_first_batch_took():
    counts = limiter()
    inserts_before_batches(counts, 5)
    counts.lost(7, left=1)
    assert counts.inserts_due() == 3
    saved = json.loads(json.dumps(counts.state()))
    counts.inserted()
    assert counts.inserts_due() == 2
    again = limiter()
    again.restore(saved)
    assert again.inserts_due() == 3
    assert (again.inserts, again.samples, again.batches) == (10, 20, 5)


def test_counts_of_an_older_program_which_lost_none_are_taken_up():
    counts = limiter()
    counts.restore({"inserts": 4, "samples": 8, "batches": 2})
    assert counts.inserts_due() == 2

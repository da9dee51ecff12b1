"""A log is read back as it was written, by older and newer versions, and while it grows."""

import json
import math
from pathlib import Path

import pytest

from ingest.disk.durable import write_whole
from online.runs.entries import (
    AnyEntry,
    Entry,
    EventEntry,
    FollowedLog,
    PrequentialEntry,
    ProbeEntry,
    SourceEntry,
    StepEntry,
    read_log,
    to_line,
)
from online.runs.log import read_run

STEP_OF_BEFORE = {
    "kind": "step",
    "step": 7,
    "seconds": 1.5,
    "loss": 3.25,
    "exclusivity": None,
    "top1": 0.5,
    "chance_loss": 5.5,
    "grad_norm": 1.25,
    "learning_rate": 0.002,
    "triplets_per_second": 310.5,
    "wait_share": 0.02,
    "delay_seconds": None,
    "clips_inserted": 40,
    "clips_skipped": 0,
    "samples_per_insert": 4.5,
    "clips_received": 44,
    "reconnects": 0,
    "discarded_messages": 1,
    "damaged_clips": 2,
    "probe_share": 0.125,
    "checkpoint_share": 0.01,
    "epoch": 0,
}
PREQUENTIAL_OF_BEFORE = {
    "kind": "prequential",
    "step": 8,
    "seconds": 1.5,
    "loss": 2.5,
    "loss_untrained": 4.5,
    "top1": 0.5,
    "top1_copy": 0.25,
    "top1_untrained": 0.125,
    "candidates": 32,
}


def entries(path: Path) -> list[AnyEntry]:
    return [line.entry for line in read_log(path) if line.entry is not None]


def fields(line: bytes) -> dict[str, object]:
    return json.loads(line)


@pytest.mark.parametrize("line", [STEP_OF_BEFORE, PREQUENTIAL_OF_BEFORE])
def test_every_key_of_a_line_is_read_and_written_again(
    line: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text(json.dumps(line) + "\n")
    (entry,) = entries(tmp_path / "log")
    assert fields(to_line(entry)) == line


@pytest.mark.parametrize(
    "entry",
    [
        StepEntry(step=1, seconds=0.5, loss=1e-5, top1=0.1 + 0.2),
        PrequentialEntry(step=1, top1=0.5, top1_copy=0, top1_untrained=0, candidates=3),
        ProbeEntry(step=2, beside=True, probe_seconds=3.5),
        EventEntry(step=2, message="küche\n“x”"),
        EventEntry(step=2, message="diverged", batch=["a 0..9"]),
        SourceEntry(step=0, recordings=["a"], command=["setcon", "train"], clip_overhead=0.1),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_a_line_is_read_back_as_it_was_written(entry: Entry, tmp_path: Path) -> None:
    line = to_line(entry)
    assert line.startswith(b'{"kind": "')
    (tmp_path / "log").write_bytes(line)
    assert entries(tmp_path / "log") == [entry]


def test_only_a_divergence_names_a_batch() -> None:
    assert "batch" not in fields(to_line(EventEntry(step=2, message="continued")))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_and_read_as_none(value: float, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(to_line(StepEntry(step=1, loss=value, top1=value)))
    (entry,) = entries(tmp_path / "log")
    assert isinstance(entry, StepEntry)
    assert (entry.loss, entry.top1) == (None, None)


def test_a_name_of_undecodable_bytes_can_be_logged() -> None:
    assert fields(to_line(SourceEntry(step=0, recordings=["bad \udcff"])))["recordings"] == [
        "bad \udcff"
    ]


def test_an_older_line_has_defaults_and_a_newer_one_unknown_keys(tmp_path: Path) -> None:
    old = {"kind": "step", "step": 1, "loss": 2.0, "top1": 0.5}
    new = STEP_OF_BEFORE | {"something": [1, 2]}
    other = {"kind": "something", "step": 1}
    text = "".join(json.dumps(line) + "\n" for line in (old, new, other))
    (tmp_path / "metrics.jsonl").write_text(text)
    first, second = read_run(tmp_path).steps
    assert first == StepEntry(step=1, loss=2.0, top1=0.5)
    assert second.damaged_clips == 2
    assert read_run(tmp_path).unreadable == ["1 line of metrics.jsonl could not be read"]


def step(number: int, *, loss: float = 1.0) -> bytes:
    return to_line(StepEntry(step=number, loss=loss, top1=0.5))


def steps(log: FollowedLog) -> list[int]:
    return [entry.step for entry in log.entries]


def test_a_growing_log_is_followed(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "log")
    assert not log.poll()
    for number in range(1, 4):
        with log.path.open("ab") as file:
            file.write(step(number))
        assert log.poll()
        assert not log.poll()
        assert steps(log) == list(range(1, number + 1))


def test_only_what_is_new_is_decoded(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "log")
    log.path.write_bytes(step(1) + step(2))
    log.poll()
    first = log.entries[0]
    with log.path.open("ab") as file:
        file.write(step(3))
    log.poll()
    assert log.entries[0] is first


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_a_half_written_line_waits_for_its_rest(tmp_path: Path, cut: int) -> None:
    log, line = FollowedLog(tmp_path / "log"), step(2)
    log.path.write_bytes(step(1) + line[:cut])
    assert log.poll()
    assert not log.poll()
    assert steps(log) == [1]
    with log.path.open("ab") as file:
        file.write(line[cut:] + step(3))
    assert log.poll()
    assert (steps(log), log.unreadable) == ([1, 2, 3], 0)


def test_a_log_that_a_resume_cuts_back_is_read_anew(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "log")
    log.path.write_bytes(b"".join(map(step, range(1, 9))))
    log.poll()
    write_whole(log.path, b"".join(map(step, range(1, 5))))
    assert log.poll()
    assert steps(log) == [1, 2, 3, 4]


def test_a_log_that_has_grown_again_since_it_was_cut_back_is_read_anew(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "log")
    log.path.write_bytes(b"".join(map(step, range(1, 9))))
    log.poll()
    again = [step(number, loss=1.0 if number < 5 else 2.0) for number in range(1, 12)]
    write_whole(log.path, b"".join(again))
    assert log.poll()
    assert [entry.loss for entry in log.entries if isinstance(entry, StepEntry)] == [
        *[1.0] * 4,
        *[2.0] * 7,
    ]


def test_a_torn_line_that_a_resume_removes_is_forgotten(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "log")
    log.path.write_bytes(step(1) + b'{"kind": "st\n' + step(2))
    log.poll()
    assert (steps(log), log.unreadable) == ([1, 2], 1)
    write_whole(log.path, step(1) + step(2))
    log.poll()
    assert (steps(log), log.unreadable) == ([1, 2], 0)


def test_a_run_that_begins_anew_leaves_nothing_to_show(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "log")
    log.path.write_bytes(step(1))
    log.poll()
    log.path.unlink()
    assert log.poll()
    assert not log.poll()
    assert log.entries == []


def test_a_run_is_the_same_whether_its_log_was_read_or_followed(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "metrics.jsonl")
    log.path.write_bytes(step(1) + to_line(EventEntry(step=1, message="x")) + step(2))
    log.poll()
    whole, followed = read_run(tmp_path), read_run(tmp_path, entries=log.entries)
    assert whole.steps
    assert (followed.steps, followed.events) == (whole.steps, whole.events)
    assert followed.reached == whole.reached

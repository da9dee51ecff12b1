from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from online.config import RunConfig, dump_config, load_preset
from online.errors import ConfigError
from terminal.commands.train import command_line, train
from terminal.ranks import with_shards


def begun(run: Path, config: RunConfig, *steps: int) -> Path:
    for step in steps:
        (run / "checkpoints" / f"step-{step:08}").mkdir(parents=True)
    (run / "config.toml").write_text(dump_config(config))
    return run


def test_a_new_run_has_as_many_shards_as_ranks(tmp_path: Path) -> None:
    demo = load_preset("demo")
    assert with_shards(demo, tmp_path / "new", 1, settings=[]) == demo
    assert with_shards(demo, tmp_path / "new", 3, settings=[]).training.shards == 3
    named = load_preset("demo", ["training.shards=6"])
    assert with_shards(named, tmp_path / "new", 2, settings=[]) == named


def test_a_run_keeps_its_shards_whatever_the_number_of_ranks(tmp_path: Path) -> None:
    demo = load_preset("demo")
    run = begun(tmp_path, load_preset("demo", ["training.shards=4"]), 0, 70)
    assert [with_shards(demo, run, n, settings=[]).training.shards for n in (1, 2, 4)] == [4, 4, 4]
    with pytest.raises(ConfigError, match="has 4 shards, which 3 ranks cannot share equally"):
        with_shards(demo, run, 3, settings=[])


def test_one_shard_that_was_asked_for_is_not_changed(tmp_path: Path) -> None:
    one = ["training.shards=1"]
    with pytest.raises(ConfigError, match="has 1 shard, which 2 ranks cannot share equally"):
        with_shards(load_preset("demo", one), tmp_path / "new", 2, settings=one)


def test_a_start_that_never_learned_decides_nothing(tmp_path: Path) -> None:
    run = begun(tmp_path, load_preset("demo", ["training.shards=4"]), 0)
    assert with_shards(load_preset("demo"), run, 3, settings=[]).training.shards == 3


def test_ranks_that_cannot_share_a_batch_are_refused_in_a_line(tmp_path: Path) -> None:
    arguments = ["train", str(tmp_path), "--run", str(tmp_path / "run"), "--ranks", "8"]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line == (
        "error: 8 ranks: batch_clips is 12, which 8 shards cannot share equally; use "
        "--set training.batch_clips=16, or a number of shards that divides 12"
    )


def test_a_flag_is_written_down_without_a_value() -> None:
    context = train.make_context("train", ["s", "--run", "r", "--watch", "--ranks", "2"])
    assert command_line(context) == [
        "setcon",
        "train",
        "s",
        "--run",
        "r",
        "--ranks",
        "2",
        "--watch",
    ]

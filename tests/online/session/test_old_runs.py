"""Runs that an older program began are continued as if nothing had changed."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
from small_runs import Learn, config, learned, stop_at

from online.errors import ConfigError
from online.runs.checkpoint import load_checkpoint, newest_readable, save_checkpoint

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def make_old(run: Path, *, hop: int = 1) -> None:
    """Put into the run's files what a program wrote that had `hop`, shards and a ledger."""
    table = tomllib.loads((run / "config.toml").read_text())
    table["stream"] |= {"hop": hop, "shard": 0, "shards": 1, "ledger": False}
    (run / "config.toml").write_text(tomli_w.dumps(table))
    found = newest_readable(run / "checkpoints")
    feed = found.checkpoint.run["feed"]
    feed["request"]["clip"]["hop"] = hop
    feed["ledger_size"] = 0
    feed["counters"]["skipped_frames"] = 0
    for cursor in feed["cursors"]:
        cursor["released_frames"] = 0
    (found.path / "state.json").unlink()  # else it would be left as it is
    path = save_checkpoint(run / "checkpoints", found.checkpoint, keep=2)
    assert load_checkpoint(path).run["feed"] == feed


@pytest.mark.parametrize("long_term", ["reservoir", pytest.param("minred", marks=pytest.mark.soak)])
def test_an_old_run_is_continued_bit_for_bit(learn: Learn, tmp_path: Path, long_term: str) -> None:
    settings = config(f"replay.long_term={long_term}", "stream.order=shuffled")
    learn(tmp_path / "whole", settings)
    run = tmp_path / "old"
    assert learn(run, settings, observe=stop_at(5)).reason == "stopped"
    make_old(run)
    assert learn(run, settings).reason == "complete"
    assert learned(run) == learned(tmp_path / "whole")


def test_an_old_run_whose_hop_was_not_1_is_refused_in_one_line(
    learn: Learn, tmp_path: Path
) -> None:
    run = tmp_path / "old"
    learn(run, config(), observe=stop_at(5))
    make_old(run, hop=2)
    with pytest.raises(ConfigError, match=r"config\.toml: stream\.hop = 2 is no longer a setting"):
        learn(run, config())

"""What share of the time of learning the pictures for `setcon watch` take.

    python benchmarks/training/pictures.py STORE PRESET [--seconds 60]

Steps are taken as in a run, on clips of the store that are in memory already, and after each one
the newest frame is pictured if that is due. The first picture is at the first step: a run pays for
it once, and the share falls to `training.picture_share` as it goes on.
"""

import argparse
import tempfile
import time
from pathlib import Path

from ingest.open import open_store
from online.clips.catalog import StoreCatalog
from online.clips.clip import Clip, cut
from online.config import RunConfig, load_preset
from online.runs.directory import RunDirectory
from online.session.glimpses import Glimpses
from online.session.state import new_trainer
from online.training.batch import collate
from online.training.models import default_device, set_determinism
from online.training.pieces import Pieces

CLIPS = 24


def clips(store: str, config: RunConfig) -> list[Clip]:
    """The first clips of the store."""
    catalog = StoreCatalog(open_store(store))
    (summary, *_) = catalog.recordings()
    gap = catalog.fetch(summary.name, 0, len(summary.kept)).gap
    specs = cut(summary.name, gap, [summary.kept], config.stream.clip)[:CLIPS]
    return [Clip(s, catalog.fetch(s.recording, s.start, s.length)) for s in specs]


def main() -> None:
    parser = argparse.ArgumentParser(description="The share of time that pictures take.")
    parser.add_argument("store")
    parser.add_argument("preset")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    config = load_preset(given.preset)
    set_determinism(config.training)
    held, batch_clips = clips(given.store, config), config.training.batch_clips
    trainer, pieces = new_trainer(config, default_device()), Pieces()
    with tempfile.TemporaryDirectory() as folder, RunDirectory(Path(folder) / "run") as directory:
        share = config.training.picture_share
        glimpses = Glimpses(directory, trainer, pieces, share=share)
        began = time.monotonic()
        while time.monotonic() - began < given.seconds:
            first = trainer.step_count % len(held)
            chosen = (held[first:] + held[:first])[:batch_clips]
            batch = collate(chosen, config.stream.clip)
            if config.model.finds_objects:
                batch = pieces.added(batch, chosen)
            trainer.step(batch)
            glimpses.stepped(chosen[0])
        took = time.monotonic() - began
    steps = (took - glimpses.seconds) / trainer.step_count
    print(
        f"{given.preset}: {trainer.step_count} steps of {1e3 * steps:.1f} ms, {glimpses.taken} "
        f"pictures of {1e3 * glimpses.seconds / glimpses.taken:.1f} ms: "
        f"{glimpses.seconds / took:.2%} of the time"
    )


if __name__ == "__main__":
    main()

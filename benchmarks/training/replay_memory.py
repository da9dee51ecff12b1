"""Memory that a trainer's process takes for a full replay buffer, against the bytes it was given.

    python benchmarks/training/replay_memory.py [--megabytes 64] [--json FILE]

For each frame size a store of noise is served by a process of its own, and a fresh process takes
clips from it over ipc until four times the buffer has gone through it, so that clips come and go.
"grew" is its resident memory above what it had after the first clip, at its largest. It holds the
buffer, the clips under way (4 MB of credit), and what is not given back to the kernel.
"""

import argparse
import json
import multiprocessing
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.records import RecordSettings, Source
from ingest.video.reader import Counters
from online.allocator import keep_freed_memory
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.queue.client import Client
from online.queue.server_process import ServerProcess
from online.replay.long_term import Feedback
from online.replay.mixing import Replay, ReplayConfig

CREDIT_BYTES = 4 << 20
THROUGH = 4
"""How many times the buffer's bytes go through it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Clips of one size in one kind of buffer."""

    frame_size: int
    clip_length: int
    megabytes: float
    long_term: Literal["reservoir", "minred"]

    @property
    def num_frames(self) -> int:
        """Frames of noise that fill the buffer one and a half times."""
        return int(1.5e6 * self.megabytes / (self.frame_size**2 * 3)) + 64


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was held in the end, and what it took."""

    clips: int
    held_megabytes: float
    grew_megabytes: float


def main() -> None:
    options = _options()
    cases = [
        Case(frame_size=size, clip_length=length, megabytes=megabytes, long_term=long_term)
        for size, length, megabytes in (
            (128, 32, options.megabytes),
            (32, 10, options.megabytes),
            (5, 6, options.megabytes / 32),
        )
        for long_term in ("reservoir", "minred")
    ]
    print(f"{'frames':>9}  {'buffer':11}{'given MB':>9}{'held MB':>9}{'clips':>7}{'grew MB':>9}")
    rows = []
    for case in cases:
        with (
            tempfile.TemporaryDirectory() as folder,
            multiprocessing.get_context("spawn").Pool(1) as pool,
        ):
            _record(Path(folder) / "store", case)
            taken = pool.apply(fill, (Path(folder) / "store", case))
        print(
            f"{case.frame_size:>4}x{case.frame_size:<4}  {case.long_term:11}{case.megabytes:9.1f}"
            f"{taken.held_megabytes:9.1f}{taken.clips:7}{taken.grew_megabytes:9.1f}"
        )
        rows.append(asdict(case) | asdict(taken))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def fill(store: Path, case: Case) -> Taken:
    """Let clips of `store` go through a buffer, as training does."""
    keep_freed_memory()
    size, rng = int(1e6 * case.megabytes), np.random.default_rng(0)
    config = ReplayConfig(
        samples_per_insert=1.0, fifo_bytes=0, long_term=case.long_term, long_term_bytes=size
    )
    replay = Replay(config, seed=0, batch_clips=1)
    request = ClipRequest(clip=ClipConfig(clip_length=case.clip_length), order="shuffled")
    with ServerProcess(store) as server, Client(server.address) as client:
        client.open(request, credit_bytes=CREDIT_BYTES)
        client.next_clip()
        before = most = _resident_bytes()
        through = 0
        while through < THROUGH * size:
            delivery = client.next_clip()
            assert delivery is not None
            through += delivery.clip.nbytes
            replay.insert(delivery.clip)
            batch = replay.sample()
            features = rng.normal(size=(len(batch), 128)).astype(np.float32)
            losses = np.zeros(len(batch), np.float32)
            replay.update(batch, Feedback(features=features, losses=losses))
            most = max(most, _resident_bytes())
        return Taken(
            clips=len(replay),
            held_megabytes=replay.nbytes / 1e6,
            grew_megabytes=(most - before) / 1e6,
        )


def _record(path: Path, case: Case) -> None:
    size, rng = case.frame_size, np.random.default_rng(0)

    def noise(start: int, stop: int) -> Frames:
        index = np.arange(start, stop)
        return Frames(
            images=rng.integers(0, 256, (len(index), size, size, 3), dtype=np.uint8),
            pts_ns=index * 33_000_000,
            gap=index == 0,
            captured_ns=None,
            masks=None,
        )

    source, settings = Source(path="noise", digest="noise"), RecordSettings(size=size)
    with open_store(path, create_format="zarr").writer(
        "noise", source=source, settings=settings, height=size, width=size
    ) as writer:
        while (start := writer.commit.length) + writer.block_length <= case.num_frames:
            writer.append(noise(start, start + writer.block_length), Counters())
        writer.finish(noise(writer.commit.length, case.num_frames), Counters())


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory of a full replay buffer.")
    parser.add_argument("--megabytes", type=float, default=64.0, help="of the larger buffers")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

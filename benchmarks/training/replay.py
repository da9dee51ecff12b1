"""What the replay costs per step: buffers of 256 to 4,096 clips, and MinRed recomputed each time.

    python benchmarks/training/replay.py [--clips 256 1024 4096] [--steps 100] [--json FILE]

A step inserts the clips that are due, draws a batch and notes its features, with the batch, the
samples per insert and the size of features of the demo; the buffer is full. Features come from 32
scenes and are a little different each time. Pixels are never looked at, so clips have one. The last
column is the share of a demo step, which is measured in the same run: forward, loss, backward, Adam
on one thread.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from noise import noise

from ingest.frame import Frames
from online.clips.clip import Clip, ClipSpec
from online.config import RunConfig, load_preset
from online.replay.closest_pair import on_grid
from online.replay.long_term import Feedback
from online.replay.minred import MinRed
from online.replay.mixing import Replay, ReplayConfig
from online.session.state import new_trainer

SCENES = 32
FRAME_SIZE = 32
KINDS = ("fifo", "reservoir", "minred", "minred recomputed")


class Recomputing(MinRed):
    """MinRed that compares every pair again for every clip that leaves."""

    def _victim(self) -> int:
        keys = list(self._seen.keys())
        directions = self._seen.directions(keys)
        similar = directions @ directions.T
        np.fill_diagonal(similar, -np.inf)
        pair = np.unravel_index(similar.argmax(), similar.shape)
        return keys[pair[int(self._rng.integers(2))]]


class Features:
    """What a model might make of clips: scenes, and how each clip differs from its scene."""

    def __init__(self, size: int) -> None:
        self.rng = np.random.default_rng(0)
        self.scenes = self.rng.normal(size=(SCENES, size))

    def of(self, clips: list[Clip]) -> Float[np.ndarray, "b e"]:
        """One row per clip."""
        scenes = self.scenes[[clip.spec.start // 8 % SCENES for clip in clips]]
        own = [
            np.random.default_rng(clip.spec.start).normal(size=scenes.shape[1]) for clip in clips
        ]
        noise = 0.05 * self.rng.normal(size=scenes.shape)
        return (scenes + 0.5 * np.array(own) + noise).astype(np.float32)


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    config = load_preset("demo")
    step_seconds = demo_step_seconds(config)
    print(f"a demo step takes {1e3 * step_seconds:.1f} ms; the replay per step, in ms:\n")
    print(f"{'clips':>6}  {'buffer':18}{'ms':>9}{'of recomputed':>15}{'of a demo step':>16}")
    rows = []
    for clips in options.clips:
        seconds = {kind: replay_seconds(kind, clips, options.steps, config) for kind in KINDS}
        for kind, taken in seconds.items():
            ratio, share = taken / seconds[KINDS[-1]], taken / step_seconds
            print(f"{clips:6}  {kind:18}{1e3 * taken:9.2f}{ratio:15.4f}{share:16.2%}")
            rows.append({"clips": clips, "buffer": kind, "seconds": taken, "share": share})
    if options.json is not None:
        found: dict[str, Any] = {"demo_step_seconds": step_seconds, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def replay_seconds(kind: str, clips: int, steps: int, config: RunConfig) -> float:
    """Mean seconds of a step of a replay whose buffer is full."""
    replay, features = _full(kind, clips, config), Features(config.model.set_encoder.output_size)
    arrivals, seconds = clips, 0.0
    for _ in range(steps):
        new = [_clip(arrivals + i) for i in range(replay.inserts_due())]
        arrivals += len(new)
        started = time.perf_counter()
        for clip in new:
            replay.insert(clip)
        batch = replay.sample()
        seconds += time.perf_counter() - started
        seen = features.of(batch)
        started = time.perf_counter()
        replay.update(batch, Feedback(features=seen, losses=np.zeros(len(seen), np.float32)))
        seconds += time.perf_counter() - started
    return seconds / steps


def demo_step_seconds(config: RunConfig, *, steps: int = 20) -> float:
    """Median seconds of an optimizer step of the demo, on frames of noise."""
    trainer, batch = new_trainer(config, torch.device("cpu")), noise(config, FRAME_SIZE)
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        trainer.step(batch)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def _full(kind: str, clips: int, config: RunConfig) -> Replay:
    held = [_clip(start) for start in range(clips)]
    size, batch_clips = clips * held[0].nbytes, config.training.batch_clips
    replay = Replay(
        ReplayConfig(
            samples_per_insert=config.replay.samples_per_insert,
            fifo_bytes=size if kind == "fifo" else 0,
            long_term="minred" if kind.startswith("minred") else "reservoir",
            long_term_bytes=0 if kind == "fifo" else size,
        ),
        seed=0,
        batch_clips=batch_clips,
    )
    if kind == "minred recomputed":
        replay._long_term = Recomputing(size, rng=replay._rng)
    specs = [[clip.spec.recording, clip.spec.start, clip.spec.length] for clip in held]
    directions = on_grid(Features(config.model.set_encoder.output_size).of(held))
    state = replay.state() | {
        "inserts": clips,
        "samples": int(clips * config.replay.samples_per_insert) - batch_clips,
        "fifo" if kind == "fifo" else "long_term": specs,
    }
    arrays = {"index": np.arange(clips), "direction": directions.astype(np.float32)}
    replay.restore(state, arrays, lambda spec: held[spec.start])
    return replay


def _clip(start: int) -> Clip:
    pixel = Frames(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int64), np.zeros(1, np.bool_))
    return Clip(ClipSpec("r", start, 1), pixel)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Milliseconds of the replay per step.")
    parser.add_argument("--clips", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--steps", type=int, default=100, help="measured steps of each buffer")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What can be foreseen of the bouncing balls of `paper.py` by one who knows places and speeds.

    python benchmarks/forecast.py [--seeds 0 1 2]

Of the held-out sequences each ball is moved on by a frame from where it truly is, and drawn as the
scene draws it, at the size that is learned from:

straight on   at its true speed
off walls     the same, and it bounces off walls, but never off another ball
by its step   off walls too, at the speed that its step from the frame before tells of, which is
              wrong where it bounced in between
as it was     not moved at all

What comes nearer than "off walls" foresees collisions. MSE is in [-1, 1] units and as a share of
the mean frame's, FG-ARI as of a probe's segments, over those frames that have two before them.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from paper import SCENES

from ingest.scene_balls import BallsConfig, BallTable, ball_colours, draw_discs
from setcon import metrics


@dataclass(frozen=True, slots=True)
class Score:
    """How near a forecast comes to what came."""

    mse: float
    of_mean_frame: float
    fg_ari: float


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Frame by frame where the balls are, and how fast, as shares of the side."""

    centres: Float[np.ndarray, "t k 2"]
    velocities: Float[np.ndarray, "t k 2"]


def main() -> None:
    parser = argparse.ArgumentParser(description="What can be foreseen of bouncing balls.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    found: dict[str, list[Score]] = {}
    for seed in parser.parse_args().seeds:
        for name, score in foreseen(seed).items():
            found.setdefault(name, []).append(score)
    print(f"{'':14}" + "".join(f"{title:>30}" for title in ("MSE", "of mean frame", "FG-ARI")))
    for name, scores in found.items():
        cells = [
            _each([score.mse for score in scores], ".4f"),
            _each([score.of_mean_frame for score in scores], ".3f"),
            _each([score.fg_ari for score in scores], ".3f"),
        ]
        print(f"{name:14}" + "".join(f"{cell:>30}" for cell in cells))


def foreseen(seed: int) -> dict[str, Score]:
    """Each forecast of the held-out sequences of a seed."""
    scene = SCENES["balls"]
    config = scene.config(seed)
    assert isinstance(config, BallsConfig)
    config = replace(config, size=scene.size)
    sequences = list(held_out(config, scene.holdout))
    earlier = [sequence.centres[1:-1] for sequence in sequences]
    forecasts = {
        "straight on": [s.centres[1:-1] + s.velocities[1:-1] for s in sequences],
        "off walls": [off_walls(s, config.radius) for s in sequences],
        "by its step": [off_walls(by_step(s), config.radius) for s in sequences],
        "as it was": earlier,
    }
    came = np.concatenate([sequence.centres[2:] for sequence in sequences])
    return {name: _score(np.concatenate(each), came, config) for name, each in forecasts.items()}


def held_out(config: BallsConfig, share: float) -> Iterator[Sequence]:
    """The sequences at the end of the recording, as the scene plays them."""
    length = config.episode_frames or config.num_frames
    first = round((1 - share) * config.num_frames / length) * length
    for start in range(first, config.num_frames, length):
        table = BallTable.drawn(config, np.random.default_rng([config.seed, 1, start]))
        centres, velocities = [], []
        for _ in range(length):
            centres.append(table.centres.copy())
            velocities.append(table.velocities.copy())
            table.advance(1.0)
        yield Sequence(np.stack(centres), np.stack(velocities))


def off_walls(sequence: Sequence, radius: float) -> Float[np.ndarray, "t-2 k 2"]:
    """Where each ball would be if it were alone."""
    places = np.empty_like(sequence.centres[2:])
    for t, ball in np.ndindex(places.shape[:2]):
        alone = np.s_[t + 1, ball : ball + 1]
        table = BallTable(sequence.centres[alone], sequence.velocities[alone], radius=radius)
        table.advance(1.0)
        places[t, ball] = table.centres[0]
    return places


def by_step(sequence: Sequence) -> Sequence:
    """The same places, with the speeds that the step to each of them tells of."""
    return replace(sequence, velocities=np.diff(sequence.centres, axis=0, prepend=0.0))


def _score(
    forecast: Float[np.ndarray, "n k 2"], came: Float[np.ndarray, "n k 2"], config: BallsConfig
) -> Score:
    colours = ball_colours(config)
    drawn, labels = draw_discs(forecast, colours, config=config)
    images, masks = draw_discs(came, colours, config=config)
    error, mean_error = (
        4 / 255**2 * float(((other - images.astype(np.float64)) ** 2).mean())
        for other in (drawn, images.mean(axis=0))
    )
    truth, segments = torch.from_numpy(masks), torch.from_numpy(labels).long()
    return Score(error, error / mean_error, float(metrics.fg_ari(truth, segments).mean()))


def _each(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}} ({' '.join(format(v, form) for v in values)})"


if __name__ == "__main__":
    main()

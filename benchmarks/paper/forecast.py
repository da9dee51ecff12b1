"""What can be foreseen of the bouncing balls of `paper.py` by one who knows places and speeds.

    python benchmarks/paper/forecast.py [--seeds 0 1 2]

Of the held-out sequences each ball is moved on by a frame from where it truly is, and drawn as the
scene draws it, at the size that is learned from:

straight on   at its true speed
off walls     the same, and it bounces off walls, but never off another ball
by its step   off walls too, at the speed of its step from the frame before, which is
              wrong where it bounced in between
as it was     not moved at all

What comes nearer than "off walls" foresees collisions. MSE is in [-1, 1] units and as a share of
the mean frame's, FG-ARI as of a probe's segments, over those frames that have two before them.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from paper import SCENES, mean_and_each

from ingest.scenes.balls import BallsConfig, BallTable, ball_colours, ball_tables, draw_discs
from setcon.measures import metrics


@dataclass(frozen=True, slots=True)
class Score:
    """How near a forecast is to the true frame."""

    mse: float
    of_mean_frame: float
    fg_ari: float


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
            mean_and_each([score.mse for score in scores], ".4f"),
            mean_and_each([score.of_mean_frame for score in scores], ".3f"),
            mean_and_each([score.fg_ari for score in scores], ".3f"),
        ]
        print(f"{name:14}" + "".join(f"{cell:>30}" for cell in cells))


def foreseen(seed: int) -> dict[str, Score]:
    """Each forecast of the held-out sequences of a seed."""
    scene = SCENES["balls"]
    config = scene.config(seed)
    assert isinstance(config, BallsConfig)
    config = replace(config, size=scene.size)
    centres, velocities = held_out(config, scene.holdout)
    places, speeds, steps = centres[:, 1:-1], velocities[:, 1:-1], np.diff(centres, axis=1)[:, :-1]
    forecasts = {
        "straight on": places + speeds,
        "off walls": off_walls(places, speeds, config.radius),
        "by its step": off_walls(places, steps, config.radius),
        "as it was": places,
    }
    return {name: _score(each, centres[:, 2:], config) for name, each in forecasts.items()}


def held_out(
    config: BallsConfig, share: float
) -> tuple[Float[np.ndarray, "s t k 2"], Float[np.ndarray, "s t k 2"]]:
    """Where the balls are in the sequences at the end of the recording, and how fast they are."""
    states = [np.stack([table.centres, table.velocities]) for table in ball_tables(config)]
    length = config.episode_frames or config.num_frames
    sequences = np.stack(states, axis=1).reshape(2, -1, length, config.num_balls, 2)
    centres, velocities = sequences[:, round((1 - share) * sequences.shape[1]) :]
    return centres, velocities


def off_walls(
    places: Float[np.ndarray, "*n 2"], speeds: Float[np.ndarray, "*n 2"], radius: float
) -> Float[np.ndarray, "*n 2"]:
    """Where each ball would be a frame later if it were alone."""
    moved = np.empty_like(places)
    for ball in np.ndindex(places.shape[:-1]):
        table = BallTable(places[ball][None], speeds[ball][None], radius=radius)
        table.advance(1.0)
        moved[ball] = table.centres[0]
    return moved


def _score(
    forecast: Float[np.ndarray, "s t k 2"],
    came: Float[np.ndarray, "s t k 2"],
    config: BallsConfig,
) -> Score:
    (drawn, labels), (images, masks) = (
        draw_discs(np.concatenate(centres), ball_colours(config), config=config)
        for centres in (forecast, came)
    )
    error, mean_error = (
        4 / 255**2 * float(((other - images.astype(np.float64)) ** 2).mean())
        for other in (drawn, images.mean(axis=0))
    )
    truth, segments = torch.from_numpy(masks), torch.from_numpy(labels).long()
    return Score(error, error / mean_error, float(metrics.fg_ari(truth, segments).mean()))


if __name__ == "__main__":
    main()

"""What can be foreseen of the bouncing balls of `paper.py` by one who knows every place exactly.

    python benchmarks/forecast.py [--seeds 0 1 2]

From the true places of two frames each ball is moved on, and drawn as the scene draws it: at its
speed, straight on, or off the walls too; but never off another ball. Beside them the second frame
as it is. What p_t has to do with collisions, it does beyond these. MSE is in [-1, 1] units and as a
share of the mean frame's, FG-ARI as of a probe's segments, over 1,536 frames of other sequences
than the benchmark holds out.
"""

import argparse
import statistics
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from paper import SCENES

from ingest.scene_balls import BallsConfig, ball_colours, ball_trajectory, draw_discs
from setcon import metrics

FRAMES = 1536
FRAMES_AT_ONCE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description="What can be foreseen of bouncing balls.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in seeds:
        for name, scores in foreseen(seed).items():
            found.setdefault(name, []).append(scores)
    print(f"{'':20}" + "".join(f"{title:>30}" for title in ("MSE", "of mean frame", "FG-ARI")))
    for name, of_seeds in found.items():
        columns = zip(*of_seeds, strict=True)
        cells = (
            _each(list(c), form) for c, form in zip(columns, (".4f", ".3f", ".3f"), strict=True)
        )
        print(f"{name:20}" + "".join(f"{cell:>30}" for cell in cells))


def foreseen(seed: int) -> dict[str, tuple[float, float, float]]:
    """MSE, its share of the mean frame's and FG-ARI of each forecast."""
    scene = SCENES["balls"].config(seed)
    assert isinstance(scene, BallsConfig)
    config = replace(scene, size=SCENES["balls"].size, num_frames=FRAMES)
    centres = np.stack(list(ball_trajectory(config)))
    episodes = centres.reshape(-1, config.episode_frames or FRAMES, *centres.shape[1:])
    earlier, later = episodes[:, :-2], episodes[:, 1:-1]
    on = 2 * later - earlier
    images, masks = drawn(episodes[:, 2:], config)
    forecasts = {"straight on": on, "off walls": off_walls(on, config.radius), "as it was": later}
    return {
        name: scores(drawn(places, config), images, masks) for name, places in forecasts.items()
    }


def off_walls(places: Float[np.ndarray, "*n 2"], radius: float) -> Float[np.ndarray, "*n 2"]:
    """Places beyond a wall, mirrored at it."""
    places = np.where(places < radius, 2 * radius - places, places)
    return np.where(places > 1 - radius, 2 * (1 - radius) - places, places)


def drawn(
    places: Float[np.ndarray, "s t k 2"], config: BallsConfig
) -> tuple[UInt8[np.ndarray, "n h w 3"], UInt8[np.ndarray, "n h w"]]:
    """Images and label maps of all frames."""
    flat = places.reshape(-1, *places.shape[2:])
    parts = [
        draw_discs(flat[i : i + FRAMES_AT_ONCE], ball_colours(config), config=config)
        for i in range(0, len(flat), FRAMES_AT_ONCE)
    ]
    images, masks = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(masks)


def scores(
    forecast: tuple[np.ndarray, np.ndarray], images: np.ndarray, masks: np.ndarray
) -> tuple[float, float, float]:
    """As in the table of the paper."""
    error, mean_error = (
        float(((other - images.astype(np.float64)) ** 2).mean()) * 4 / 255**2
        for other in (forecast[0], images.mean(axis=0))
    )
    truth, labels = torch.from_numpy(masks), torch.from_numpy(forecast[1]).long()
    return error, error / mean_error, float(metrics.fg_ari(truth, labels).mean())


def _each(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}} ({' '.join(format(v, form) for v in values)})"


if __name__ == "__main__":
    main()

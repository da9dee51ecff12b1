"""Where objects are, read from one slot at a time: which slot knows of which object.

    place = slot · W + b      ridge regression on some frames;  R² on others

No decoder and no budget come between, so this finds slots that know of an object even if a probe
does not draw it. A label must mean the same object in all frames.
"""

import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor

RIDGE = 1e-4
"""Ridge penalty per frame, on slots of unit variance: small, as places may be in directions that
vary little."""
LEAST_FRAMES = 20
"""Frames in which an object must be visible, in each part."""


def object_places(masks: Integer[Tensor, "n h w"], *, num_objects: int) -> Float64[Tensor, "n o 2"]:
    """Centres (y, x) of the labels 1..o in pixels; NaN where an object is not visible."""
    n, height, width = masks.shape
    rows = torch.arange(height, dtype=torch.float64)
    columns = torch.arange(width, dtype=torch.float64)
    places = torch.empty(n, num_objects, 2, dtype=torch.float64)
    for label in range(num_objects):
        its = masks == label + 1
        in_rows, in_columns = its.sum(dim=2).double(), its.sum(dim=1).double()
        moments = torch.stack([in_rows @ rows, in_columns @ columns], dim=1)
        places[:, label] = moments / in_rows.sum(dim=1, keepdim=True)  # 0 / 0 is NaN
    return places


def place_r2(
    fitted: tuple[Float[Tensor, "n k d"], Float64[Tensor, "n o 2"]],
    scored: tuple[Float[Tensor, "m k d"], Float64[Tensor, "m o 2"]],
) -> Float64[Tensor, "k o"]:
    """How well each slot alone gives each place: R² of both coordinates together, on `scored`.

    1 is exact, 0 no better than the mean place; NaN for objects seen on too few frames.
    """
    (slots, places), (new_slots, new_places) = fitted, scored
    slots, new_slots = slots.double(), new_slots.double()
    mean, deviation = slots.mean(dim=0), slots.std(dim=0) + 1e-9
    slots, new_slots = (slots - mean) / deviation, (new_slots - mean) / deviation
    found = torch.full((slots.shape[1], places.shape[1]), torch.nan, dtype=torch.float64)
    for label in range(places.shape[1]):
        seen, new_seen = (p[:, label].isfinite().all(dim=1) for p in (places, new_places))
        if min(int(seen.sum()), int(new_seen.sum())) < LEAST_FRAMES:
            continue
        target, new_target = places[seen, label], new_places[new_seen, label]
        spread = (new_target - new_target.mean(dim=0)).square().sum()
        for slot in range(slots.shape[1]):
            predicted = _ridge(slots[seen, slot], target, new_slots[new_seen, slot])
            found[slot, label] = 1 - (predicted - new_target).square().sum() / spread
    return found


def _ridge(
    x: Float64[Tensor, "n d"], y: Float64[Tensor, "n 2"], new_x: Float64[Tensor, "m d"]
) -> Float64[Tensor, "m 2"]:
    """Fit y on x, and predict it for new_x."""
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, new_x = x - x_mean, new_x - x_mean
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    return new_x @ torch.linalg.solve(gram, x.T @ (y - y_mean)) + y_mean

"""How fast each object moves: its centre in the frames before and after, which it must be in.

    v_i = mean of (c_i - c_{i-1}) / (time between) and (c_{i+1} - c_i) / (time between)

or that one of both that there is; over a gap there is none.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64


def velocities(
    centres: Float32[np.ndarray, "n k 2"],
    objects: Int32[np.ndarray, "n k"],
    pts_ns: Int64[np.ndarray, " n"],
    gap: Bool[np.ndarray, " n"],
) -> Float32[np.ndarray, "n k 2"]:
    """(y, x) per second of the object that each slot holds; NaN where nothing says.

    `objects` are numbers that objects keep, at most one slot's in each frame; what is 0 or less is
    none.
    """
    seconds = np.diff(pts_ns) / 1e9
    goes_on = ~gap[1:] & (seconds > 0)
    same = (objects[:-1, :, None] == objects[1:, None, :]) & (objects[:-1, :, None] > 0)
    same &= goes_on[:, None, None]
    frame, before, after = np.nonzero(same)
    moved = (centres[frame + 1, after] - centres[frame, before]) / seconds[frame, None]
    sums, counts = np.zeros(centres.shape), np.zeros(centres.shape)
    for at, slot in ((frame, before), (frame + 1, after)):
        sums[at, slot] += moved
        counts[at, slot] += 1
    with np.errstate(invalid="ignore"):
        return (sums / counts).astype(np.float32)

"""Pictures of an evaluation: a few held-out frames and everything read from their slots."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Int64

from online.probing.encoded import CutFootage
from online.probing.reading import Reading
from online.scores.evaluation import Panels
from online.training.batch import to_bytes
from setcon.measures.metrics import is_annotated


@torch.no_grad()
def draw_panels(
    cut: CutFootage,
    trained: Reading,
    untrained: Reading,
    *,
    grid: tuple[int, int],
    most: int,
) -> Panels:
    """At most `most` targets, spread evenly, of those with an annotation where there are some.

    `grid` is that of the attention maps.
    """
    shown = _annotated(cut)
    spread = np.linspace(0, len(shown) - 1, min(most, len(shown))).round().astype(int)
    rows = shown[np.unique(spread)]
    pick = torch.from_numpy(rows).to(trained.encoded.current.device)
    drawn = trained.probe(trained.encoded.current[pick])
    predicted = trained.probe(trained.encoded.predicted[pick])
    other = untrained.probe(untrained.encoded.current[pick])
    attention = trained.encoded.attention[pick].unflatten(-1, grid)
    if trained.encoded.segments is not None:  # as fine as the picture, and each pixel is one slot's
        one_hot = F.one_hot(trained.encoded.segments[pick.cpu()], attention.shape[1])
        attention = one_hot.movedim(-1, 1)
    return Panels(
        names=[cut.caption(int(row)) for row in rows],
        frames=cut.targets[rows],
        truth=None if cut.masks is None else cut.masks[rows].numpy(),
        reconstruction=to_bytes(drawn.image),
        predicted=to_bytes(predicted.image),
        untrained=to_bytes(other.image),
        slots=to_bytes(drawn.slot_images),
        alphas=drawn.alphas.squeeze(2).float().cpu().numpy(),
        attention=attention.float().cpu().numpy(),
    )


def _annotated(cut: CutFootage) -> Int64[np.ndarray, " m"]:
    rows = np.arange(len(cut.targets))
    if cut.masks is None:
        return rows
    known = rows[is_annotated(cut.masks).numpy()]
    return known if len(known) else rows

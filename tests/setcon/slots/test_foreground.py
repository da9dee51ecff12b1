"""Which pieces are learned as objects, and the loss of it."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)

from setcon.slots.foreground import IGNORED, foreground_loss, foreground_targets
from setcon.supervoxels.supervoxels import Supervoxels


def pieces(*evidence: float, regions: Sequence[int] | None = None) -> Supervoxels:
    """Columns of a run of two frames, one supervoxel each, and each a region of its own."""
    m = len(evidence)
    return Supervoxels(
        labels=torch.arange(m).expand(2, 3, m),
        regions=torch.arange(m) if regions is None else torch.tensor(regions),
        evidence=torch.tensor(evidence, dtype=torch.float64),
        area=np.full((m, 2), 3.0),
        places=np.zeros((m, 2, 2)),
        colour=np.zeros((m, 3)),
        border=np.zeros((m, m)),
    )


def test_what_moves_is_an_object_what_rests_is_not_and_between_nothing_is_known():
    run = pieces(0.5, -0.3, 0.1, -0.1)
    targets = foreground_targets(run, torch.full((2, 3, 4), 4.0), trust=0.0)
    assert targets.tolist() == [[[1, 0, IGNORED, IGNORED]] * 3] * 2


def test_what_the_model_thinks_of_a_piece_counts_by_its_mean_and_within_limits():
    run = pieces(-0.35, -0.35, -0.35, 0.5)
    logits = torch.tensor([4.0, 2.0, 1000.0, -1000.0]).repeat(2, 3, 1)
    logits[:, 0, 2] = -1000  # one row of three: 4/3 on the whole
    targets = foreground_targets(run, logits, trust=0.25)
    # -0.35 + 1; -0.35 + 0.5; -0.35 + 1/3; 0.5 - 1
    assert targets[0, 1].tolist() == [1, IGNORED, IGNORED, 0]
    assert torch.equal(targets, targets[:1, 1:2].expand(2, 3, 4))


def test_what_the_model_thinks_counts_by_its_mean_over_the_region():
    run = pieces(-0.35, -0.35, -0.35, regions=(0, 1, 0))
    logits = torch.tensor([4.0, 4.0, 0.0]).repeat(2, 3, 1)
    targets = foreground_targets(run, logits, trust=0.25)  # -0.35 + 0.5; -0.35 + 1
    assert targets[0, 0].tolist() == [IGNORED, 1, IGNORED]


def test_the_loss_is_the_mean_over_cells_with_a_target():
    logits = torch.tensor([[0.5, -1.0, 3.0], [2.0, 0.0, -3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, IGNORED], [0.0, IGNORED, 1.0]])
    each = [math.log1p(math.exp(x)) for x in (-0.5, -1.0, 2.0, 3.0)]
    loss = foreground_loss(logits, targets)
    assert loss.item() == pytest.approx(sum(each) / 4)
    loss.backward()
    assert (logits.grad != 0).tolist() == (targets != IGNORED).tolist()


def test_where_nothing_is_known_there_is_no_loss():
    logits = torch.randn(2, 5, requires_grad=True)
    loss = foreground_loss(logits, torch.full((2, 5), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_logits_of_lower_precision_are_read_as_float32():
    logits, targets = torch.randn(2, 50).bfloat16(), torch.randint(2, (2, 50)).float()
    expected = F.binary_cross_entropy_with_logits(logits.float(), targets)
    torch.testing.assert_close(foreground_loss(logits, targets), expected)

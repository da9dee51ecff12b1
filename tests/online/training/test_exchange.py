"""What two processes compute of a batch that they share, against one process that has all of it."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from shared_steps import CASES, stepped
from torch import Tensor, nn

from online.errors import ConfigError
from online.training.exchange import Shared, SharedBatchNorm, share_statistics
from setcon.matching import match

STEPS = Path(__file__).parents[2] / "support" / "shared_steps.py"
EXACT = 1e-10
"""Relative, in float64: only the order of sums differs."""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have written what they found."""
    out = tmp_path_factory.mktemp("shared")
    ranks = [
        subprocess.Popen(
            [sys.executable, STEPS, str(rank), "2", out / "meet", out], stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=120)
        assert rank.returncode == 0, said.decode()
    return out


def relative_error(found: Tensor, expected: Tensor, *, least: float = 1e-6) -> float:
    """Of numbers whose largest is below `least`, as a share of that."""
    assert found.shape == expected.shape
    scale = expected.double().abs().max().clamp_min(least)
    return float((found.double() - expected.double()).abs().max() / scale)


def largest_gradient(found: dict[str, Tensor]) -> float:
    return max(float(g.abs().max()) for key, g in found.items() if key.startswith("gradient/"))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_step_of_one(name: str, together: Path) -> None:
    alone = stepped(name)
    first, second = (load_file(together / f"{name}-{rank}.safetensors") for rank in range(2))
    assert alone.keys() == first.keys() == second.keys()
    least = 1e-3 * largest_gradient(alone)  # one of a bias that the loss does not see is rounding
    for key, expected in alone.items():
        if key.startswith("feedback/"):  # of the clips of each; in float32
            assert relative_error(torch.cat([first[key], second[key]]), expected) < 1e-6, key
        else:
            assert torch.equal(first[key], second[key]), f"{key} differs between processes"
            assert relative_error(first[key], expected, least=least) < EXACT, key


def test_statistics_of_bfloat16_are_taken_in_float32() -> None:
    torch.manual_seed(0)
    images = (3 + torch.randn(1, 4, 29, 35)).bfloat16()  # 1015 positions, in bfloat16 1016
    plain = nn.BatchNorm2d(4)
    shared = SharedBatchNorm.like(copy.deepcopy(plain))
    expected = plain(images).detach()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = shared(images).detach()
    finally:
        dist.destroy_process_group()
    assert found.dtype == torch.bfloat16
    assert relative_error(found, expected) < 1e-2
    for name, statistic in plain.named_buffers():
        assert relative_error(shared.get_buffer(name), statistic) < 1e-5, name


def test_a_batchnorm_that_does_more_is_refused() -> None:
    class Activated(nn.BatchNorm2d):
        """As timm's, which holds the activation."""

    model = nn.Sequential(nn.BatchNorm2d(4), nn.Sequential(Activated(4)))
    with pytest.raises(ConfigError, match=r"is of type Activated, whose .* use --ranks 1"):
        share_statistics(model)


def test_parts_of_a_matching_are_those_of_the_clips_with_targets_among_all() -> None:
    lengths = [[4], [7, 3, 6]]
    shared = Shared.of(lengths, rank=1, overlap=2)
    first, second = shared.parts(num_frames=7, horizon=3)
    whole = match(shared.valid, num_frames=7, horizon=3)
    assert torch.cat([first.states, second.states + 7]).equal(whole.states)
    alone = match(shared.valid[1:], num_frames=7, horizon=3)
    assert second.states.equal(alone.states)
    for step, counted in enumerate(whole.ahead):
        assert torch.cat([first.ahead[step].targets, second.ahead[step].targets]).equal(
            counted.targets
        )
        assert second.ahead[step].predictions.equal(alone.ahead[step].predictions)
        assert second.ahead[step].targets.equal(alone.ahead[step].targets + 4)

"""The background's motion: known motions of a texture are found, whatever a patch of it does."""

import math

import pytest
import torch
from jaxtyping import Float
from moving_squares import texture
from torch import Tensor

from setcon.supervoxels.registration import background_flow, warped

HEIGHT, WIDTH = 56, 72
MARGIN = 8  # what moves in from outside is not seen in both frames


def grey(seed: int) -> Float[Tensor, "1 h w"]:
    return 128 + 60 * texture(HEIGHT, WIDTH, seed=seed, grain=9)[:1]


def flow_of(zoom: float, turn: float, move: tuple[float, float]) -> Float[Tensor, "1 2 h w"]:
    """(y, x) by which each pixel is displaced, around the middle."""
    y = (torch.arange(HEIGHT) - (HEIGHT - 1) / 2)[:, None].expand(HEIGHT, WIDTH)
    x = (torch.arange(WIDTH) - (WIDTH - 1) / 2).expand(HEIGHT, WIDTH)
    cos, sin = zoom * math.cos(turn), zoom * math.sin(turn)
    return torch.stack([cos * y + sin * x - y + move[0], cos * x - sin * y - x + move[1]])[None]


def off_the_patch(values: Float[Tensor, "1 2 h w"]) -> Float[Tensor, " n"]:
    seen = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    seen[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    seen[18:38, 26:46] = False
    return values[:, :, seen].flatten()


@pytest.mark.parametrize(
    ("zoom", "turn", "move"),
    [(1, 0, (0, 0)), (1, 0, (1.3, -2.6)), (1.04, 0, (0.5, 0)), (1, 0.04, (0, 1))],
    ids=["still", "moved", "zoomed", "turned"],
)
@pytest.mark.parametrize("seed", range(2))
def test_a_motion_is_found_though_a_patch_moves_and_the_light_changes(zoom, turn, move, seed):
    b, truth = grey(seed), flow_of(zoom, turn, move)
    a = warped(b[None], truth)[0][0]  # a(x) = b(x + flow)
    a, b = a.clone(), b.clone()
    skin = 128 + 90 * texture(12, 12, seed=50 + seed, grain=4)[0]
    a[0, 20:32, 28:40] = skin
    b[0, 24:36, 32:44] = skin
    flow, light = background_flow(a, b * 1.1 + 6)
    assert off_the_patch(flow - truth).abs().max() < 0.1
    torch.testing.assert_close(light, torch.tensor([[0.1, 6.0]]), atol=0.6, rtol=0)
    assert light[0, 0] == pytest.approx(0.1, abs=0.01)


def test_each_of_several_pairs_has_its_own_motion():
    b = torch.cat([grey(0), grey(1)])
    truth = torch.cat([flow_of(1, 0, (2, 0)), flow_of(1, 0, (0, -1.5))])
    a = warped(b[:, None], truth)[0][:, 0]
    flow, _ = background_flow(a, b)
    for found, expected in zip(flow.split(1), truth.split(1), strict=True):
        assert off_the_patch(found - expected).abs().max() < 0.1


def test_bare_surfaces_rest():
    plain = torch.full((1, 32, 32), 90.0)
    flow, light = background_flow(plain, plain + 5)
    assert flow.abs().max() < 0.01
    moved = 90 * (1 + light[0, 0]) + light[0, 1]
    assert float(moved) == pytest.approx(95, abs=0.1)


def test_images_are_read_where_the_flow_points():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 1, -0.5
    moved, inside = warped(image, flow)
    assert moved[0, 0, 1, 2] == pytest.approx((image[0, 0, 2, 1] + image[0, 0, 2, 2]).item() / 2)
    expected = torch.zeros(4, 5, dtype=torch.bool)
    expected[:3, 1:] = True
    assert torch.equal(inside[0], expected)

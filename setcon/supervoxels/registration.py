"""The background's motion between two frames, fitted to all pixels while what differs is doubted.

    b(x + flow(x)) ≈ a(x) (1 + gain) + offset          flow: quadratic in x, 12 parameters

Iteratively reweighted least squares over a pyramid, coarse to fine, after Odobez and Bouthemy
(1995): most of the picture is background, so its motion is the one that most pixels agree on, and
the rest of them lose their weight. Gain and offset take up changes of light.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Bool, Float
from torch import Tensor

LEVELS = ((4, 6, 1), (2, 4, 2), (1, 3, 2))
"""Reduction of the picture, rounds, and degree of the flow, from coarse to fine."""
_EVERY = 5  # pixels of which one is looked at for the scale
_LEAST_SCALE = 1.0  # grey levels: what is explained better is explained


def background_flow(
    a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]
) -> tuple[Float[Tensor, "n 2 h w"], Float[Tensor, "n 2"]]:
    """Where in `b` each pixel of the background of `a` is, minus where it is in `a`; and the light.

    Grey levels are in 0..255, the flow is (y, x) in pixels, the light is gain and offset.
    """
    n, height, width = a.shape
    motion, light = a.new_zeros(n, 2, 0), a.new_zeros(n, 2)
    for reduction, rounds, degree in LEVELS:
        near, far = (F.avg_pool2d(x[:, None], reduction)[:, 0] for x in (a, b))
        terms = _polynomials(near.shape[1], near.shape[2], degree)
        motion = F.pad(2 * motion, (0, len(terms) - motion.shape[2]))  # pixels are half as large
        light = torch.zeros_like(light)
        for _ in range(rounds):
            step = _step(near, far, terms, motion, light)
            motion = motion + step[:, : 2 * len(terms)].unflatten(1, (2, len(terms)))
            light = light + step[:, 2 * len(terms) :]
    terms = _polynomials(height, width, LEVELS[-1][2])
    return (motion @ terms).unflatten(2, (height, width)), light


def warped(
    images: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"]
) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, "n h w"]]:
    """Each image at x + flow(x), and where that lies inside of it."""
    height, width = images.shape[2:]
    y = 2 * (torch.arange(height)[:, None] + flow[:, 0]) / max(1, height - 1) - 1
    x = 2 * (torch.arange(width) + flow[:, 1]) / max(1, width - 1) - 1
    inside = (x.abs() <= 1) & (y.abs() <= 1)
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(images, grid, align_corners=True, padding_mode="border"), inside


def _step(
    near: Float[Tensor, "n h w"],
    far: Float[Tensor, "n h w"],
    terms: Float[Tensor, "m p"],
    motion: Float[Tensor, "n 2 m"],
    light: Float[Tensor, "n 2"],
) -> Float[Tensor, "n 2*m+2"]:
    """One round of Gauss-Newton on motion and light."""
    moved, inside = warped(far[:, None], (motion @ terms).unflatten(2, near.shape[1:]))
    moved = moved[:, 0]
    down, right = _gradients(moved)
    grey = near.flatten(1)
    error = moved.flatten(1) - grey * (1 + light[:, :1]) - light[:, 1:]
    weight = _trust(error, inside.flatten(1))
    slopes = torch.cat(
        [
            down.flatten(1)[:, None] * terms,
            right.flatten(1)[:, None] * terms,
            -grey[:, None],
            -torch.ones_like(grey)[:, None],
        ],
        dim=1,
    )
    weighted = slopes * weight[:, None]
    normal = weighted @ slopes.transpose(1, 2)
    # bare surfaces leave some directions open: a little of the diagonal keeps them where they are
    diagonal = normal.diagonal(dim1=1, dim2=2).mean(dim=1)
    normal = normal + (1e-5 * diagonal + 1e-6)[:, None, None] * torch.eye(normal.shape[1])
    return torch.linalg.solve(normal, -(weighted @ error[..., None]))[..., 0]


def _trust(error: Float[Tensor, "n p"], inside: Bool[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Geman-McClure weights: 1 for what is explained, near 0 for what is not."""
    some = slice(None, None, _EVERY)
    size = torch.where(inside[:, some], error[:, some].abs(), torch.inf)
    middle = size.sort(dim=1).values.gather(1, inside[:, some].sum(dim=1, keepdim=True) // 2)
    scale = (1.4826 * middle).nan_to_num(_LEAST_SCALE, posinf=_LEAST_SCALE).clamp_min(_LEAST_SCALE)
    return inside / (1 + (error / (2 * scale)).square()).square()


def _gradients(
    images: Float[Tensor, "n h w"],
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """Central differences down and to the right."""
    tall = F.pad(images[:, None], (0, 0, 1, 1), mode="replicate")[:, 0]
    wide = F.pad(images[:, None], (1, 1, 0, 0), mode="replicate")[:, 0]
    return (tall[:, 2:] - tall[:, :-2]) / 2, (wide[:, :, 2:] - wide[:, :, :-2]) / 2


def _polynomials(height: int, width: int, degree: int) -> Float[Tensor, "m p"]:
    """1, x, y and, for degree 2, x², xy, y² at every pixel, on [-1, 1]."""
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width).expand(height, width)
    terms = [torch.ones_like(x), x, y]
    if degree == 2:
        terms += [x * x, x * y, y * y]
    return torch.stack(terms).flatten(1)

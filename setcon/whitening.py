"""Slots with every direction at the same scale.

    w_k = (s_k - mean_k) · basis_k,      basis_k = eigenvectors_k / √eigenvalues_k

A trained slot holds where its object is in a direction that varies a hundred times less than the
others; a decoder finds it many times sooner once all directions have unit variance. One with less
than d / n of the largest variance is scaled as if it had that much, and stays small: n frames do
not distinguish it from noise, and a decoder would learn them by heart with it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SlotWhitening(nn.Module):
    """Mean and PCA of each slot index, kept as buffers; changes nothing until fitted."""

    mean: Tensor
    basis: Tensor

    def __init__(self, num_slots: int, slot_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_slots, slot_size))
        self.register_buffer("basis", torch.eye(slot_size).repeat(num_slots, 1, 1))

    @torch.no_grad()
    def fit(self, slots: Float[Tensor, "n k d"]) -> None:
        """Take mean and PCA from these slots."""
        mean = slots.double().mean(dim=0)
        centred = (slots.double() - mean).transpose(0, 1)
        covariance = centred.transpose(1, 2) @ centred / len(slots)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        known = min(1.0, slots.shape[-1] / len(slots))
        floor = eigenvalues.amax(dim=-1, keepdim=True) * known
        scale = eigenvalues.clamp_min(floor).clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
        self.mean.copy_(mean)
        self.basis.copy_(eigenvectors * scale[:, None])

    def forward(self, slots: Float[Tensor, "n k d"]) -> Float[Tensor, "n k d"]:
        """The whitened slots."""
        return torch.einsum("nkd,kde->nke", slots - self.mean, self.basis)

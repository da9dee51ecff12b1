import pytest
import torch

from setcon.whitening import SlotWhitening


def correlated(n=500, k=3, d=4):
    generator = torch.Generator().manual_seed(0)
    slots = torch.randn(n, k, d, generator=generator) * torch.tensor([3.0, 1.0, 0.5, 0.01])
    mixing = torch.linalg.qr(torch.randn(k, d, d, generator=generator)).Q
    return torch.einsum("nkd,kde->nke", slots, mixing) + torch.arange(float(k))[:, None]


def test_directions_come_out_with_zero_mean_and_unit_variance_and_the_smallest_small():
    slots = correlated()
    whitening = SlotWhitening(3, 4)
    whitening.fit(slots)
    whitened = whitening(slots)
    torch.testing.assert_close(whitened.mean(dim=0), torch.zeros(3, 4), rtol=0, atol=1e-3)
    for k in range(3):
        covariance = whitened[:, k].T @ whitened[:, k] / len(slots)
        smallest, *others = covariance.diag().tolist()
        assert smallest < 0.01  # 0.01² of 3², of which 500 frames tell 4 / 500
        assert others == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)
        torch.testing.assert_close(covariance - covariance.diag().diag(), torch.zeros(4, 4))


def test_few_frames_are_whitened_less():
    whitening = SlotWhitening(3, 4)
    variances = []
    for n in (8, 500):
        whitening.fit(correlated(n=n))
        variances.append(whitening(correlated(n=n)).var(dim=0, correction=0).amin())
    few, many = variances
    assert few < many / 2


def test_nothing_changes_before_it_is_fitted():
    slots = correlated()
    torch.testing.assert_close(SlotWhitening(3, 4)(slots), slots)


def test_a_direction_without_variance_stays_small():
    slots = correlated()
    slots[:, 1] = slots[:, 1, :1]  # a line
    slots[:, 2] = 5.0  # a point
    whitening = SlotWhitening(3, 4)
    whitening.fit(slots)
    assert whitening(slots).abs().max() < 10


def test_it_is_kept_with_the_module_and_does_not_learn():
    whitening = SlotWhitening(3, 4)
    assert set(whitening.state_dict()) == {"mean", "basis"}
    assert not list(whitening.parameters())

import torch

from setcon.whitening import SlotWhitening


def correlated(n=500, k=3, d=4):
    generator = torch.Generator().manual_seed(0)
    slots = torch.randn(n, k, d, generator=generator) * torch.tensor([3.0, 1.0, 0.1, 0.01])
    mixing = torch.linalg.qr(torch.randn(k, d, d, generator=generator)).Q
    return torch.einsum("nkd,kde->nke", slots, mixing) + torch.arange(float(k))[:, None]


def test_each_slot_comes_out_with_zero_mean_and_unit_covariance():
    slots = correlated()
    whitening = SlotWhitening(3, 4)
    whitening.fit(slots)
    whitened = whitening(slots)
    torch.testing.assert_close(whitened.mean(dim=0), torch.zeros(3, 4), rtol=0, atol=1e-3)
    for k in range(3):
        covariance = whitened[:, k].T @ whitened[:, k] / len(slots)
        torch.testing.assert_close(covariance, torch.eye(4), rtol=0, atol=1e-3)


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

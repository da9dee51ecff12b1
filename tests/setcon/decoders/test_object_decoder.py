"""What is decoded in an object's own coordinates moves and grows with it."""

import torch

from setcon.config import DecoderConfig
from setcon.decoders.decoder import build_decoder
from setcon.decoders.object_decoder import ObjectDecoder
from setcon.position import position_grid


def make() -> ObjectDecoder:
    torch.manual_seed(0)
    decoder = build_decoder(DecoderConfig(kind="object", hidden_size=16, rank=6), 9)
    assert isinstance(decoder, ObjectDecoder)
    return decoder


def slots(*where: tuple[float, float, float, float]) -> torch.Tensor:
    """The background and objects of one look, one image for each."""
    torch.manual_seed(1)
    look = torch.randn(5).expand(len(where), 1, 5)
    background = torch.randn(1, 1, 9).expand(len(where), 1, 9)
    return torch.cat([background, torch.cat([torch.tensor(where)[:, None], look], dim=2)], dim=1)


@torch.no_grad()
def test_maps_follow_the_object_wherever_it_is():
    decoder = make()
    with torch.no_grad():  # of its place only the coordinates are left
        decoder.from_slot[0].weight[:, :4] = 0
    here, there = slots((0.5, 0.5, 0.1, 0.1), (0.3, 0.6, 0.1, 0.2))
    own = torch.rand(20, 2) - 0.5
    at_home = decoder.at(here[None], 0.5 + own * 0.1)[0, 1]
    abroad = decoder.at(there[None], torch.tensor([0.3, 0.6]) + own * torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(abroad[0, 1], at_home, atol=1e-4, rtol=1e-4)
    assert at_home.std(dim=-1).min() > 1e-3


@torch.no_grad()
def test_a_slot_without_an_object_has_no_share_and_the_background_always_has():
    empty = slots((0, 0, 0, 0))
    empty[:, 0, :4] = 0
    channels = make()(empty, 5, 7)
    assert channels.shape == (1, 2, 4, 5, 7)
    shares = channels[:, :, 3].softmax(dim=1)
    assert shares[:, 1].max() < 1e-6
    assert channels[:, 0].std() > 0


@torch.no_grad()
def test_a_whole_image_is_its_positions():
    decoder, some = make(), slots((0.5, 0.5, 0.1, 0.1), (0, 0, 0, 0), (0.3, 0.6, 0.1, 0.2))
    some = torch.cat([some, slots((0.4, 0.7, 0.02, 0.03))])  # much of the picture is out of reach
    whole = decoder(some, 24, 40)
    torch.testing.assert_close(whole.flatten(3), decoder.at(some, position_grid(24, 40)))
    torch.testing.assert_close(whole[2:], decoder(some[2:], 24, 40))


def test_gradients_reach_both_kinds_of_slots_and_all_that_is_learned():
    decoder, some = make(), slots((0.5, 0.5, 0.1, 0.1)).requires_grad_()
    decoder(some, 6, 8).square().mean().backward()
    assert some.grad is not None
    assert some.grad.abs().sum(dim=-1).all()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


def test_a_whole_image_has_the_gradients_of_its_positions():
    decoder = make().double()
    some = slots((0.5, 0.47, 0.021, 0.033)).double().requires_grad_()
    weights = torch.randn(4, 24 * 40, dtype=torch.float64)
    grid = position_grid(24, 40).double()
    inputs = [some, *decoder.parameters()]
    whole, each = (
        torch.autograd.grad((channels * weights).sum(), inputs)
        for channels in (decoder(some, 24, 40).flatten(3), decoder.at(some, grid))
    )
    for of_whole, of_each in zip(whole, each, strict=True):
        torch.testing.assert_close(of_whole, of_each)


@torch.no_grad()
def test_what_slots_hold_is_read_alike_however_large_it_is():
    decoder, again = make(), make()
    torch.manual_seed(2)
    where = torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.3, 0.6, 0.1, 0.2], [0.0, 0.0, 0.0, 0.0]])
    some = torch.cat([where.expand(40, 3, 4), torch.randn(40, 3, 5)], dim=-1)
    other = some.clone()
    other[:, 0, 4:] = 7 - 2 * -some[:, 0, 4:] * torch.tensor([1, 1, 5, 1, 0.1])
    other[:, 1, 4:] = 3 + some[:, 1, 4:] * torch.tensor([0.5, 1, 1, 20, 1])
    other[:, 2, 4:] = 1000  # holds no object
    decoder.fit(some)
    again.fit(other)
    positions = torch.rand(9, 2)
    drawn, alike, unfitted = (
        d.at(x, positions)
        for d, x in zip((decoder, again, make()), (some, other, other), strict=True)
    )
    assert (alike - drawn).abs().max() < 1e-3
    assert (unfitted - drawn).abs().max() > 0.05

import dataclasses

import pytest
import torch

from setcon.config import DecoderConfig, ProbeConfig
from setcon.probe import DecoderProbe, fit_probe

SMALL = ProbeConfig(
    decoder=DecoderConfig(hidden_size=32, frequencies=3),
    steps=300,
    frames_per_step=16,
    pixels_per_frame=32,
    learning_rate=1e-2,
    warmup_steps=10,
)


def halves(n=64, size=12):
    """Two colours side by side, and slots that hold just these colours."""
    slots = torch.rand(n, 2, 3, generator=torch.Generator().manual_seed(0))
    left, right = (slots[:, k, :, None, None].expand(-1, -1, size, size // 2) for k in range(2))
    return slots, torch.cat([left, right], dim=-1)


def weights(probe):
    return [tensor.clone() for tensor in probe.state_dict().values()]


def test_image_is_the_sum_of_slot_images_weighted_by_alphas_that_sum_to_one():
    torch.manual_seed(0)
    probe = DecoderProbe(DecoderConfig(hidden_size=8), slot_size=6, image_size=(4, 5))
    found = probe(torch.randn(2, 3, 6))
    torch.testing.assert_close(found.alphas.sum(dim=1), torch.ones(2, 1, 4, 5))
    expected = sum(found.slot_images[:, k] * found.alphas[:, k] for k in range(3))
    torch.testing.assert_close(found.image, expected)


def test_image_size_may_be_set_anew():
    probe = DecoderProbe(DecoderConfig(kind="small"), slot_size=6, image_size=(16, 16))
    probe.image_size = (24, 8)
    assert probe(torch.randn(2, 3, 6)).image.shape == (2, 3, 24, 8)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_fitted_pixel_probe_draws_the_images(whiten):
    slots, images = halves()
    fitted = fit_probe(slots, images, dataclasses.replace(SMALL, whiten=whiten))
    error = (fitted.probe(slots).image - images).square().mean().item()
    mean_frame = (images.mean(dim=0) - images).square().mean().item()
    assert error < 0.7 * mean_frame
    assert fitted.train_mse == pytest.approx(error, rel=0.3)


@pytest.mark.parametrize("kind", ["broadcast", "small"])
def test_a_convolutional_probe_learns_too(kind):
    slots, images = halves(n=32, size=16)
    decoder = DecoderConfig(kind=kind, hidden_size=8, normalisation="batch")
    config = ProbeConfig(decoder=decoder, steps=12, frames_per_step=4, warmup_steps=2)
    before = fit_probe(slots, images, dataclasses.replace(config, learning_rate=0.0))
    after = fit_probe(slots, images, config)
    assert after.train_mse < before.train_mse


def test_the_same_seed_gives_the_same_probe_and_global_randomness_is_left_alone():
    slots, images = halves()
    config = dataclasses.replace(SMALL, steps=5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit_probe(slots, images, config)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = fit_probe(slots, images, config)
    other = fit_probe(slots, images, dataclasses.replace(config, seed=1))
    pairs = zip(weights(first.probe), weights(again.probe), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert first.train_mse == again.train_mse != other.train_mse


def test_an_object_decoder_is_fitted_to_the_scale_of_its_slots():
    slots, images = halves()
    slots = torch.cat([torch.rand(*slots.shape[:2], 4), 100 + 7 * slots], dim=-1)
    config = dataclasses.replace(SMALL, steps=1, whiten=False)
    config = dataclasses.replace(config, decoder=DecoderConfig(kind="object", hidden_size=8))
    decoder = fit_probe(slots, images, config).probe.decoder
    torch.testing.assert_close(decoder.mean[0], slots[:, 0, 4:].mean(dim=0))
    torch.testing.assert_close(1 / decoder.scale[1], slots[:, 1:, 4:].std((0, 1), correction=0))


def test_no_gradient_reaches_the_slots():
    slots, images = halves()
    slots.requires_grad_()
    fit_probe(slots, images, dataclasses.replace(SMALL, steps=2))
    assert slots.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_fits_where_the_caller_has_gradients_off(mode):
    slots, images = halves()
    with mode():
        slots = slots * 1
        fitted = fit_probe(slots, images, dataclasses.replace(SMALL, steps=30))
    assert (
        fitted.train_mse < fit_probe(slots, images, dataclasses.replace(SMALL, steps=1)).train_mse
    )


def test_bytes_and_floats_are_the_same_images():
    slots, images = halves()
    as_bytes = (images * 255).to(torch.uint8).permute(0, 2, 3, 1)
    images = as_bytes.permute(0, 3, 1, 2) / 255
    config = dataclasses.replace(SMALL, steps=5)
    from_bytes, from_floats = (fit_probe(slots, one, config) for one in (as_bytes, images))
    assert from_bytes.train_mse == pytest.approx(from_floats.train_mse, rel=1e-5)
    assert from_bytes.probe.image_size == from_floats.probe.image_size == (12, 12)


def test_batch_norm_is_the_same_layer_in_training_and_in_scoring():
    slots, images = halves(n=8, size=16)
    decoder = DecoderConfig(kind="small", normalisation="batch")
    config = ProbeConfig(decoder=decoder, steps=3, frames_per_step=2)
    probe = fit_probe(slots, images, config).probe
    assert not any(module.training for module in probe.modules())
    means = [value for name, value in probe.named_buffers() if name.endswith("running_mean")]
    assert len(means) == 1
    assert (means[0] == 0).all()


def test_progress_is_told_after_every_step():
    slots, images = halves()
    calls = []
    config = dataclasses.replace(SMALL, steps=3)
    fit_probe(slots, images, config, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_whole_image_decoders_do_not_decode_single_positions():
    probe = DecoderProbe(DecoderConfig(kind="small"), slot_size=6, image_size=(16, 16))
    with pytest.raises(TypeError, match="a small decoder makes whole images only"):
        probe.at(torch.randn(1, 2, 6), torch.rand(4, 2))


@pytest.mark.parametrize("name", ["steps", "frames_per_step", "pixels_per_frame"])
def test_a_budget_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ProbeConfig(**{name: 0})


@pytest.mark.parametrize("kind", ["bilinear", "broadcast"])
def test_an_image_with_two_kinds_of_slots_need_not_be_given_twice(kind):
    slots, images = halves(n=8)
    both = torch.cat([slots, slots.flip(1)])
    config = ProbeConfig(decoder=DecoderConfig(kind=kind, hidden_size=8), steps=4, warmup_steps=1)
    once, twice = (fit_probe(both, given, config) for given in (images, torch.cat([images] * 2)))
    assert once.train_mse == twice.train_mse
    assert all(map(torch.equal, weights(once.probe), weights(twice.probe)))
    with pytest.raises(ValueError, match="slots of 16 images are given, and 3 images"):
        fit_probe(both, images[:3], config)

from pathlib import Path

import numpy as np
import pytest
import torch

from setcon import SeedCheckpointError
from setcon.config import DecoderConfig, EncoderConfig, LossConfig
from setcon.decoders.decoder import build_decoder
from setcon.encoders.convolutional import ConvolutionalEncoder
from setcon.loss import contrastive_loss
from setcon.seed_checkpoint import load_model, load_probe

GOLDEN = Path(__file__).parent / "golden"
MODEL, DECODER = GOLDEN / "small_pretext.pth.tar", GOLDEN / "small_decoder.pth.tar"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "small.npz") as arrays:
        return {
            name: torch.from_numpy(arrays[name])
            for name in arrays
            if arrays[name].dtype.kind != "U"
        }


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_model_computes_what_the_port_computed(golden):
    model = load_model(MODEL)
    images = golden["frames_uint8"].permute(0, 3, 1, 2) / 255
    close(model.encoder(images[:2]), golden["features"])
    output = model(images[None])
    close(output.slots[0], golden["slots"])
    close(output.predicted[0], golden["prediction"])
    close(model.summarise(output.slots[0, 2:]), golden["set_state"])
    close(model.summarise(output.predicted[0]), golden["set_prediction"])


@torch.no_grad()
def test_probe_computes_what_the_port_computed(golden):
    probe = load_probe(DECODER, image_size=(64, 64))
    found = probe(golden["slots"][2:4])
    close(found.image, golden["recon"])
    close(found.alphas, golden["masks"])
    close(found.slot_images * found.alphas, golden["recon_slots_premultiplied"])


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_losses_are_the_correct_ones_and_not_the_quirk(golden, similarity):
    config = LossConfig(similarity=similarity, temperature=0.5, standardise=False)
    predicted, states = golden["set_prediction"], golden["set_state"]
    found = contrastive_loss(predicted, states, torch.arange(len(states)), config).loss.item()
    expected = golden[f"loss_{similarity}_tau05_self_masked"].item()
    assert found == pytest.approx(expected, abs=1e-5)
    assert found != pytest.approx(golden["loss_cosine_tau05_unmasked_quirk"].item(), abs=1e-3)


def test_sizes_are_those_of_the_tensors():
    config, probe = load_model(MODEL).config, load_probe(DECODER)
    assert (config.encoder.kind, config.encoder.width) == ("small", 16)
    assert (config.encoder.normalisation, config.center_inputs) == ("batch", False)
    assert (config.slot_attention.num_slots, config.slot_attention.slot_size) == (3, 16)
    assert (config.slot_attention.hidden_size, config.slot_attention.iterations) == (32, 3)
    assert (config.set_encoder.hidden_size, config.set_encoder.output_size) == (32, 16)
    assert (config.set_encoder.depth, config.set_encoder.activation) == (3, "elu")
    assert (probe.config.kind, probe.config.normalisation) == ("small", "batch")
    assert probe.image_size == (128, 128)


def test_loading_draws_no_random_numbers_and_ends_in_evaluation_mode():
    state = torch.get_rng_state()
    assert not load_model(MODEL).training
    assert not load_probe(DECODER).training
    assert torch.equal(torch.get_rng_state(), state)


def port_states(kind: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The fixture's states with the convolutions of another size in place of theirs."""
    encoder = ConvolutionalEncoder(EncoderConfig(kind=kind, width=16, normalisation="batch"))
    decoder = build_decoder(DecoderConfig(kind=kind, normalisation="batch"), slot_size=16)
    states = []
    for path, prefix, module in [
        (MODEL, "encoder.cnn.enc.", encoder),
        (DECODER, "decoder_cnn.dec.", decoder),
    ]:
        state = torch.load(path, weights_only=True)["state_dict"]
        kept = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
        layers = module.convolutions.state_dict()
        states.append(kept | {prefix + name: tensor for name, tensor in layers.items()})
    return states[0], states[1]


@pytest.mark.parametrize("kind", ["normal", "large"])
def test_the_other_sizes_are_recognised(tmp_path, kind):
    encoder_state, decoder_state = port_states(kind)
    torch.save({"state_dict": encoder_state}, tmp_path / "model.pth.tar")
    torch.save({"state_dict": decoder_state}, tmp_path / "decoder.pth.tar")
    assert load_model(tmp_path / "model.pth.tar").config.encoder.kind == kind
    assert load_probe(tmp_path / "decoder.pth.tar").config.kind == kind


def test_a_file_of_the_other_kind_is_named_with_the_remedy():
    with pytest.raises(SeedCheckpointError, match="this is a decoder, use load_probe"):
        load_model(DECODER)
    with pytest.raises(SeedCheckpointError, match="this is a model, use load_model"):
        load_probe(MODEL)


class Payload:
    """What a pickle must not bring to life."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('pickle ran code')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a checkpoint that torch can read safely"),
        (b"not a checkpoint\n", "not a checkpoint that torch can read safely"),
        ({"state_dict": Payload()}, "not a checkpoint that torch can read safely"),
        ([1, 2], "it has no 'state_dict'"),
        ({"model": {}}, "it has no 'state_dict'"),
        ({"state_dict": {}}, "not a model of the port: no size in 'slot_attention.starts'"),
        ({"state_dict": {"attn.slots": 3}}, "not a model of the port: attn.slots is not a tensor"),
        ({"state_dict": {"other": torch.ones(2)}}, "unknown tensor 'other'"),
    ],
)
def test_anything_else_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "wrong.pth.tar"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(SeedCheckpointError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SeedCheckpointError, match="no such file"):
        load_probe(tmp_path / "missing.pth.tar")


@pytest.mark.parametrize("name", ["attn.to_q.weight", "deep_set.rho.4.bias", "encoder.ln.weight"])
def test_a_tensor_that_is_missing_or_misshapen_is_named(tmp_path, name):
    state = torch.load(MODEL, weights_only=True)["state_dict"]
    path = tmp_path / "damaged.pth.tar"
    torch.save({"state_dict": {**state, name: torch.ones(3, 3)}}, path)
    with pytest.raises(SeedCheckpointError, match=r"has shape .*, but the other tensors"):
        load_model(path)
    del state[name]
    torch.save({"state_dict": state}, path)
    with pytest.raises(SeedCheckpointError, match=r"missing|no size in"):
        load_model(path)

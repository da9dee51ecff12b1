"""The encoder as a program of its own, and models in folders of the Hub."""

import importlib
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from setcon import SetCon, SetConConfig, SlotAttentionConfig, export_encoder
from setcon.config import EncoderConfig
from setcon.hub import HubSetCon


def model(starts: str = "learned") -> SetCon:
    torch.manual_seed(0)
    attention = SlotAttentionConfig(
        starts=starts,
        num_slots=3,
        slot_size=8,
        hidden_size=16,  # type: ignore[arg-type]
    )
    encoder = EncoderConfig(kind="dilated" if starts == "objects" else "paper", width=8)
    return SetCon(SetConConfig(encoder=encoder, slot_attention=attention))


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_exported_encoder_gives_the_same_slots_for_any_number_of_images() -> None:
    learned = model()
    program = export_encoder(learned, height=8, width=12)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    read_back = torch.export.load(file).module()
    for count in (1, 2, 5):
        images = torch.rand(count, 3, 8, 12)
        slots, attention = read_back(images)
        found = learned.encode(images)
        torch.testing.assert_close(slots, found.slots)
        torch.testing.assert_close(attention, found.attention)
    assert learned.training


def test_slots_that_start_at_objects_are_not_exported() -> None:
    with pytest.raises(TypeError, match="supervoxels are found by NumPy"):
        export_encoder(model("objects"), height=16, width=16)


def test_a_model_goes_to_a_folder_and_comes_back(tmp_path: Path) -> None:
    learned = model()
    HubSetCon.of(learned).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["slot_attention"]["num_slots"] == 3
    assert load_file(tmp_path / "model.safetensors").keys() == learned.state_dict().keys()
    back = HubSetCon.from_pretrained(tmp_path)
    assert back.config == learned.config
    assert not back.training
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(back.encode(images).slots, learned.encode(images).slots)


def test_a_folder_without_all_weights_is_refused(tmp_path: Path) -> None:
    HubSetCon.of(model()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["slot_attention.starts"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"slot_attention\.starts"):
        HubSetCon.from_pretrained(tmp_path)


def test_a_folder_with_a_setting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    HubSetCon.of(model()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["encoder"]["depth"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"^config\.json: unknown settings: encoder\.depth; [^\n]*$"
    ):
        HubSetCon.from_pretrained(tmp_path)


def test_bytes_and_single_images_are_encoded_like_floats() -> None:
    learned = model()
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    slots = learned.encode(images / 255).slots
    torch.testing.assert_close(learned.encode(images).slots, slots)
    torch.testing.assert_close(learned.encode(images[0]).slots, slots[:1])


@pytest.mark.usefixtures("unchecked_shapes")
def test_channels_at_the_end_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 8, 8, 3\); of \(n, h, w, 3\), take .permute"):
        model().encode(torch.zeros(2, 8, 8, 3))


def test_without_the_extra_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "setcon.hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs huggingface_hub, .* run pip install -e"):
        importlib.import_module("setcon.hub")

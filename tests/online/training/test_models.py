"""The models a run begins with, and which frames they can see."""

from contextlib import nullcontext

import pytest
import torch

from online.config import load_preset
from online.errors import ConfigError
from online.training.models import check_frame_size, untrained_model, untrained_twin, uses_bfloat16
from setcon.config import SetConConfig, SlotAttentionConfig

CPU = torch.device("cpu")


def test_precision_is_taken_at_its_word() -> None:
    assert uses_bfloat16("bfloat16", CPU)
    assert not uses_bfloat16("float32", CPU)
    assert not uses_bfloat16("auto", CPU)


@pytest.mark.parametrize(
    ("num_slots", "count"), [(10**13, r"160,000,000,\d{3},\d{3}"), (2**62, r"more than 2\*\*63")]
)
def test_a_model_that_does_not_fit_into_memory_is_one_clear_line(
    num_slots: int, count: str
) -> None:
    config = SetConConfig(slot_attention=SlotAttentionConfig(num_slots=num_slots))
    with pytest.raises(ConfigError, match=rf"^model: {count} parameters do not fit [^\n]*$"):
        untrained_model(config, seed=0)


def test_a_twin_is_a_copy_that_training_does_not_reach() -> None:
    model = untrained_model(SetConConfig(), seed=0)
    twin = untrained_twin(model)
    again = untrained_model(SetConConfig(), seed=0).state_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert model.training
    assert not twin.training
    assert all(torch.equal(value, again[name]) for name, value in twin.state_dict().items())


@pytest.mark.parametrize(
    ("preset", "complaint"),
    [
        ("demo", None),
        ("three-object", None),
        ("things", r"model\.slot_attention\.starts: .* 17x15;"),
    ],
)
def test_frames_too_small_to_find_objects_in_are_refused_and_others_are_not(
    preset: str, complaint: str | None
) -> None:
    model = untrained_model(load_preset(preset, []).model, seed=0)
    with pytest.raises(ConfigError, match=complaint) if complaint else nullcontext():
        check_frame_size(model, height=15, width=17)

from pathlib import Path

import pytest

from online.config import (
    RunConfig,
    differences,
    dump_config,
    load_config,
    load_preset,
    preset_names,
)
from online.errors import ConfigError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_survives_being_written_out_and_read_back(name: str, tmp_path: Path) -> None:
    config = load_preset(name)
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_settings_are_laid_over_a_preset() -> None:
    config = load_preset("demo", ["optimizer.learning_rate=0.5", "stream.order=shuffled"])
    assert config.optimizer.learning_rate == 0.5
    assert config.stream.order == "shuffled"
    assert config.model == load_preset("demo").model


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("optimizer.learning_rte=1", "did you mean learning_rate"),
        ("optimiser.learning_rate=1", "did you mean optimizer"),
        ("training.steps=many", "training.steps = 'many'"),
        ("training.steps=0", "steps is 0"),
        ("training.steps", "section.key=value"),
        ("training=3", "training is a section"),
        ("training.steps.more=3", "steps is a value"),
        ("model.slot_attention.num_slots=0", "model.slot_attention"),
        ("loss.similarity=euclid", "loss.similarity = 'euclid'"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name(setting: str, found: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        load_preset("demo", [setting])
    assert found in str(caught.value)


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="demo"):
        load_preset("dmeo")


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("steps 3")
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read"):
        load_config(path)


def test_differences_name_key_and_both_values() -> None:
    ours = load_preset("demo", ["training.batch_clips=3"])
    theirs = load_preset("demo", ["training.batch_clips=4"])
    assert differences(ours, theirs) == ["training.batch_clips 3 (was 4)"]
    assert differences(RunConfig(), RunConfig()) == []

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner

import cli
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


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_printed_with_every_setting_explained_and_can_be_read_back(
    name: str, tmp_path: Path
) -> None:
    text = CliRunner().invoke(cli.main, ["presets", name]).output
    (tmp_path / "config.toml").write_text(text)
    assert load_config(tmp_path / "config.toml") == load_preset(name)
    lines = text.splitlines()
    settings = [i for i, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert len(settings) >= 55
    assert all(lines[i - 1].startswith("# ") for i in settings)
    assert "# order is not set" in lines
    assert " One of paper, small, normal, large, dilated, timm." in text.replace("\n# ", " ")
    assert max(map(len, lines[lines.index("[model]") :])) <= 80


def test_presets_are_listed_with_a_word_on_what_each_is_for() -> None:
    listed = CliRunner().invoke(cli.main, ["presets"]).output.splitlines()
    assert [line.split()[0] for line in listed] == preset_names()
    assert max(map(len, listed)) <= 80
    assert listed[1].startswith("demo          Small frames, as of `setcon scene balls`: ")
    assert all(len(line.split()) > 4 for line in listed)


def test_the_two_presets_of_the_port_are_the_same_as_they_say() -> None:
    assert load_preset("three-object") == load_preset("seven-object")


def test_settings_are_laid_over_a_preset() -> None:
    config = load_preset("demo", ["optimizer.learning_rate=0.5", "stream.order=shuffled"])
    assert config.optimizer.learning_rate == 0.5
    assert config.stream.order == "shuffled"
    assert config.model == load_preset("demo").model


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("optimizer.learning_rte=1", "did you mean optimizer.learning_rate"),
        ("optimiser.learning_rate=1", "did you mean optimizer"),
        ("learning_rte=1", "did you mean optimizer.learning_rate or probe.learning_rate"),
        ("training.num_slots=1", "did you mean model.slot_attention.num_slots"),
        ("model.zzzz=1", "known here: "),
        ("training.steps=many", "training.steps = 'many'"),
        ("training.steps=0", "steps must be at least 1, got 0"),
        ("training.steps", "section.key=value"),
        ("training=3", "training is a section"),
        ("training.steps.more=3", "steps is a value"),
        ("model.slot_attention.num_slots=0", "model.slot_attention"),
        ("loss.similarity=euclid", "loss.similarity = 'euclid'"),
        ("training.seed=-1", "seed must be at least 0, got -1"),
        ("training.seed=1e30", "training.seed = 1e+30"),
        ("training.seed=9223372036854775808", "training.seed = 9223372036854775808"),
        ("probe.seed=9223372036854775808", "probe.seed"),
        ("probe.seed=-1", "seed must be at least 0, got -1"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate = nan: must be a finite number"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate = inf"),
        ("optimizer.learning_rate=1e300", "optimizer.learning_rate = 1e+300"),
        ("optimizer.weight_decay=nan", "optimizer.weight_decay = nan"),
        ("loss.temperature=nan", "loss.temperature = nan"),
        ("loss.temperature=0", "temperature must be above 0"),
        ("loss.temperature=-1", "temperature must be above 0"),
        ("probe.learning_rate=nan", "probe.learning_rate = nan"),
        ("replay.fifo_share=nan", "replay.fifo_share = nan"),
        ("training.prequential_gap_seconds=-1", "prequential_gap_seconds must be at least 0"),
        ("training.threads=-1", "threads must lie in 0..1024, got -1"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name(setting: str, found: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        load_preset("demo", [setting])
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("length", "stride", "most"), [(10, 1, 10), (10, 4, 3), (1, 1, 1), (10, 2, 5)]
)
def test_a_horizon_that_no_clip_reaches_is_refused(length: int, stride: int, most: int) -> None:
    clips = [f"stream.{k}={v}" for k, v in (("clip_length", length), ("frame_stride", stride))]
    assert load_preset("demo", [*clips, f"loss.horizon={most}"]).loss.horizon == most
    with pytest.raises(ConfigError, match=f"loss.horizon is {most + 1}, .* reach {most} ahead"):
        load_preset("demo", [*clips, f"loss.horizon={most + 1}"])


OLD_KEYS = {"hop": 1, "shard": 0, "shards": 1, "ledger": False}


def test_a_configuration_of_an_older_program_is_read(tmp_path: Path) -> None:
    config = load_preset("demo", ["stream.clip_length=8"])
    table = tomllib.loads(dump_config(config))
    table["stream"] |= OLD_KEYS
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(table))
    assert load_config(path) == config
    assert load_preset("demo", ["stream.hop=1", "stream.clip_length=8"]) == config
    assert not OLD_KEYS.keys() & tomllib.loads(dump_config(config))["stream"].keys()


@pytest.mark.parametrize(
    ("key", "value"), [("hop", 2), ("shard", 1), ("shards", 2), ("ledger", True)]
)
def test_a_retired_setting_may_only_have_its_old_default(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps({"stream": {key: value}}))
    said = f"stream.{key} = {value!r} is no longer a setting; only its old default"
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {said} [^\n]*$"):
        load_config(path)
    with pytest.raises(ConfigError, match=f"^--set: {said}"):
        load_preset("demo", [f"stream.{key}={str(value).lower()}"])


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


@pytest.mark.parametrize("setting", ["optimizer.learning_rate=nan", "training.seed=-1"])
def test_a_setting_that_means_nothing_ends_the_command_before_it_begins(
    setting: str, tmp_path: Path
) -> None:
    arguments = ["train", "store", "--run", str(tmp_path / "run"), "--set", setting]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert done.output.startswith("error: --set: ")
    assert not (tmp_path / "run").exists()


OBJECTS = [
    *("model.slot_attention.starts=objects", "model.encoder.kind=dilated", "model.encoder.patch=1"),
    *("augment.shift=0", "augment.jitter=0"),
]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ([*OBJECTS, "augment.shift=0.1"], "need augment.shift and augment.jitter to be 0"),
        ([*OBJECTS, "augment.jitter=0.1"], "need augment.shift and augment.jitter to be 0"),
        ([*OBJECTS, "model.encoder.kind=paper"], 'need encoder.kind = "dilated" or "timm"'),
        (["model.slot_attention.starts=objects"], 'need encoder.kind = "dilated" or "timm"'),
        ([*OBJECTS, "probe.decoder.kind=object"], "whiten must be false"),
        (
            ["probe.decoder.kind=object", "probe.whiten=false"],
            'probe.decoder.kind "object" needs model.slot_attention.starts "objects"',
        ),
        ([*OBJECTS, "model.slot_attention.slot_size=4"], "slot_size must be at least 6, got 4"),
        (["model.slot_attention.foreground_threshold=1.5"], "foreground_threshold must lie in"),
        (["model.slot_attention.foreground_threshold=nan"], "foreground_threshold = nan"),
        (["model.slot_attention.starts=things"], "starts = 'things'"),
        (["loss.foreground=-1"], "foreground must be at least 0, got -1"),
        (["loss.foreground_trust=nan"], "loss.foreground_trust = nan"),
        (["loss.prediction=inf"], "loss.prediction = inf"),
    ],
)
def test_what_objects_cannot_be_found_with_is_refused(settings: list[str], found: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        load_preset("demo", settings)
    assert found in str(caught.value)


def test_objects_can_be_found_with_mirrored_frames_in_other_colours() -> None:
    config = load_preset("demo", [*OBJECTS, "augment.flip=true", "augment.colour=0.1"])
    assert config.model.finds_objects
    assert not load_preset("demo").model.finds_objects


def test_settings_are_read_without_torch() -> None:
    code = "import sys, online.config, online.explain; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == "False"


def test_a_file_of_settings_that_is_too_deep_is_one_line(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("training = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load_config(path)
    with pytest.raises(ConfigError, match="training"):
        load_preset("demo", ["training=" + "[" * 100_000])

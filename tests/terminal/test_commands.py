"""What the definitions of commands say agrees with the code that they call."""

from __future__ import annotations

import json
from pathlib import Path

import click
import h5py
import pytest
from click.testing import CliRunner

from ingest.scenes import SCENES
from terminal.commands.completion import completion
from terminal.commands.store import ingest_command, scene
from terminal.commands.train import train


def test_every_scene_can_be_rendered_by_its_name() -> None:
    """The names stand in the command as well: importing the scenes there would slow every start."""
    (kind,) = (parameter.type for parameter in scene.params if parameter.name == "scene")
    assert isinstance(kind, click.Choice)
    assert sorted(kind.choices) == sorted(SCENES)


def test_a_single_word_to_ingest_lacks_a_store() -> None:
    done = CliRunner().invoke(ingest_command, ["balls.mp4"])
    assert done.exit_code == 2
    *usage, error = done.stderr.splitlines()
    assert usage[0].startswith("Usage: ingest [OPTIONS] SOURCE... STORE")
    assert error == (
        "Error: balls.mp4: a STORE to write to is missing; for example: "
        "setcon ingest balls.mp4 store"
    )


def rendered_config(folder: Path, *words: str) -> dict[str, object]:
    """What the sidecar says of a scene's settings."""
    name, *options = words
    arguments = [name, str(folder / "a.mp4"), "--frames", "2", *options]
    done = CliRunner().invoke(scene, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with h5py.File(folder / "a.masks.h5") as sidecar:
        return json.loads(sidecar.attrs["config"])


def test_settings_of_a_scene_are_laid_over_its_own(tmp_path: Path) -> None:
    settings = ("--set", "size=16", "--set", "hue=0.5", "--set", "episode_frames=null")
    config = rendered_config(tmp_path, "balls", "--seed", "3", *settings)
    assert (config["size"], config["hue"], config["episode_frames"]) == (16, 0.5, None)
    assert (config["num_frames"], config["fps"], config["seed"]) == (2, 30, 3)


def test_a_scene_has_a_frame_rate_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    assert rendered_config(tmp_path, "tumble", "--set", "size=16")["fps"] == 10


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("wolds=1", "--set wolds=1: tumble takes size, min_objects, max_objects, "),
        ("seed=1", "--set seed=1: tumble takes size"),
        ("worlds=a", "--set worlds=a: Expected `int`, got `str`"),
        ("worlds", "--set worlds: Expected `int`, got `str`"),
        ("worlds=-1", "tumble: worlds must be at least 0, got -1"),
    ],
)
def test_a_setting_that_a_scene_does_not_take_is_a_usage_error(
    setting: str, message: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(scene, ["tumble", str(tmp_path / "a.mp4"), "--set", setting])
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_gets_code_that_completes_commands(shell: str) -> None:
    done = CliRunner().invoke(completion, [shell], catch_exceptions=False)
    assert done.exit_code == 0
    assert "_SETCON_COMPLETE" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "demo", "--config", "x.toml"], "--config and --preset both choose"),
        (["--config", "x.toml"], "x.toml: cannot be read as TOML"),
        (["--init", "nothing"], "nothing: not a run (no config.toml)"),
    ],
)
def test_settings_come_from_one_place_that_is_there(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(train, ["store", "--run", "run", *options])
    assert message in f"{done.output}{done.exception}"
    assert done.exit_code != 0


def test_a_device_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    done = CliRunner().invoke(train, ["--connect", "ipc://x", "--run", run, "--device", "gpu7"])
    assert done.exit_code == 2
    assert "--device gpu7: cannot be used (Invalid device string: 'gpu7')" in done.output
    assert "this machine has cpu" in done.output


def test_a_video_in_place_of_a_store_names_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(b"video")
    words = [str(tmp_path / "a.avi"), "--run", str(tmp_path / "run"), "--preset", "things"]
    done = CliRunner().invoke(train, words)
    assert done.exit_code == 2
    assert "ingest it first: setcon ingest" in " ".join(done.output.split())
    assert "--size 128" in done.output
    assert not (tmp_path / "run").exists()

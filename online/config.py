"""One run's configuration: a preset, a TOML file and `--set KEY=VALUE` folded into RunConfig.

Every section is a frozen dataclass that lives next to its owner; this module only joins them, and
refuses what it does not know, because a misspelt key that is silently ignored costs a night. None
of them imports torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomli_w

from online.clips.config import StreamConfig
from online.dotted_keys import flattened
from online.errors import ConfigError
from online.probing.config import EvaluationConfig
from online.replay.mixing import ReplayConfig
from online.retired_settings import drop_retired
from online.training.config import AugmentConfig, OptimizerConfig, TrainingConfig
from setcon.config import LossConfig, ProbeConfig, SetConConfig

LARGEST_FLOAT = float(np.finfo(np.float32).max)
LARGEST_INT = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run learns."""

    model: SetConConfig = field(default_factory=SetConConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.training.keep_segments and self.stream.order != "stream":
            raise ValueError("training.keep_segments needs stream.order=stream, to have ends")
        if self.training.keep_segments and self.training.shards > 1:
            raise ValueError(
                "training.keep_segments needs training.shards = 1: several shards are at different "
                "places of the stream"
            )
        if self.model.finds_objects and (self.augment.shift or self.augment.jitter):
            raise ValueError(
                "slots that start at objects need augment.shift and augment.jitter to be 0: "
                "objects are found in frames as they are"
            )
        if self.model.keeps_maps and self.augment != AugmentConfig():
            raise ValueError(
                "a frozen encoder sees each frame once, as it is: set augment.shift, jitter and "
                "colour to 0 and augment.flip to false, or model.encoder.timm.tuned to true"
            )
        if self.model.finds_objects and (self.loss.horizon > 1 or self.loss.unit == "slot"):
            raise ValueError(
                'slots that start at objects need loss.horizon = 1 and loss.unit = "set": which of '
                "them hold an object changes from frame to frame"
            )
        if self.probe.decoder.kind == "object" and not self.model.finds_objects:
            raise ValueError(
                'probe.decoder.kind "object" needs model.slot_attention.starts "objects"'
            )
        if self.loss.horizon > (most := self._longest_horizon()):
            raise ValueError(
                f"loss.horizon is {self.loss.horizon}, but clips of {self.stream.clip.frames} "
                f"frames reach {most} ahead; lower it, or raise stream.clip_length"
            )

    @property
    def frame_stride(self) -> int:
        """Distance in frames between the three frames of a triplet."""
        return self.stream.frame_stride

    def _longest_horizon(self) -> int:
        """Steps ahead from a clip's first two frames to its last."""
        return (self.stream.clip.frames - 1) // self.stream.frame_stride - 1


def preset_names() -> list[str]:
    """Names that `load_preset` takes, sorted."""
    folder = resources.files("setcon.presets")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def preset_comment(name: str) -> list[str]:
    """The lines of text that a preset's file begins with; the first says what it is for."""
    lines = takewhile(lambda line: line.startswith("#"), _preset_text(name).splitlines())
    return [line.removeprefix("#").removeprefix(" ") for line in lines]


def load_preset(name: str, settings: Iterable[str] = ()) -> RunConfig:
    """The preset called `name` with `section.key=value` settings laid over it.

    Raises ConfigError: no such preset, an unknown key, or a value its field does not take.
    """
    return _resolve(tomllib.loads(_preset_text(name)), settings, where=f"preset {name}")


def load_config(path: Path, settings: Iterable[str] = ()) -> RunConfig:
    """The configuration in a TOML file, with settings laid over it.

    Raises ConfigError: the file cannot be read as TOML, or as for `load_preset`.
    """
    try:
        table = _parsed(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
    return _resolve(table, settings, where=str(path))


def dump_config(config: RunConfig) -> str:
    """`config` as TOML, every field written out; `load_config` reads it back equal."""
    return tomli_w.dumps(_without_none(dataclasses.asdict(config)))


def differences(ours: RunConfig, theirs: RunConfig) -> list[str]:
    """Dotted keys at which two configurations differ, with both values."""
    flat_ours, flat_theirs = (
        flattened(dataclasses.asdict(ours)),
        flattened(dataclasses.asdict(theirs)),
    )
    return [
        f"{key} {flat_ours.get(key)!r} (was {flat_theirs.get(key)!r})"
        for key in sorted(flat_ours.keys() | flat_theirs.keys())
        if flat_ours.get(key) != flat_theirs.get(key)
    ]


def _preset_text(name: str) -> str:
    if name not in preset_names():
        raise ConfigError(f"{name}: no such preset; there are {', '.join(preset_names())}")
    return resources.files("setcon.presets").joinpath(f"{name}.toml").read_text("utf-8")


def _resolve(table: dict[str, Any], settings: Iterable[str], *, where: str) -> RunConfig:
    drop_retired(table, where=where)
    config = _build(RunConfig, table, where=where, prefix="")
    laid_over = list(settings)
    for setting in laid_over:
        _lay_over(table, setting)
    drop_retired(table, where="--set")
    return _build(RunConfig, table, where="--set", prefix="") if laid_over else config


def _parsed(text: str) -> dict[str, Any]:
    """A table of TOML; ValueError for other text, and for numbers that cannot be printed."""
    table = tomllib.loads(text)
    if not _is_printable(table):
        raise ValueError("a number has too many digits")
    return table


def _is_printable(value: object) -> bool:
    """Whether all whole numbers within are of a size that Python turns into decimal digits."""
    if isinstance(value, dict):
        return all(map(_is_printable, value.values()))
    if isinstance(value, list):
        return all(map(_is_printable, value))
    return not isinstance(value, int) or value.bit_length() <= 1024


def _lay_over(table: dict[str, Any], setting: str) -> None:
    """Put `section.key=value` into `table`; the value is TOML, or else a plain string."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {setting}: write it as section.key=value")
    try:
        value = _parsed(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    except ValueError as error:
        raise ConfigError(f"--set {setting}: {error}") from error
    *sections, name = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {setting}: {section} is a value, not a section")
    table[name] = value


def _build(kind: type, table: Mapping[str, Any], *, where: str, prefix: str) -> Any:
    """A dataclass of `kind` from a table, checked key by key."""
    types = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if name not in names:
            raise ConfigError(f"{where}: unknown key {key}{_suggestion(name, names, prefix)}")
        if dataclasses.is_dataclass(types[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {key} is a section, found the value {value!r}")
            values[name] = _build(
                typing.cast(type, types[name]), value, where=where, prefix=f"{key}."
            )
            continue
        try:
            values[name] = msgspec.convert(value, types[name])
            _check_number(values[name])
        except (msgspec.ValidationError, ValueError) as error:
            raise ConfigError(f"{where}: {key} = {value!r}: {error}") from error
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'configuration'}: {error}") from error


def _check_number(value: object) -> None:
    """Refuse, for any field, a number that torch cannot compute with."""
    if isinstance(value, float) and not abs(value) <= LARGEST_FLOAT:  # not `>`, which NaN passes
        raise ValueError(f"must be a finite number, at most {LARGEST_FLOAT:.1e} in size")
    if isinstance(value, int) and not abs(value) <= LARGEST_INT:
        raise ValueError(f"must lie within {LARGEST_INT:.1e} of 0")


def _suggestion(name: str, names: list[str], prefix: str) -> str:
    """What may have been meant: a setting of this section, or one of any other."""
    if close := difflib.get_close_matches(name, names, n=1):
        return f"; did you mean {prefix}{close[0]}?"
    by_name: dict[str, list[str]] = {}
    for key in flat_defaults():
        by_name.setdefault(key.rpartition(".")[2], []).append(key)
    if close := difflib.get_close_matches(name, list(by_name), n=1):
        return f"; did you mean {' or '.join(by_name[close[0]])}?"
    return f"; known here: {', '.join(names)}"


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: an absent key means the field's default, which is then None."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def flat_defaults() -> dict[str, Any]:
    """The default of every setting, under its dotted key."""
    return flattened(dataclasses.asdict(RunConfig()))

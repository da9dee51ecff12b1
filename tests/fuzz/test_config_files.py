"""config.toml and `--set` from anywhere: a configuration, or one line that says what is wrong."""

import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import tomli_w
from fuzzing import ODD, assert_one_line, changed, few_unless_asked, garbled, limited_memory
from hypothesis import example, given
from hypothesis import strategies as st

from online.config import dump_config, flat_defaults, load_config, load_preset
from online.errors import ConfigError

pytestmark = [pytest.mark.fuzz, pytest.mark.usefixtures("unchecked_shapes")]
PRESET = dump_config(load_preset("things"))
TABLE = tomllib.loads(PRESET)


def check(data: bytes) -> None:
    """Load it as a file; what can be loaded comes back equal from what is written of it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_bytes(data)
        try:
            with limited_memory():
                config = load_config(path)
        except ConfigError as error:
            assert_one_line(error)
        else:
            path.write_text(dump_config(config))
            assert load_config(path) == config
        assert [found.name for found in Path(folder).iterdir()] == ["config.toml"]


@few_unless_asked(20)
@given(garbled(PRESET.encode()))
@example(b"\xff")
def test_a_file_of_any_bytes_is_a_configuration_or_one_line(data: bytes) -> None:
    check(data)


def as_toml(tree: Any) -> bytes:
    """TOML has no null, and texts that are not Unicode cannot be written."""

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_none(v) for k, v in value.items() if v is not None}
        if isinstance(value, list):
            return [without_none(v) for v in value if v is not None]
        return value

    return tomli_w.dumps(without_none(tree)).encode()


@few_unless_asked(20)
@given(changed(TABLE).filter(lambda tree: isinstance(tree, dict)))
@example({"a\nb": 1})
@example({"training": {"seed": 1 << 2000}})
@example({"training": {"\x1b[2J" * 2000: 1}})
def test_a_file_of_any_settings_is_a_configuration_or_one_line(tree: dict[str, Any]) -> None:
    check(as_toml(tree))


VALUES = st.one_of(
    st.text(max_size=20),
    ODD.map(str),
    st.sampled_from(["1" * 5000, "[" * 5000, "{a=" * 1000, "1979-05-27", "0x" + "f" * 5000]),
)


@few_unless_asked(20)
@given(key=st.one_of(st.sampled_from(sorted(flat_defaults())), st.text(max_size=20)), value=VALUES)
@example(key="training.seed", value="1" * 5000)
@example(key="training.seed", value="0x" + "f" * 5000)
@example(key="1" * 5000, value="")
def test_any_setting_on_the_command_line_is_taken_or_refused_in_one_line(
    key: str, value: str
) -> None:
    try:
        with limited_memory():
            load_preset("demo", [f"{key}={value}"])
    except ConfigError as error:
        assert_one_line(error)

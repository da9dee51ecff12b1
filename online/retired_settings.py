"""Settings that there were: older runs have them in their `config.toml`, and are still read.

Each may have one value there, its old default, which is what the program does now without it.
"""

from typing import Any

from online.errors import ConfigError

RETIRED: dict[str, Any] = {
    "stream.hop": 1,
    "stream.shard": 0,
    "stream.shards": 1,
    "stream.ledger": False,
}


def drop_retired(table: dict[str, Any], *, where: str) -> None:
    """Take retired settings out of a configuration's `table`, which came from `where`.

    Raises ConfigError: one has another value than its old default.
    """
    for key, only in RETIRED.items():
        section, _, name = key.partition(".")
        values = table.get(section)
        if isinstance(values, dict) and name in values and (value := values.pop(name)) != only:
            raise ConfigError(
                f"{where}: {key} = {value!r} is no longer a setting; only its old default "
                f"{only!r} is accepted"
            )

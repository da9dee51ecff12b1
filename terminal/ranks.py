"""Several processes of one command, started by torchrun's launcher: the ranks of a run."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from online.errors import ConfigError
from online.ranks import check_shards
from online.runs.names import CONFIG_FILE, has_learned

if TYPE_CHECKING:
    from online.config import RunConfig

_ENVIRONMENT = {
    # without it ranks that are started again wait for each other in vain (torch 2.13)
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "GLOO_SOCKET_IFNAME": "lo",  # all ranks are on this machine
}
_SHUTDOWN_SECONDS = 120
"""For ranks that were asked to stop to save."""


def with_shards(config: RunConfig, run: Path, ranks: int, *, settings: Sequence[str]) -> RunConfig:
    """`config` with the shards of a run that has begun, or one for each rank if it names none.

    One shard is only meant where `settings` say so: every configuration that was written has it.

    Raises ConfigError: as many ranks cannot share the batch, or the shards, equally.
    """
    shards = config.training.shards
    if shards == 1 and not any(_names_shards(setting) for setting in settings):
        shards = _shards_of(run) or ranks
    try:
        config = replace(config, training=replace(config.training, shards=shards))
    except ValueError as error:
        raise ConfigError(f"{ranks} ranks: {error}") from error
    what = f"{shards} shard{'s' * (shards != 1)}"
    check_shards(shards, ranks, what=f"{run}: has {what}")
    return config


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run `setcon` with these arguments as so many processes; returns the exit code."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    threads = max(1, (os.cpu_count() or 1) // ranks)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from ingest.python_module import module_command, module_environment

    # what has gone wrong is said by the ranks, and not again by torch's launcher
    level = os.environ.get("LOGLEVEL", "CRITICAL")
    logging.getLogger("torch.distributed.elastic").setLevel(level)
    os.environ.update(module_environment())
    command = module_command("setcon", *arguments)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode  # the rank has said why
        click.secho(
            f"error: rank {rank} was killed by {failure.signal_name()}; the same command continues "
            "from the last checkpoint",
            fg="red",
            err=True,
        )
        return 128 - failure.exitcode
    return 0


def _shards_of(run: Path) -> int | None:
    """The shards of a run that has come further than its untrained model."""
    from online.config import load_config

    return load_config(run / CONFIG_FILE).training.shards if has_learned(run) else None


def _names_shards(setting: str) -> bool:
    return setting.partition("=")[0].strip() == "training.shards"

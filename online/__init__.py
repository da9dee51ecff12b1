"""From stored footage to a trained model: clips over ZeroMQ, training, probes and reports.

    import online

    config = online.load_preset("balls", ["training.steps=2000"])
    outcome = online.train_on_store("store", "runs/balls", config)
    print(outcome.evaluation.trained.current.mse_share, outcome.report)
    trained = online.load_run("runs/balls")
    trained.model.encode(images)    # float (n, 3, h, w) in [0, 1] -> slots (n, k, d)

The public names are imported when they are first used: `import online` by itself imports neither
torch nor ZeroMQ.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from online.analysis.continual import evaluate_continual
    from online.analysis.embed import embed_run
    from online.analysis.opened import TrainedRun, evaluate_run, load_run
    from online.analysis.render import render_run
    from online.clips.clip import Clip
    from online.clips.request import ClipRequest
    from online.config import RunConfig, load_config, load_preset, preset_names
    from online.errors import (
        AddressError,
        CheckpointError,
        ConfigError,
        Diverged,
        FootageError,
        KeyFileError,
        OnlineError,
        RunError,
        ServerError,
        ServerSilent,
        TrainingError,
        WireError,
    )
    from online.queue.client import Client
    from online.queue.keys import ServerKeys, TrainerKeys, make_keys
    from online.queue.server import serve
    from online.queue.stream import ServeConfig
    from online.reports.report import write_report
    from online.runs.log import RunLog, read_run
    from online.scores.evaluation import Evaluation
    from online.session.outcome import Outcome
    from online.session.start import train, train_connected, train_on_store
    from online.session.status import Status
    from online.session.wiring import Start
    from online.session.world import World

__all__ = [
    "AddressError",
    "CheckpointError",
    "Client",
    "Clip",
    "ClipRequest",
    "ConfigError",
    "Diverged",
    "Evaluation",
    "FootageError",
    "KeyFileError",
    "OnlineError",
    "Outcome",
    "RunConfig",
    "RunError",
    "RunLog",
    "ServeConfig",
    "ServerError",
    "ServerKeys",
    "ServerSilent",
    "Start",
    "Status",
    "TrainedRun",
    "TrainerKeys",
    "TrainingError",
    "WireError",
    "World",
    "embed_run",
    "evaluate_continual",
    "evaluate_run",
    "load_config",
    "load_preset",
    "load_run",
    "make_keys",
    "preset_names",
    "read_run",
    "render_run",
    "serve",
    "train",
    "train_connected",
    "train_on_store",
    "write_report",
]

_HOMES = {
    "AddressError": "online.errors",
    "CheckpointError": "online.errors",
    "Client": "online.queue.client",
    "Clip": "online.clips.clip",
    "ClipRequest": "online.clips.request",
    "ConfigError": "online.errors",
    "Diverged": "online.errors",
    "Evaluation": "online.scores.evaluation",
    "FootageError": "online.errors",
    "KeyFileError": "online.errors",
    "OnlineError": "online.errors",
    "Outcome": "online.session.outcome",
    "RunConfig": "online.config",
    "RunError": "online.errors",
    "RunLog": "online.runs.log",
    "ServeConfig": "online.queue.stream",
    "ServerError": "online.errors",
    "ServerKeys": "online.queue.keys",
    "ServerSilent": "online.errors",
    "Start": "online.session.wiring",
    "Status": "online.session.status",
    "TrainedRun": "online.analysis.opened",
    "TrainerKeys": "online.queue.keys",
    "TrainingError": "online.errors",
    "WireError": "online.errors",
    "World": "online.session.world",
    "embed_run": "online.analysis.embed",
    "evaluate_continual": "online.analysis.continual",
    "evaluate_run": "online.analysis.opened",
    "load_config": "online.config",
    "load_preset": "online.config",
    "load_run": "online.analysis.opened",
    "make_keys": "online.queue.keys",
    "preset_names": "online.config",
    "read_run": "online.runs.log",
    "render_run": "online.analysis.render",
    "serve": "online.queue.server",
    "train": "online.session.start",
    "train_connected": "online.session.start",
    "train_on_store": "online.session.start",
    "write_report": "online.reports.report",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'online' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

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
    from online.analysis.embed import Embedded, embed_run
    from online.analysis.opened import TrainedRun, evaluate_run, load_run
    from online.analysis.render import Rendered, render_run
    from online.capture import capture_and_serve
    from online.clips.clip import Clip, ClipConfig, ClipSpec
    from online.clips.config import StreamConfig
    from online.clips.cursor import Cursor
    from online.clips.holdout import RecordingSummary
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
        RankLost,
        RunError,
        ServerError,
        ServerSilent,
        TrainingError,
        WireError,
    )
    from online.probing.config import EvaluationConfig
    from online.probing.evaluator import Findings
    from online.queue.client import Client
    from online.queue.feed import Fate
    from online.queue.keys import KeyPair, ServerKeys, TrainerKeys, make_keys
    from online.queue.receiver import Delivery
    from online.queue.server import ServerCounters, serve
    from online.queue.stream import ServeConfig
    from online.replay.mixing import ReplayConfig
    from online.reports.report import write_report
    from online.runs.log import RunLog, read_run
    from online.scores.evaluation import Evaluation
    from online.scores.matrix import Continual
    from online.session.outcome import Outcome
    from online.session.start import train, train_connected, train_on_store
    from online.session.status import Observer, Status
    from online.session.wiring import Start
    from online.session.world import World
    from online.training.clip_dataset import ClipDataset
    from online.training.config import AugmentConfig, OptimizerConfig, TrainingConfig

__all__ = [
    "AddressError",
    "AugmentConfig",
    "CheckpointError",
    "Client",
    "Clip",
    "ClipConfig",
    "ClipDataset",
    "ClipRequest",
    "ClipSpec",
    "ConfigError",
    "Continual",
    "Cursor",
    "Delivery",
    "Diverged",
    "Embedded",
    "Evaluation",
    "EvaluationConfig",
    "Fate",
    "Findings",
    "FootageError",
    "KeyFileError",
    "KeyPair",
    "Observer",
    "OnlineError",
    "OptimizerConfig",
    "Outcome",
    "RankLost",
    "RecordingSummary",
    "Rendered",
    "ReplayConfig",
    "RunConfig",
    "RunError",
    "RunLog",
    "ServeConfig",
    "ServerCounters",
    "ServerError",
    "ServerKeys",
    "ServerSilent",
    "Start",
    "Status",
    "StreamConfig",
    "TrainedRun",
    "TrainerKeys",
    "TrainingConfig",
    "TrainingError",
    "WireError",
    "World",
    "capture_and_serve",
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
    "AugmentConfig": "online.training.config",
    "CheckpointError": "online.errors",
    "Client": "online.queue.client",
    "Clip": "online.clips.clip",
    "ClipConfig": "online.clips.clip",
    "ClipDataset": "online.training.clip_dataset",
    "ClipRequest": "online.clips.request",
    "ClipSpec": "online.clips.clip",
    "ConfigError": "online.errors",
    "Continual": "online.scores.matrix",
    "Cursor": "online.clips.cursor",
    "Delivery": "online.queue.receiver",
    "Diverged": "online.errors",
    "Embedded": "online.analysis.embed",
    "Evaluation": "online.scores.evaluation",
    "EvaluationConfig": "online.probing.config",
    "Fate": "online.queue.feed",
    "Findings": "online.probing.evaluator",
    "FootageError": "online.errors",
    "KeyFileError": "online.errors",
    "KeyPair": "online.queue.keys",
    "Observer": "online.session.status",
    "OnlineError": "online.errors",
    "OptimizerConfig": "online.training.config",
    "Outcome": "online.session.outcome",
    "RankLost": "online.errors",
    "RecordingSummary": "online.clips.holdout",
    "Rendered": "online.analysis.render",
    "ReplayConfig": "online.replay.mixing",
    "RunConfig": "online.config",
    "RunError": "online.errors",
    "RunLog": "online.runs.log",
    "ServeConfig": "online.queue.stream",
    "ServerCounters": "online.queue.server",
    "ServerError": "online.errors",
    "ServerKeys": "online.queue.keys",
    "ServerSilent": "online.errors",
    "Start": "online.session.wiring",
    "Status": "online.session.status",
    "StreamConfig": "online.clips.config",
    "TrainedRun": "online.analysis.opened",
    "TrainerKeys": "online.queue.keys",
    "TrainingConfig": "online.training.config",
    "TrainingError": "online.errors",
    "WireError": "online.errors",
    "World": "online.session.world",
    "capture_and_serve": "online.capture",
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


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return __all__

"""The models of a run on disk."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from online.config import RunConfig
from online.runs.checkpoint import load_untrained
from online.runs.directory import RunDirectory
from online.training.models import arranged, untrained_model, untrained_twin
from setcon.model import SetCon


@dataclass(frozen=True, slots=True, eq=False)
class ModelPair:
    """A model to load weights of a run into, and its untrained twin; both in evaluation mode."""

    model: SetCon
    """As the run's seed makes it, until something is loaded into it."""
    untrained: SetCon
    """As the run began."""
    damage: str
    """What is wrong with the checkpoint of step 0, which the seed's model then replaces; empty if
    nothing is."""


def load_pair(directory: RunDirectory, config: RunConfig, *, device: torch.device) -> ModelPair:
    """The models of a run that has this configuration.

    Raises CheckpointError: the checkpoint of step 0 belongs to another configuration.
    """
    seed = config.training.seed
    model = arranged(untrained_model(config.model, seed=seed), config.training, device).eval()
    untrained = untrained_twin(model)
    return ModelPair(model, untrained, load_untrained(untrained, directory.checkpoint(0)))

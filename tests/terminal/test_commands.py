"""What the definitions of commands say agrees with the code that they call."""

from __future__ import annotations

import click

from ingest.scenes import SCENES
from terminal.commands.store import scene


def test_every_scene_can_be_rendered_by_its_name() -> None:
    """The names stand in the command as well: importing the scenes there would slow every start."""
    (kind,) = (parameter.type for parameter in scene.params if parameter.name == "scene")
    assert isinstance(kind, click.Choice)
    assert sorted(kind.choices) == sorted(SCENES)

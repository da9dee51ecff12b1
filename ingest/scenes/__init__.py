"""Procedural recordings whose objects are known, by name."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ingest.frame import Frame, Frames
from ingest.scenes.balls import BallsConfig, ball_blocks
from ingest.scenes.gridworld import GridworldConfig, gridworld_blocks
from ingest.scenes.sprites import SpritesConfig, sprite_blocks
from ingest.scenes.tabletop import (
    QuiltConfig,
    SevenObjectConfig,
    TabletopConfig,
    ThreeObjectConfig,
    tabletop_blocks,
)
from ingest.scenes.tumble import TumbleConfig, tumble_blocks

Scene = (
    BallsConfig
    | GridworldConfig
    | SpritesConfig
    | ThreeObjectConfig
    | SevenObjectConfig
    | QuiltConfig
    | TumbleConfig
)

SCENES: Mapping[str, type[Scene]] = MappingProxyType(
    {
        "balls": BallsConfig,
        "gridworld": GridworldConfig,
        "sprites": SpritesConfig,
        "three-object": ThreeObjectConfig,
        "seven-object": SevenObjectConfig,
        "quilt": QuiltConfig,
        "tumble": TumbleConfig,
    }
)
"""The configuration of each scene by its name; every field has a default."""


def scene_name(config: Scene) -> str:
    """The name under which `SCENES` holds the configuration's class."""
    return next(name for name, kind in SCENES.items() if type(config) is kind)


def scene_blocks(config: Scene) -> Iterator[Frames]:
    """Draw the recording in time order, a few dozen frames at a time, masks included."""
    match config:
        case BallsConfig():
            return ball_blocks(config)
        case GridworldConfig():
            return gridworld_blocks(config)
        case SpritesConfig():
            return sprite_blocks(config)
        case TabletopConfig():
            return tabletop_blocks(config)
        case TumbleConfig():
            return tumble_blocks(config)


def scene_frames(config: Scene) -> Iterator[Frame]:
    """Draw the recording in time order, frame by frame, masks included."""
    for block in scene_blocks(config):
        assert block.masks is not None
        for image, pts_ns, gap, masks in zip(
            block.images, block.pts_ns, block.gap, block.masks, strict=True
        ):
            yield Frame(
                image=image, pts_ns=int(pts_ns), gap=bool(gap), captured_ns=None, masks=masks
            )

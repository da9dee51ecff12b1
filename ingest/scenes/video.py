"""Write a procedural scene as a video `X.mp4` with its masks next to it in `X.masks.h5`."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ingest.scenes import Scene, scene_blocks, scene_name
from ingest.video.masks import sidecar_path
from ingest.video.mp4_writer import write_mp4


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedScene:
    """The pair of files that `render_scene` wrote."""

    video: Path
    sidecar: Path
    num_frames: int


def render_scene(
    config: Scene, path: Path, *, progress: Callable[[int], None] | None = None
) -> RenderedScene:
    """Render the scene to the video `path`, ending in .mp4, and its sidecar; replaces either.

    `progress` is called with the number of frames written so far. Raises ValueError for another
    ending, OSError where the folder cannot be written to. If drawing or encoding fails, the pair
    that was there before stays.
    """
    if path.suffix != ".mp4":
        raise ValueError(f"{path}: a scene is written as .mp4, got {path.suffix or 'no ending'}")
    written = 0
    with write_mp4(
        path,
        height=config.size,
        width=config.size,
        length=config.num_frames,
        fps=config.fps,
        ticks_per_second=config.fps,
        has_masks=True,
        attributes={"scene": scene_name(config), "config": json.dumps(asdict(config))},
    ) as write:
        for block in scene_blocks(config):
            write(block)
            written += len(block)
            if progress is not None:
                progress(written)
    return RenderedScene(video=path, sidecar=sidecar_path(path), num_frames=config.num_frames)

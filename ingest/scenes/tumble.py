"""Tumble: textured objects that fall, roll and collide in a room, under a moving camera, in 3D.

Made after MOVi (Greff et al. 2022), with meshes, physics and renderer of pybullet. Every episode
throws some objects of a world towards the middle of its floor:

    world     floor, wall and light, and a pool of objects: mesh, size, texture and tint
    episode   which of them, how they are thrown, and how the camera moves

The wall is behind; barriers that are not seen keep the objects near the middle. There are neither
shadows nor smoothed edges, so a mask says exactly which object a pixel shows. Equal configurations
give equal recordings on one machine and version of pybullet; elsewhere floating point may differ.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from math import ceil, pi

import numpy as np
from jaxtyping import Float, UInt8

from ingest.frame import Frames
from ingest.scenes.base import (
    SceneConfig,
    block_indices,
    check_episode,
    episode_starts,
    presentation_times,
)
from ingest.scenes.bullet import Mesh, Simulation, Texture, Vector, View
from ingest.scenes.textures import drawn_colour, drawn_texture
from setcon.checks import check_at_least, check_within

MAX_OBJECTS = 12
"""Objects in the pool of a world."""
MESHES = (
    Mesh("cube.obj"),
    Mesh("sphere_smooth.obj", is_ball=True),
    Mesh("soccerball.obj", is_ball=True),
    Mesh("duck.obj"),
    Mesh("teddy2_VHACD_CHs.obj"),
    Mesh("bunny.obj"),
    Mesh("torus/torus_textured.obj"),
    Mesh("objects/mug.obj"),
    Mesh("domino/domino.obj"),
    Mesh("racecar/meshes/cone.obj"),
    Mesh("racecar/meshes/left_rear_wheel.obj"),
    Mesh("toys/prism.obj"),
    Mesh("toys/cylinder.obj"),
)

_STEPS_PER_SECOND = 240
"""Time steps of the simulation, at the least."""
_MIDDLE = np.array([0.0, 0.9, 0.0])
_APART = 1.0
"""Metres between the centres of objects as they are thrown, at the least."""


@dataclass(frozen=True, kw_only=True)
class TumbleConfig(SceneConfig):
    """Objects that tumble about. Needs pybullet: `pip install -e '.[tumble]'`."""

    fps: int = 10
    """Frames per second; frame i is shown at i / fps."""
    size: int = 128
    """Height and width of the frames in pixels."""
    min_objects: int = 3
    """Fewest objects in an episode."""
    max_objects: int = 8
    """Most objects in an episode, at most 12."""
    episode_frames: int = 24
    """Frames after which other objects are thrown. After some 3 s most of them rest."""
    worlds: int = 0
    """Worlds that the episodes show in turn. 0 draws a new one for every episode."""
    camera: float = 1.0
    """Share of its full motion that the camera makes. 0 is fixed, elsewhere in each episode."""

    def __post_init__(self) -> None:
        SceneConfig.__post_init__(self)
        check_at_least(16, size=self.size)
        check_within(1, MAX_OBJECTS, min_objects=self.min_objects)
        check_within(self.min_objects, MAX_OBJECTS, max_objects=self.max_objects)
        check_episode(self.episode_frames)
        check_at_least(0, worlds=self.worlds)
        check_within(0, 1, camera=self.camera)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A frame before it has a time; the visible pixels of object k carry label k + 1."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: UInt8[np.ndarray, "h w"]


def tumble_blocks(config: TumbleConfig) -> Iterator[Frames]:
    """Draw the recording block by block. Raises IngestError where pybullet is not installed."""
    with closing(_drawn(config)) as drawn:
        for indices in block_indices(config, size=config.size):
            block = list(islice(drawn, len(indices)))
            yield Frames(
                images=np.stack([frame.image for frame in block]),
                pts_ns=presentation_times(config, indices),
                gap=episode_starts(indices, config.episode_frames),
                captured_ns=None,
                masks=np.stack([frame.labels for frame in block]),
            )


def _drawn(config: TumbleConfig) -> Generator[_Drawn, None, None]:
    """Draw all episodes; the last one may be cut short."""
    steps = ceil(_STEPS_PER_SECOND / config.fps)
    for episode, start in enumerate(range(0, config.num_frames, config.episode_frames)):
        rng = np.random.default_rng([config.seed, 0, episode])
        room = _Room.drawn(np.random.default_rng([config.seed, 1, _world(config, episode)]))
        with Simulation(steps_per_second=steps * config.fps) as simulation:
            room.build(simulation)
            bodies = _throw(simulation, _chosen(config, episode, rng), rng)
            path = _CameraPath.drawn(rng, share=config.camera)
            simulation.advance(round(rng.uniform(0.05, 0.25) * steps * config.fps))
            labels = _labels(bodies)
            for index in range(min(config.episode_frames, config.num_frames - start)):
                view = path.view(index / config.episode_frames - 0.5)
                picture = simulation.picture(view, light=room.light, size=config.size)
                yield _Drawn(picture.image, labels[picture.bodies + 1])
                simulation.advance(steps)


def _labels(bodies: Sequence[int]) -> UInt8[np.ndarray, " n"]:
    """The label of each body, by its number plus one; 0 where it is not one of `bodies`."""
    labels = np.zeros(max(bodies) + 2, np.uint8)
    labels[np.array(bodies) + 1] = np.arange(1, len(bodies) + 1)
    return labels


def _world(config: TumbleConfig, episode: int) -> int:
    return episode % config.worlds if config.worlds else episode


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Where the objects are thrown: a floor before a wall, and a light."""

    floor: Texture
    wall: Texture
    light: Vector

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Room":
        return cls(
            floor=drawn_texture(rng, side=512, muted=True),
            wall=drawn_texture(rng, side=512, muted=True),
            light=rng.uniform([-6, -8, 6], [6, -2, 12]),
        )

    def build(self, simulation: Simulation) -> None:
        """Put up the room, and the barriers around what the camera sees of it."""
        simulation.add_box(
            half=_xyz(9.0, 9.0, 0.1), centre=_xyz(0.0, 0.0, -0.1), texture=self.floor
        )
        simulation.add_box(half=_xyz(11.0, 0.1, 6.0), centre=_xyz(0.0, 5.0, 4.0), texture=self.wall)
        for x in (-3.1, 3.1):
            simulation.add_barrier(half=_xyz(0.1, 8.0, 8.0), centre=_xyz(x, 0.0, 0.0))
        for y in (-2.6, 4.8):
            simulation.add_barrier(half=_xyz(8.0, 0.1, 8.0), centre=_xyz(0.0, y, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    """What is thrown: a mesh with a size and a surface."""

    mesh: Mesh
    side: float
    texture: Texture
    tint: Vector

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Object":
        return cls(
            mesh=MESHES[rng.integers(len(MESHES))],
            side=rng.uniform(0.8, 1.35),
            texture=drawn_texture(rng, side=256),
            tint=0.4 + 0.6 * drawn_colour(rng),
        )


def _chosen(config: TumbleConfig, episode: int, rng: np.random.Generator) -> list[_Object]:
    """Some objects of the episode's world; the others of its pool need not be drawn."""
    count = rng.integers(config.min_objects, config.max_objects + 1)
    world = _world(config, episode)
    return [
        _Object.drawn(np.random.default_rng([config.seed, 2, world, k]))
        for k in rng.permutation(MAX_OBJECTS)[:count]
    ]


def _throw(
    simulation: Simulation, objects: Sequence[_Object], rng: np.random.Generator
) -> list[int]:
    """Throw the objects towards the middle; returns the numbers of their bodies."""
    bodies = []
    for obj, start in zip(objects, _scatter(len(objects), rng), strict=True):
        body = simulation.add_object(obj.mesh, side=obj.side, texture=obj.texture, tint=obj.tint)
        inwards = (_MIDDLE - start) * (1, 1, 0)
        simulation.throw(
            body,
            start=start,
            angles=rng.uniform(0, 2 * pi, 3),
            velocity=rng.uniform(0.3, 1.6) * inwards + rng.normal(0, 0.8, 3),
            spin=rng.normal(0, 2.5, 3),
        )
        bodies.append(body)
    return bodies


def _scatter(count: int, rng: np.random.Generator) -> Float[np.ndarray, "k 3"]:
    """Draw places one after the other, each apart from the others; start over when it is stuck."""
    while True:
        places = np.empty((0, 3))
        for _ in range(100 * count):
            candidate = rng.uniform([-2.2, -1.0, 0.8], [2.2, 2.8, 2.6])
            if (np.linalg.norm(places - candidate, axis=1) >= _APART).all():
                places = np.vstack([places, candidate])
            if len(places) == count:
                return places


@dataclass(frozen=True, slots=True, eq=False)
class _CameraPath:
    """A view in the middle of an episode, and how each part of it changes in an episode."""

    middle: View
    travel: View

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, share: float) -> "_CameraPath":
        """A path by chance, of which the camera goes a share."""
        middle = View(
            target=_xyz(rng.uniform(-0.3, 0.3), 0.7, 0.4),
            distance=rng.uniform(6.0, 7.2),
            yaw=rng.uniform(-25, 25),
            pitch=rng.uniform(-42, -24),
        )
        travel = View(
            target=share * rng.uniform(-0.6, 0.6, 3),
            distance=share * rng.uniform(-1, 1),
            yaw=share * rng.uniform(-25, 25),
            pitch=share * rng.uniform(-7, 7),
        )
        return cls(middle, travel)

    def view(self, moment: float) -> View:
        """The view at a moment between -0.5, when the episode starts, and 0.5."""
        return View(
            target=self.middle.target + moment * self.travel.target,
            distance=self.middle.distance + moment * self.travel.distance,
            yaw=self.middle.yaw + moment * self.travel.yaw,
            pitch=self.middle.pitch + moment * self.travel.pitch,
        )


def _xyz(x: float, y: float, z: float) -> Vector:
    return np.array([x, y, z], np.float64)

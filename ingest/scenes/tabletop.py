"""Tabletop: textured objects that hands move about on a textured table, under a moving camera.

Made after the recordings of the 2021 port: most objects rest at any time, while one or two are
carried to other places, over those that are there, and turned. The camera looks down from above; it
pans, zooms and turns by slow sums of two sines each, so that what rests moves in the picture too.

    world = camera + R(turn) (pixel - 1/2) / zoom

in sides of the table, of which the camera sees about all. An object is carried from a to b along a
bow, at the least jerk: a + (b - a) s(τ) with s(τ) = 10τ³ - 15τ⁴ + 6τ⁵ (Flash & Hogan 1985).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from math import ceil, hypot, pi

import numpy as np
from jaxtyping import Bool, Float, Int64

from ingest.frame import Frames
from ingest.scenes.base import (
    SceneConfig,
    block_indices,
    episode_starts,
    presentation_times,
)
from ingest.scenes.cloth import Cloth, Quilt, View
from ingest.scenes.shapes import OUTLINES, Canvas, Shape, TexturedShape
from setcon.checks import check_above, check_at_least, check_below, check_within

MAX_OBJECTS = len(OUTLINES)

_APART = 0.01
"""Sides between objects that rest, at the least."""
_FAR = 0.15
"""Sides that an object is carried, at the least."""
_TRIES = 50
"""Places looked at for an object before the hand leaves it where it is."""
_LONGEST_REST = 20
"""Frames between two objects that a hand carries, at most."""


@dataclass(frozen=True, kw_only=True)
class TabletopConfig(SceneConfig):
    """Objects on a table. Lengths are shares of the table's side, speeds sides per frame."""

    size: int = 128
    """Height and width of the frames in pixels."""
    num_objects: int = 3
    """Number of objects, 1..7, each of another shape; what is carried is in front."""
    min_radius: float = 0.11
    """Smallest radius of an object's circumscribed circle."""
    max_radius: float = 0.15
    """Largest radius of an object's circumscribed circle."""
    hands: int = 2
    """How many objects are carried at once, at most."""
    speed: float = 0.015
    """Mean speed at which an object is carried."""
    camera: float = 1.0
    """How far the camera moves: 1 is up to 0.06 sides and radians either way, and 6 % of zoom."""

    def __post_init__(self) -> None:
        SceneConfig.__post_init__(self)
        check_at_least(16, size=self.size)
        check_within(1, MAX_OBJECTS, num_objects=self.num_objects)
        check_above(0, min_radius=self.min_radius)
        check_at_least(self.min_radius, max_radius=self.max_radius)
        check_below(0.5, max_radius=self.max_radius)
        if (filled := self.num_objects * pi * self.max_radius**2) > 0.3:
            raise ValueError(
                f"num_objects of max_radius must cover at most 0.3 of the table, got {filled:.2f}"
            )
        check_at_least(0, hands=self.hands)
        check_above(0, speed=self.speed)
        check_within(0, 3, camera=self.camera)


@dataclass(frozen=True, kw_only=True)
class ThreeObjectConfig(TabletopConfig):
    """Three objects on a table."""


@dataclass(frozen=True, kw_only=True)
class SevenObjectConfig(TabletopConfig):
    """Seven smaller objects on a table."""

    num_objects: int = 7
    min_radius: float = 0.08
    max_radius: float = 0.11


@dataclass(frozen=True, kw_only=True)
class QuiltConfig(TabletopConfig):
    """Objects on a quilt of the same colours, so that no colour belongs to one of them."""

    num_objects: int = 4
    hands: int = 4
    speed: float = 0.03
    fps: int = 10


def tabletop_blocks(config: TabletopConfig) -> Iterator[Frames]:
    """Draw the recording block by block. The visible pixels of object k carry label k + 1."""
    rng = np.random.default_rng(config.seed)
    table = (Quilt if isinstance(config, QuiltConfig) else Cloth).drawn(rng)
    camera = _Camera.drawn(config, rng)
    shapes = rng.permutation(MAX_OBJECTS)[: config.num_objects]
    pairs = table.pairs(len(shapes), rng) if isinstance(table, Quilt) else None
    objects = _objects(config, rng, [OUTLINES[shape] for shape in shapes])
    if pairs is not None:
        objects = [obj.in_colours(pair) for obj, pair in zip(objects, pairs, strict=True)]
    for indices in block_indices(config, size=config.size):
        view = camera.view(indices)
        size = config.size
        margin = 2 + ceil(2 * config.max_radius * view.zoom.max() * size)
        canvas = Canvas(table.seen(view, size=size), margin=margin)
        poses = [obj.poses(indices) for obj in objects]
        patches = [
            obj.shape.render(
                view.in_picture(pose.centres) * size,
                pose.angles - view.turn,
                obj.radius * view.zoom * size,
            )
            for obj, pose in zip(objects, poses, strict=True)
        ]
        for is_carried in (False, True):
            for k, (pose, patch) in enumerate(zip(poses, patches, strict=True)):
                canvas.paint(patch, k + 1, np.flatnonzero(pose.carried == is_carried))
        images, masks = canvas.frames()
        yield Frames(
            images=images,
            pts_ns=presentation_times(config, indices),
            gap=episode_starts(indices, None),
            captured_ns=None,
            masks=masks,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Camera:
    """Four slow motions (x, y, zoom, turn), each the mean of two sines."""

    reach: float
    rates: Float[np.ndarray, "4 2"]
    phases: Float[np.ndarray, "4 2"]

    @classmethod
    def drawn(cls, config: TabletopConfig, rng: np.random.Generator) -> "_Camera":
        return cls(
            reach=0.06 * config.camera,
            rates=2 * pi / rng.uniform(120, 480, size=(4, 2)),
            phases=rng.uniform(0, 2 * pi, size=(4, 2)),
        )

    def view(self, indices: Int64[np.ndarray, " n"]) -> View:
        swings = np.sin(indices[:, None, None] * self.rates + self.phases).mean(axis=2)
        x, y, zoom, turn = (self.reach * swings).T
        return View(0.5 + np.stack([x, y], axis=1), 1 + zoom, turn)


@dataclass(frozen=True, slots=True)
class _Move:
    """An object is carried, from `begin` on for `frames` frames."""

    begin: int
    frames: int
    start: tuple[float, float]
    end: tuple[float, float]
    bow: tuple[float, float]
    first_angle: float
    last_angle: float


@dataclass(frozen=True, slots=True, eq=False)
class _Poses:
    """Where an object is in each frame, in sides and radians."""

    centres: Float[np.ndarray, "n 2"]
    angles: Float[np.ndarray, " n"]
    carried: Bool[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    """A shape and all its moves in order, of which the first is to stay where it is."""

    shape: TexturedShape
    radius: float
    moves: list[_Move]

    def in_colours(self, colours: Float[np.ndarray, "2 3"]) -> "_Object":
        """The same object in two other colours."""
        return replace(self, shape=replace(self.shape, colours=colours))

    def poses(self, indices: Int64[np.ndarray, " n"]) -> _Poses:
        begins = np.array([move.begin for move in self.moves])
        at = np.searchsorted(begins, indices, side="right") - 1

        def each(name: str) -> Float[np.ndarray, "n ..."]:
            return np.array([getattr(move, name) for move in self.moves], dtype=np.float64)[at]

        done = np.clip((indices - begins[at]) / each("frames"), 0, 1)
        share = done**3 * (10 - 15 * done + 6 * done**2)
        start, first = each("start"), each("first_angle")
        straight = start + share[:, None] * (each("end") - start)
        return _Poses(
            centres=straight + np.sin(pi * share)[:, None] * each("bow"),
            angles=first + share * (each("last_angle") - first),
            carried=(done > 0) & (done < 1),
        )


def _objects(
    config: TabletopConfig, rng: np.random.Generator, outlines: Sequence[Shape]
) -> list[_Object]:
    """All objects, and what the hands do with them in the whole recording.

    Hands are free in order of time and each draws then, so a longer recording begins alike.
    """
    radii = rng.uniform(config.min_radius, config.max_radius, len(outlines))
    places = _scatter(radii, rng)
    objects = [
        _Object(
            TexturedShape.drawn(rng, outline),
            radius,
            [_lies(place, rng.uniform(0, 2 * pi))],
        )
        for outline, radius, place in zip(outlines, radii, places, strict=True)
    ]
    free_at = [(int(rng.integers(_LONGEST_REST + 1)), hand) for hand in range(config.hands)]
    heapify(free_at)
    while free_at and free_at[0][0] < config.num_frames:
        now, hand = free_at[0]
        resting = [t for t in objects if t.moves[-1].begin + t.moves[-1].frames <= now]
        rest = int(rng.integers(1, _LONGEST_REST + 1))
        if resting:
            obj = resting[rng.integers(len(resting))]
            others = [other for other in objects if other is not obj]
            if move := _carry(obj, others, now, config.speed, rng):
                obj.moves.append(move)
                rest += move.frames
        heapreplace(free_at, (now + rest, hand))
    return objects


def _lies(place: tuple[float, float], angle: float) -> _Move:
    return _Move(-1, 1, place, place, (0.0, 0.0), angle, angle)


def _carry(
    obj: _Object, others: Sequence[_Object], now: int, speed: float, rng: np.random.Generator
) -> _Move | None:
    """A way to a free place, or None where no place was found to be free."""
    before = obj.moves[-1]
    taken = [(other.moves[-1].end, other.radius) for other in others]
    for _ in range(_TRIES):
        x, y = rng.uniform(obj.radius, 1 - obj.radius, size=2)
        dx, dy = x - before.end[0], y - before.end[1]
        distance = hypot(dx, dy)
        if distance >= _FAR and _is_free((x, y), obj.radius, taken):
            bend = rng.uniform(-0.2, 0.2)
            return _Move(
                begin=now,
                frames=max(2, round(distance / speed)),
                start=before.end,
                end=(x, y),
                bow=(-bend * dy, bend * dx),
                first_angle=before.last_angle,
                last_angle=before.last_angle + rng.uniform(-pi / 2, pi / 2),
            )
    return None


def _scatter(radii: Float[np.ndarray, " k"], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Draw places one after the other, each where it is free; start over when it is stuck."""
    while True:
        taken: list[tuple[tuple[float, float], float]] = []
        for _ in range(100 * len(radii)):
            radius = radii[len(taken)]
            x, y = rng.uniform(radius, 1 - radius, size=2)
            if _is_free((x, y), radius, taken):
                taken.append(((x, y), radius))
            if len(taken) == len(radii):
                return [place for place, _ in taken]


def _is_free(
    place: tuple[float, float],
    radius: float,
    taken: Sequence[tuple[tuple[float, float], float]],
) -> bool:
    x, y = place
    return all(
        hypot(x - at_x, y - at_y) >= radius + other + _APART for (at_x, at_y), other in taken
    )

"""Rigid bodies in 3D, simulated by pybullet and drawn by its software renderer, on the CPU.

pybullet is an optional extra, imported where a simulation is opened. What it keeps belongs to the
process, under the number of a client; every simulation here is a client of its own. Lengths are in
metres, z points up, angles of a view are in degrees.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float, Int32, UInt8
from PIL import Image

from ingest.closing import Closing
from ingest.errors import IngestError

Vector = Float[np.ndarray, " 3"]
Texture = UInt8[np.ndarray, "side side 3"]

_GRAVITY = 9.8
_FIELD_OF_VIEW = 42.0
_NEAREST, _FARTHEST = 0.1, 60.0
_LIGHT = {"lightAmbientCoeff": 0.55, "lightDiffuseCoeff": 0.5, "lightSpecularCoeff": 0.1}
_WHITE = (1.0, 1.0, 1.0, 1.0)
_UNSEEN = (0.0, 0.0, -1000.0)
"""Where the visible part of an invisible box is, from its centre."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A Wavefront file of `pybullet_data`; others than balls collide as their convex hull."""

    file: str
    is_ball: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Where a camera is: `distance` away from `target`, at which it looks."""

    target: Vector
    distance: float
    yaw: float
    pitch: float


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What a camera sees: an image, and the number of the body at every pixel, -1 for none."""

    image: UInt8[np.ndarray, "h w 3"]
    bodies: Int32[np.ndarray, "h w"]


class Simulation(Closing):
    """Bodies under gravity. Raises IngestError where pybullet is not installed."""

    def __init__(self, *, steps_per_second: int) -> None:
        self._bullet = _pybullet()
        self._meshes = Path(import_module("pybullet_data").getDataPath())
        self._textures = TemporaryDirectory(prefix="setcon-")  # pybullet reads them from files only
        self._client: int | None = self._bullet.connect(self._bullet.DIRECT)
        self._call("setGravity", 0, 0, -_GRAVITY)
        self._call("setTimeStep", 1 / steps_per_second)

    def close(self) -> None:
        """Forget all bodies."""
        if self._client is not None:
            self._call("disconnect")
            self._client = None
        self._textures.cleanup()

    def add_box(self, *, half: Vector, centre: Vector, texture: Texture) -> int:
        """A box that stays where it is; `half` its sides are given. Returns its number."""
        seen = self._mesh_shape(Mesh("cube.obj"), scale=2 * half)
        body = self._add(self._box(half), seen, centre=centre)
        self._paint(body, texture, _WHITE)
        self._call("changeDynamics", body, -1, lateralFriction=0.6, restitution=0.4)
        return body

    def add_barrier(self, *, half: Vector, centre: Vector) -> None:
        """A box that stays where it is and is not seen."""
        sphere = self._bullet.GEOM_SPHERE
        # a body without a visible shape would be drawn in its colliding one
        far = self._call("createVisualShape", sphere, radius=0.001, visualFramePosition=_UNSEEN)
        self._add(self._box(half), far, centre=centre)

    def add_object(self, mesh: Mesh, *, side: float, texture: Texture, tint: Vector) -> int:
        """A mesh of 1 kg whose longest side is `side`, at the origin. Returns its number.

        Where the mesh has no texture coordinates, one pixel of the texture colours all of it.
        """
        low, high = _bounds(self._meshes / mesh.file)
        scale = side / (high - low).max()
        offset = -scale * (low + high) / 2
        seen = self._mesh_shape(mesh, scale=np.full(3, scale), offset=offset)
        body = self._add(self._hull(mesh, scale, offset, radius=side / 2), seen, mass=1.0)
        self._paint(body, texture, (*tint, 1.0))
        self._call(
            "changeDynamics",
            body,
            -1,
            lateralFriction=0.4,
            restitution=0.5,
            rollingFriction=0.003,
            linearDamping=0.02,
        )
        return body

    def throw(
        self, body: int, *, start: Vector, angles: Vector, velocity: Vector, spin: Vector
    ) -> None:
        """Put a body somewhere, turned by three Euler angles, and in motion."""
        turned = self._bullet.getQuaternionFromEuler(angles.tolist())
        self._call("resetBasePositionAndOrientation", body, start.tolist(), turned)
        self._call("resetBaseVelocity", body, velocity.tolist(), spin.tolist())

    def advance(self, steps: int) -> None:
        """Simulate so many time steps."""
        for _ in range(steps):
            self._call("stepSimulation")

    def picture(self, view: View, *, light: Vector, size: int) -> Picture:
        """Draw what a camera sees, `size` pixels a side, in the light of a lamp far away."""
        matrix = self._bullet.computeViewMatrixFromYawPitchRoll(
            view.target.tolist(), view.distance, view.yaw, view.pitch, 0, 2
        )
        lens = self._bullet.computeProjectionMatrixFOV(_FIELD_OF_VIEW, 1, _NEAREST, _FARTHEST)
        _, _, colours, _, bodies = self._call(
            "getCameraImage",
            size,
            size,
            matrix,
            lens,
            lightDirection=light.tolist(),
            shadow=0,  # its shadow maps are too coarse for a room: bands, and none under objects
            renderer=self._bullet.ER_TINY_RENDERER,
            **_LIGHT,
        )
        # flat tuples where pybullet was built without numpy
        image = np.asarray(colours, np.uint8).reshape(size, size, 4)[..., :3]
        return Picture(image, np.asarray(bodies, np.int32).reshape(size, size))

    def _call(self, name: str, *arguments: object, **options: object) -> Any:
        """One of pybullet's functions, for this client."""
        return getattr(self._bullet, name)(*arguments, **options, physicsClientId=self._client)

    def _mesh_shape(self, mesh: Mesh, *, scale: Vector, offset: Vector | None = None) -> int:
        return self._call(
            "createVisualShape",
            self._bullet.GEOM_MESH,
            fileName=str(self._meshes / mesh.file),
            meshScale=scale.tolist(),
            visualFramePosition=(np.zeros(3) if offset is None else offset).tolist(),
        )

    def _box(self, half: Vector) -> int:
        box = self._bullet.GEOM_BOX
        return self._call("createCollisionShape", box, halfExtents=half.tolist())

    def _hull(self, mesh: Mesh, scale: float, offset: Vector, *, radius: float) -> int:
        if mesh.is_ball:
            return self._call("createCollisionShape", self._bullet.GEOM_SPHERE, radius=radius)
        return self._call(
            "createCollisionShape",
            self._bullet.GEOM_MESH,
            fileName=str(self._meshes / mesh.file),
            meshScale=[scale] * 3,
            collisionFramePosition=offset.tolist(),
        )

    def _add(
        self, collides: int, seen: int, *, mass: float = 0.0, centre: Vector | None = None
    ) -> int:
        place = (np.zeros(3) if centre is None else centre).tolist()
        return self._call("createMultiBody", mass, collides, seen, place)

    def _paint(self, body: int, texture: Texture, tint: tuple[float, ...]) -> None:
        path = Path(self._textures.name) / f"{body}.png"
        Image.fromarray(texture).save(path, compress_level=0)
        number = self._call("loadTexture", str(path))
        self._call("changeVisualShape", body, -1, textureUniqueId=number, rgbaColor=tint)


def _pybullet() -> Any:
    """The module, which has no types; IngestError where it is missing."""
    if find_spec("pybullet") is None:
        raise IngestError(
            "this scene is simulated by pybullet, which is not installed; "
            "run pip install -e '.[tumble]'"
        )
    return import_module("pybullet")


@cache
def _bounds(path: Path) -> tuple[Vector, Vector]:
    """The lowest and the highest x, y and z of a mesh's vertices."""
    lines = path.read_text(encoding="latin-1").splitlines()
    vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], np.float64)
    return vertices.min(axis=0), vertices.max(axis=0)

import numpy as np
import pytest

from ingest.scenes.bullet import Mesh, Picture, Simulation, View

pytest.importorskip("pybullet")

BALL = Mesh("sphere_smooth.obj", is_ball=True)
WHITE = np.ones(3)


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((8, 8, 3), (red, green, blue), np.uint8)


def seen(simulation: Simulation, *, yaw: float = 20.0, pitch: float = -30.0) -> Picture:
    view = View(target=np.zeros(3), distance=5.0, yaw=yaw, pitch=pitch)
    return simulation.picture(view, light=np.array([3.0, -5.0, 8.0]), size=96)


def throw(simulation: Simulation, body: int, *, height: float) -> None:
    none = np.zeros(3)
    start = np.array([0.0, 0.0, height])
    simulation.throw(body, start=start, angles=none, velocity=none, spin=none)


def middle_row(picture: Picture, body: int) -> float:
    return float(np.argwhere(picture.bodies == body)[:, 0].mean())


@pytest.mark.parametrize("mesh", [BALL, Mesh("duck.obj"), Mesh("bunny.obj")])
def test_a_body_is_numbered_exactly_where_its_colour_is_seen(mesh: Mesh) -> None:
    with Simulation(steps_per_second=240) as simulation:
        floor = simulation.add_box(
            half=np.array([9.0, 9.0, 0.1]),
            centre=np.array([0.0, 0.0, -0.7]),
            texture=plain(0, 0, 200),
        )
        body = simulation.add_object(mesh, side=1.2, texture=plain(200, 0, 0), tint=WHITE)
        picture = seen(simulation, pitch=-60.0)
    assert set(np.unique(picture.bodies)) == {floor, body}
    is_red = picture.image[..., 0] > picture.image[..., 2]
    np.testing.assert_array_equal(picture.bodies == body, is_red)


def test_where_there_is_no_body_the_number_is_below_those_of_bodies() -> None:
    with Simulation(steps_per_second=240) as simulation:
        body = simulation.add_object(BALL, side=1.0, texture=plain(9, 9, 9), tint=WHITE)
        assert set(np.unique(seen(simulation).bodies)) == {-1, body}


@pytest.mark.parametrize("file", ["sphere_smooth.obj", "soccerball.obj"])
def test_a_mesh_is_centred_and_as_long_as_asked(file: str) -> None:
    with Simulation(steps_per_second=240) as simulation:
        body = simulation.add_object(Mesh(file), side=1.5, texture=plain(9, 9, 9), tint=WHITE)
        rows, columns = np.nonzero(seen(simulation).bodies == body)
    # a sphere of radius r at a distance d fills 2 atan(r / sqrt(d² - r²)) of the 42 degrees
    pixels = 96 * np.tan(np.arcsin(0.75 / 5)) / np.tan(np.radians(21))
    assert np.ptp(rows) + 1 == pytest.approx(pixels, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(pixels, abs=1.5)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(47.5, abs=1)


def test_a_body_falls_onto_a_barrier_that_is_not_seen() -> None:
    with Simulation(steps_per_second=240) as simulation:
        simulation.add_barrier(half=np.array([3.0, 3.0, 0.1]), centre=np.array([0.0, 0.0, -0.6]))
        body = simulation.add_object(BALL, side=1.0, texture=plain(9, 9, 9), tint=WHITE)
        throw(simulation, body, height=1.0)
        high = middle_row(seen(simulation), body)
        simulation.advance(2400)
        picture = seen(simulation)
    assert set(np.unique(picture.bodies)) == {-1, body}
    assert high < middle_row(picture, body) - 10
    assert middle_row(picture, body) == pytest.approx(47.5, abs=1)  # at rest, 0.5 above its top


def test_a_body_falls_as_far_in_a_second_however_long_a_step_is() -> None:
    rows = []
    for steps in (60, 1000):
        with Simulation(steps_per_second=steps) as simulation:
            body = simulation.add_object(BALL, side=0.5, texture=plain(9, 9, 9), tint=WHITE)
            throw(simulation, body, height=1.2)
            simulation.advance(steps // 2)
            rows.append(middle_row(seen(simulation, pitch=0.0), body))
    assert rows[0] == pytest.approx(rows[1], abs=2)


def test_a_simulation_may_be_closed_twice() -> None:
    simulation = Simulation(steps_per_second=240)
    simulation.close()
    simulation.close()

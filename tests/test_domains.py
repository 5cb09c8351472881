"""Domains: what the constructors accept, what contains and bounding_box say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fpsolve.errors import InputError
from fpsolve.model.domains import Ball, Box, Interval, MeshFile, Sublevel
from fpsolve.model.levelset import crosses_itself
from fpsolve.model.process import formula_landscape

MESHES = Path(__file__).parent.parent / "meshes"
WELL = formula_landscape("(x**2 - 1)**2 + y**2", "identity", ["x", "y"])
WELL_3D = formula_landscape("(x**2 - 1)**2 + y**2 + 2*z**2", "identity", ["x", "y", "z"])
SQUARE = ((-2.0, -2.0), (2.0, 2.0))
CUBE = ((-2.0,) * 3, (2.0,) * 3)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Interval(1.0, 0.0), "domain.upper"),
        (lambda: Interval(0.0, float("inf")), "domain.upper"),
        (lambda: Interval("0", 1.0), "domain.lower"),
        (lambda: Interval(0.0, 1.0, ("top",)), "domain.reflecting"),
        (lambda: Box((0.0, 0.0), (1.0,)), "domain.upper"),
        (lambda: Box((0.0, 0.0), (1.0, 0.0)), "domain.upper"),
        (lambda: Box((0.0, "a"), (1.0, 1.0)), "domain.lower[1]"),
        (lambda: Box((), ()), "domain.lower"),
        (lambda: Box((0.0,) * 4, (1.0,) * 4), "domain.lower"),
        (lambda: Box((1e20,), (1e20 + 1e5,)), "domain.upper"),
        (lambda: Ball((0.0, 0.0), 0.0), "domain.radius"),
        (lambda: Ball((0.0, 0.0), float("nan")), "domain.radius"),
        (lambda: Ball((0.0, 0.0), True), "domain.radius"),
        (lambda: Ball((0.0, None), 1.0), "domain.center[1]"),
        (lambda: Ball((0.0, 0.0), 1.0, ("left",)), "domain.reflecting"),
        (lambda: Sublevel(WELL, 0.5, (0.0, 0.0), *SQUARE), "domain.containing"),
        (lambda: Sublevel(WELL, 0.5, (3.0, 0.0), *SQUARE), "domain.containing"),
        (lambda: Sublevel(WELL, 0.5, (1.0,), *SQUARE), "domain.containing"),
        (lambda: Sublevel(WELL, "0.5", (1.0, 0.0), *SQUARE), "domain.below"),
        (lambda: Sublevel(WELL, 0.5, (1.0, 0.0), (0.0, 0.0, 0.0), (2.0, 2.0, 2.0)), "domain.box"),
        (lambda: Sublevel(WELL, 100.0, (1.0, 0.0), *SQUARE).bounding_box(), "domain.box"),
        (lambda: Sublevel(WELL, 1.0, (1.0, 0.0), *SQUARE).bounding_box(), "domain.below"),
        (lambda: Sublevel(WELL_3D, 1.2, (1.0, 0.0, 0.0), *CUBE).bounding_box(), "domain.containing"),
        (lambda: Sublevel(WELL_3D, 30.0, (1.0, 0.0, 0.0), *CUBE).bounding_box(), "domain.box"),
        (lambda: MeshFile("missing.msh", 2), "domain.file"),
        (lambda: MeshFile(str(MESHES), 2), "domain.file"),
        (lambda: MeshFile(str(MESHES / "make.py"), 2).names, "domain.file"),
        (lambda: MeshFile(str(MESHES / "l_shape.msh"), 4), "domain.dimension"),
        (lambda: MeshFile(str(MESHES / "l_shape.msh"), 3).names, "domain.file"),
        (lambda: MeshFile(str(MESHES / "l_shape.msh"), 1).names, "domain.file"),
    ],
)
def test_unusable_input_is_named(make, key):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key


def test_unknown_reflecting_part_suggests_the_close_one():
    with pytest.raises(InputError, match="Did you mean 'left'"):
        Box((0, 0), (1, 1), ["lefft"])
    with pytest.raises(InputError, match="Did you mean 'corner'"):
        MeshFile(str(MESHES / "l_shape.msh"), 2, ("conrer",))
    assert Box((0, 0), (1, 1), ["left", "top", "left"]).reflecting == ("left", "top")


def test_broken_mesh_files(tmp_path):
    for text in ("", "$MeshFormat\nnonsense\n", "$MeshFormat\n4.1 0 8\n$EndMeshFormat\n"):
        (tmp_path / "bad.msh").write_text(text)
        with pytest.raises(InputError) as caught:
            MeshFile(str(tmp_path / "bad.msh"), 2).bounding_box()
        assert caught.value.key == "domain.file"


def test_a_script_in_a_mesh_file_is_not_run(tmp_path):
    (tmp_path / "script.msh").write_text(f'SystemCall "touch {tmp_path}/ran";\n')
    with pytest.raises(InputError):
        MeshFile(str(tmp_path / "script.msh"), 2).bounding_box()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("domain", [Interval(-1, 2), Box((-1,), (2,)), Ball((0.5,), 1.5)])
def test_intervals(domain):
    low, high = domain.bounding_box()
    assert domain.dimension == 1 and low == [-1] and high == [2]
    assert domain.contains(np.array([[-1.1], [-1], [0], [2], [2.1]])).tolist() == [False, True, True, True, False]


def test_box_and_ball():
    box = Box((0, 0, 0), (1, 2, 3))
    assert box.names == ("left", "right", "bottom", "top", "back", "front")
    assert box.contains(np.array([[0.5, 1, 1], [0.5, 2.5, 1]])).tolist() == [True, False]
    ball = Ball((1, 2), 0.5)
    assert ball.contains(np.array([[1, 2.4], [1.4, 2.4]])).tolist() == [True, False]
    with pytest.raises(InputError):
        ball.contains(np.zeros((3, 3)))


def test_sublevel_of_a_double_well_is_one_component():
    domain = Sublevel(WELL, 0.8, (-1, 0), *SQUARE)
    low, high = domain.bounding_box()
    root = np.sqrt(1 + np.array([1, -1]) * np.sqrt(0.8))
    exact = np.array([-root[0], -np.sqrt(0.8)]), np.array([-root[1], np.sqrt(0.8)])
    assert np.all(low <= exact[0]) and np.all(high >= exact[1])
    assert np.allclose(low, exact[0], atol=0.01) and np.allclose(high, exact[1], atol=0.01)
    x = np.random.default_rng(1).uniform(-2, 2, (20_000, 2))
    assert np.array_equal(domain.contains(x), (WELL.loss(x) < 0.8) & (x[:, 0] < 0))
    on_curve = domain.component.loops[0]
    assert np.abs(WELL.loss(on_curve) - 0.8).max() < 1e-14


@pytest.mark.parametrize("level", [1e-10, 1 - 1e-6, 1 + 1e-6])
def test_sublevel_near_the_minimum_and_near_the_saddle(level):
    domain = Sublevel(WELL, level, (-1, 0), *SQUARE)
    _, high = domain.bounding_box()
    assert np.isclose(high[1], np.sqrt(level), rtol=0.01)
    assert domain.contains(np.array([[-1, 0], [1, 0]])).tolist() == [True, level > 1]
    assert not crosses_itself(domain.component.loops)


def test_sublevel_in_a_curved_narrow_valley():
    valley = formula_landscape("(1 - x)**2 + 100*(y - x**2)**2", "identity", ["x", "y"])
    domain = Sublevel(valley, 0.5, (1, 1), (-4, -4), (4, 12))
    low, high = domain.bounding_box()
    assert np.allclose([low[0], high[0]], 1 + np.sqrt([0.5, 0.5]) * [-1, 1], atol=0.003)
    x = np.random.default_rng(6).uniform(low - 0.1, high + 0.1, (50_000, 2))
    assert np.array_equal(domain.contains(x), valley.loss(x) < 0.5)


def test_sublevel_with_a_hole():
    ring = formula_landscape("(x**2 + y**2 - 1)**2 + x/5", "identity", ["x", "y"])
    domain = Sublevel(ring, 0.5, (-1, 0), *SQUARE)
    assert len(domain.component.loops) == 2
    x = np.random.default_rng(2).uniform(-2, 2, (20_000, 2))
    assert np.array_equal(domain.contains(x), ring.loss(x) < 0.5)


def test_sublevel_in_one_and_three_dimensions():
    quartic = formula_landscape("x**4 - x**2", "identity", ["x"])
    low, high = Sublevel(quartic, -0.1, (0.7,), (-2,), (2,)).bounding_box()
    exact = np.sqrt(0.5 + np.array([-1, 1]) * np.sqrt(0.15))
    assert np.allclose([low[0], high[0]], exact, rtol=1e-14)
    domain = Sublevel(WELL_3D, 0.8, (-1, 0, 0), *CUBE)
    x = np.random.default_rng(3).uniform(-2, 2, (5_000, 3))
    inside = (WELL_3D.loss(x) < 0.8) & (x[:, 0] < 0)
    assert np.array_equal(domain.contains(x), inside)
    low, high = domain.bounding_box()
    assert np.all(x[inside] > low) and np.all(x[inside] < high)


def test_mesh_file():
    domain = MeshFile(str(MESHES / "l_shape.msh"), 2, ("corner",))
    assert domain.names == ("corner", "outer")
    x = np.random.default_rng(4).uniform(-1.2, 1.2, (20_000, 2))
    inside = (np.abs(x) < 1).all(axis=1) & ~((x[:, 0] > 0) & (x[:, 1] < 0))
    assert np.array_equal(domain.contains(x), inside)
    assert np.array_equal(domain.bounding_box(), ([-1, -1], [1, 1]))
    assert MeshFile(str(MESHES / "annulus.msh"), 2).names == ("inner", "outer")

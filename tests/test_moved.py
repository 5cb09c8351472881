"""Domains whose boundary is moved outwards: geometry, meshes, exit times."""

import basix.ufl
import numpy as np
import pytest
import reference
import ufl
from dolfinx import fem

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.fem.meshing import make_mesh
from fpsolve.model.chain import sgd_chain
from fpsolve.model.corrections import corrected, shifted
from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.moved import Moved
from fpsolve.model.process import formula_landscape

BOWL = formula_landscape("x**2/2 + y**2 + x**3/5", "identity", ("x", "y"))
WELL = Sublevel(BOWL, 0.3, (0.0, 0.0), (-1.6, -1.6), (1.6, 1.6))
SPACE = formula_landscape("(x**2 + y**2 + z**2)/2", "identity", ("x", "y", "z"))


def bump(x, n):
    return 0.1 + 0.05 * n[:, 0] ** 2 + 0.02 * np.sin(x[:, 1])


def constant(x, n):
    return np.full(len(x), 0.25)


def volume(triangulation):
    here = fem.assemble_scalar(fem.form(fem.Constant(triangulation.mesh, 1.0) * ufl.dx))
    return triangulation.mesh.comm.allreduce(here)


def boundary_nodes(triangulation):
    """All nodes of the geometry on this rank's boundary facets."""
    mesh = triangulation.mesh
    d, order = mesh.topology.dim, mesh.geometry.cmap.degree
    element = basix.ufl.element("Lagrange", mesh.basix_cell(), order, basix.LagrangeVariant.equispaced)
    space = fem.functionspace(mesh, element)
    dofs = fem.locate_dofs_topological(space, d - 1, triangulation.facet_tags.indices)
    return space.tabulate_dof_coordinates()[dofs, :d]


# --- geometry --------------------------------------------------------------------------------------------------------


def test_ends_of_intervals():
    moved = Moved(Interval(-1.0, 2.0), lambda x, n: 0.1 * np.abs(x[:, 0]))
    low, high = moved.bounding_box()
    np.testing.assert_allclose([low[0], high[0]], [-1.1, 2.2], rtol=1e-15)
    assert moved.contains(np.array([[-1.05], [2.15], [-1.15], [2.25]])).tolist() == [True, True, False, False]
    assert moved.names == ("left", "right") and abs(moved.largest_shift - 0.2) < 1e-15
    held = Moved(Interval(-1.0, 2.0, ("right",)), constant)
    np.testing.assert_allclose(held.bounding_box(), [[-1.25], [2.0]])
    line = Moved(Ball((1.0,), 1.0), constant)
    np.testing.assert_allclose(line.bounding_box(), [[-0.25], [2.25]])


@pytest.mark.parametrize("base", [Ball((0.3, -0.2), 1.0), WELL, Box((0.0, 0.0), (1.0, 2.0), ("left",))])
def test_contains(base):
    """Against a polygon of many moved boundary points; a box against its own map."""
    moved = Moved(base, bump)
    low, high = moved.bounding_box()
    x = np.random.default_rng(3).uniform(low - 0.1, high + 0.1, (2000, 2))
    inside = moved.contains(x)
    assert (inside >= base.contains(x)).all() and inside.sum() > base.contains(x).sum()
    if isinstance(base, Box):
        square = np.random.default_rng(4).uniform(low, high, (500, 2))
        np.testing.assert_allclose(moved.image(moved.preimage(square)), square, atol=1e-14)
        assert moved.contains(moved.image(np.array([[0.001, 1.999], [0.999, 0.001]]))).all()
        assert not moved.contains(moved.image(np.array([[0.5, 2.001], [1.001, 1.0]]))).any()
        assert moved.image(np.array([[0.0, 1.0]]))[0, 0] == 0  # the reflecting side stays
        return
    from matplotlib.path import Path

    if isinstance(base, Ball):
        t = np.linspace(0, 2 * np.pi, 20_000)
        foot = np.array(base.center) + np.column_stack([np.cos(t), np.sin(t)])
    else:
        foot = base.component.loops[0]
    polygon = Path(moved.pushed(foot))
    sure = polygon.contains_points(x, radius=-1e-3) == polygon.contains_points(x, radius=1e-3)
    assert sure.mean() > 0.99
    assert np.array_equal(inside[sure], polygon.contains_points(x[sure]))


def test_shift_must_be_a_distance():
    with pytest.raises(InputError) as caught:
        _ = Moved(Ball((0.0, 0.0), 1.0), lambda x, n: -n[:, 0]).largest_shift
    assert caught.value.key == "exit.model"


# --- meshes ----------------------------------------------------------------------------------------------------------


def test_area_of_a_moved_disc_converges(comm):
    """Area ½∫(1 + s)² dφ; geometry of order g: at least order g + 1."""
    moved = Moved(Ball((0.3, -0.2), 1.0), bump)
    t = 2 * np.pi * np.arange(4000) / 4000
    n = np.column_stack([np.cos(t), np.sin(t)])
    exact = np.pi * np.mean((1 + bump(np.array([0.3, -0.2]) + n, n)) ** 2)
    for order, cap in ((1, 0.03), (3, 2e-5), (5, 5e-8)):
        error = [abs(volume(make_mesh(moved, size, order, comm)) - exact) for size in (0.4, 0.2)]
        assert error[1] < cap and np.log2(error[0] / error[1]) > order + 0.8


@pytest.mark.parametrize("order", [1, 4])
@pytest.mark.parametrize("base", [Ball((0.3, -0.2), 1.0), WELL])
def test_boundary_nodes_lie_on_the_moved_boundary(comm, base, order):
    """The foot of each node on the base's boundary is found by Newton's method for x = y + s(y) n(y), L(y) = level."""
    moved = Moved(base, bump)
    nodes = boundary_nodes(make_mesh(moved, 0.3, order, comm))
    np.testing.assert_allclose(moved.onto(nodes, 0.1), nodes, atol=1e-13)
    if isinstance(base, Ball):
        offset = nodes - np.array(base.center)
        r = np.linalg.norm(offset, axis=1)
        n = offset / r[:, None]
        np.testing.assert_allclose(r, 1 + bump(np.array(base.center) + n, n), atol=1e-14)
    else:
        foot = nodes.copy()
        for _ in range(60):
            n = BOWL.gradient(foot)
            n /= np.linalg.norm(n, axis=1)[:, None]
            foot = nodes - bump(foot, n)[:, None] * n
        np.testing.assert_allclose(BOWL.loss(foot), 0.3, atol=1e-12)


def test_moved_box(comm):
    """The area from the Jacobian of the map; the sides keep their names, the reflecting one its place."""
    moved = Moved(Box((0.0, 0.0), (1.0, 2.0), ("left",)), bump)
    mesh = make_mesh(moved, 0.5, 4, comm)
    assert mesh.parts == {"left": 1, "right": 2, "bottom": 3, "top": 4}
    t, w = np.polynomial.legendre.leggauss(30)
    x = np.array([[a, b] for a in (t + 1) / 2 for b in t + 1])
    columns = [(moved.image(x + 1e-5 * e) - moved.image(x - 1e-5 * e)) / 2e-5 for e in np.eye(2)]
    exact = np.linalg.det(np.stack(columns, axis=-1)) @ np.outer(w / 2, w).ravel()
    assert abs(volume(mesh) - exact) < 1e-7 * exact


def test_moved_bodies(comm):
    t, w = np.polynomial.legendre.leggauss(40)
    ball = Moved(Ball((0.0, 0.0, 0.0), 1.0), lambda x, n: 0.1 + 0.05 * n[:, 2] ** 2)
    exact = 2 * np.pi / 3 * np.sum(w * (1.1 + 0.05 * t**2) ** 3)
    assert abs(volume(make_mesh(ball, 0.5, 3, comm)) - exact) < 1e-3 * exact
    level = Moved(Sublevel(SPACE, 0.5, (0.0,) * 3, (-2.0,) * 3, (2.0,) * 3), lambda x, n: 0.1 + 0.05 * n[:, 2] ** 2)
    assert abs(volume(make_mesh(level, 0.6, 3, comm)) - exact) < 3e-3 * exact
    x = np.random.default_rng(5).uniform(-1.2, 1.2, (300, 3))
    assert np.array_equal(level.contains(x), ball.contains(x))
    cube = Moved(Box((0.0,) * 3, (1.0,) * 3), constant)
    assert abs(volume(make_mesh(cube, 0.7, 2, comm)) - 1.5**3) < 1e-12


# --- exit times ------------------------------------------------------------------------------------------------------


def test_equal_shift_gives_a_larger_ball_or_box(comm):
    """OU: the exact exit time from radius 1; also adaptively, with an honest error."""
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=0.2)
    level = Sublevel(process.landscape, 0.75**2 / 2, (0.0, 0.0), (-2.0, -2.0), (2.0, 2.0))
    exact = reference.ball_ou_met([0.0], 2, 1, 0.2, 1)[0]
    for base in (Ball((0.0, 0.0), 0.75), level):
        result = fp.mean_exit_time(process, Moved(base, constant), comm=comm, tolerance=1e-5)
        true = abs(result.mean[0] - exact)
        assert result.converged and true <= 1e-5 * exact and true <= 10 * result.error[0, 0]
    box = Box((-0.75, -0.75), (0.75, 0.75))
    larger = fp.mean_exit_time(process, Box((-1.0, -1.0), (1.0, 1.0)), comm=comm, tolerance=1e-5)
    result = fp.mean_exit_time(process, Moved(box, constant), comm=comm, starts=[[0.0, 0.0]], tolerance=1e-5)
    assert abs(result.mean[0] - larger.mean[0]) <= result.error[0, 0] + larger.error[0, 0]


def test_turned_problem_has_the_same_answer(comm):
    """Anisotropic noise: the moved disc is no disc."""
    c, s = float(np.cos(0.7)), float(np.sin(0.7))
    matrix, turn = np.diag([1.0, 0.2]), np.array([[c, -s], [s, c]])
    along, across = f"({c!r}*x + {s!r}*y)", f"({c!r}*y - {s!r}*x)"
    losses = ("x**2/2 + y**2 + x**3/5", f"{along}**2/2 + {across}**2 + {along}**3/5")
    answers = []
    for loss, q, start in zip(losses, (matrix, turn @ matrix @ turn.T), ([0.2, 0.1], turn @ [0.2, 0.1]), strict=True):
        q = (q + q.T) / 2
        chain = sgd_chain(formula_landscape(loss, q.tolist(), ("x", "y")), 0.4)
        moved = shifted(chain, Ball((0.0, 0.0), 1.0))
        answers.append(fp.mean_exit_time(corrected(chain), moved, comm=comm, starts=[start], tolerance=1e-3))
    one, two = answers
    assert one.domain.largest_shift > 2 * one.domain.shift(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]]))[0]
    assert abs(one.mean[0] - two.mean[0]) <= one.error[0, 0] + two.error[0, 0]


def test_bounds_say_that_they_do_not_apply():
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=0.2)
    found = fp.bounds.all_bounds(process, Moved(Ball((0.0, 0.0), 0.75), constant), budget=1.0)
    assert len(found) == 4
    assert all(not bound.verified and "not available" in bound.reason for bound in found)

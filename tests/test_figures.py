"""The figures of an exit-time answer: what they are made of, what they say, and the files."""

import math
import sys
from pathlib import Path

from mpi4py import MPI

import basix.ufl
import numpy as np
import pytest
import ufl
from dolfinx import fem, mesh
from matplotlib.figure import Figure
from pictures import check_picture

from fpsolve.app import figure_data, figure_mean, figure_style
from fpsolve.app.figure_boundary import draw_boundary
from fpsolve.app.figure_line import draw_line, line_axis
from fpsolve.app.figures import exit_figures
from fpsolve.errors import InputError
from fpsolve.fem.boundary import CHARACTERISTIC, EXIT, REFLECTING
from fpsolve.fem.meshing import make_mesh
from fpsolve.model.domains import Ball, Box, Interval
from fpsolve.model.process import SGD, diffusion_process
from fpsolve.problems.exit import mean_exit_time
from fpsolve.theory.bounds import all_bounds
from fpsolve.theory.theorem import Bound

COMM = MPI.COMM_WORLD
NAMES = ["mean_exit_time.png", "line.png", "boundary.png"]


@pytest.fixture(scope="module")
def interval():
    """A double well with one end reflecting: u spans decades."""
    process = SGD("(x**2 - 1)**2", variables=("x",), epsilon2=0.1)
    starts = [(-1.0,), (0.0,)]
    return mean_exit_time(process, Interval(-2.0, 1.0, ("left",)), comm=COMM, starts=starts, size=0.1)


@pytest.fixture(scope="module")
def disc():
    """The unit disc with the loss |x|²/2."""
    process = SGD("(x**2 + y**2)/2", epsilon2=0.5)
    return mean_exit_time(process, Ball((0.0, 0.0), 1.0), comm=COMM, starts=[(0.2, 0.1)], size=0.3, degree=2)


@pytest.fixture(scope="module")
def cube():
    """A box in 3D that has all three kinds of boundary."""
    noise = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "0"]]
    process = SGD("(x_1**2 + theta**2 + zeta**2)/2", noise, ("x_1", "theta", "zeta"), epsilon2=0.3)
    domain = Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), ("left",))
    return mean_exit_time(process, domain, comm=COMM, starts=[(0.0, 0.1, 0.2)], size=0.8, degree=1)


@pytest.fixture
def place(tmp_path):
    """A directory that is the same on all ranks."""
    return COMM.bcast(tmp_path)


def bounds_of(result, kinds=("paper", "sharp", "printed")):
    found = all_bounds(result.process, result.domain, kinds, budget=0.5) if COMM.rank == 0 else None
    return COMM.bcast(found)


@pytest.mark.parametrize("name", ["interval", "disc", "cube"])
def test_pictures_are_written_without_a_display(name, request, place, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        monkeypatch.delenv(variable, raising=False)
    result = request.getfixturevalue(name)
    pyplot = "matplotlib.pyplot" in sys.modules
    directory = place / "new" / name
    paths = exit_figures(result, bounds_of(result), directory)
    assert paths == [directory / n for n in NAMES]
    COMM.Barrier()
    assert sorted(p.name for p in directory.iterdir()) == sorted(NAMES)  # nothing temporary is left
    for path in paths:
        check_picture(path)
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_a_directory_that_cannot_be_made_is_an_input_error_on_every_rank(disc, place):
    if COMM.rank == 0:
        (place / "file").write_text("in the way")
    COMM.Barrier()
    with pytest.raises(InputError, match="a directory in which files can be written"):
        exit_figures(disc, [], place / "file" / "figures")


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_subdivision_fills_the_simplex(dimension, cuts):
    points, simplices = figure_data.subdivide(dimension, cuts)
    assert len(simplices) == cuts**dimension
    assert points.min() >= -1e-15 and points.sum(axis=1).max() <= 1 + 1e-15
    corners = points[simplices]
    volumes = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / math.factorial(dimension)
    np.testing.assert_allclose(volumes, 1 / math.factorial(dimension) / cuts**dimension, rtol=1e-12)


def areas(pieces):
    edges = pieces.corners[:, 1:] - pieces.corners[:, :1]
    return np.abs(np.linalg.det(edges)) / 2


def test_curved_cells_and_edges_look_curved(disc):
    cells = figure_data.cell_pieces(disc.u)
    edges = figure_data.boundary_pieces(disc.triangulation.mesh, disc.boundary)
    if COMM.rank > 0:
        assert cells is None and edges is None
        return
    assert areas(cells).sum() == pytest.approx(np.pi, rel=1e-4)
    assert np.linalg.norm(edges.corners, axis=2) == pytest.approx(1.0, abs=2e-4)
    lengths = np.linalg.norm(edges.corners[:, 1] - edges.corners[:, 0], axis=1)
    assert lengths.sum() == pytest.approx(2 * np.pi, rel=1e-4)
    assert (edges.values == EXIT).all()


def test_pieces_carry_the_function():
    domain = make_mesh(Ball((0.0, 0.0, 0.0), 1.0), 0.5, 2, COMM).mesh
    u = fem.Function(fem.functionspace(domain, ("DG", 2)))
    u.interpolate(lambda x: 1 + x[0] - 2 * x[1] + 3 * x[2])
    cells, cut = figure_data.cell_pieces(u), figure_data.plane_pieces(u, 1, 0.25)
    if COMM.rank == 0:
        x = cells.corners
        np.testing.assert_allclose(cells.values, 1 + x @ [1, -2, 3], atol=1e-9)
        # (x, z) in the plane y = 0.25
        np.testing.assert_allclose(cut.values, 1 - 2 * 0.25 + cut.corners @ [1, 3], atol=1e-9)
        assert areas(cut).sum() == pytest.approx(np.pi * (1 - 0.25**2), rel=5e-3)


def test_too_many_pieces_are_merged(disc):
    merged = figure_data.cell_pieces(disc.u, limit=4000)
    if COMM.rank == 0:
        assert 2000 < len(merged.values) < 5000
        assert areas(merged).sum() == pytest.approx(np.pi, rel=0.1)
        assert merged.values.max() == pytest.approx(disc.u.x.array.max(), rel=0.05) or COMM.size > 1


def test_merging_keeps_kinds_apart(cube):
    merged = figure_data.boundary_pieces(cube.triangulation.mesh, cube.boundary, limit=300)
    if COMM.rank == 0:
        assert (merged.values == merged.values[:, :1]).all()
        assert set(merged.values[:, 0]) == {EXIT, REFLECTING, CHARACTERISTIC}


def test_kinds_have_their_measures(cube):
    pieces = figure_data.boundary_pieces(cube.triangulation.mesh, cube.boundary)
    if COMM.rank == 0:
        edges = pieces.corners[:, 1:] - pieces.corners[:, :1]
        area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2
        for kind, (name, _, _) in figure_style.KINDS.items():
            assert area[pieces.values[:, 0] == kind].sum() == pytest.approx(cube.boundary.measures[name])


def test_line_reaches_from_end_to_end(disc):
    line = figure_data.line_values(disc.u, disc.difference, disc.starts[0], 0)
    inside = np.isfinite(line.u)
    half = np.sqrt(1 - 0.1**2)
    x = line.points[inside]
    assert x[0, 0] == pytest.approx(-half, abs=2e-3) and x[-1, 0] == pytest.approx(half, abs=2e-3)
    assert (x[:, 1] == 0.1).all()
    k = int(np.flatnonzero(x[:, 0] == 0.2)[0])
    assert abs(line.u[inside][k] - disc.mean[0]) <= disc.error[0, 0]
    np.testing.assert_allclose(line.u[inside][::100], disc.at(x[::100]), rtol=1e-12)
    assert np.array_equal(line.u, COMM.bcast(line.u), equal_nan=True)


def test_line_through_two_parts_of_a_mesh_has_a_gap():
    # two unit squares, [0, 1]² and its copy at x = 2, of two triangles each
    square = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    triangles = np.array([(0, 1, 2), (0, 2, 3), (4, 5, 6), (4, 6, 7)], dtype=np.int64)
    mine = slice(None) if COMM.rank == 0 else slice(0)
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    nodes = np.vstack([square, square + np.array([2.0, 0.0])])
    parts = mesh.create_mesh(COMM, triangles[mine], nodes[mine], ufl.Mesh(element))
    u = fem.Function(fem.functionspace(parts, ("DG", 1)))
    u.interpolate(lambda x: x[0])
    line = figure_data.line_values(u, u, np.array([0.3, 0.4]), 0, count=101)
    inside = np.isfinite(line.u)
    x = line.points[:, 0]
    assert not inside[(x > 1.01) & (x < 1.99)].any() and ((x > 1.01) & (x < 1.99)).any()
    assert inside[(x > 0.01) & (x < 0.99)].all() and inside[(x > 2.01) & (x < 2.99)].all()
    np.testing.assert_allclose(line.u[inside], x[inside], atol=1e-9)


def made_up(kind, verified=True, **parameters):
    return Bound("sharp", kind, "a theorem", verified, parameters=parameters)


def test_line_runs_where_the_bounds_say_something(disc):
    assert line_axis(disc, []) == 0
    assert line_axis(disc, [made_up("upper", direction=(0.1, -0.99))]) == 1
    assert line_axis(disc, [made_up("upper", direction=(0.70710, 0.70711))]) == 0
    assert line_axis(disc, [made_up("upper", False, direction=(0.0, 1.0))]) == 0
    assert line_axis(disc, [made_up("lower", center=(0.2, -0.5))]) == 1
    assert line_axis(disc, [made_up("lower", center=(0.2, 0.101))]) == 0


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_line_picture_names_bounds_and_what_is_not_one(disc, interval):
    for result, scale in ((disc, "linear"), (interval, "log")):
        bounds = bounds_of(result)
        line = figure_data.line_values(result.u, result.difference, result.starts[0], 0)
        figure = Figure()
        draw_line(figure, result, bounds, line)
        texts = "\n".join(legend_texts(figure))
        for bound in bounds:
            if bound.verified:
                assert f"{bound.name} {bound.kind} bound: {bound.theorem}" in texts
            elif bound.profile is not None:
                assert f"printed, not a bound: {bound.theorem}" in texts
            elif bound.name != "printed":
                assert bound.reason[:40] in texts
        assert "estimated error" in texts and f"E τ = {result.mean[0]:.1f}"[:9] in texts
        assert figure.axes[0].get_yscale() == scale
        drawn = [ln for ln in figure.axes[0].lines if not ln.get_label().startswith(("_", "start"))]
        styles = {(ln.get_color(), ln.get_linestyle(), str(ln._unscaled_dash_pattern)) for ln in drawn}
        assert len(styles) == len(drawn) == 1 + sum(b.profile is not None for b in bounds)


def test_mean_picture_has_a_logarithmic_scale_only_for_many_decades():
    grid = np.linspace(0, 1, 400)
    corners = np.stack([grid[:-1], grid[1:]], axis=1)[:, :, None]
    flat = figure_data.Pieces(corners, 1 - (2 * corners[:, :, 0] - 1) ** 2)
    steep = figure_data.Pieces(corners, np.exp(20 * corners[:, :, 0]))
    assert type(figure_mean.colour_norm([flat])[0]).__name__ == "Normalize"
    norm, extend = figure_mean.colour_norm([steep])
    assert type(norm).__name__ == "LogNorm" and extend == "min" and norm.vmin > 0


def test_many_starts_are_listed(disc):
    angles = np.arange(16.0)
    starts = 0.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    many = mean_exit_time(disc.process, disc.domain, comm=COMM, starts=starts, size=0.5, degree=1)
    box, cells = figure_data.extent(many.u.function_space.mesh), figure_data.cell_pieces(many.u)
    edges = figure_data.boundary_pieces(many.triangulation.mesh, many.boundary)
    if COMM.rank == 0:
        figure = Figure()
        figure_mean.draw_mean(figure, many, figure_mean.MeanData(box, [cells], edges))
        listed = "\n".join(text.get_text() for text in figure.texts)
        assert "1: E τ(0.5, 0)" in listed and "... 5 more" in listed and "12:" not in listed
        labels = [axes.get_ylabel() for axes in figure.axes]
        assert labels == ["$y$", "mean exit time u(x)   [time; one SGD step = η]"]


def test_boundary_picture_without_a_loss():
    process = diffusion_process(["v", "-x - v"], [["0", "0"], ["0", "1"]], ["x", "v"])
    result = mean_exit_time(process, Box((-1.0, -2.0), (1.0, 2.0)), comm=COMM, size=0.5, degree=1)
    edges = figure_data.boundary_pieces(result.triangulation.mesh, result.boundary)
    if COMM.rank == 0:
        figure = Figure()
        draw_boundary(figure, result, (np.array([-1.0, -2.0]), np.array([1.0, 2.0])), edges)
        texts = legend_texts(figure)
        assert "absorbing: the process can leave (length 8)" in texts
        assert "characteristic: never leaves here (length 4)" in texts
        assert "reflecting: none" in texts


@pytest.mark.parametrize(
    "value, error, text",
    [
        (4.6486386, 2.3e-5, "4.64864 ± 0.00002"),
        (177.36975, 0.0312, "177.37 ± 0.03"),
        (25527.0686, 0.02257, "25527.07 ± 0.02"),
        (3648.2, 20926.0, "3648 ± 20926"),
        (0.5957493185123, 6e-14, r"0.5957493185 ± $6\cdot 10^{-14}$"),
        (7.43e7, 3.4e8, r"(7.4 ± 34.0)$\cdot 10^{7}$"),
        (1.234567e20, 3e15, r"(1.23457 ± 0.00003)$\cdot 10^{20}$"),
        (2.0, 0.0, "2.000000000 ± 0.000000000"),
        (math.inf, 1.0, "inf ± 1"),
    ],
)
def test_values_have_the_digits_their_error_justifies(value, error, text):
    assert figure_style.with_error(value, error) == text


def test_names_and_numbers():
    names = {"x": "$x$", "x_1": "$x_{1}$", "w2": "$w_{2}$", "theta": r"$\theta$", "rate": "rate", "v_x": "$v_{x}$"}
    for name, shown in names.items():
        assert figure_style.symbol(name) == shown
    assert figure_style.number(0.2) == "0.2"
    assert figure_style.number(9.99996e-6) == r"$1.000\cdot 10^{-5}$"
    assert figure_style.number(12345.0) == "12345"
    assert figure_style.point_text(np.array([0.5])) == "0.5"
    assert figure_style.point_text(np.array([-1.0, 0.25])) == "(-1, 0.25)"


def test_no_picture_module_needs_a_window_system():
    folder = Path(figure_style.__file__).parent
    for path in folder.glob("figure*.py"):
        assert "import pyplot" not in path.read_text(encoding="utf-8")

"""Pictures of evolutions and steady states: what they are made of, what they say, and the files."""

import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

from mpi4py import MPI

import made_evolution as made
import numpy as np
import pytest
import ufl
from dolfinx import fem
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pictures import check_picture
from PIL import Image

from fpsolve.app import (
    animation,
    figure_curves,
    figure_data,
    figure_decay,
    figure_density,
    figure_frames,
    figure_steady,
)
from fpsolve.app.figure_data import Pieces
from fpsolve.app.figure_density import DensityData, Frame
from fpsolve.app.figures_evolution import backward_figures, evolve_figures
from fpsolve.app.figures_steady import steady_figures
from fpsolve.app.report import evenly
from fpsolve.errors import InputError
from fpsolve.fem.points import locate
from fpsolve.model.process import diffusion_process

COMM = MPI.COMM_WORLD


@pytest.fixture
def place(tmp_path):
    """A directory that is the same on all ranks."""
    return COMM.bcast(tmp_path)


@pytest.fixture(scope="module")
def line():
    return made.evolution(1)


@pytest.fixture(scope="module")
def plane():
    return made.evolution(2)


@pytest.fixture(scope="module")
def space():
    return made.evolution(3)


def frame(t, top, low=0.0, width=1.0):
    """A frame in 1D: a parabola with this maximum, and a minimum."""
    x = np.linspace(-width, width, 50)
    corners = np.stack([x[:-1], x[1:]], axis=1)[:, :, None]
    values = top * (1 - (corners[:, :, 0] / width) ** 2)
    values[0, 0] = low
    return Frame(t, low, top, (Pieces(corners, values),))


def data_of(*frames, **changes):
    return DensityData((np.array([-1.0]), np.array([1.0])), None, list(frames), **changes)


@pytest.mark.parametrize("d", [1, 2])
def test_pictures_of_an_evolution(d, line, plane, place):
    result = {1: line, 2: plane}[d]
    bounds = made.bounds(d)
    pyplot = "matplotlib.pyplot" in sys.modules
    paths = evolve_figures(result, bounds, made.margins(result, bounds), place / "new")
    names = ["density.png", "density.gif", "moments.png", "entropy.png", "bounds.png"]
    assert paths == [place / "new" / name for name in names]
    COMM.Barrier()
    assert sorted(p.name for p in (place / "new").iterdir()) == sorted(names)  # nothing temporary is left
    for path in paths:
        if path.suffix == ".png":
            check_picture(path)
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_the_moving_picture_has_a_frame_for_each_time_and_is_small(line, place):
    data = figure_frames.collect(line.times, line.densities, line.boundary)
    if COMM.rank:
        return
    path = animation.write_animation(place, line, data)
    with Image.open(path) as moving:
        assert moving.n_frames == len(made.TIMES)
        assert moving.info["loop"] == 0
        shown = [np.asarray(moving.convert("RGB"), dtype=float)]
        for k in range(1, moving.n_frames):
            moving.seek(k)
            shown.append(np.asarray(moving.convert("RGB"), dtype=float))
    assert all(np.abs(a - b).max() > 50 for a, b in pairwise(shown)), "it moves"
    assert path.stat().st_size < 200_000


def test_pictures_of_expectations(place):
    paths = backward_figures(made.expectation(1), place)
    assert [path.name for path in paths] == ["u.png", "values.png"]
    for path in paths:
        check_picture(path)


def test_a_directory_that_cannot_be_made_is_an_input_error_on_every_rank(line, place):
    if COMM.rank == 0:
        (place / "file").write_text("in the way")
    COMM.Barrier()
    with pytest.raises(InputError, match="a directory in which files can be written"):
        evolve_figures(line, [], [], place / "file" / "figures")


# --- densities -----------------------------------------------------------------------------------------


def test_one_scale_as_long_as_the_maxima_are_comparable():
    near, far = data_of(frame(0, 2.0), frame(1, 1.0)), data_of(frame(0, 20.0), frame(1, 1.0))
    assert near.common and near.limits == pytest.approx((0.0, 2.0), rel=2e-3) and near.scale(near.frames[1]) == 1.0
    assert not far.common and far.limits == (0.0, 1.0)
    assert [far.scale(f) for f in far.frames] == pytest.approx([20.0, 1.0], rel=2e-3)
    signed = data_of(frame(0, 20.0, -3.0), frame(1, 1.0), is_density=False)
    assert signed.common and signed.limits == pytest.approx((-3.0, 20.0), rel=2e-3)


def test_an_undershoot_is_seen_and_rounding_is_not():
    assert frame(0, 2.0, -0.01).undershoots
    assert not frame(0, 2.0, -1e-5).undershoots
    data = data_of(frame(0.5, 2.0, -0.01))
    assert "min −0.01" in figure_density.frame_label(data, data.frames[0])
    small = data_of(frame(0.5, 2.0, -1e-9))
    assert "min" not in figure_density.frame_label(small, small.frames[0])
    assert "t = 0.5" in figure_density.frame_label(small, small.frames[0])


def test_negative_values_have_their_colour(plane):
    lowered = made.evolution(2, undershoot=0.05)
    for result, negative in ((plane, False), (lowered, True)):
        data = figure_frames.collect(result.times[2:3], result.densities[2:3], result.boundary)
        if COMM.rank:
            continue
        figure = Figure(figsize=figure_density.density_size(data, 2), dpi=60, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        figure_density.draw_density(figure, result, data)
        label = figure.axes[-1].get_ylabel()
        assert ("red: negative" in label) == negative
        assert label.startswith("density ρ(t, ·)") and "probability per unit area" in label
        assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("$x$", "$y$")
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba()).astype(int)[:, :, :3]
        red = (pixels[:, :, 0] > 200) & (pixels[:, :, 1] < 80) & (pixels[:, :, 2] < 80)
        assert (red.mean() > 0.02) == negative


def test_curves_say_time_and_unit(line):
    data = figure_frames.collect(line.times, line.densities, line.boundary)
    if COMM.rank == 0:
        figure = Figure()
        figure_density.draw_density(figure, line, data)
        axes, loss = figure.axes
        assert axes.get_ylabel() == "density ρ(t, ·)   [probability per unit length]"
        assert loss.get_ylabel() == "loss (thin grey)"
        texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert [text.split("   ")[0] for text in texts] == [f"t = {t:g}" for t in made.TIMES]
        tops = [float(text.split("max ")[1].split("   ")[0]) for text in texts]
        assert tops[0] == pytest.approx(line.records[0].maximum, rel=0.02)


def test_many_times_are_thinned_out_evenly_and_that_is_said():
    frames = [frame(t, 1.0) for t in range(40)]
    chosen = [f.t for f in evenly(frames, figure_density.PANELS)]
    assert len(chosen) == figure_density.PANELS and chosen[0] == 0 and chosen[-1] == 39
    assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
    process, domain = made.question(1)
    result = SimpleNamespace(process=process, domain=domain, scheme="dg", degree=2, cells=3)
    figure = Figure()
    figure_density.draw_density(figure, result, data_of(*frames))
    assert "31 of 40 stored times not shown" in figure.get_suptitle()


def test_a_sharp_start_does_not_hide_the_rest():
    data = data_of(frame(0, 400.0, width=0.01), *(frame(t, 1.0) for t in range(1, 6)))
    figure = Figure()
    process, domain = made.question(1)
    result = SimpleNamespace(process=process, domain=domain, scheme="dg", degree=2, cells=3)
    figure_density.draw_density(figure, result, data)
    assert 2.0 < figure.axes[0].get_ylim()[1] < 10.0
    assert "max 400" in figure.legends[0].get_texts()[0].get_text()


def test_marginals_are_integrals_over_the_third_direction(space):
    function = made.interpolated(space.densities[0].function_space, lambda x: 2 + x[:, 0] * x[:, 2])
    data = figure_frames.collect([1.0], [function], space.boundary)
    if COMM.rank:
        assert data is None
        return
    assert data.name == "marginal of the density ρ(t, ·)" and data.is_density
    exact = [lambda x: 8 + 0 * x[..., 0], lambda x: 4 * (2 + x[..., 0] * x[..., 1]), lambda x: 8 + 0 * x[..., 0]]
    for pieces, values in zip(data.frames[0].cells, exact, strict=True):
        edges = pieces.corners[:, 1:] - pieces.corners[:, :1]
        areas = np.abs(np.linalg.det(edges)) / 2
        assert areas.sum() == pytest.approx(16.0)
        # small pieces are counted as points: grainy, but right in the mean
        error = areas @ np.abs(pieces.values - values(pieces.corners)).mean(axis=1) / 16.0
        assert error < 0.4 and areas @ pieces.values.mean(axis=1) == pytest.approx(32.0 * 4, rel=0.02)


def test_a_marginal_has_the_integral_of_its_function(space):
    for function in space.densities[1:3]:
        integral = COMM.allreduce(fem.assemble_scalar(fem.form(function * ufl.dx)))
        box = np.full(3, -2.0), np.full(3, 2.0)
        sum_of_pieces = COMM.allreduce(figure_data.centroids(function)[1].sum())
        pieces = figure_frames.marginal(function, (0, 2), box)
        if COMM.rank == 0:
            edges = pieces.corners[:, 1:] - pieces.corners[:, :1]
            drawn_mass = np.abs(np.linalg.det(edges)) / 2 @ pieces.values.mean(axis=1)
            # pieces of the size 0.1 with linear values, of a Gaussian as narrow as 0.2
            assert drawn_mass == pytest.approx(integral, rel=0.02)
            # nothing is lost or counted twice on the way to the grid
            assert drawn_mass == pytest.approx(sum_of_pieces, rel=1e-4)


def test_pictures_in_space(space):
    function = made.interpolated(space.densities[0].function_space, lambda x: 1 + x @ [1.0, -2.0, 3.0])
    point = np.array([[0.1, 0.2, 0.3]])
    cut = figure_frames.collect([0.0, 1.0], [function, function], space.boundary, "u(t, ·)", point)
    if COMM.rank == 0:
        assert not cut.is_density and cut.limits == pytest.approx((-9.5, 11.5), abs=1.0)
        planes = [(0, 1, 2), (0, 2, 1), (1, 2, 0)]
        for pieces, (a, b, c) in zip(cut.frames[0].cells, planes, strict=True):
            slopes = np.array([1.0, -2.0, 3.0])
            here = 1 + pieces.corners @ slopes[[a, b]] + point[0, c] * slopes[c]
            np.testing.assert_allclose(pieces.values, here, atol=1e-8)
        figure = Figure()
        figure_density.draw_density(figure, space, cut, "Expectations")
        labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes[:3]]
        assert labels == [("$x$", "$y$"), ("$x$", "$z$"), ("$y$", "$z$")]
        assert "planes through (0.1, 0.2, 0.3)" in figure.get_suptitle()


# --- curves --------------------------------------------------------------------------------------------


def test_proven_bounds_are_solid_and_others_dashed(line):
    bounds = made.bounds(1)
    panels = figure_decay.bound_panels(line, bounds, made.margins(line, bounds))
    assert [panel.label for panel in panels] == ["∫|x − x₀|²ρ(t)"], "what says nothing is not drawn"
    assert [curve.dashes for curve in panels[0].curves] == ["-", "-", "-"]
    entropy = figure_decay.entropy_panels(line, bounds)[0]
    assert entropy.logarithmic
    by_name = {curve.label: curve for curve in entropy.curves}
    assert by_name["Corollary 4.10 (sharp): upper bound"].dashes == "-"
    assert by_name["(52) as printed: upper bound, not proven here"].dashes != "-"


def test_the_observed_rate_is_that_of_the_curve(line):
    t = np.linspace(0, 10, 41)
    rate = figure_decay.decay_rate(t, 3 * np.exp(-1.7 * t) + np.exp(-9 * t) + 1e-12)
    assert rate == pytest.approx(1.7, rel=1e-3)
    assert figure_decay.decay_rate(t[:3], np.exp(-t[:3])) is None
    labels = [curve.label for curve in figure_decay.entropy_panels(line, [])[0].curves]
    assert all("rate at the end 2" in label for label in labels)


def test_where_the_limit_is_unknown_there_is_no_entropy(line):
    records = tuple(replace(r, entropy=None, entropy_production=None, relative_entropy=None) for r in line.records)
    assert figure_decay.entropy_panels(replace(line, records=records), made.bounds(1)) == []


def test_moments_stand_beside_the_exact_solution(plane):
    mean, covariance, observable = figure_decay.moment_panels(plane, made.bounds(2))
    assert [c.label for c in mean.curves] == ["mean of $x$", "(14) (sharp): exact", "mean of $y$", "_"]
    exact = next(c for c in mean.curves if c.label == "(14) (sharp): exact")
    np.testing.assert_allclose(exact.y, [made.moments(2, float(t))[0][0] for t in exact.t])
    names = [c.label for c in covariance.curves if c.points]
    assert names == ["Var $x$", "Cov($x$, $y$)", "Var $y$"]
    crossed = [c for c in covariance.curves if not c.points][1]
    np.testing.assert_allclose(crossed.y, 0.0, atol=1e-15)
    assert observable.curves[0].error is not None and observable.label == "∫gρ, g = x**2 + y**2"


def test_an_absorbing_run_shows_survival(line):
    assert figure_decay.survival_panels(line) == []
    left = [1.0, 0.5, 0.2, 0.1, 0.05, 0.01]
    records = tuple(replace(r, mass=m, outflow=m / 2) for r, m in zip(line.records, left, strict=True))
    panels = figure_decay.survival_panels(replace(line, boundary_condition="absorbing", records=records))
    assert [panel.label.split(":")[0].split("   ")[0] for panel in panels] == [
        "P(τ > t)", "density of the exit time τ",
    ]  # fmt: skip
    assert all(panel.logarithmic for panel in panels)
    np.testing.assert_array_equal(panels[0].curves[0].y, left)


def test_basins_have_a_curve_each(line):
    assert figure_decay.basin_panels(line) == []
    records = tuple(replace(r, basins=np.array([k / 10, 1 - k / 10])) for k, r in enumerate(line.records))
    two = replace(line, minima=np.array([[-1.0], [1.0]]), records=records)
    (panel,) = figure_decay.basin_panels(two)
    assert [curve.label for curve in panel.curves] == ["basin of -1", "basin of 1"]
    assert panel.curves[1].y[3] == pytest.approx(0.7)


def drawn(panel, result):
    figure = Figure()
    figure_curves.draw_curves(figure, result, [panel], "Curves")
    return figure.axes[0]


def test_axes_of_time(line):
    curve = figure_curves.Curve(np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.5, 0.25]), "c")
    axes = drawn(figure_curves.Panel("y", [curve]), line)
    assert axes.get_xscale() == "linear" and axes.get_xlabel() == "t   [time; one SGD step = η]"
    long = figure_curves.Curve(np.array([0.0, 0.1, 100.0]), np.array([1.0, 0.5, 0.0]), "c")
    axes = drawn(figure_curves.Panel("y", [long], logarithmic=True), line)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert np.isfinite(axes.get_ylim()).all() and axes.get_ylim()[0] > 0


def test_stored_times_are_points_beside_a_bound(line):
    """A straight line between two of them could cross a bound that holds."""
    t = np.array([0.0, 1.0])
    values, bound = figure_curves.Curve(t, t, "v"), figure_curves.Curve(t, t + 1, "b", points=False)
    alone = drawn(figure_curves.Panel("y", [values]), line).lines[0]
    assert alone.get_linestyle() == "-"
    beside = drawn(figure_curves.Panel("y", [bound, values]), line).lines[0]
    assert beside.get_label() == "v" and beside.get_linestyle() == "None" and beside.get_marker() == "o"


def test_a_bound_far_away_does_not_flatten_the_values(line):
    t = np.linspace(0, 1, 5)
    values, far = figure_curves.Curve(t, t, "v"), figure_curves.Curve(t, t + 1e6, "b", points=False)
    axes = drawn(figure_curves.Panel("y", [values, far]), line)
    low, high = axes.get_ylim()
    assert low < 0 and 1 < high < 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["v", "b (beyond the scale)"]


# --- steady states -------------------------------------------------------------------------------------


def steady(d, eigenvalues=(0, 1, 2), current=(0.0, 0.0)):
    """A steady state made by hand; the current turns."""
    process, domain, _, boundary, space = made.mesh_of(d)
    if d == 2:
        process = diffusion_process(["-x", "-2*y"], [["0.1", "0"], ["0", "0.1"]], ["x", "y"])
    mean, variance = made.moments(d, 50.0)
    density = made.interpolated(space, lambda x: made.gaussian(x, mean, variance))
    pairs = [(density, density), *((made.interpolated(space, lambda x, k=k: x[:, 0] ** k), density) for k in (1, 2))]
    vector = fem.Function(fem.functionspace(space.mesh, ("DG", 1, (d,))))
    if any(current):
        vector.interpolate(lambda x: np.stack([-current[0] * x[1], current[1] * x[0]]))
    return SimpleNamespace(
        process=process, domain=domain, comm=COMM, boundary=boundary, scheme="dg", degree=2, cells=100,
        density=density, mean=np.zeros(d), right=tuple(pairs), left=tuple(pairs),
        eigenvalues=np.array(eigenvalues, dtype=complex), eigenvalue_errors=np.full(len(eigenvalues), 0.01),
        spectral_gap=1.0, current=vector, current_norm=0.3, detailed_balance=not any(current),
    )  # fmt: skip


def test_pictures_of_a_steady_state(place):
    real = steady_figures(steady(1), place / "real")
    assert [path.name for path in real] == ["steady.png", "eigenfunctions.png"]
    turning = steady_figures(steady(2, (0, 1 + 2j, 1 - 2j), (1.0, 1.0)), place / "turning")
    assert [path.name for path in turning] == ["steady.png", "eigenfunctions.png", "spectrum.png"]
    for path in real + turning:
        check_picture(path)


def test_arrows_are_the_current():
    result = steady(2, current=(1.0, 2.0))
    where = locate(result.density.function_space.mesh, np.array([[0.5, 0.25], [-1.0, 1.5], [9.0, 0.0]]))
    values = figure_frames.vector_values(result.current, where)
    np.testing.assert_allclose(values[:2], [[-0.25, 1.0], [-1.5, -2.0]], atol=1e-9)
    assert np.isnan(values[2]).all()


def test_eigenvalues_are_named():
    empty = Pieces(np.zeros((0, 2, 1)), np.zeros((0, 2)))
    assert figure_steady.mode_label(figure_steady.Mode(0.25 + 0j, empty, empty, 1.0), 1) == "λ$_{1}$ = 0.25"
    assert figure_steady.mode_label(figure_steady.Mode(1 - 2j, empty, empty, 1.0), 2) == "λ$_{2}$ = 1 − 2 i"
    assert not figure_steady.is_complex(1 + 1e-9j)
    result = steady(1, (0, 1 + 2j, 1 - 2j))
    figure = Figure()
    figure_steady.draw_spectrum(figure, result)
    assert figure.axes[0].get_xlabel() == "Re of the eigenvalue   [1/time; one SGD step = η]"
    points = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(points, [[0, 0], [-1, -2], [-1, 2]])

"""Mean exit times against exact or independently computed values, and the honesty of the reported error."""

import math

from mpi4py import MPI

import numpy as np
import pytest
import reference

import fpsolve as fp
from fpsolve.model.process import Process

ALONG_X = [["1", "0"], ["0", "0"]]


def check(
    process: Process,
    domain: object,
    starts: list[list[float]],
    exact: object,
    comm: MPI.Intracomm,
    tolerance: float = 1e-6,
    **options: object,
) -> fp.ExitResult:
    """Solve to a tolerance; the error and its estimate must both be right."""
    result = fp.mean_exit_time(process, domain, comm=comm, starts=starts, tolerance=tolerance, **options)
    true = np.abs(result.mean - exact)
    print("true", true / exact, "reported", result.error[:, 0] / exact, "unknowns", result.unknowns)
    assert result.converged
    assert np.all(true <= tolerance * np.abs(exact))
    # below 1e-11 of the value both are rounding
    assert np.all(result.error[:, 0] <= 10 * true + 1e-11 * exact)
    assert np.all(true <= 10 * result.error[:, 0])
    return result


def quadratic(x: np.ndarray) -> np.ndarray:
    return x**2 / 2


@pytest.mark.parametrize("epsilon2", [1.0, 0.1, 0.02])
def test_ou_interval(comm, epsilon2):
    process = fp.SGD("x**2/2", variables=["x"], epsilon2=epsilon2)
    exact = reference.interval_met(quadratic, epsilon2, -1, 1, [0.0, 0.5])
    check(process, fp.Interval(-1.0, 1.0), [[0.0], [0.5]], exact, comm)


@pytest.mark.parametrize("epsilon2", [1.0, 0.2, 0.1])
@pytest.mark.parametrize("scheme", ["dg", "cg"])
def test_ou_disc(comm, epsilon2, scheme):
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=epsilon2)
    exact = reference.ball_ou_met([0.0, 0.5], 2, 1, epsilon2, 1)
    check(process, fp.Ball((0.0, 0.0), 1.0), [[0.0, 0.0], [0.3, 0.4]], exact, comm, scheme=scheme)


def test_ou_ball(comm):
    process = fp.SGD("(x**2 + y**2 + z**2)/2", variables=["x", "y", "z"], epsilon2=0.5)
    exact = reference.ball_ou_met([0.0, 0.5], 3, 1, 0.5, 1)
    check(process, fp.Ball((0.0, 0.0, 0.0), 1.0), [[0.0, 0.0, 0.0], [0.3, 0.4, 0.0]], exact, comm, tolerance=1e-5)


def test_constant_covariance_without_drift(comm):
    process = fp.diffusion_process(["0", "0"], [["0.3", "0.1"], ["0.1", "0.2"]], ["x", "y"])
    check(process, fp.Ball((0.0, 0.0), 1.0), [[0.0, 0.0], [0.3, 0.4]], np.array([1.0, 0.75]), comm)


def test_rotated_degenerate_strip(comm):
    """Noise across a strip only: the crossing coordinate is a 1D Ornstein-Uhlenbeck process."""
    angle, epsilon2 = 0.4, 0.3
    c, s = math.cos(angle), math.sin(angle)
    covariance = [[repr(c * c), repr(c * s)], [repr(c * s), repr(s * s)]]
    process = fp.SGD("(x**2 + y**2)/2", covariance, epsilon2=epsilon2)
    strip = rotated_rectangle(comm, angle, 1.0, 1.5)
    starts = [[0.0, 0.0], [0.4 * c - 0.2 * s, 0.4 * s + 0.2 * c]]
    exact = reference.strip_ou_rotated(*np.array(starts).T, angle, epsilon2)
    result = check(process, strip, starts, exact, comm)
    assert result.boundary.measures["characteristic"] == pytest.approx(4.0)
    assert result.boundary.measures["absorbing"] == pytest.approx(6.0)


def rotated_rectangle(comm: MPI.Intracomm, angle: float, half_width: float, half_length: float) -> fp.MeshFile:
    """Return a mesh-file domain: the rectangle of these half sides, turned by `angle`."""
    import tempfile
    from pathlib import Path

    path = None
    if comm.rank == 0:
        import gmsh

        path = str(Path(tempfile.mkdtemp()) / "strip.msh")
        gmsh.initialize(interruptible=False)
        gmsh.option.setNumber("General.Terminal", 0)
        box = gmsh.model.occ.addRectangle(-half_width, -half_length, 0, 2 * half_width, 2 * half_length)
        gmsh.model.occ.rotate([(2, box)], 0, 0, 0, 0, 0, 1, angle)
        gmsh.model.occ.synchronize()
        gmsh.model.addPhysicalGroup(2, [box], 1)
        gmsh.option.setNumber("Mesh.MeshSizeMax", 0.25)
        gmsh.model.mesh.generate(2)
        gmsh.write(path)
        gmsh.finalize()
    return fp.MeshFile(comm.bcast(path, root=0), 2)


def test_degenerate_square_equals_interval(comm):
    process = fp.SGD("(x**2 + y**2)/2", ALONG_X, epsilon2=0.2)
    exact = reference.interval_met(quadratic, 0.2, -1, 1, [0.0, 0.3])
    result = check(process, fp.Box((-1.0, -1.0), (1.0, 1.0)), [[0.0, 0.0], [0.3, 0.4]], exact, comm)
    assert result.boundary.measures == pytest.approx({"absorbing": 4.0, "reflecting": 0.0, "characteristic": 4.0})
    # positive up to the part of the boundary that the process never reaches
    assert result.at([(0.0, 1.0)])[0] == pytest.approx(exact[0], rel=1e-3)


def test_degenerate_disc(comm):
    process = fp.SGD("(x**2 + y**2)/2", ALONG_X, epsilon2=0.5)
    exact = np.array([1.33228518603, 0.98233466248])
    check(process, fp.Ball((0.0, 0.0), 1.0), [[0.0, 0.5], [0.5, 0.5]], exact, comm)


def test_degenerate_cube(comm):
    """The 3D default (continuous elements) for rank-one noise."""
    covariance = [["1", "0", "0"], ["0", "0", "0"], ["0", "0", "0"]]
    process = fp.SGD("(x**2 + y**2 + z**2)/2", covariance, variables=["x", "y", "z"], epsilon2=0.5)
    exact = reference.interval_met(quadratic, 0.5, -1, 1, [0.0])
    check(process, fp.Box((-1.0,) * 3, (1.0,) * 3), [[0.0, 0.0, 0.0]], exact, comm, tolerance=1e-4)


def test_double_well_box(comm):
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.2)
    check(process, fp.Box((-2.5, -2.0), (0.5, 2.0)), [[-1.0, 0.0]], np.array([177.36974731674]), comm)


def test_state_dependent_coefficients(comm):
    """General drift and a(x) in 1D, and the same problem in 2D with an idle second variable."""
    a, f = "0.2 + 0.1*x**2", "sin(3*x) - x"
    exact = reference.variable_interval_met(
        lambda x: np.sin(3 * x) - x, lambda x: 0.2 + 0.1 * x**2, -1, 1.4, np.array([0.3])
    )
    check(fp.diffusion_process([f], [[a]], ["x"]), fp.Interval(-1.0, 1.4), [[0.3]], exact, comm)
    plane = fp.diffusion_process([f, "-y"], [[a, "0"], ["0", "0.1"]], ["x", "y"])
    box = fp.Box((-1.0, -1.0), (1.4, 1.0), reflecting=("bottom", "top"))
    check(plane, box, [[0.3, 0.2]], exact, comm)


def test_second_moment(comm):
    process = fp.SGD("x**2/2", variables=["x"], epsilon2=0.2)
    result = fp.mean_exit_time(
        process, fp.Interval(-1.0, 1.0), comm=comm, starts=[[0.0], [0.5]], tolerance=1e-7, moments=2
    )
    exact = reference.interval_second_moment(quadratic, 0.2, -1, 1, np.array([0.0, 0.5]))
    np.testing.assert_allclose(result.moments[:, 1], exact, rtol=1e-6)
    np.testing.assert_allclose(result.standard_deviation, np.sqrt(exact - result.mean**2), rtol=1e-5)


def test_reflecting_end(comm):
    process = fp.SGD("x**2/2", variables=["x"], epsilon2=0.3)
    exact = reference.interval_met_one_sided(quadratic, 0.3, -1, 1, [0.0], reflecting="left")
    check(process, fp.Interval(-1.0, 1.0, reflecting=("left",)), [[0.0]], exact, comm)


def test_sublevel_set(comm):
    """An ellipse as a level set: constant a and no drift would be quadratic; here OU on the disc {|x|² < 1}."""
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=0.5)
    assert process.landscape is not None
    well = fp.Sublevel(process.landscape, 0.5, (0.1, 0.0), (-2.0, -2.0), (2.0, 2.0))
    exact = reference.ball_ou_met([0.0, 0.5], 2, 1, 0.5, 1)
    check(process, well, [[0.0, 0.0], [0.3, 0.4]], exact, comm)


@pytest.mark.parametrize("epsilon2", [0.5, 0.1, 0.05])
def test_exit_times_of_any_length(comm, epsilon2):
    """From 1e1 to 5e8 in 2D (further: benchmarks small_noise), each to its reported error."""
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=epsilon2)
    exact = reference.double_well_box_met(epsilon2, np.array([-1.0]), np.array([0.0]))
    check(process, fp.Box((-2.5, -2.0), (0.5, 2.0)), [[-1.0, 0.0]], exact, comm, tolerance=1e-3)


@pytest.mark.parametrize("epsilon2", [0.5, 0.2, 0.1, 0.05, 0.03, 0.0215])
def test_long_exit_times_1d(comm, epsilon2):
    """From 5 to 2e20, far beyond what the plain solution survives; rounding is said when it would have mattered."""
    process = fp.SGD("(x**2 - 1)**2", variables=["x"], epsilon2=epsilon2)
    exact = reference.interval_met(lambda x: (x**2 - 1) ** 2, epsilon2, -1.6, 0.5, np.array([-1.0]))
    result = check(process, fp.Interval(-1.6, 0.5), [[-1.0]], exact, comm, tolerance=1e-5)
    lost = abs(result.flux[0] - 1) > 1e-6
    assert any("rounding" in message for message in result.messages) == lost


def test_scharfetter_gummel_keeps_the_exponent(comm):
    """Coarse meshes: the exit time of 8e10 is right to a few per cent, as no other scheme's is."""
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.04)
    box = fp.Box((-2.5, -2.0), (0.5, 2.0))
    result = fp.mean_exit_time(process, box, comm=comm, starts=[[-1.0, 0.0]], size=0.05, scheme="sg")
    exact = reference.double_well_box_met(0.04, -1.0, 0.0)
    assert result.mean[0] == pytest.approx(exact, rel=0.02)
    assert abs(result.mean[0] - exact) < 10 * result.error[0, 0] < 1000 * abs(result.mean[0] - exact)

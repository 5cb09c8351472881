"""The backward Kolmogorov equation: exact expectations, and exact duality with the Fokker-Planck equation."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np
import pytest
from linear_reference import gaussian_at

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.initial import gaussian_start
from fpsolve.model.process import diffusion_process
from fpsolve.model.schedule import Schedule
from fpsolve.problems.backward import backward
from fpsolve.problems.evolve import evolve

BOX = fp.Box((-4.0, -4.0), (4.0, 4.0))
WELL = fp.SGD(loss="(x**2 - 1)**2 + y**2", epsilon2=0.3)
KINETIC = diffusion_process(["y", "-x - y"], [["0", "0"], ["0", "0.4"]], ("x", "y"))
DEGENERATE = diffusion_process(["-x", "-y"], [["0.3", "0.1"], ["0.1", "1/30"]], ("x", "y"))


@pytest.mark.parametrize(
    ("process", "scheme", "degree", "relaxation"),
    [
        (WELL, "dg", 2, 15.0),
        (WELL, "cg", 2, 15.0),
        (WELL, "sg", None, 15.0),
        (KINETIC, "dg", 3, 2.0),
        (KINETIC, "cg", 1, 2.0),
        (DEGENERATE, "dg", 2, 1.0),
    ],
)
def test_duality(comm: MPI.Comm, process, scheme: str, degree: int | None, relaxation: float) -> None:
    """|∫ρ(t)φ - ∫ρ₀u(t)| <= 1e-11 of ∫ρ(t)φ up to ten relaxation times, adaptive steps."""
    result = backward(
        process, BOX, "1 + x + x**2*y**2", [0.1 * relaxation, relaxation, 10 * relaxation], comm=comm, size=0.5,
        scheme=scheme, degree=degree, initial=gaussian_start([0.7, -0.3], 0.2),
    )  # fmt: skip
    assert result.duality_defect is not None
    assert result.duality_defect <= 1e-11
    assert len(result.steps) > 10


def test_duality_with_jumps_of_the_noise_level(comm: MPI.Comm) -> None:
    """The generators of the two pieces do not commute: the order of the steps matters."""
    options = {
        "comm": comm, "size": 0.5, "scheme": "dg", "degree": 2, "step": 0.05,
        "schedule": Schedule((0.4,), (1.0, 0.2)), "initial": gaussian_start([0.7, -0.3], 0.2),
    }  # fmt: skip
    result = backward(WELL, BOX, "1 + x", [1.0], **options)  # type: ignore[arg-type]
    assert result.duality_defect <= 1e-11
    forward = evolve(
        WELL, BOX, options["initial"], [1.0], comm=comm, size=0.5, scheme="dg", degree=2, step=0.05,
        schedule=options["schedule"], observables=["1 + x"],
    )  # fmt: skip
    constant = backward(WELL, BOX, "1 + x", [1.0], **(options | {"schedule": None}))
    assert np.abs(constant.values[-1] - result.values[-1]).max() > 1e-3
    assert forward.records[-1].observables[0] > 0


def test_duality_defect_sees_different_steps(comm: MPI.Comm) -> None:
    """The two equations solved with different steps are dual up to the time error only: the test can fail."""
    start = gaussian_start([0.7, -0.3], 0.2)
    u = backward(WELL, BOX, "x", [1.0], comm=comm, size=0.5, scheme="dg", degree=2, step=0.1, initial=start)
    v = backward(WELL, BOX, "x", [1.0], comm=comm, size=0.5, scheme="dg", degree=2, step=0.05, initial=start)
    assert u.duality_defect < 1e-11
    assert np.abs(u.values[-1] - v.values[-1]).max() > 1e-9


def test_expectations_of_a_linear_process(comm: MPI.Comm) -> None:
    """E_x of XY + Y² of the kinetic process, from the exact mean and covariance of a point start."""
    C, a = np.array([[0.0, -1.0], [1.0, 1.0]]), np.diag([0.0, 0.4])
    points = [[0.5, 0.2], [-1.0, 0.7]]
    result = backward(KINETIC, fp.Box((-6, -6), (6, 6)), "x*y + y**2", [0.6], comm=comm, points=points)
    exact = []
    for point in points:
        m, S = gaussian_at(C, a, np.array(point), np.zeros((2, 2)), 0.6)
        second = S + np.outer(m, m)
        exact.append(second[0, 1] + second[1, 1])
    assert result.converged
    assert np.abs(result.values[-1] - exact).max() < 1e-4 * np.abs(exact).max()
    assert np.all(np.abs(result.values[-1] - exact) <= result.errors[-1] + 1e-6)


def test_survival_is_dual_to_the_killed_density(comm: MPI.Comm) -> None:
    """φ = 1 with absorbing boundary: u(t, x) = P_x(τ > t), here exactly an eigenfunction of the interval."""
    process = diffusion_process(["0"], [["1"]], ("x",))
    interval = fp.Interval(0.0, np.pi)
    result = backward(
        process, interval, "sin(x)", [0.5, 2.0], comm=comm, points=[[1.0]], boundary="absorbing", tolerance=1e-6
    )
    assert np.allclose(result.values[1:, 0], np.sin(1.0) * np.exp(-np.array([0.5, 2.0])), rtol=1e-5)
    assert result.duality_defect <= 1e-11


def test_wrong_inputs(comm: MPI.Comm) -> None:
    for changes, key in (
        ({"points": [[9.0, 0.0]]}, "backward.points"),
        ({"times": [-1.0]}, "backward.times"),
        ({"terminal": "x +"}, "backward.terminal"),
        ({"boundary": "open"}, "backward.boundary"),
        ({"order": 7}, "backward.order"),
    ):
        options = {"terminal": "x", "times": [1.0], "comm": comm, "size": 1.0} | changes
        with pytest.raises(InputError) as caught:
            backward(WELL, BOX, **options)  # type: ignore[arg-type]
        assert caught.value.key == key

"""The Fokker-Planck equation against exact Gaussian solutions: orders in space and time, moments, positivity, mass."""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
import pytest
from linear_reference import fitted_order, gaussian_at, l2_error

import fpsolve as fp
from fpsolve.model.initial import PointStart, gaussian_start
from fpsolve.model.process import Process, diffusion_process
from fpsolve.problems.evolution import EvolveResult
from fpsolve.problems.evolve import evolve


@dataclass(frozen=True)
class Linear:
    """dX = -C X dt + sqrt(2a) dW from N(mean, covariance), on a box."""

    C: np.ndarray
    a: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    box: float
    t: float

    @property
    def process(self) -> Process:
        """The process in terms of formulas."""
        names = ("x", "y")
        drift = [f"-({row[0]!r})*x - ({row[1]!r})*y" for row in self.C.tolist()]
        return diffusion_process(drift, [[repr(v) for v in row] for row in self.a.tolist()], names)

    @property
    def domain(self) -> fp.Box:
        """The box around 0."""
        return fp.Box((-self.box, -self.box), (self.box, self.box))

    def exact(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance."""
        return gaussian_at(self.C, self.a, self.mean, self.covariance, t)


def rotated(angle: float, eigenvalues: tuple[float, float]) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    R = np.array([[c, -s], [s, c]])
    return R @ np.diag(eigenvalues) @ R.T


CASES = {
    "isotropic": Linear(np.eye(2), 0.25 * np.eye(2), np.array([1.0, 0.5]), 0.12 * np.eye(2), 3.5, 0.5),
    "rotated degenerate": Linear(np.eye(2), rotated(0.4, (0.3, 0.0)), np.array([0.6, 0.3]), 0.25 * np.eye(2), 3.5, 0.4),
    "kinetic": Linear(
        np.array([[0.0, -1.0], [1.0, 1.0]]), np.diag([0.0, 0.4]), np.array([0.8, 0.0]), 0.3 * np.eye(2), 4.5, 0.8
    ),
}


def solve(case: Linear, comm: MPI.Comm, **options: object) -> EvolveResult:
    start = gaussian_start(case.mean, case.covariance)
    return evolve(case.process, case.domain, start, [case.t], comm=comm, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("degree", "sizes", "cap"), [(2, (0.44, 0.32, 0.23), 5e-3), (3, (0.6, 0.45, 0.33), 5e-3)], ids=["dg2", "dg3"]
)
def test_high_order_in_space(comm: MPI.Comm, name: str, degree: int, sizes: tuple[float, ...], cap: float) -> None:
    case = CASES[name]
    errors = []
    for size in sizes:
        result = solve(case, comm, scheme="dg", degree=degree, size=size, step=case.t / 8, order=4)
        errors.append(l2_error(result.densities[-1], *case.exact(case.t)))
    print(name, degree, errors, fitted_order(list(sizes), errors))
    assert fitted_order(list(sizes), errors) >= degree + 0.8
    assert errors[-1] < cap


@pytest.mark.parametrize("name", ["isotropic", "rotated degenerate"])
def test_nonnegative_scheme_is_of_second_order(comm: MPI.Comm, name: str) -> None:
    """Space and time together, dt proportional to h; the kinetic case is in test_limited.py."""
    case = CASES[name]
    sizes, errors = (0.11, 0.08, 0.058), []
    for size in sizes:
        result = solve(case, comm, nonnegative=True, size=size, step=case.t * size / 2)
        errors.append(l2_error(result.densities[-1], *case.exact(case.t)))
        assert min(r.minimum for r in result.records) >= -1e-14 * max(r.maximum for r in result.records)
        assert abs(result.records[-1].mass - 1) < 1e-12
    print(name, errors, fitted_order(list(sizes), errors))
    assert fitted_order(list(sizes), errors) >= 1.9
    assert errors[-1] < 0.02


@pytest.mark.parametrize(("order", "steps"), [(2, (8, 16, 32)), (3, (8, 16, 32)), (4, (6, 12, 24))])
def test_order_in_time(comm: MPI.Comm, order: int, steps: tuple[int, ...]) -> None:
    """Against the mean and covariance, which the mesh represents exactly up to its own small error."""
    case = CASES["kinetic"]
    mean, covariance = case.exact(case.t)
    errors = []
    for n in steps:
        result = solve(case, comm, scheme="dg", degree=4, size=0.7, step=case.t / n, order=order)
        last = result.records[-1]
        errors.append(np.abs(last.mean - mean).max() + np.abs(last.covariance - covariance).max())
    observed = fitted_order([1 / n for n in steps], errors)
    print(order, errors, observed)
    assert observed >= order - 0.1
    assert errors[-1] < 2e-3


@pytest.mark.parametrize("name", CASES)
def test_mean_and_covariance_at_the_default_tolerance(comm: MPI.Comm, name: str) -> None:
    case = CASES[name]
    result = solve(case, comm)
    mean, covariance = case.exact(case.t)
    last = result.records[-1]
    scale = np.abs(covariance).max()
    assert result.converged
    assert np.abs(last.mean - mean).max() < 1e-4 * np.sqrt(scale)
    assert np.abs(last.covariance - covariance).max() < 1e-4 * scale
    assert np.all(np.abs(last.mean - mean) <= result.errors["mean"][-1] + 1e-6)
    assert np.all(np.abs(last.covariance - covariance) <= result.errors["covariance"][-1] + 1e-6)


def test_a_thousand_steps_keep_mass(comm: MPI.Comm) -> None:
    case = CASES["rotated degenerate"]
    for options in ({"scheme": "dg", "degree": 2}, {"nonnegative": True}, {"scheme": "cg", "degree": 2}):
        result = solve(case, comm, size=0.5, step=case.t / 1000, **options)
        assert len(result.steps) == 1000
        assert abs(result.records[-1].mass - result.records[0].mass) < 1e-12


def test_a_point_start_does_not_oscillate(comm: MPI.Comm) -> None:
    """All the mass in one point, Q = diag(1, 0): the y-marginal stays concentrated."""
    process = diffusion_process(["-x", "-y"], [["1", "0"], ["0", "0"]], ("x", "y"))
    domain = fp.Box((-5.0, -3.0), (5.0, 3.0))
    result = evolve(process, domain, PointStart((1.0, 0.7)), [0.01, 0.5, 3.0], comm=comm, size=0.25)
    assert result.nonnegative
    for record in result.records:
        assert record.minimum >= -1e-14 * record.maximum
        assert abs(record.mass - 1) < 1e-12
    # E X² = e^{-2t} + 1 - e^{-2t}, exactly 1; the scheme adds the width of the mesh
    assert abs(result.records[-1].covariance[0, 0] + result.records[-1].mean[0] ** 2 - 1) < 0.03

"""Results of evolutions made by hand on small meshes, so that reports and pictures need no solver.

The process is Ornstein-Uhlenbeck, ``dX = -CX dt + sqrt(2 s) dW`` with C = diag(1, 2, 3): Gaussian at all times.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem

from fpsolve.fem.boundary import classify
from fpsolve.fem.meshing import make_mesh
from fpsolve.model.domains import Box, Interval
from fpsolve.model.initial import gaussian_start
from fpsolve.model.process import SGD
from fpsolve.model.schedule import Schedule
from fpsolve.problems.evolution import BackwardResult, Cost, EvolveResult, Record, Step

COMM = MPI.COMM_WORLD
NOISE = 0.1
TIMES = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
SIZES = {1: 0.1, 2: 0.25, 3: 0.5}
NAMES = ("x", "y", "z")


def rates(d: int) -> np.ndarray:
    return np.arange(1.0, d + 1)


def moments(d: int, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variances at time t of the start N((0.8, …), 0.02)."""
    c = rates(d)
    return 0.8 * np.exp(-c * t), 0.02 * np.exp(-2 * c * t) + NOISE / c * (1 - np.exp(-2 * c * t))


def gaussian(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    z = (x - mean) ** 2 / variance
    return np.exp(-z.sum(axis=1) / 2) / np.sqrt(np.prod(2 * np.pi * variance))


def question(d: int):
    """The process and the domain."""
    names = NAMES[:d]
    loss = " + ".join(f"{c:g}*{n}**2/2" for c, n in zip(rates(d), names, strict=True))
    domain = Interval(-2.0, 2.0) if d == 1 else Box((-2.0,) * d, (2.0,) * d)
    return SGD(loss, variables=names, epsilon2=NOISE), domain


def mesh_of(d: int):
    process, domain = question(d)
    triangulation = make_mesh(domain, SIZES[d], 1, COMM)
    boundary = classify(process, triangulation.facet_tags, triangulation.mesh, tuple(triangulation.parts.values()), 4)
    space = fem.functionspace(triangulation.mesh, ("DG" if d < 3 else "Lagrange", 2))
    return process, domain, triangulation, boundary, space


def interpolated(space: fem.FunctionSpace, values) -> fem.Function:
    function = fem.Function(space)
    d = space.mesh.geometry.dim
    function.interpolate(lambda x: values(x[:d].T))
    return function


def record(d: int, t: float, lowest: float = 0.0) -> Record:
    mean, variance = moments(d, t)
    left = np.exp(-2 * t)
    return Record(
        t=t, mass=1.0, outflow=0.0, minimum=lowest, maximum=float(gaussian(mean[None], mean, variance)[0]), mean=mean,
        covariance=np.diag(variance), observables=np.array([float(mean @ mean + variance.sum())]), entropy=3 * left,
        entropy_production=6 * left, relative_entropy=1.5 * left, basins=np.ones(1), near_boundary=1e-9,
    )  # fmt: skip


def evolution(d: int, undershoot: float = 0.0, **changes: Any) -> EvolveResult:
    """The density of Ornstein-Uhlenbeck at the stored times, lowered by `undershoot` times a wave."""
    process, domain, triangulation, boundary, space = mesh_of(d)
    densities = []
    for t in TIMES:
        mean, variance = moments(d, t)
        densities.append(
            interpolated(
                space, lambda x, m=mean, v=variance: gaussian(x, m, v) - undershoot * np.cos(3 * x).prod(axis=1)
            )
        )
    records = tuple(record(d, float(t), -undershoot) for t in TIMES)
    n = len(TIMES)
    errors = {
        "mean": np.full((n, d), 1e-3), "covariance": np.full((n, d, d), 1e-3), "observables": np.full((n, 1), 2e-3),
        "mass": np.full(n, 1e-14),
    }  # fmt: skip
    steps = tuple(Step(t, 0.05, 1.0, 1e-5) for t in np.linspace(0.05, 4.0, 80))
    made = EvolveResult(
        process=process, domain=domain, comm=COMM, triangulation=triangulation, boundary=boundary,
        initial=gaussian_start([0.8] * d, 0.02), boundary_condition="no-flux", schedule=Schedule(), scheme="dg",
        degree=2, order=4, nonnegative=False, unknowns=space.dofmap.index_map.size_global,
        cells=triangulation.mesh.topology.index_map(d).size_global, solver="preonly lu; L-stable of order 4",
        observables=(" + ".join(f"{n}**2" for n in NAMES[:d]),), records=records, densities=tuple(densities),
        errors=errors, steps=steps, rejected=2, tolerance=1e-2, converged=True,
        cost=Cost(assembly=0.1, factorisations=4, factorisation=0.2, solves=320, solving=0.5, monitoring=0.1,
                  total=1.0),
        minima=np.zeros((1, d)), reference=None, messages=(),
    )  # fmt: skip
    return replace(made, **changes)


def expectation(d: int) -> BackwardResult:
    """E x(t) from x: x e^{-t}."""
    process, domain, triangulation, boundary, space = mesh_of(d)
    points = np.array([[0.5] * d, [-1.0] * d])
    fields = tuple(interpolated(space, lambda x, t=t: x[:, 0] * np.exp(-t)) for t in TIMES)
    return BackwardResult(
        process=process, domain=domain, comm=COMM, triangulation=triangulation, boundary=boundary,
        boundary_condition="no-flux", terminal="x", points=points, times=TIMES,
        values=np.exp(-TIMES)[:, None] * points[:, 0], errors=np.full((len(TIMES), 2), 1e-4), fields=fields,
        duality_defect=2e-14, scheme="dg", degree=2, order=4, unknowns=space.dofmap.index_map.size_global,
        cells=triangulation.mesh.topology.index_map(d).size_global, solver="preonly lu; L-stable of order 4",
        steps=tuple(Step(t, 0.05, 1.0, 1e-5) for t in np.linspace(0.05, 4.0, 80)), tolerance=1e-3, converged=True,
        cost=Cost(total=1.0), messages=(),
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A bound in time."""

    name: str
    kind: str
    theorem: str
    quantity: str
    record_key: str | None
    function: Any
    verified: bool = True
    reason: str = ""
    hypotheses: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)

    def evaluate(self, t: np.ndarray) -> np.ndarray:
        return np.asarray(self.function(np.asarray(t, dtype=float)), dtype=float)

    def functional(self, t: float, x: np.ndarray) -> np.ndarray | None:
        return np.sum(x**2, axis=1) if self.record_key is None else None


def second_moment(d: int, t: np.ndarray) -> np.ndarray:
    found = [moments(d, float(s)) for s in np.atleast_1d(t)]
    return np.array([m @ m + v.sum() for m, v in found])


def bounds(d: int) -> list[Made]:
    """Two bounds of the second moment, one of them the printed one; the entropy; the exact Gaussian."""
    first, noise = float(second_moment(d, np.zeros(1))[0]), NOISE * d
    return [
        Made("paper", "upper", "Lemma 2.1, paper", "∫|x − x₀|²ρ(t)", None,
             lambda t: (first - 2 * noise) * np.exp(-t) + 2 * noise),
        Made("sharp", "upper", "Lemma 2.1, sharp", "∫|x − x₀|²ρ(t)", None,
             lambda t: (first - noise) * np.exp(-2 * t) + noise),
        Made("printed", "upper", "(52) as printed", "entropy", "entropy", lambda t: 3 * np.exp(-t), verified=False,
             reason="half the rate"),
        Made("sharp", "upper", "Corollary 4.10", "entropy", "entropy", lambda t: 3.0001 * np.exp(-2 * t)),
        Made("sharp", "equal", "(14)", "mean", "mean",
             lambda t: np.array([moments(d, float(s))[0] for s in t])),
        Made("sharp", "equal", "(14)", "covariance", "covariance",
             lambda t: np.array([np.diag(moments(d, float(s))[1]) for s in t])),
        Made("paper", "lower", "Theorem 2.4", "mass in the shrinking ball", None, lambda t: np.full(len(t), np.nan),
             verified=False, reason="Q is not bounded"),
    ]  # fmt: skip


def margins(result: EvolveResult, found: list[Made], violations: int = 0) -> list[Any]:
    """What a comparison of these bounds says."""
    made = []
    for bound in found:
        key = bound.record_key
        values = (
            second_moment(result.process.dimension, result.times)
            if key is None
            else np.array([getattr(r, key) for r in result.records])
        )
        limits = np.broadcast_to(bound.evaluate(result.times), values.shape)
        gaps = {"upper": limits - values, "lower": values - limits}.get(bound.kind, -np.abs(values - limits))
        made.append(
            SimpleNamespace(
                name=bound.name,
                theorem=bound.theorem,
                quantity=bound.quantity,
                kind=bound.kind,
                verified=bound.verified,
                times=result.times,
                values=values,
                bounds=limits,
                allowed=np.full(values.shape, 1e-6),
                margins=np.where(np.isfinite(gaps), gaps, np.inf),
                violations=violations if bound.name == "sharp" else 0,
                error_known=True,
                smallest=0.01,
            )
        )
    return made

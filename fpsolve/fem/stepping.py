"""One time step of the semi-discrete equations ``M ρ' = -Bᵀρ`` (forward) and ``M u' = -B u`` (backward).

Both use the same factorisation of ``M + s B``, the forward one transposed, so that the discrete solutions are
exactly dual: ``ρ(t)ᵀ M u(0) = ρ(0)ᵀ M u(t)`` for the same steps.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from petsc4py import PETSc

from fpsolve.fem.family import Family
from fpsolve.fem.linear import Solver
from fpsolve.fem.rational import Rational

#: Factorisations kept. Steps are quantised, so that a few shifts are enough.
KEPT = 4


@dataclass
class Meter:
    """Counts and seconds of the parts of a run, on this rank."""

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Count once and add the time spent inside."""
        began = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began
        self.counts[what] = self.counts.get(what, 0) + 1


class System:
    """M and B(θ) with solvers of ``M + s B(θ)``. Collective.

    Parameters
    ----------
    family : Family
        The generator for each θ = ε²(t)/ε².
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.generator = family.generator
        self.mass = self.generator.mass_matrix()
        self.lumped = self.generator.mass
        self.meter = Meter()
        self._solvers: OrderedDict[tuple[float, float], tuple[PETSc.Mat, Solver]] = OrderedDict()

    def matrix(self, theta: float = 1.0) -> PETSc.Mat:
        """Return B(θ); do not change it; valid until another θ is asked for. Collective."""
        return self.family.at(theta)[0]

    def outflow(self, theta: float = 1.0) -> PETSc.Vec:
        """Return κ(θ) = B(θ) 1; do not change it; valid until another θ is asked for. Collective."""
        return self.family.at(theta)[1]

    def solve(self, shift: float, theta: float, rhs: PETSc.Vec, transpose: bool) -> PETSc.Vec:
        """Return ``(M + shift B(θ))⁻¹ rhs`` or with Bᵀ, as a new vector. Collective. Raises NotConverged."""
        solver = self._solver(shift, theta)
        with self.meter.measure("solve"):
            return solver.solve_transpose(rhs) if transpose else solver.solve(rhs)

    def describe(self) -> str:
        """Return the linear solver in use."""
        return next(reversed(self._solvers.values()))[1].describe() if self._solvers else ""

    def _solver(self, shift: float, theta: float) -> Solver:
        key = (shift, theta)
        if key in self._solvers:
            self._solvers.move_to_end(key)
            return self._solvers[key][1]
        while len(self._solvers) >= KEPT:
            self._destroy_solver(*self._solvers.popitem(last=False)[1])
        with self.meter.measure("factorisation"):
            shifted = self.matrix(theta).copy()
            shifted.scale(shift)
            shifted.axpy(1.0, self.mass, structure=PETSc.Mat.Structure.SUBSET_NONZERO_PATTERN)
            solver = self.generator.solver_of(shifted, reproducible=True)
        self._solvers[key] = (shifted, solver)
        return solver

    @staticmethod
    def _destroy_solver(matrix: PETSc.Mat, solver: Solver) -> None:
        solver.destroy()
        matrix.destroy()

    def destroy(self) -> None:
        """Free everything. Collective."""
        for pair in self._solvers.values():
            self._destroy_solver(*pair)
        self._solvers.clear()
        self.mass.destroy()
        self.family.destroy()


@dataclass(frozen=True)
class Stage:
    """A linear step: the new vector, the average x in ``M(new - y) = -dt Bᵀx`` and the error estimate."""

    new: PETSc.Vec
    average: PETSc.Vec
    error: PETSc.Vec | None

    def destroy(self) -> None:
        """Free the vectors. Collective."""
        for vector in (self.new, self.average, self.error):
            if vector is not None:
                vector.destroy()


class LinearStepper:
    """Steps of a rational method, forward (Bᵀ) or backward (B). Collective."""

    def __init__(self, system: System, method: Rational, forward: bool = True) -> None:
        self.system = system
        self.method = method
        self.forward = forward

    def stage(self, y: PETSc.Vec, dt: float, theta: float = 1.0, method: Rational | None = None) -> Stage:
        """Return one step from y with everything a limiter needs. Collective."""
        method = method or self.method
        solved = [y]
        moment = y.duplicate()
        for _ in range(method.solves):
            self.system.mass.mult(solved[-1], moment)
            solved.append(self.system.solve(method.pole * dt, theta, moment, transpose=self.forward))
        new = combination(solved, method.weights)
        average = combination(solved[1:], method.average)
        error = combination(solved, method.error) if method.error else None
        for vector in (moment, *solved[1:]):
            vector.destroy()
        return Stage(new, average, error)

    def step(
        self, y: PETSc.Vec, dt: float, theta: float = 1.0, method: Rational | None = None
    ) -> tuple[PETSc.Vec, float]:
        """Return the new vector and the estimated local error relative to it, in L². Collective."""
        stage = self.stage(y, dt, theta, method)
        stage.average.destroy()
        if stage.error is None:
            return stage.new, 0.0
        size = self.norm(stage.new)
        error = self.norm(stage.error) / size if size > 0 else 0.0
        stage.error.destroy()
        return stage.new, error

    def norm(self, y: PETSc.Vec) -> float:
        """Return the L² norm. Collective."""
        product = y.duplicate()
        self.system.mass.mult(y, product)
        square = y.dot(product)
        product.destroy()
        return float(max(square, 0.0)) ** 0.5

    def destroy(self) -> None:
        """Nothing is owned here."""


def combination(vectors: Sequence[PETSc.Vec], weights: Sequence[float]) -> PETSc.Vec:
    """Return Σ weights_j vectors_j as a new vector."""
    result = vectors[0].duplicate()
    result.set(0.0)
    result.maxpy(list(weights), list(vectors))
    return result

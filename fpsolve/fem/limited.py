"""Nonnegative, conservative steps of the Fokker-Planck equation on linear elements: flux correction.

A step of high order and a monotone one of first order both move mass between neighbouring unknowns. Their
difference consists of antisymmetric fluxes, added to the monotone result as far as no unknown gives away more than
it has (Zalesak 1979; Kuzmin and Turek 2002; numerics.md 1.5). Only positivity is asked for: no bound from above, and
nothing is limited where the step of high order is nonnegative anyway, so its order of accuracy remains.

Unlike Zalesak's, the limiter counts what an unknown receives. Antidiffusive fluxes through an unknown exceed by far
what stays there when the artificial diffusion is large (degenerate a on a general mesh: numerics.md section 2);
without the arriving part most of them would be lost.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from mpi4py import MPI
from petsc4py import PETSc

import numpy as np

from fpsolve.fem.limited_graph import Couplings, Graph, make_couplings
from fpsolve.fem.linear import Solver
from fpsolve.fem.rational import Rational
from fpsolve.fem.stepping import KEPT, LinearStepper, Stage, System

#: Rounding: negative amounts below this part of the whole mass are not worth limiting.
ROUNDING = 1e-16
#: The limiter is repeated until it lets through less than this part of the mass in addition.
CONVERGED = 1e-10
#: Repetitions of the limiter; each result is admissible, so that stopping costs accuracy only.
SWEEPS = 100


@dataclass(frozen=True)
class Transport:
    """What moves during a step, in units of mass.

    Attributes
    ----------
    pairs : ndarray
        For each pair of the graph, from head to tail.
    outside : ndarray
        For each own unknown, what it receives through the exit; negative: what it loses.
    """

    pairs: np.ndarray
    outside: np.ndarray


class LimitedStepper:
    """Steps of a linear method, limited so that ρ >= 0 stays so and mass is conserved by construction. Collective.

    Every amount of mass is taken from one unknown and given to another or to the exit, hence the mass changes by what
    leaves and by rounding, whatever the residuals of the linear solves. Not linear: no duality with backward steps.

    Parameters
    ----------
    system : System
        On linear elements, continuous ("cg") or with Scharfetter-Gummel weights ("sg").
    linear : LinearStepper
        Forward; the step of high order.

    Attributes
    ----------
    limited : float
        How far the last step was moved from the linear one: L¹ distance relative to the mass.
    outflow : float
        The mass that left through the exit in the last step.
    sweeps : int
        Repetitions of the limiter in the last step; 0 when the linear step was nonnegative.
    corrected : float
        Negative mass removed at the end of the last step by scaling, relative: rounding, or the residual of a Krylov
        method.
    """

    def __init__(self, system: System, linear: LinearStepper) -> None:
        generator = system.generator
        if generator.scheme not in ("cg", "sg") or generator.degree != 1:
            raise ValueError(
                f"flux correction needs linear elements, not {generator.scheme} of degree {generator.degree}"
            )
        self.system = system
        self.linear = linear
        self.comm: MPI.Comm = generator.space.mesh.comm
        self.graph = Graph(generator.matrix)
        self.weights = system.lumped.getArray(readonly=True).copy()
        self._mass = self._mass_couplings() if generator.scheme == "cg" else None
        self._current: tuple[float, Couplings] | None = None
        self._solvers: OrderedDict[tuple[float, float], tuple[PETSc.Mat, Solver]] = OrderedDict()
        self.limited = self.outflow = self.corrected = 0.0
        self.sweeps = 0

    def step(
        self, y: PETSc.Vec, dt: float, theta: float = 1.0, method: Rational | None = None
    ) -> tuple[PETSc.Vec, float]:
        """Return the new density y >= 0 and the estimated local error. Collective. Raises NotConverged.

        Parameters
        ----------
        y : PETSc.Vec
            Nonnegative.
        dt : float
        theta : float
            ε²/ε²(0) during the step.
        method : Rational, optional
            Other than the linear stepper's own.

        Returns
        -------
        PETSc.Vec
        float
            L¹ norm of the embedded estimate of the linear step, relative to the mass; what the limiter changed does not
            count, since it need not vanish with the step where the mesh does not resolve the density.
        """
        couplings = self.couplings(theta)
        stage = self.linear.stage(y, dt, theta, method)
        low = self._monotone(y, dt, theta, couplings)
        with self.system.meter.measure("limiter"):
            new, error = self._combine(y, dt, couplings, stage, low)
        stage.destroy()
        low.destroy()
        return new, error

    def _combine(
        self, y: PETSc.Vec, dt: float, couplings: Couplings, stage: Stage, low: PETSc.Vec
    ) -> tuple[PETSc.Vec, float]:
        stock = self.weights * y.getArray(readonly=True)
        monotone = self._monotone_transport(low, dt, couplings)
        high = self._high_transport(y, stage, dt, couplings)
        # the exit gives back at most what the monotone step sent there: nothing enters through it
        missing = Transport(high.pairs - monotone.pairs, np.minimum(high.outside - monotone.outside, -monotone.outside))
        kept = self._after(stock, monotone)
        fraction = self._admissible(np.maximum(kept, 0.0), missing)
        donor = np.where(missing.pairs > 0, self.graph.head, self.graph.tail)
        pairs = monotone.pairs + fraction[donor] * missing.pairs
        giving = np.where(missing.outside < 0, fraction[: self.graph.owned], 1.0)
        outside = monotone.outside + giving * missing.outside
        amount = self._after(stock, Transport(pairs, outside))
        linear = self.weights * stage.new.getArray(readonly=True)
        error = 0.0 if stage.error is None else self.weights * np.abs(stage.error.getArray(readonly=True))
        return self._finish(y, amount, np.abs(amount - linear).sum(), outside.sum(), np.sum(error))

    def _finish(
        self, y: PETSc.Vec, amount: np.ndarray, moved: float, entered: float, error: float
    ) -> tuple[PETSc.Vec, float]:
        """Return the density with these masses at the unknowns and the relative error; record what happened."""
        local = np.array([amount.sum(), -np.minimum(amount, 0.0).sum(), moved, -entered, error])
        total, negative, moved, self.outflow, error = map(float, self.comm.allreduce(local))
        mass = max(total, np.finfo(float).tiny)
        self.corrected, self.limited = negative / mass, moved / mass
        if negative > 0:
            amount = np.maximum(amount, 0.0) * (max(total, 0.0) / (total + negative))
        new = y.duplicate()
        new.setArray(amount / self.weights)
        return new, error / mass

    def _monotone_transport(self, low: PETSc.Vec, dt: float, c: Couplings) -> Transport:
        """Return what moves in the step to `low`; its rounding or residual shows as a change of `low` itself."""
        value = self.graph.with_foreign(np.maximum(low.getArray(readonly=True), 0.0))
        pairs = dt * (c.low_out * value[self.graph.tail] - c.low_back * value[self.graph.head])
        return Transport(pairs, -dt * c.low_leak * value[: self.graph.owned])

    def _high_transport(self, y: PETSc.Vec, stage: Stage, dt: float, c: Couplings) -> Transport:
        """Return what moves in ``M (new - y) = -dt Bᵀ average``, with M lumped: M_L - M moves mass, too."""
        graph = self.graph
        value = graph.with_foreign(stage.average)
        pairs = dt * (c.out * value[graph.tail] - c.back * value[graph.head])
        outside = -dt * c.leak * value[: graph.owned]
        if self._mass is not None:
            mass, mass_outside = self._mass
            change = graph.with_foreign(stage.new.getArray(readonly=True) - y.getArray(readonly=True))
            pairs += mass * (change[graph.tail] - change[graph.head])
            outside += mass_outside * change[: graph.owned]
        return Transport(pairs, outside)

    def _after(self, stock: np.ndarray, transport: Transport) -> np.ndarray:
        return stock + self.graph.gain(transport.pairs) + transport.outside

    def _admissible(self, stock: np.ndarray, transport: Transport) -> np.ndarray:
        """Return, for own and foreign unknowns, the fraction of `transport` each may give away. Collective.

        The largest R <= 1 with ``R_i leaving_i <= stock_i + Σ_j R_j (moving from j to i)`` is the limit of the
        increasing sequence that starts from R = 0. Each member is admissible, the first one being Zalesak's.
        """
        graph = self.graph
        giver = np.where(transport.pairs > 0, graph.head, graph.tail)
        taker = np.where(transport.pairs > 0, graph.tail, graph.head)
        size = np.abs(transport.pairs)
        leaving = graph.sums(giver, size) + np.maximum(-transport.outside, 0.0)
        stock = stock + np.maximum(transport.outside, 0.0)
        lacking = np.maximum(leaving - stock - graph.sums(taker, size), 0.0).sum()
        mass, lacking = self.comm.allreduce(np.array([stock.sum(), lacking]))
        self.sweeps = 0
        if lacking <= ROUNDING * mass:
            return np.ones(graph.total)
        fraction = np.zeros(graph.total)
        gain = np.inf
        while gain > CONVERGED * mass and self.sweeps < SWEEPS:
            available = stock + graph.sums(taker, fraction[giver] * size)
            more = np.minimum(available, leaving) / np.where(leaving > 0, leaving, 1.0)
            gain = self.comm.allreduce(float((leaving * (more - fraction[: graph.owned])).sum()))
            fraction = graph.with_foreign(more)
            self.sweeps += 1
        return fraction

    def _mass_couplings(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ∫φ_t φ_h for the pairs and, for own unknowns, ∫φ_i times the functions of the exit. Collective."""
        out, back = self.graph.couplings(self.system.mass)
        sums = self.system.mass.getRowSum()
        outside = self.weights - sums.getArray(readonly=True)
        sums.destroy()
        outside[np.abs(outside) < 1e-12 * self.weights] = 0.0  # rounding would be a source
        return 0.5 * (out + back), outside

    def couplings(self, theta: float = 1.0) -> Couplings:
        """Return B(θ) and its monotone companion on the pairs of the graph. Collective."""
        if self._current is None or self._current[0] != theta:
            reversible = self.system.generator.scheme == "sg"
            made = make_couplings(self.graph, self.system.matrix(theta), self.system.outflow(theta), reversible)
            self._current = theta, made
        return self._current[1]

    def _monotone(self, y: PETSc.Vec, dt: float, theta: float, couplings: Couplings) -> PETSc.Vec:
        """Return the implicit Euler step ``(M_L + dt B~ᵀ)⁻¹ M_L y``, nonnegative for every dt. Collective."""
        solver = self._solver(dt, theta, couplings)
        moment = y.duplicate()
        moment.pointwiseMult(y, self.system.lumped)
        with self.system.meter.measure("solve"):
            low = solver.solve(moment)
        moment.destroy()
        return low

    def _solver(self, dt: float, theta: float, c: Couplings) -> Solver:
        key = (dt, theta)
        if key in self._solvers:
            self._solvers.move_to_end(key)
            return self._solvers[key][1]
        while len(self._solvers) >= KEPT:
            self._destroy_solver(*self._solvers.popitem(last=False)[1])
        graph = self.graph
        with self.system.meter.measure("factorisation"):
            out = graph.sums(graph.tail, c.low_out) + graph.sums(graph.head, c.low_back)
            matrix = graph.matrix(dt * c.low_back, dt * c.low_out, self.weights + dt * (c.low_leak - out))
            self._solvers[key] = matrix, self.system.generator.solver_of(matrix, reproducible=True)
        return self._solvers[key][1]

    @staticmethod
    def _destroy_solver(matrix: PETSc.Mat, solver: Solver) -> None:
        solver.destroy()
        matrix.destroy()

    def destroy(self) -> None:
        """Free what is owned here, not the system. Collective."""
        for pair in self._solvers.values():
            self._destroy_solver(*pair)
        self._solvers.clear()
        self.graph.destroy()

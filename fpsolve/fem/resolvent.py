"""Solve ``(I - P) u = f`` for a transfer operator: GMRES, with the true residual as the judge.

Where steps are not small against the domain the eigenvalues of P cluster at 0 and GMRES needs no preconditioner. Where
they are, it stagnates; but then rows are short, and an incomplete factorisation of each rank's block is affordable.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from petsc4py import PETSc

import numpy as np

from fpsolve.errors import NotConverged
from fpsolve.fem.transfer import TransferOperator

log = logging.getLogger("fpsolve")

#: GMRES reduces the residual by this much at a time; residuals are computed anew in between.
REDUCTION = 1e-8
ROUNDS = 6
#: Residual, relative to f, that is aimed at, and the largest that is accepted.
AIM, ACCEPT = 1e-13, 1e-6
RESTART, ITERATIONS = 120, 600


@dataclass(frozen=True)
class Solution:
    """u at all nodes, on every rank.

    Attributes
    ----------
    values : ndarray, shape (unknowns,)
    residual : float
        ``max|f - (I - P)u| / max|f|``. For linear elements (I - P)⁻¹ is nonnegative: with constant f this bounds the
        relative error of the solution of the linear system.
    iterations : int
    """

    values: np.ndarray
    residual: float
    iterations: int


class Resolvent:
    """(I - P)⁻¹ of a transfer operator. Collective."""

    def __init__(self, operator: TransferOperator) -> None:
        self.operator = operator
        self.matrix = operator.matrix.copy()
        self.matrix.scale(-1.0)
        _add_identity(self.matrix)
        ksp = PETSc.KSP().create(operator.comm)
        ksp.setOptionsPrefix("transfer_")
        ksp.setOperators(self.matrix)
        ksp.setType("gmres")
        ksp.setGMRESRestart(RESTART)
        ksp.getPC().setType("none")
        ksp.setTolerances(rtol=REDUCTION, atol=0.0, divtol=1e10, max_it=ITERATIONS)
        ksp.setFromOptions()
        self.ksp = ksp

    def solve(self, f: np.ndarray | float) -> Solution:
        """Return u. Collective. Raises NotConverged."""
        rhs = self.operator.vector(f)
        u = rhs.duplicate()
        best, iterations = self._refined(rhs, u)
        if not best <= ACCEPT and self.ksp.getPC().getType() == "none":
            log.info("transfer operator: GMRES stagnates at %.1e; incomplete factorisation", best)
            self.ksp.getPC().setType("bjacobi")
            best, more = self._refined(rhs, u)
            iterations += more
        values = self.operator.everywhere(u)
        for vector in (rhs, u):
            vector.destroy()
        if not best <= ACCEPT:
            raise NotConverged(
                f"the linear system of the transfer operator was solved to a relative residual of {best:.1e} only "
                f"({iterations} iterations of GMRES): the chain hardly ever leaves, or the mesh is too coarse for it"
            )
        return Solution(values, float(best), iterations)

    def _refined(self, rhs: PETSc.Vec, u: PETSc.Vec) -> tuple[float, int]:
        """Set u by iterative refinement from 0; return the relative residual and the iterations. Collective."""
        residual, change = rhs.copy(), rhs.duplicate()
        u.set(0.0)
        scale = rhs.norm(PETSc.NormType.INFINITY) or 1.0
        best, iterations = np.inf, 0
        for _ in range(ROUNDS):
            self.ksp.solve(residual, change)
            iterations += self.ksp.getIterationNumber()
            u.axpy(1.0, change)
            self.matrix.mult(u, residual)
            residual.aypx(-1.0, rhs)
            size = residual.norm(PETSc.NormType.INFINITY) / scale
            if not np.isfinite(size) or size >= 0.5 * best:
                # rounding is reached, or GMRES stagnates
                if size > best or not np.isfinite(size):
                    u.axpy(-1.0, change)
                best = min(best, size)
                break
            best = size
            if best <= AIM:
                break
        residual.destroy()
        change.destroy()
        return float(best), iterations

    def destroy(self) -> None:
        """Free matrix and solver. Collective."""
        self.ksp.destroy()
        self.matrix.destroy()


def _add_identity(matrix: PETSc.Mat) -> None:
    identity = PETSc.Mat().createConstantDiagonal(matrix.getSizes(), 1.0, comm=matrix.getComm())
    identity.convert("aij")
    matrix.axpy(1.0, identity, structure=PETSc.Mat.Structure.DIFFERENT_NONZERO_PATTERN)
    identity.destroy()

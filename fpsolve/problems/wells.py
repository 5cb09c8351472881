r"""The masses of the wells as a Markov chain: m_i(t) of (61), which the paper leaves open (4.5 iv).

With M wells, -A has M eigenvalues 0 = λ₀ < λ₁ <= … that vanish exponentially as ε² → 0, and all others stay. After the
wells have relaxed, only these count:

    ``m_i(t) = Σ_j Y_ij e^{-λ_j t} c_j``,  ``Y_ij = ∫ over basin i of y_j``,  ``c_j = ∫ρ₀ x_j``,

with right and left eigenfunctions x_j, y_j (x₀ = 1, y₀ = ρ∞). So ``m' = R m``, ``R = -YΛY⁻¹``, a Markov chain with the
rate R_ik from well k to well i, and the initial masses ``m(0+) = Yc``: how ρ₀ splits. Deterministically, as ε → 0, it
splits by the basins of attraction of the gradient flow; the x_j are nearly constant in each basin, with a transition of
width O(ε) at the separatrix that is odd to leading order, hence the difference is O(ε²) for smooth ρ₀.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from dolfinx import fem

from fpsolve.errors import InputError
from fpsolve.fem.functionals import integrate, region_loads
from fpsolve.fem.points import evaluate, locate
from fpsolve.model.basins import basin_labels
from fpsolve.model.initial import DensityStart, GaussianStart, PointStart
from fpsolve.problems.monitors import BASIN_DEPTH
from fpsolve.problems.steady_result import SteadyResult


@dataclass(frozen=True)
class WellChain:
    """Mass exchange between M wells; rates per unit of time, in which one SGD step lasts η.

    Attributes
    ----------
    rates : ndarray, shape (M, M)
        R of ``m' = R m``: R_ik from well k to well i, columns of sum 0. Other entries than those of the diagonal are
        nonnegative up to what the reduction leaves out.
    eigenvalues : ndarray, shape (M,)
        Of -A (and -R): 0 first.
    separation : float
        The next eigenvalue of -A over the last of these: the reduction holds when it is large; nan when not computed.
    stationary : ndarray, shape (M,)
        m(∞), the masses of the basins.
    start : ndarray, shape (M,), or None
        m(0+) of the initial density, if one was given.
    """

    rates: np.ndarray
    eigenvalues: np.ndarray
    separation: float
    stationary: np.ndarray
    start: np.ndarray | None
    modes: np.ndarray

    def masses(
        self, times: Sequence[float] | np.ndarray, start: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        """Return m(t), shape (k, M), from `start` or from m(0+).

        Raises
        ------
        InputError
            If neither is known.
        """
        first = self.start if start is None else np.asarray(start, dtype=float)
        if first is None or first.shape != self.stationary.shape:
            raise InputError("start", start, f"{len(self.stationary)} masses, or an initial density for `well_chain`")
        weights = np.linalg.solve(self.modes, first)
        decay = np.exp(-np.multiply.outer(np.asarray(times, dtype=float), self.eigenvalues))
        return np.asarray((decay * weights) @ self.modes.T)


def well_chain(steady: SteadyResult, initial: GaussianStart | DensityStart | PointStart | None = None) -> WellChain:
    """Return the Markov chain of the wells from the slow eigenpairs of the generator. Collective.

    Parameters
    ----------
    steady : SteadyResult
        With at least as many eigenvalues as minima (one more shows the separation).
    initial : GaussianStart, DensityStart or PointStart, optional
        For m(0+).

    Raises
    ------
    InputError
        If there are fewer than two wells or too few eigenvalues, or the slow ones are not resolved or not real.
    """
    count = len(steady.minima)
    if count < 2:
        raise InputError("process", steady.process.variables, "a loss with at least two minima in the domain")
    if len(steady.eigenvalues) < count:
        raise InputError("eigenvalues", len(steady.eigenvalues), f"at least {count}, as many as there are minima")
    slow = steady.eigenvalues[:count]
    if steady.zero_count > 1:
        raise InputError(
            "process.epsilon2", steady.process.epsilon2, "rates that can be told from 0",
            f"{steady.zero_count} eigenvalues are lost in rounding. Use a larger ε².",
        )  # fmt: skip
    if np.abs(slow.imag).max() > 1e-8 * np.abs(slow).max():
        raise InputError("process", slow.tolist(), "real slow eigenvalues, one for each well but the first")
    modes = _basin_integrals(steady, count)
    values = slow.real.copy()
    values[0] = 0.0
    rates = -(modes * values) @ np.linalg.inv(modes)
    more = steady.eigenvalues[count:]
    separation = float(more[0].real / values[-1]) if len(more) else float("nan")
    start = None if initial is None else modes @ _weights(steady, initial, count)
    return WellChain(rates, values, separation, modes[:, 0].copy(), start, modes)


def _basin_integrals(steady: SteadyResult, count: int) -> np.ndarray:
    """Return Y, with y₀ = ρ∞. Collective."""
    space = steady.density.function_space
    size = float(np.linalg.norm(np.subtract(*steady.domain.bounding_box())))
    loads = region_loads(
        space,
        space.element.basix_element.degree,
        lambda x: basin_labels(steady.process, steady.minima, x, size),
        count,
        BASIN_DEPTH[steady.process.dimension],
    )
    owned = space.dofmap.index_map.size_local
    columns = [f.x.array[:owned] for f, _ in steady.left[:count]]
    local = np.array([[load.getArray(readonly=True) @ column for column in columns] for load in loads])
    for load in loads:
        load.destroy()
    return np.asarray(steady.comm.allreduce(local))


def _weights(steady: SteadyResult, initial: GaussianStart | DensityStart | PointStart, count: int) -> np.ndarray:
    """Return c_j = ∫ρ₀ x_j, c₀ = 1. Collective."""
    modes = [pair[0] for pair in steady.right[1:count]]  # x₀ = 1
    if isinstance(initial, PointStart):
        where = locate(steady.density.function_space.mesh, np.array([initial.point], dtype=float))
        values = [float(evaluate(mode, where)[0]) for mode in modes]
        if not np.isfinite(values).all():
            raise InputError("initial", initial.point, "a point of the domain")
        return np.array([1.0, *values])
    one = fem.Function(steady.density.function_space)
    one.x.array[:] = 1.0
    mass = integrate(one, initial.density)
    return np.array([1.0, *(integrate(mode, initial.density) / mass for mode in modes)])

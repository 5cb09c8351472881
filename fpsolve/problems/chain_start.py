"""Initial data of a chain as masses at the nodes of linear elements."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from fpsolve.errors import InputError
from fpsolve.fem.cell_points import cell_points
from fpsolve.fem.nodal import NodalSpace, basis
from fpsolve.fem.transfer import rows_of_steps
from fpsolve.model.domains import Domain
from fpsolve.model.initial import DensityStart, GaussianStart, PointStart

KEY = "evolve.initial"
#: Points of the quasi-random rule for a Gaussian; the degree of quadrature of a density in each cell.
POINTS, DEGREE = 2**14, 12
#: So much mass may lie outside of the domain; more than this is mentioned.
MOST, SOME = 0.5, 1e-6

Start = GaussianStart | PointStart | DensityStart


def start_masses(initial: Start, space: NodalSpace, domain: Domain) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return nonnegative masses (unknowns,) of sum 1 and warnings. Not collective; the same on every rank.

    A Gaussian keeps its mean and covariance up to what lies outside of the domain; a point its mean.

    Raises
    ------
    InputError
    """
    d = domain.dimension
    if isinstance(initial, DensityStart):
        return _density(initial, space)
    centre = np.array([initial.mean if isinstance(initial, GaussianStart) else initial.point], dtype=float)
    if centre.shape[1] != d or not np.isfinite(centre).all():
        raise InputError(KEY, centre[0].tolist(), f"a point with {d} finite coordinates")
    if isinstance(initial, PointStart):
        if not domain.contains(centre)[0]:
            raise InputError(f"{KEY}.point", centre[0].tolist(), "a point of the domain")
        return _deposit(space, domain, centre, np.zeros((1, 1, d)), np.ones(1))[0], ()
    z = ndtri(np.clip(qmc.Sobol(d, seed=0).random_base2(int(np.log2(POINTS))), 2.0**-33, 1 - 2.0**-33))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / len(z))).T  # covariance I exactly
    steps = (z @ np.linalg.cholesky(np.array(initial.covariance)).T)[None]
    masses, outside = _deposit(space, domain, centre, steps, np.full(len(z), 1 / len(z)))
    if outside > MOST:
        remedy = f"{outside:.3g} of the Gaussian's mass is outside."
        raise InputError(f"{KEY}.mean", centre[0].tolist(), "most of the initial density in the domain", remedy)
    message = f"initial density: {outside:.3g} of its mass lies outside the domain; the rest was scaled to 1"
    return masses, (message,) if outside > SOME else ()


def _deposit(
    space: NodalSpace, domain: Domain, centre: np.ndarray, steps: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float]:
    rows = rows_of_steps(space, domain, centre, steps, weights, "absorbing", compensate=steps.shape[1] > 1)
    masses = rows.matrix.toarray()[0]
    return masses / masses.sum(), float(rows.killed[0])


def _density(initial: DensityStart, space: NodalSpace) -> tuple[np.ndarray, tuple[str, ...]]:
    at, weights, cells = cell_points(space, DEGREE)
    values = initial.density(at)
    key, expected = f"{KEY}.density", "a formula that is finite and nonnegative in the whole domain"
    if not np.isfinite(values).all():
        raise InputError(key, f"not finite at {at[~np.isfinite(values)][0].tolist()}", expected)
    if values.min() < -1e-12 * np.abs(values).max():
        raise InputError(key, f"{values.min():.6g} at {at[np.argmin(values)].tolist()}", expected)
    loads = np.maximum(values, 0.0) * weights
    masses = np.zeros(space.unknowns)
    np.add.at(masses, space.cells[cells], loads[:, None] * np.maximum(basis(space, at, cells), 0.0))
    if not masses.sum() > 0:
        raise InputError(key, str(initial.formula.entries[0]), "a density with mass in the domain")
    return masses / masses.sum(), ()

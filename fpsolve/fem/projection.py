"""From a load ``b_i = ∫ρ φ_i`` to the density: ``M ρ = b`` in the way of each scheme."""

from __future__ import annotations

import logging
from dataclasses import replace

from petsc4py import PETSc

import numpy as np

from fpsolve.fem.generator import Generator

log = logging.getLogger("fpsolve")


def start_vector(load: PETSc.Vec, generator: Generator, lumped: bool = False) -> PETSc.Vec:
    """Return the density ρ with ``M ρ = b`` as a new vector. Collective.

    Parameters
    ----------
    load : PETSc.Vec
        b on the free unknowns.
    lumped : bool
        For the nonnegative schemes on linear elements: see `limited_projection`.

    Returns
    -------
    PETSc.Vec
        ``b_i/m_i`` for "sg", whose mass matrix is lumped; cell by cell for "dg"; by a global solve for "cg".
        Its mass is that of b to rounding.
    """
    if lumped:
        return limited_projection(load, generator)
    if generator.scheme == "sg":
        return _lumped(load, generator)
    if generator.scheme == "dg":
        return _cell_by_cell(load, generator)
    return _consistent(load, generator)


def _lumped(load: PETSc.Vec, generator: Generator) -> PETSc.Vec:
    result = load.duplicate()
    result.pointwiseDivide(load, generator.mass)
    return result


def _cell_by_cell(load: PETSc.Vec, generator: Generator) -> PETSc.Vec:
    matrix = generator.mass_matrix()
    rows, columns, values = matrix.getValuesCSR()
    start = matrix.getOwnershipRange()[0]
    matrix.destroy()
    n = generator.space.element.basix_element.dim
    blocks = (len(rows) - 1) // n
    # the unknowns of a cell are numbered one after another and couple with nothing else
    expected = start + np.arange(blocks * n).reshape(blocks, 1, n)
    assert (columns.reshape(blocks, n, n) == expected).all()
    b = load.getArray(readonly=True).reshape(blocks, n, 1)
    result = load.duplicate()
    result.setArray(np.linalg.solve(values.reshape(blocks, n, n), b).ravel())
    return result


def _consistent(load: PETSc.Vec, generator: Generator, matrix: PETSc.Mat | None = None) -> PETSc.Vec:
    mass = matrix or generator.mass_matrix()
    solver = generator.solver_of(mass, reproducible=True)
    result = solver.solve(load)
    rest = load.duplicate()
    mass.mult(result, rest)
    rest.aypx(-1.0, load)
    correction = solver.solve(rest)  # mass to rounding also with a Krylov method
    result.axpy(1.0, correction)
    for thing in (solver, rest, correction, *([mass] if matrix is None else [])):
        thing.destroy()
    return result


def limited_projection(load: PETSc.Vec, generator: Generator) -> PETSc.Vec:
    """Return the nonnegative density on linear elements nearest to the consistent one, of the same mass. Collective.

    The lumped density ``b_i/m_i`` is nonnegative but wider by a variance of about h²/3; the consistent
    one has the right moments but may be negative. Their difference is a sum of fluxes between neighbours,
    ``m_i ρ_i = b_i + Σ_j α_ij m_ij (ρ'_i - ρ'_j)`` with ρ' consistent, each limited by α_ij in [0, 1] so that no
    neighbour gives more than it has (Zalesak's limiter, positivity only; Kuzmin 2012, Flux-corrected transport, 4).
    α = 1, so ρ = ρ', around every node where ρ' and its neighbours are nonnegative.

    Parameters
    ----------
    load : PETSc.Vec
        Negative entries, of a state of another scheme, count as zero and the others are scaled to the same mass.
    """
    load = _nonnegative(load)
    mass = replace(generator, scheme="cg").mass_matrix()  # also where the scheme lumps
    high = _consistent(load, generator, mass)
    rows, columns, m = mass.getValuesCSR()
    row = np.repeat(np.arange(len(rows) - 1), np.diff(rows))
    b = load.getArray(readonly=True)
    flux = m * (high.getArray(readonly=True)[row] - _values_at(high, columns))
    given = np.bincount(row, weights=np.maximum(-flux, 0.0), minlength=len(b))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(given > 0, np.minimum(1.0, b / given), 1.0)
    shares = load.duplicate()
    shares.setArray(share)
    limited = np.where(flux < 0, share[row], _values_at(shares, columns)) * flux
    total = np.maximum(b + np.bincount(row, weights=limited, minlength=len(b)), 0.0)  # rounding only
    result = load.duplicate()
    result.setArray(total / generator.mass.getArray(readonly=True))
    for thing in (mass, high, shares, load):
        thing.destroy()
    return result


def _nonnegative(load: PETSc.Vec) -> PETSc.Vec:
    result = load.copy()
    if load.min()[1] < 0:
        result.setArray(np.maximum(load.getArray(readonly=True), 0.0))
        result.scale(load.sum() / result.sum())
        log.warning("initial density: its negative values were set to zero")
    return result


def _values_at(vector: PETSc.Vec, unknowns: np.ndarray) -> np.ndarray:
    """Return entries of a vector by their global numbers, wherever they live. Collective."""
    needed, inverse = np.unique(unknowns, return_inverse=True)
    where = PETSc.IS().createGeneral(needed.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
    there = PETSc.Vec().createSeq(len(needed))
    scatter = PETSc.Scatter().create(vector, where, there, None)
    scatter.scatter(vector, there)
    values = there.getArray()[inverse].copy()
    for thing in (where, there, scatter):
        thing.destroy()
    return values

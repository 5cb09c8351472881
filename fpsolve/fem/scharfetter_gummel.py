"""Linear elements with Scharfetter-Gummel weights for a = s I and drift -∇L.

``B_ij = -w_ij Be((L_j - L_i)/s)`` with the stiffness ``w_ij = -s ∫∇φ_i·∇φ_j`` and ``Be(z) = z/(e^z - 1)``
(numerics.md 1.4): reversible with the exact Gibbs weights at the nodes, so the exponent of an escape time
is right on any mesh.
"""

from __future__ import annotations

from petsc4py import PETSc

import numpy as np
import ufl
from dolfinx import fem
from dolfinx.fem.petsc import assemble_matrix

from fpsolve.fem.boundary import classify
from fpsolve.fem.generator import Generator, kill, load
from fpsolve.fem.meshing import Triangulation
from fpsolve.model.process import Process


def bernoulli(z: np.ndarray) -> np.ndarray:
    """Return z/(e^z - 1), stable for all z."""
    small = np.abs(z) < 1e-8
    safe = np.where(small, 1.0, z)
    with np.errstate(over="ignore"):
        return np.where(small, 1.0 - z / 2, safe / np.expm1(safe))


def assemble_gibbs(
    process: Process, triangulation: Triangulation, reflecting: tuple[str, ...]
) -> tuple[Generator, float]:
    """Assemble the generator on linear elements. Collective.

    Returns
    -------
    Generator
    float
        The largest wrong-signed coupling relative to the largest one (0: discrete maximum principle).
    """
    domain = triangulation.mesh
    assert process.landscape is not None  # checked by the caller with a message
    tags = [triangulation.parts[name] for name in reflecting]
    boundary = classify(process, triangulation.facet_tags, domain, tags, 4)
    space = fem.functionspace(domain, ("Lagrange", 1))
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    full = assemble_matrix(fem.form(ufl.dot(ufl.grad(u), ufl.grad(v)) * ufl.dx))
    full.assemble()
    x = space.tabulate_dof_coordinates()[:, : process.dimension]
    strength = float(process.diffusion(x[:1])[0, 0, 0]) if len(x) else 0.0
    strength = max(domain.comm.allgather(strength))
    loss = fem.Function(space)
    loss.x.array[:] = process.landscape.loss(x)
    wrong = _weight(full, loss, strength)
    generator = kill("sg", 1, space, full, load(space, 1, boundary), boundary, None)
    return generator, wrong


def _weight(matrix: PETSc.Mat, loss: fem.Function, strength: float) -> float:
    """Turn the stiffness matrix into the weighted one, in place. Collective."""
    rows, columns, values = matrix.getValuesCSR()
    start, _ = matrix.getOwnershipRange()
    row = np.repeat(np.arange(len(rows) - 1), np.diff(rows))
    z = (_values_at(loss, columns) - loss.x.array[row]) / strength
    coupling = strength * values * bernoulli(z)  # w_ij > 0 stands as a negative stiffness
    diagonal = columns == row + start
    coupling[diagonal] = 0.0
    top = float(np.abs(coupling).max()) if len(coupling) else 0.0
    bad = float(np.maximum(strength * values[~diagonal], 0.0).max()) if (~diagonal).any() else 0.0
    sums = np.bincount(row, weights=coupling, minlength=len(rows) - 1)
    coupling[diagonal] = -sums[row[diagonal]]
    matrix.zeroEntries()
    matrix.setValuesCSR(rows, columns, coupling)
    matrix.assemble()
    comm = loss.function_space.mesh.comm
    top, bad = max(comm.allgather(top)), max(comm.allgather(bad))
    return bad / (strength or 1.0) if bad > 1e-12 * (top or 1.0) else 0.0


def _values_at(function: fem.Function, unknowns: np.ndarray) -> np.ndarray:
    """Return values at global unknowns, wherever they live: a row may name some that are no ghosts. Collective."""
    needed, inverse = np.unique(unknowns, return_inverse=True)
    where = PETSc.IS().createGeneral(needed.astype(PETSc.IntType), comm=PETSc.COMM_SELF)
    there = PETSc.Vec().createSeq(len(needed))
    everywhere = function.x.petsc_vec
    scatter = PETSc.Scatter().create(everywhere, where, there, None)
    scatter.scatter(everywhere, there)
    values = there.getArray()[inverse].copy()
    for thing in (where, there, scatter):
        thing.destroy()
    return values

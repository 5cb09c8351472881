"""A process on a mesh: its coefficients as finite-element functions, checked where they are used.

The coefficients a and β are interpolated once by continuous elements two degrees above the solution's.
The weak forms then do not depend on the formulas: they are compiled once for each element and dimension,
and a loss given by data costs no more than one given by a formula.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem, mesh

from fpsolve.errors import InputError
from fpsolve.fem.parallel import agree
from fpsolve.model.process import Process


@dataclass(frozen=True)
class Coefficients:
    """a (d × d) and β (d) on a mesh; functions or any UFL expressions of the user's own.

    Attributes
    ----------
    a, beta : ufl expressions
        Diffusion tensor and ``β = div a - f``.
    """

    a: fem.Function
    beta: fem.Function


def interpolate(process: Process, domain: mesh.Mesh, degree: int) -> Coefficients:
    """Interpolate a and β of `process` by continuous Lagrange elements. Collective.

    Raises
    ------
    InputError
        On every rank, when a coefficient is not finite or a is not symmetric and nonnegative at a node.
    """
    d = process.dimension
    scalar = fem.functionspace(domain, ("Lagrange", degree))
    x = scalar.tabulate_dof_coordinates()[:, :d]
    a, beta = process.diffusion(x), process.beta(x)
    agree(domain.comm, _defect(process, x, a, beta))
    tensor = fem.Function(fem.functionspace(domain, ("Lagrange", degree, (d, d))), name="a")
    vector = fem.Function(fem.functionspace(domain, ("Lagrange", degree, (d,))), name="beta")
    tensor.x.array[:] = a.reshape(-1)
    vector.x.array[:] = beta.reshape(-1)
    return Coefficients(tensor, vector)


def _defect(process: Process, x: np.ndarray, a: np.ndarray, beta: np.ndarray) -> InputError | None:
    """Return what is wrong with coefficient values at the points x, if anything."""
    if process.landscape is not None:
        loss = process.landscape.loss(x)
        if not np.isfinite(loss).all():
            point = x[~np.isfinite(loss)][0]
            return _not_finite("loss", process, point)
    where = [("covariance" if process.landscape else "diffusion", a), ("loss" if process.landscape else "drift", beta)]
    for key, values in where:
        finite = np.isfinite(values.reshape(len(x), -1)).all(axis=1)
        if not finite.all():
            point = x[~finite][0]
            return _not_finite(key, process, point)
    return check_nonnegative(process, x, a)


def _not_finite(key: str, process: Process, point: np.ndarray) -> InputError:
    return InputError(
        f"process.{key}",
        f"not finite at {_show(process, point)}",
        "finite values in the whole domain",
        "Change the formula or the domain.",
    )


def check_nonnegative(process: Process, x: np.ndarray, a: np.ndarray) -> InputError | None:
    """Return an error if a(x) is not symmetric and nonnegative (to rounding) at some point."""
    if not len(x):
        return None
    key = "process.covariance" if process.landscape else "process.diffusion"
    scale = np.abs(a).max() or 1.0
    skew = np.abs(a - a.transpose(0, 2, 1)).max(axis=(1, 2))
    if skew.max() > 1e-12 * scale:
        worst = int(skew.argmax())
        return InputError(key, f"{a[worst].tolist()} at {_show(process, x[worst])}", "a symmetric matrix")
    smallest = np.linalg.eigvalsh(a)[:, 0]
    worst = int(smallest.argmin())
    if smallest[worst] < -1e-10 * scale:
        return InputError(
            key,
            f"indefinite, smallest eigenvalue of a = {smallest[worst]:.6g} at {_show(process, x[worst])}",
            "a nonnegative matrix in the whole domain",
            "Correct the matrix or shrink the domain.",
        )
    return None


def _show(process: Process, point: np.ndarray) -> str:
    return ", ".join(f"{name} = {value:.6g}" for name, value in zip(process.variables, point, strict=True))


def largest_peclet(process: Process, domain: mesh.Mesh) -> float:
    """Return the largest cell Péclet number |β| h / (2 λ_max(a)) over cell midpoints. Collective."""
    d = domain.topology.dim
    local = np.arange(domain.topology.index_map(d).size_local, dtype=np.int32)
    x = mesh.compute_midpoints(domain, d, local)[:, :d]
    value = 0.0
    if len(x):
        h = domain.h(d, local)
        top = np.linalg.eigvalsh(process.diffusion(x))[:, -1]
        speed = np.linalg.norm(process.beta(x), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.nan_to_num(speed * h / (2 * top), nan=0.0, posinf=1e300).max())
    return domain.comm.allreduce(value, op=MPI.MAX)

"""Orders of convergence in L2 over three uniform meshes, for smooth problems with known solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import ufl
from common import COMM, fitted_order, l2_error, mean_size, reference, say, table
from dolfinx import fem

from fpsolve import SGD, Ball, Box, Interval
from fpsolve.fem.forms import measures
from fpsolve.fem.generator import Generator, _vector, assemble, coarsen, discretise
from fpsolve.fem.linear import Solver
from fpsolve.fem.meshing import Triangulation, make_mesh
from fpsolve.fem.points import locate
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.problems.gibbs import solve_gibbs_level
from fpsolve.problems.level import solve_level

exact_values = reference()
ANGLE = 0.7
CASES = (("dg", 1), ("dg", 2), ("dg", 3), ("cg", 1), ("cg", 2), ("cg", 3))


@dataclass(frozen=True)
class Case:
    """A problem with its solution, (n, d) -> (n,); `source` replaces -A u = 1 by -A u = source(x) in UFL."""

    name: str
    process: Process
    domain: Domain
    exact: Callable[[np.ndarray], np.ndarray]
    sizes: Sequence[float]
    source: Callable | None = None


def rotated_matrix(eigenvalues: Sequence[float], angle: float) -> np.ndarray:
    """Return R diag R^T."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag(eigenvalues) @ turn.T


def formulas(matrix: np.ndarray) -> list[list[str]]:
    """Return the matrix as the package reads it."""
    return [[repr(float(entry)) for entry in row] for row in matrix]


def manufactured(eigenvalues: Sequence[float], epsilon2: float, sizes: Sequence[float]) -> Case:
    """Return u = cos(πx/2) cos(πy/2) on the square with L = |x|²/2 and a rotated Q; u is smooth and 0 on all sides."""
    q = rotated_matrix(eigenvalues, ANGLE)

    def exact(x: np.ndarray) -> np.ndarray:
        return np.cos(np.pi * x[:, 0] / 2) * np.cos(np.pi * x[:, 1] / 2)

    def source(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
        u = ufl.cos(ufl.pi * x[0] / 2) * ufl.cos(ufl.pi * x[1] / 2)
        flux = ufl.dot(ufl.as_matrix(q.tolist()), ufl.grad(u))
        return -epsilon2 * ufl.div(flux) + ufl.dot(x, ufl.grad(u))

    process = SGD("(x**2 + y**2)/2", formulas(q), epsilon2=epsilon2)
    name = f"manufactured, Q = diag({eigenvalues[0]:g}, {eigenvalues[1]:g}) rotated {ANGLE}, square"
    return Case(name, process, Box((-1.0, -1.0), (1.0, 1.0)), exact, sizes, source)


def solution(
    case: Case, triangulation: Triangulation, scheme: str, degree: int, size: float
) -> tuple[fem.Function, int]:
    """Return the solution of that degree and its number of unknowns. Collective."""
    where = locate(triangulation.mesh, np.zeros((1, case.domain.dimension)) + 0.01)
    if scheme == "sg":
        _, answer = solve_gibbs_level(case.process, case.domain, triangulation, size, where, 1, COMM)
        return answer.u, answer.unknowns
    problem = discretise(case.process, triangulation, case.domain.reflecting, degree + 1)
    if case.source is None:
        answer = solve_level(problem, case.domain, scheme, degree, where, 1)
        return answer.u, answer.unknowns
    fine = assemble(problem, scheme, degree + 1)
    coarse, embedding = coarsen(fine)
    rhs = embedding.createVecRight()
    f = source_vector(fine, case.source)
    embedding.multTranspose(f, rhs)
    solver = Solver(coarse.matrix, case.domain.dimension)
    u = solver.solve(rhs)
    result, count = coarse.to_function(u), coarse.unknowns
    solver.destroy()
    for thing in (u, rhs, f, embedding, fine, coarse):
        thing.destroy()
    return result, count


def source_vector(generator: Generator, source: Callable):
    """Return ∫ f φ_i on the free unknowns. Collective."""
    space = generator.space
    dx = measures(space.mesh, generator.boundary, generator.degree + 2)[0]
    whole = _vector(source(ufl.SpatialCoordinate(space.mesh)) * ufl.TestFunction(space) * dx)
    part = generator.restrict(whole)
    whole.destroy()
    return part


def study(
    case: Case,
    schemes: Sequence[tuple[str, int]],
    mesher: Callable[[float, int], Triangulation] | None = None,
    interior: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[tuple[str, int, float, float]]:
    """Print errors and fitted orders; return scheme, degree, order, interior order.

    Parameters
    ----------
    mesher : callable, optional
        (size, geometry order) -> mesh, if not `make_mesh` of the domain.
    interior : callable, optional
        The part of the domain for a second error.
    """
    rows, found = [], []
    for scheme, degree in schemes:
        errors, inner, h = [], [], []
        for size in case.sizes:
            order = 1 if scheme == "sg" else min(degree + 2, {1: 1, 2: 5, 3: 3}[case.domain.dimension])
            triangulation = mesher(size, order) if mesher else make_mesh(case.domain, size, order, COMM)
            u, count = solution(case, triangulation, scheme, degree, size)
            error, norm = l2_error(u, case.exact, 2 * degree + 4)
            errors.append(error / norm)
            h.append(mean_size(triangulation.mesh))
            if interior is not None:
                error, norm = l2_error(u, case.exact, 2 * degree + 4, interior)
                inner.append(error / norm)
        slope = fitted_order(h, errors)
        row = [f"{scheme}{degree}", *(f"{e:.1e}" for e in errors), f"{slope:.2f}", count]
        second = float("nan")
        if interior is not None:
            second = fitted_order(h, inner)
            row += [*(f"{e:.1e}" for e in inner), f"{second:.2f}"]
        rows.append(row)
        found.append((scheme, degree, slope, second))
    header = ["scheme", *(f"h={s:g}" for s in case.sizes), "order", "unknowns"]
    if interior is not None:
        header += [*(f"inside, h={s:g}" for s in case.sizes), "order inside"]
    table(header, rows, case.name + ": relative L2 error")
    return found


def cases() -> list[tuple[Case, tuple[tuple[str, int], ...]]]:
    """Return the smooth problems with the schemes that apply."""
    ou = SGD("(x**2 + y**2)/2", epsilon2=0.2)
    line = SGD("x**2/2", variables=("x",), epsilon2=0.2)
    return [
        (
            Case(
                "OU on (-1, 1), ε² = 0.2", line, Interval(-1.0, 1.0),
                lambda x: exact_values.ball_ou_met(np.abs(x[:, 0]), 1, 1.0, 0.2, 1.0), (0.2, 0.1, 0.05),
            ),
            (*CASES, ("sg", 1)),
        ),
        (
            Case(
                "OU on the disc, ε² = 0.2", ou, Ball((0.0, 0.0), 1.0),
                lambda x: exact_values.ball_ou_met(np.linalg.norm(x, axis=1), 2, 1.0, 0.2, 1.0), (0.2, 0.1, 0.05),
            ),
            (*CASES, ("sg", 1)),
        ),
        (manufactured((1.0, 0.1), 0.2, (0.2, 0.1, 0.05)), CASES),
    ]  # fmt: skip


def main() -> None:
    """Print all tables and whether every order is at least p + 0.8."""
    worst = []
    for case, schemes in cases():
        for scheme, degree, slope, _ in study(case, schemes):
            worst.append((slope - degree, f"{scheme}{degree} on {case.name}: {slope:.2f}"))
    low = [text for excess, text in worst if excess < 0.8]
    say("\nall orders at least p + 0.8: " + ("yes" if not low else "NO: " + "; ".join(low)))

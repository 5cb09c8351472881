"""Cost on the disc: the package from mesh to solution against a bare Poisson script; and of what it adds.

Both use the same mesh with curved cells, the same discontinuous element, the same quadrature degree and
MUMPS. What a form costs to compile is not counted (see jit.py); what it costs to look it up is.
"""

from __future__ import annotations

from statistics import median

from petsc4py import PETSc

import numpy as np
import ufl
from common import COMM, Stopwatch, say, table, timed
from dolfinx import fem
from dolfinx.fem.petsc import assemble_matrix, assemble_vector

from fpsolve import SGD, Ball
from fpsolve.fem import generator as package
from fpsolve.fem.boundary import classify
from fpsolve.fem.coefficients import interpolate
from fpsolve.fem.forms import cell_sizes
from fpsolve.fem.linear import Solver
from fpsolve.fem.meshing import Triangulation, make_mesh
from fpsolve.fem.points import locate
from fpsolve.problems.level import solve_level, start_functionals

EPSILON2 = 0.2
LIMIT = 1.3


def disc(unknowns: int, degree: int) -> Triangulation:
    """Return a mesh of the unit disc with about that many discontinuous unknowns."""
    cells = unknowns / ((degree + 1) * (degree + 2) / 2)
    size = float(np.sqrt(4 * np.pi / (np.sqrt(3) * cells)))
    return make_mesh(Ball((0.0, 0.0), 1.0), size, min(degree + 2, 5), COMM)


def ours(triangulation: Triangulation, degree: int) -> Stopwatch:
    """Solve the OU exit problem by the package's own steps (what `discretise` and `assemble` call)."""
    process = SGD("(x**2 + y**2)/2", epsilon2=EPSILON2)
    watch = Stopwatch()
    with watch("interpolate"):
        coefficients = interpolate(process, triangulation.mesh, max(degree + 1, 2))
    with watch("classify"):
        boundary = classify(process, triangulation.facet_tags, triangulation.mesh, [], 2 * degree + 2)
    with watch("assemble"):
        built = package.assemble(package.Discretisation(triangulation, coefficients, boundary), "dg", degree)
    with watch("factor"):
        solver = Solver(built.matrix, 2)
    with watch("solve"):
        u = solver.solve(built.mass)
    with watch("output"):
        built.to_function(u)
    solver.destroy()
    u.destroy()
    built.destroy()
    return watch


def bare(triangulation: Triangulation, degree: int, quadrature: int | None) -> Stopwatch:
    """Solve -Δu = 1, u = 0 on the circle, by symmetric interior penalty DG, as a plain script would."""
    domain = triangulation.mesh
    watch = Stopwatch()
    with watch("assemble"):
        space = fem.functionspace(domain, ("Discontinuous Lagrange", degree))
        u, v, n = ufl.TrialFunction(space), ufl.TestFunction(space), ufl.FacetNormal(domain)
        metadata = {} if quadrature is None else {"quadrature_degree": quadrature}
        dx, dS, ds = (ufl.Measure(kind, domain=domain, metadata=metadata) for kind in ("dx", "dS", "ds"))
        h = cell_sizes(domain)  # FFCx has no cell diameter on curved meshes
        alpha = 4.0 * degree**2
        average = ufl.avg(h)
        form = ufl.dot(ufl.grad(u), ufl.grad(v)) * dx
        form += alpha / average * ufl.inner(ufl.jump(u, n), ufl.jump(v, n)) * dS
        form -= ufl.inner(ufl.avg(ufl.grad(u)), ufl.jump(v, n)) * dS
        form -= ufl.inner(ufl.jump(u, n), ufl.avg(ufl.grad(v))) * dS
        form += (alpha / h * u * v - ufl.dot(n, ufl.grad(u)) * v - u * ufl.dot(n, ufl.grad(v))) * ds
        matrix = assemble_matrix(fem.form(form))
        matrix.assemble()
        rhs = assemble_vector(fem.form(fem.Constant(domain, 1.0) * v * dx))
        rhs.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
    with watch("factor"):
        ksp = PETSc.KSP().create(domain.comm)
        ksp.setOperators(matrix)
        ksp.setType("preonly")
        ksp.getPC().setType("lu")
        ksp.getPC().setFactorSolverType("mumps")
        ksp.setUp()
    with watch("solve"):
        solution = fem.Function(space)
        ksp.solve(rhs, solution.x.petsc_vec)
    with watch("output"):
        solution.x.scatter_forward()
    for thing in (ksp, matrix, rhs):
        thing.destroy()
    return watch


STEPS = ("interpolate", "classify", "assemble", "factor", "solve", "output")


def compare(degree: int, unknowns: int, repeats: int) -> float:
    """Print medians and ratio for one degree; return the ratio."""
    triangulation = disc(unknowns, degree)
    small = disc(2000, degree)
    quadrature = 2 * degree + 2
    for warm in (small, triangulation) if unknowns <= 20_000 else (small,):
        ours(warm, degree)
        bare(warm, degree, quadrature)
    runs: list[tuple[Stopwatch, Stopwatch]] = []
    triangulation.mesh.topology.create_entity_permutations()  # part of the mesh, not of the one who comes first
    for k in range(repeats):  # alternate who comes first: the other users of the machine hit both alike
        pair = [lambda: ours(triangulation, degree), lambda: bare(triangulation, degree, quadrature)]
        first, second = (pair[0], pair[1]) if k % 2 else (pair[1], pair[0])
        a, b = first(), second()
        runs.append((a, b) if k % 2 else (b, a))
    rows = []
    for step in (*STEPS, "total"):
        mine, other = (
            median(w.total if step == "total" else w.seconds.get(step, 0.0) for w in side)
            for side in zip(*runs, strict=True)
        )
        rows.append((step, f"{mine:.3f}", f"{other:.3f}"))
    owned = triangulation.mesh.topology.index_map(2).size_global
    count = owned * (degree + 1) * (degree + 2) // 2
    title = f"DG{degree}, {owned} cells, {count} unknowns, {COMM.size} rank(s), median of {repeats}"
    table(("step", "fpsolve, s", "bare Poisson, s"), rows, title)
    each = [a.total / b.total for a, b in runs]
    whole = median(a.total for a, _ in runs) / median(b.total for _, b in runs)
    verdict = "yes" if whole <= LIMIT else "NO"
    say(f"\nratio of medians {whole:.3f}, median of ratios {median(each):.3f}; at most {LIMIT}: {verdict}")
    used = [median(w.processor for w in side) for side in zip(*runs, strict=True)]
    say(f"processor time, median: {used[0]:.2f} s and {used[1]:.2f} s, ratio {used[0] / used[1]:.3f}")
    return whole


def extras(degree: int, unknowns: int, repeats: int) -> None:
    """Print what the error estimate and the flux renormalisation add to one solve."""
    domain = Ball((0.0, 0.0), 1.0)
    process = SGD("(x**2 + y**2)/2", epsilon2=EPSILON2)
    triangulation = disc(unknowns, degree)
    where = locate(triangulation.mesh, np.array([[0.3, 0.2]]))
    series: list[tuple[float, float, float]] = []
    for _ in range(repeats + 1):
        problem = package.discretise(process, triangulation, (), degree + 1)
        built = package.assemble(problem, "dg", degree)
        functionals = start_functionals(built, where)
        once = ours(triangulation, degree).total
        solver = Solver(built.matrix, 2)

        def renormalise(solver: Solver = solver, built: package.Generator = built, starts: list = functionals) -> None:
            rho = solver.solve_transpose(starts[0])
            rho.dot(built.mass) / rho.dot(built.outflow)
            rho.destroy()

        def both(problem: package.Discretisation = problem) -> None:
            solve_level(problem, domain, "dg", degree, where, 1)

        series.append((once, timed(renormalise), timed(both)))
        solver.destroy()
        for thing in (built, *functionals):
            thing.destroy()
    base, extra, level = (median(column) for column in zip(*series[1:], strict=True))  # the first compiles
    finer = ours(triangulation, degree + 1).total
    rows = [
        (f"one solve, degree {degree}, mesh to solution", f"{base:.2f}", "1.00"),
        (f"one solve, degree {degree + 1}, same mesh", f"{finer:.2f}", f"{finer / base:.2f}"),
        ("renormalisation of one start: a transposed solve, two products", f"{extra:.3f}", f"{extra / base:+.3f}"),
        (f"solve_level: degrees {degree + 1} and {degree}, indicators, shape", f"{level:.2f}", f"{level / base:.2f}"),
    ]
    count = triangulation.mesh.topology.index_map(2).size_global * (degree + 1) * (degree + 2) // 2
    title = f"What the package adds, DG{degree}, {count} unknowns, {COMM.size} rank(s), median of {repeats}"
    table(("what", "seconds", "relative"), rows, title)


def main(unknowns: int = 300_000, repeats: int = 5, degrees: tuple[int, ...] = (2, 3)) -> None:
    """Run the comparison for each degree, then the extra costs on a sixth of the unknowns."""
    for degree in degrees:
        compare(degree, unknowns, repeats)
    for degree in degrees:
        extras(degree, unknowns // 6, 3)

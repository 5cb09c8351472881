"""Properties that hold whatever the numbers: duality, balance of mass, rotation, positivity, ranks, orders."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
import reference
import ufl
from dolfinx import fem

import fpsolve as fp
from fpsolve.fem.boundary import CHARACTERISTIC, EXIT
from fpsolve.fem.generator import Generator, assemble, coarsen, discretise
from fpsolve.fem.meshing import make_mesh
from fpsolve.fem.points import locate
from fpsolve.problems.level import solve_level

DISC = fp.Ball((0.0, 0.0), 1.0)
DEGENERATE = fp.SGD("(x**2 - 0.5)**2 + x*y + y**2", [["1 + x**2", "x"], ["x", "1"]], epsilon2=0.2)


def generator(comm: MPI.Intracomm, scheme: str, degree: int = 3, size: float = 0.3) -> Generator:
    triangulation = make_mesh(DISC, size, 3, comm)
    return assemble(discretise(DEGENERATE, triangulation, (), degree), scheme, degree)


@pytest.mark.parametrize("scheme", ["dg", "cg"])
def test_outflow_is_the_row_sum(comm, scheme):
    """B 1 = κ for constants, although κ is never computed as a row sum; the same after projection."""
    fine = generator(comm, scheme)
    coarse, embedding = coarsen(fine)
    for g in (fine, coarse) if scheme == "dg" else (fine,):
        ones, product = g.matrix.createVecRight(), g.matrix.createVecLeft()
        ones.set(1.0)
        g.matrix.mult(ones, product)
        product.axpy(-1.0, g.outflow)
        assert product.norm() < 1e-10 * g.matrix.norm()
    embedding.destroy()


@pytest.mark.parametrize("scheme", ["dg", "cg"])
def test_duality_of_the_solver(comm, scheme):
    """ρ·(B u) = (Bᵀρ)·u with one factorisation for both."""
    g = generator(comm, scheme)
    solver = g.solver()
    u = solver.solve(g.mass)
    rho = solver.solve_transpose(g.outflow)
    assert rho.dot(g.mass) == pytest.approx(g.outflow.dot(u), rel=1e-11)
    solver.destroy()


@pytest.mark.parametrize("scheme", ["dg", "cg"])
def test_krylov_agrees_with_direct(comm, scheme, monkeypatch):
    g = generator(comm, scheme)
    direct = g.solver().solve(g.mass)
    monkeypatch.setattr("fpsolve.fem.generator.DIRECT_LIMIT", {1: 0, 2: 0, 3: 0})
    monkeypatch.setattr("fpsolve.fem.linear.DIRECT_LIMIT", {1: 0, 2: 0, 3: 0})
    solver = g.solver()
    assert "fgmres" in solver.describe()
    krylov = solver.solve(g.mass)
    krylov.axpy(-1.0, direct)
    assert krylov.norm() < 1e-8 * direct.norm()
    transposed = solver.solve_transpose(g.outflow)
    assert transposed.dot(g.mass) == pytest.approx(g.outflow.dot(direct), rel=1e-8)
    solver.destroy()


def test_interpolated_coefficients_equal_the_formulas(comm):
    """The formulas rendered to UFL and integrated agree with what the weak form uses."""
    triangulation = make_mesh(fp.Box((-1.0, -1.0), (1.0, 1.0)), 0.2, 1, comm)
    problem = discretise(DEGENERATE, triangulation, (), 4)
    assert DEGENERATE.landscape is not None
    x = ufl.SpatialCoordinate(triangulation.mesh)
    q = DEGENERATE.landscape.covariance_formula.ufl(x)
    gradient = DEGENERATE.landscape.loss_formula.derivative().ufl(x)
    beta = 0.2 * ufl.div(q) + gradient
    gap = problem.coefficients.a - 0.2 * q
    other = problem.coefficients.beta - beta
    form = fem.form((ufl.inner(gap, gap) + ufl.inner(other, other)) * ufl.dx)
    assert comm.allreduce(fem.assemble_scalar(form)) < 1e-24


def test_rotation(comm):
    """Turning process and domain by 0.7 rad changes nothing beyond the error estimates."""
    c, s = math.cos(0.7), math.sin(0.7)
    x, y = f"({c!r}*x + {s!r}*y)", f"({c!r}*y - {s!r}*x)"
    loss = f"({x} + 0.2)**2 + ({x}*{y})**2 + 2*{y}**2"
    # Q = diag(1, 0.1) in the turned frame
    q = [[repr(c * c + 0.1 * s * s), repr(0.9 * c * s)], [repr(0.9 * c * s), repr(s * s + 0.1 * c * c)]]
    plain = fp.SGD("(x + 0.2)**2 + (x*y)**2 + 2*y**2", [["1", "0"], ["0", "0.1"]], epsilon2=0.3)
    turned = fp.SGD(loss, q, epsilon2=0.3)
    starts = np.array([[0.0, 0.0], [0.4, -0.3], [-0.2, 0.6]])
    options = {"comm": comm, "tolerance": 1e-5}
    first = fp.mean_exit_time(plain, DISC, starts=starts, **options)
    second = fp.mean_exit_time(turned, DISC, starts=starts @ np.array([[c, s], [-s, c]]), **options)
    assert np.all(np.abs(first.mean - second.mean) <= first.error[:, 0] + second.error[:, 0])


def test_positive_inside_and_up_to_the_characteristic_part(comm):
    process = fp.SGD("(x**2 + y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=0.2)
    result = fp.mean_exit_time(process, fp.Box((-1.0, -1.0), (1.0, 1.0)), comm=comm, size=0.2)
    comparison = fp.compare(result, [])
    assert comparison.positive and comparison.violated == 0
    kinds = set(np.concatenate(comm.allgather(result.boundary.tags.values)))
    assert kinds == {EXIT, CHARACTERISTIC}
    assert np.all(result.at([(0.0, 1.0), (0.3, -1.0)]) > 1.0)


def test_drift_leads_out_through_a_boundary_without_noise(comm):
    """L = (x² - y²)/2, noise along x: bottom and top are left by the drift, which Fichera's condition sees."""
    process = fp.SGD("(x**2 - y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=0.2)
    box = fp.Box((-20.0, -1.0), (20.0, 1.0), reflecting=("left", "right"))
    result = fp.mean_exit_time(process, box, comm=comm, starts=[[0.0, 0.5], [1.0, -0.25]], tolerance=1e-4, size=1.0)
    # y(t) = y0 e^t leaves at log(1/|y0|)
    np.testing.assert_allclose(result.mean, [math.log(2), math.log(4)], rtol=2e-4)
    assert result.boundary.measures["absorbing"] == pytest.approx(80.0)


@pytest.mark.parametrize(("scheme", "degree"), [("dg", 1), ("dg", 2), ("dg", 3), ("cg", 1), ("cg", 2), ("cg", 3)])
def test_orders(comm, scheme, degree):
    """L² order ≥ p + 0.8 fitted over three meshes, OU on the disc, with a cap on the last error."""
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=0.5)
    sizes, errors = [0.4, 0.2, 0.1], []
    for size in sizes:
        triangulation = make_mesh(DISC, size, min(degree + 2, 5), comm)
        problem = discretise(process, triangulation, (), degree + 1)
        where = locate(triangulation.mesh, np.array([[0.0, 0.0]]))
        u = solve_level(problem, DISC, scheme, degree, where, 1).u
        errors.append(l2_error(u, lambda r: reference.ball_ou_met(np.minimum(r, 1.0), 2, 1, 0.5, 1)))
    order = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    print(f"{scheme} p = {degree}: order {order:.2f}, errors {errors}")
    assert order >= degree + 0.8
    assert errors[-1] < {1: 2e-3, 2: 5e-5, 3: 2e-6}[degree]


def l2_error(u: fem.Function, radial: object) -> float:
    """Return the L² error against a radial function, interpolated three degrees above u."""
    domain = u.function_space.mesh
    degree = u.function_space.element.basix_element.degree + 3
    exact = fem.Function(fem.functionspace(domain, ("Discontinuous Lagrange", degree)))
    x = exact.function_space.tabulate_dof_coordinates()
    exact.x.array[:] = radial(np.hypot(x[:, 0], x[:, 1]))  # type: ignore[operator]
    form = fem.form((u - exact) ** 2 * ufl.dx)
    return math.sqrt(domain.comm.allreduce(fem.assemble_scalar(form)))


def test_scharfetter_gummel_has_order_two(comm):
    process = fp.SGD("(x**2 + y**2)/2", epsilon2=0.5)
    sizes, errors = [0.2, 0.1, 0.05], []
    for size in sizes:
        u = fp.mean_exit_time(process, DISC, comm=comm, size=size, scheme="sg").u
        errors.append(l2_error(u, lambda r: reference.ball_ou_met(np.minimum(r, 1.0), 2, 1, 0.5, 1)))
    order = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    print("sg order", order, errors)
    assert order >= 1.8
    assert errors[-1] < 2e-3


@pytest.mark.serial
def test_same_answer_on_one_two_and_three_ranks(tmp_path):
    """The command's starts agree to 1e-9 relative, with refinement and degenerate noise."""
    case = tmp_path / "case.toml"
    case.write_text(
        '[process]\nvariables = ["x", "y"]\nloss = "(x**2 + y**2)/2 + x**2*y/5"\n'
        'covariance = [["1", "0"], ["0", "0"]]\nepsilon2 = 0.3\n'
        '[domain]\nshape = "ball"\ncenter = [0.0, 0.0]\nradius = 1.0\n'
        "[mesh]\ntolerance = 1e-5\n[exit]\nstarts = [[0.0, 0.5], [0.5, 0.5]]\nbounds = []\n"
    )
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("OMPI_MCA_ess", "PMIX_", "PMI_", "PRTE_LAUNCH"))
    }
    means = []
    for ranks in (1, 2, 3):
        out = tmp_path / f"on{ranks}"
        command = [
            "mpirun",
            "-n",
            str(ranks),
            sys.executable,
            "-m",
            "fpsolve",
            "exit",
            str(case),
            "--out",
            str(out),
            "--no-figures",
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        summary = json.loads(Path(out, "summary.json").read_text())
        assert summary["ranks"] == ranks
        means.append([start["mean"] for start in summary["starts"]])
    np.testing.assert_allclose(means[1:], [means[0]] * 2, rtol=1e-9)


@pytest.mark.parametrize("scheme", ["dg", "cg", "sg"])
def test_every_rank_count_gives_the_answer_of_one(comm, scheme):
    """The same meshes, so the same answer to rounding."""
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.2)
    box = fp.Box((-2.5, -2.0), (0.5, 2.0))
    options = {"starts": [[-1.0, 0.0], [0.1, 0.7]], "size": 0.15, "scheme": scheme}
    together = fp.mean_exit_time(process, box, comm=comm, **options)
    alone = fp.mean_exit_time(process, box, comm=MPI.COMM_SELF, **options)
    np.testing.assert_allclose(together.mean, alone.mean, rtol=1e-9)


def test_a_mesh_that_resolves_nothing_says_so(comm):
    """Both degrees agree to 1e-6 on a value that is wrong by fourteen orders of magnitude."""
    process = fp.SGD("(x**2 - 1)**2 + y**2", epsilon2=0.03)
    box = fp.Box((-2.5, -2.0), (0.5, 2.0))
    result = fp.mean_exit_time(process, box, comm=comm, starts=[[-1.0, 0.0]], size=0.4)
    exact = reference.double_well_box_met(0.03, -1.0, 0.0)
    assert abs(result.mean[0] - exact) > 0.5 * exact
    assert not result.converged and result.error[0, 0] > 0.1 * abs(result.mean[0])
    assert any("does not resolve" in message for message in result.messages)


@pytest.mark.parametrize("scheme", ["dg", "sg"])
def test_a_given_size_is_used_whatever_the_limit_on_refinement(comm, scheme):
    """Also when it is an integer; `max_unknowns` limits refinement, not what was asked for."""
    box = fp.Box((0.0, 0.0), (4.0, 4.0))
    process = fp.SGD("(x - 2)**2 + (y - 2)**2", epsilon2=2.0)
    result = fp.mean_exit_time(process, box, comm=comm, size=1, scheme=scheme, max_unknowns=5)
    assert result.converged and result.unknowns > 5 and len(result.levels) == 2

"""Observed orders for degenerate Q, where the solution may have a weak singularity at characteristic points."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import COMM, reference
from orders import ANGLE, CASES, Case, formulas, manufactured, rotated_matrix, study
from scipy.special import hyp2f1

from fpsolve import SGD, Ball, Box, MeshFile
from fpsolve.fem.meshing import Triangulation, make_mesh

exact_values = reference()
SIZES = (0.2, 0.1, 0.05)
EPSILON2 = 0.2


def square() -> Case:
    """Return Q = diag(1, 0) on the square: the answer is that of one dimension."""
    process = SGD("(x**2 + y**2)/2", [["1", "0"], ["0", "0"]], epsilon2=EPSILON2)
    return Case(
        "Q = diag(1, 0), square, ε² = 0.2", process, Box((-1.0, -1.0), (1.0, 1.0)),
        lambda x: exact_values.ball_ou_met(np.abs(x[:, 0]), 1, 1.0, EPSILON2, 1.0), SIZES,
    )  # fmt: skip


def disc(angle: float) -> Case:
    """Return Q = diag(1, 0) rotated on the disc: singular at the two characteristic points."""
    name = f"Q = diag(1, 0) rotated {angle:g}, disc, ε² = 0.2"
    process = SGD("(x**2 + y**2)/2", formulas(rotated_matrix((1.0, 0.0), angle)), epsilon2=EPSILON2)
    values = DiscTable(EPSILON2)
    c, s = np.cos(angle), np.sin(angle)
    return Case(
        name, process, Ball((0.0, 0.0), 1.0),
        lambda x: values(c * x[:, 0] + s * x[:, 1], c * x[:, 1] - s * x[:, 0]), SIZES,
    )  # fmt: skip


class DiscTable:
    """`degenerate_disc_met` interpolated in ξ = x/√(1-y²) and log(1-y²): many points, also close to the poles.

    Chebyshev in both; checked against the function itself at a few points.
    """

    PANELS, NODES, ACROSS = 20, 10, 48

    def __init__(self, epsilon2: float) -> None:
        modes = exact_values._modes(exact_values._ou, epsilon2, -1.0, 1.0, 2048)
        xi = np.cos(np.pi * (np.arange(self.ACROSS) + 0.5) / self.ACROSS)
        met, phi = modes.at(xi)
        self.ends = np.log(2.0) * np.arange(self.PANELS + 1)  # -log(1-q)
        t = np.cos(np.pi * (np.arange(self.NODES) + 0.5) / self.NODES)
        self.coefficients = []
        c = 1 + 0.5 / modes.kappa
        for left, right in zip(self.ends[:-1], self.ends[1:], strict=True):
            q = -np.expm1(-(left + (right - left) * (t + 1) / 2))
            series = hyp2f1(1.0, 1.0, c[None, :], q[:, None])
            values = (1 - q)[:, None] * (met + np.einsum("qi,xi->qx", (series - 1) * modes.c, phi))
            fit = np.polynomial.chebyshev.chebfit(t, values, self.NODES - 1)
            self.coefficients.append(np.polynomial.chebyshev.chebfit(xi, fit.T, self.ACROSS - 1))  # (across, nodes)
        self._check(epsilon2)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        q = y**2
        inside = q < 1
        safe = np.where(inside, q, 0.0)
        xi = np.clip(x / np.sqrt(1 - safe), -1.0, 1.0)
        depth = -np.log1p(-safe)
        panel = np.minimum((depth / np.log(2.0)).astype(int), self.PANELS - 1)
        t = 2 * (depth - self.ends[panel]) / np.log(2.0) - 1
        result = np.zeros_like(x)
        for k in np.unique(panel):
            here = panel == k
            across = np.polynomial.chebyshev.chebvander(xi[here], self.ACROSS - 1)
            down = np.polynomial.chebyshev.chebvander(np.clip(t[here], -1.0, 1.0), self.NODES - 1)
            result[here] = np.einsum("pa,an,pn->p", across, self.coefficients[k], down)
        return np.where(inside & (x**2 + q < 1), result, 0.0)

    def _check(self, epsilon2: float) -> None:
        x, y = np.array([0.0, 0.3, -0.8, 0.2, 0.1]), np.array([0.5, -0.2, 0.1, 0.95, 0.99])
        want = exact_values.degenerate_disc_met(x, y, epsilon2)
        assert np.abs(self(x, y) - want).max() < 1e-8 * np.abs(want).max(), (self(x, y), want)


def strip_mesh(size: float, order: int) -> Triangulation:
    """Mesh the square turned by `ANGLE`, which stands for a strip: nothing crosses the other two sides."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(COMM.bcast(folder, root=0)) / "strip.msh"
        if COMM.rank == 0:
            write_strip(path, size)
        COMM.barrier()
        result = make_mesh(MeshFile(str(path), 2), float("inf"), order, COMM)
        COMM.barrier()
    return result


def write_strip(path: Path, size: float) -> None:
    """Write the turned square [-1, 1]² as a gmsh file."""
    import gmsh

    gmsh.initialize()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        c, s = np.cos(ANGLE), np.sin(ANGLE)
        corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        points = [gmsh.model.geo.addPoint(c * x - s * y, s * x + c * y, 0.0, size) for x, y in corners]
        lines = [gmsh.model.geo.addLine(points[k], points[(k + 1) % 4]) for k in range(4)]
        surface = gmsh.model.geo.addPlaneSurface([gmsh.model.geo.addCurveLoop(lines)])
        gmsh.model.geo.synchronize()
        gmsh.model.addPhysicalGroup(1, lines, name="sides")
        gmsh.model.addPhysicalGroup(2, [surface], name="inside")
        gmsh.model.mesh.generate(2)
        gmsh.write(str(path))
    finally:
        gmsh.finalize()


def strip() -> Case:
    """Return OU with a rotated Q of rank one on the strip |e·x| < 1."""
    process = SGD("(x**2 + y**2)/2", formulas(rotated_matrix((1.0, 0.0), ANGLE)), epsilon2=EPSILON2)
    return Case(
        f"Q = diag(1, 0) rotated {ANGLE}, strip, ε² = 0.2", process, Ball((0.0, 0.0), 1.0),
        lambda x: exact_values.strip_ou_rotated(x[:, 0], x[:, 1], ANGLE, EPSILON2), SIZES,
    )  # fmt: skip


def main() -> None:
    """Print one table for each problem."""
    study(square(), CASES)
    study(strip(), CASES, strip_mesh)
    study(manufactured((1.0, 0.0), EPSILON2, SIZES), CASES)
    for angle in (0.0, ANGLE):
        study(disc(angle), CASES, interior=lambda x: np.linalg.norm(x, axis=1) < 0.8)

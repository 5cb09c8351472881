"""The chain without noise: the transfer operator against Nyström's method and against simulated chains."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from common import COMM, fitted_order, say, table

import fpsolve as fp
from fpsolve.fem.nodal import nodal_space
from fpsolve.fem.transfer import TransferOperator
from fpsolve.model.batches import make_batches
from fpsolve.model.process import formula_landscape

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from chain_reference import gaussian_exit_moments

CENTER = (-5.63687, 2.96346)
DISC = fp.Ball(CENTER, 1.5)
PATHS = 100_000


def two_parameter_model() -> object:
    """The landscape of the thesis with the data of mathematics.md section 6."""
    x = np.linspace(-15, 15, 30)
    noise = np.random.default_rng(0).uniform(-3, 3, (30, 20))
    y = 1 + x * (1 + 5 / (1 + np.exp(-x)))
    data = {"x": np.repeat(x, 20), "y": (y[:, None] + noise).ravel()}
    return fp.sample_landscape("a**2 + x*(1 + b/(1 + exp(-a*x)))", ["a", "b"], ["x"], "y", None, data)


def orders() -> None:
    """Relative error of E τ of x' = 0.9 x + 0.1 ξ on (-0.5, 0.4), and what was reported."""
    chain = fp.sgd_chain(formula_landscape("x**2/2", "identity", ["x"]), 0.1, 1)
    exact = gaussian_exit_moments(0.9, 0.1, -0.5, 0.4, 0.05)[0]
    sizes = (0.1, 0.05, 0.025)

    def row(degree: int) -> list[str]:
        cells, errors = [f"P{degree}"], []
        for size in sizes:
            found = fp.chain_exit_time(
                chain, fp.Interval(-0.5, 0.4), comm=COMM, starts=[[0.05]], size=size, degree=degree
            )
            errors.append(abs(found.mean_steps[0] / exact - 1))
            cells.append(f"{errors[-1]:.1e} ({found.error[0, 0] / found.mean[0]:.1e})")
        return [*cells, f"{fitted_order(sizes, errors):.2f}"]

    header = ["", *(f"h = {size}" for size in sizes), "order"]
    table(header, (row(degree) for degree in (1, 2, 3, 4)), "Gaussian chain in 1D: relative error (reported)")


def long_times() -> None:
    """Exit times of up to 1e8 steps."""
    chain = fp.sgd_chain(formula_landscape("x**2/2", "identity", ["x"]), 0.1, 1)

    def row(radius: float) -> list[str]:
        exact = gaussian_exit_moments(0.9, 0.1, -radius, radius, 0.0)[0]
        found = fp.chain_exit_time(chain, fp.Interval(-radius, radius), comm=COMM, size=0.05, degree=4)
        error = found.mean_steps[0] / exact - 1
        return [
            f"{exact:.6g}", f"{error:.1e}", f"{found.error[0, 0] / found.mean[0]:.1e}", f"{found.residual:.1e}",
            str(found.levels[-1].iterations),
        ]  # fmt: skip

    header = ["steps", "error", "reported", "residual", "iterations"]
    table(header, (row(radius) for radius in (0.5, 1.0, 1.2, 1.3)), "long exit times, P4, h = 0.05")


def against_simulation(landscape: object) -> None:
    """The two-parameter model: MET of the operator and 95 % interval of the simulated chain."""

    def row(eta: float, size: int) -> list[str]:
        chain = fp.sgd_chain(landscape, eta, size)
        tolerance = 3e-3 if size == 1 else 2e-2
        found = fp.chain_exit_time(chain, DISC, comm=COMM, starts=[CENTER], tolerance=tolerance)
        began = time.perf_counter()
        sample = fp.simulate_exit(chain, DISC, [CENTER], comm=COMM, paths=PATHS, seed=7)
        seconds = time.perf_counter() - began
        low, high = np.asarray(sample.interval).reshape(-1)[:2]
        inside = "yes" if low <= found.mean[0] <= high else "NO"
        return [
            f"{eta}", str(size), f"{found.mean[0]:.5f}", f"{found.discretisation_error[0, 0]:.1e}",
            f"{found.batch_error[0, 0]:.1e}", f"{found.unknowns}", f"{found.seconds:.1f}",
            f"[{low:.5f}, {high:.5f}]", f"{seconds:.1f}", inside,
        ]  # fmt: skip

    header = ["η", "b", "operator", "mesh error", "batch error", "unknowns", "s", f"{PATHS} paths, 95 %", "s", "inside"]
    cases = ((0.002, 1), (0.001, 1), (0.0008, 1), (0.008, 4), (0.004, 4), (0.0032, 4), (0.002, 2))
    table(header, (row(*case) for case in cases), "two-parameter model, disc of radius 1.5")


def gaussian_share(landscape: object) -> None:
    """The same chain with Gaussian steps: what is left is the shape of the noise."""

    def row(eta: float, size: int) -> list[str]:
        chain = fp.sgd_chain(landscape, eta, size, law="gaussian")
        found = fp.chain_exit_time(chain, DISC, comm=COMM, starts=[CENTER], tolerance=1e-3)
        return [
            f"{eta}", str(size), f"{found.mean[0]:.6f}", f"{found.error[0, 0]:.1e}", str(found.unknowns),
            f"{found.seconds:.1f}",
        ]  # fmt: skip

    cases = ((0.002, 1), (0.001, 1), (0.0008, 1), (0.002, 2), (0.004, 4))
    table(["η", "b", "mean exit time", "reported error", "unknowns", "s"], (row(*c) for c in cases), "Gaussian steps")


def rate(landscape: object) -> None:
    """Seconds of assembly for a million represented steps."""

    def row(degree: int, size: float) -> list[str]:
        chain = fp.sgd_chain(landscape, 0.001, 1)
        space = nodal_space(DISC, size, degree, COMM)
        batches = make_batches(chain, np.array(CENTER))
        TransferOperator(nodal_space(DISC, 0.5, degree, COMM), DISC, batches, COMM, compensate=degree == 1).destroy()
        began = time.process_time()
        operator = TransferOperator(space, DISC, batches, COMM, compensate=degree == 1)
        seconds = time.process_time() - began
        points = space.unknowns * batches.count
        entries = operator.entries
        operator.destroy()
        return [f"P{degree}", str(space.unknowns), f"{points:.1e}", f"{entries:.1e}", f"{1e6 * seconds / points:.2f}"]

    header = ["degree", "unknowns", "points", "entries", "processor s per 1e6 points"]
    table(header, (row(*case) for case in ((1, 0.05), (2, 0.1), (3, 0.14))), "assembly")


def main() -> None:
    """Run all parts."""
    landscape = two_parameter_model()
    orders()
    long_times()
    rate(landscape)
    against_simulation(landscape)
    gaussian_share(landscape)
    say("")

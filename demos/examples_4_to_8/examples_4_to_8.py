"""Examples 4-8 of the paper: computed densities against their (corrected) closed forms, and the theorems about them.

All five are linear: dX = -CX dt + sqrt(2a) dW from a Gaussian, so the exact solution is a Gaussian too. In examples
5-8 the density collapses onto a line or a point; the high-order scheme keeps mean and covariance exact when the mesh
no longer resolves it, the nonnegative one keeps the density nonnegative. Where the mesh still resolves the density,
its distance to the closed form is printed. Example 7's invariant measure is found as the limit δ → 0 of noisy SGD.
Run: python examples_4_to_8.py, or mpirun -n 2 python examples_4_to_8.py. Results: results/examples_4_to_8/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp
from fpsolve.fem.functionals import at_points, whole_cells


@dataclass(frozen=True)
class Example:
    """C and a of one example, and the rate at which its second moment tends to the limit."""

    title: str
    C: tuple[tuple[float, float], ...]
    a: tuple[tuple[float, float], ...]
    rate: float


EXAMPLES = {
    "4": Example("nondegenerate, λ = 1, σ = 0.6, ε² = 0.5", ((1, 0), (0, 1)), ((0.15, 0), (0, 0.15)), 2.0),
    "5": Example("degenerate, λ = 1, σ = 0.6, ε² = 0.5", ((1, 0), (0, 1)), ((0.3, 0), (0, 0)), 2.0),
    "6": Example("transport only", ((1, 0), (0, 0.5)), ((0, 0), (0, 0)), 1.0),
    "7": Example("Q = diag(1, 0), C = I", ((1, 0), (0, 1)), ((1, 0), (0, 0)), 2.0),
    # min{2γ, 2 λ_min(C₃)} with γ = C₀ = 2
    "8": Example("C₀ = 2, C₃ = 0.6", ((2, 0), (0, 0.6)), ((1, 0), (0, 0)), 1.2),
}
TIMES = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
MEAN, COVARIANCE = (1.0, 0.8), 0.15
#: The mesh resolves a Gaussian whose smallest standard deviation is at least this many mesh sizes (degree 3, degree 1).
RESOLVED = {3: 0.55, 1: 1.7}
#: How long the nonnegative scheme runs; by then the density is narrower than its mesh, which widens it a little.
LATEST = 2.0


def main(
    comm: MPI.Comm,
    out: Path = Path("results/examples_4_to_8"),
    size: float = 0.5,
    times: Sequence[float] = TIMES,
    latest: float = LATEST,
    deltas: Sequence[float] = (0.2, 0.1, 0.05),
) -> dict[str, Any]:
    """Compute, print and draw; return the findings by example, and "noisy" for the limit. Collective."""
    found = {name: solve(example, comm, size, times, latest) for name, example in EXAMPLES.items()}
    noisy = fp.noisy_limit(
        process_of(EXAMPLES["7"]), fp.Box((-6.0, -3.0), (6.0, 3.0)), comm=comm, deltas=deltas,
        observables=["x**2", "y**2"], tolerance=1e-3,
    )  # fmt: skip
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found, noisy)
        draw(found, out / "examples_4_to_8.png")
    return {**found, "noisy": noisy}


def process_of(example: Example) -> fp.Process:
    """Return the process with drift -CX and diffusion a."""
    drift = [f"-({row[0]!r})*x - ({row[1]!r})*y" for row in example.C]
    return fp.diffusion_process(drift, [[repr(v) for v in row] for row in example.a], ("x", "y"))


def solve(example: Example, comm: MPI.Comm, size: float, times: Sequence[float], latest: float) -> dict[str, Any]:
    """Solve one example with both kinds of scheme and compare. Collective."""
    process = process_of(example)
    half = 6.0 * np.sqrt(max(1.0, np.max(example.a))) * 0.8 + 1.0
    domain = fp.Box((-half, -4.0), (half, 4.0))
    start = fp.gaussian_start(MEAN, COVARIANCE)
    second = ["x**2 + y**2"]
    smooth = fp.evolve(process, domain, start, times, comm=comm, observables=second, scheme="dg", degree=3, size=size)
    early = [t for t in times if t <= latest]
    positive = fp.evolve(process, domain, start, early, comm=comm, observables=second, nonnegative=True, size=size / 3)
    law = fp.linear_diffusion(process)
    assert law is not None and law.stationary is not None
    exact = [(law.mean(t, np.array(MEAN)), law.covariance(t, COVARIANCE * np.eye(2))) for t in smooth.times]
    limit = float(law.stationary[0] @ law.stationary[0] + np.trace(law.stationary[1]))
    computed = np.array([record.observables[0] for record in smooth.records])
    bounds, margins = fp.theorems(smooth)
    return {
        "smooth": smooth,
        "positive": positive,
        "exact": exact,
        "moments": np.array([m @ m + np.trace(S) for m, S in exact]),
        "computed": computed,
        "limit": limit,
        "bounds": bounds,
        "margins": margins,
        "rate": decay_rate(smooth.times, computed, limit),
        "distances": {"smooth": distances(smooth, law, size), "positive": distances(positive, law, size / 3)},
    }


def decay_rate(times: np.ndarray, moments: np.ndarray, limit: float) -> float:
    """Return the rate at which the second moment approaches its limit, from the last two stored times."""
    gap = np.abs(moments - limit)
    return float(np.log(gap[-2] / gap[-1]) / (times[-1] - times[-2]))


def distances(result: Any, law: Any, size: float) -> list[tuple[float, float, float]]:
    """Return (t, L¹ distance, relative L² distance) to the closed form at the times the mesh resolves. Collective."""
    found = []
    for t, density in zip(result.times, result.densities, strict=True):
        narrowest = np.sqrt(np.linalg.eigvalsh(law.covariance(t, COVARIANCE * np.eye(2)))[0])
        if t > 0 and narrowest >= RESOLVED[result.degree] * size:
            found.append((float(t), *distance(density, lambda x, t=t: exact_density(law, t, x), result.comm)))
    return found


def exact_density(law: Any, t: float, x: np.ndarray) -> np.ndarray:
    """Return the closed form at points (n, 2)."""
    return np.asarray(law.density(t, x, np.array(MEAN), COVARIANCE * np.eye(2)))


def distance(density: Any, exact: Callable[[np.ndarray], np.ndarray], comm: MPI.Comm) -> tuple[float, float]:
    """Return the L¹ distance and the relative L² distance of a density to an exact one. Collective."""
    sums = np.zeros(3)
    for points in whole_cells(density.function_space.mesh, 10):
        wanted = at_points(exact, points.x)
        gap = points.values(density) - wanted
        sums += [np.sum(points.weights * v) for v in (np.abs(gap), gap**2, wanted**2)]
    total = np.array(comm.allreduce(sums))
    return float(total[0]), float(np.sqrt(total[1] / total[2]))


def errors(case: dict[str, Any], scheme: str) -> tuple[float, float]:
    """Return the largest errors of mean and covariance over the stored times, relative to the largest entry."""
    pairs = list(zip(case[scheme].records, case["exact"], strict=False))
    scale = max(np.abs(S).max() for _, (_, S) in pairs)
    mean = max(np.abs(r.mean - m).max() for r, (m, _) in pairs) / np.sqrt(scale)
    return float(mean), float(max(np.abs(r.covariance - S).max() for r, (_, S) in pairs) / scale)


def table(found: dict[str, Any], noisy: Any) -> None:
    """Print the errors of both schemes, the lowest density, the decay of the second moment and the noisy limit."""
    for name, case in found.items():
        print(f"Example {name}: {EXAMPLES[name].title}")
        for scheme in ("smooth", "positive"):
            result, (mean, covariance) = case[scheme], errors(case, scheme)
            lowest = min(r.minimum for r in result.records) / max(r.maximum for r in result.records)
            print(
                f"  {result.scheme}{result.degree}{' limited' * result.nonnegative}: {result.unknowns} unknowns, "
                f"{len(result.steps)} steps, mean {mean:.1e}, covariance {covariance:.1e}, min/max {lowest:.0e}"
            )
            if case["distances"][scheme]:
                t, one, two = case["distances"][scheme][-1]
                print(f"    density against the closed form at t = {t:g}: L¹ {one:.1e}, relative L² {two:.1e}")
        print(f"  second moment decays at {case['rate']:.4f}, predicted {EXAMPLES[name].rate:g}")
        proven = [m for m in case["margins"] if m.verified]
        print(f"  {len(proven)} proven statements, {sum(m.violations > 0 for m in proven)} violated")
    x2, y2 = noisy.expectations
    print(f"Example 7, δ → 0 from {', '.join(f'{d:g}' for d in noisy.deltas)}: E x² = {x2:.6f}, E y² = {y2 + 0.0:.1e}")
    for message in noisy.messages:
        print(f"  {message}")


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the second moments with the bounds of Lemma 2.1, and their distance to the limit with the rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.2), layout="constrained", dpi=140)
    rows = figure.subplots(2, len(found), sharex=True)
    for upper, lower, (name, case) in zip(*rows, found.items(), strict=True):
        times = case["smooth"].times
        fine = np.linspace(0.0, times[-1], 200)
        upper.plot(times, case["computed"], "o", color="#0072B2", markersize=5, label="computed")
        for bound in case["bounds"]:
            if bound.theorem.startswith("Lemma 2.1") and bound.verified:
                style = (0, (4, 2)) if bound.name == "paper" else ":"
                curve = bound.evaluate(fine)
                upper.plot(fine, curve, linestyle=style, color="#D55E00", label=f"Lemma 2.1 ({bound.name})")
        upper.set(title=f"Example {name}", ylim=(0, 1.6 * max(case["moments"].max(), case["computed"].max())))
        upper.legend(fontsize=8, loc="upper right")
        rate, gap = EXAMPLES[name].rate, np.abs(case["computed"] - case["limit"])
        lower.semilogy(times, gap, "o", color="#0072B2", markersize=5, label="computed")
        lower.semilogy(
            times, np.abs(case["moments"] - case["limit"]), color="black", linewidth=1.2, label="closed form"
        )
        guide = gap[-1] * np.exp(rate * (times[-1] - times))
        lower.semilogy(times, guide, "--", color="#009E73", label=rf"$e^{{-{rate:g}t}}$")
        lower.set(xlabel="time t  (one SGD step lasts η)")
        lower.legend(fontsize=8, loc="upper right")
    rows[0, 0].set_ylabel(r"$m(t)=\int |x|^2 \rho(t)\,dx$")
    rows[1, 0].set_ylabel(r"$|m(t) - m(\infty)|$")
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)

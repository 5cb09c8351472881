"""The local picture of the paper's section 4.5: how mass splits between wells, and when a Gaussian mixture is enough.

(61) says ``ρ ≈ Σ m_i(t) N(x_i, ε²K_i)`` and leaves the error and the masses open. Measured here:

* in time, in two dimensions, with noise that differs from place to place: L¹ and W₂ distance from the mixture, with
  stationary and with relaxing Gaussians, and the masses against the Markov chain of the wells;
* as ε → 0, in one dimension: what stays when the wells have relaxed (anharmonicity), of order ε in L¹ and ε² in W₂, and
  the mass each well gets against ρ₀'s mass in its basin of attraction, of order ε²; all three against their constants.

Run: python mass_splitting.py, or mpirun -n 2 python mass_splitting.py. Results: results/mass_splitting/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp

LOSS = "(x**2 - 1)**2*exp(0.4*x) + (y - 0.4*x**2)**2"
NOISE = [["1", "0.3"], ["0.3", "0.5 + 0.2*y**2"]]
EPSILON2 = 0.15
DOMAIN = fp.Box((-2.5, -1.9), (2.1, 2.5))
START = fp.gaussian_start([0.1, 0.8], 0.05)
TIMES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 25.0, 100.0, 400.0, 1600.0)
#: One dimension: a flat and a sharp well, as in flat_and_sharp.
RATE = 0.6
LINE_LOSS = f"(x**2 - 1)**2*exp({RATE}*x)"
LINE = fp.Interval(-2.6, 2.1)
LINE_START = fp.gaussian_start([0.1], 0.09)
SMALL = (0.1, 0.05, 0.025, 0.0125, 0.00625)
#: When the wells have relaxed and exchange nothing yet.
SPLIT = 5.0


def process() -> Any:
    """Return the process in two dimensions."""
    return fp.SGD(LOSS, covariance=NOISE, epsilon2=EPSILON2)


def main(
    comm: MPI.Comm,
    out: Path = Path("results/mass_splitting"),
    size: float = 0.24,
    times: tuple[float, ...] = TIMES,
    noise: tuple[float, ...] = SMALL,
    points: int = 600,
) -> dict[str, Any]:
    """Compute, print and draw; return the findings. Collective."""
    run = fp.evolve(process(), DOMAIN, START, times, comm=comm, size=size)
    steady = fp.steady_state(process(), DOMAIN, comm=comm, size=size, eigenvalues=3)
    found: dict[str, Any] = {
        "run": run,
        "splitting": fp.mass_splitting(run, points=points),
        "chain": fp.well_chain(steady, START),
        "steady": steady,
        "limit": [small_noise(comm, epsilon2) for epsilon2 in noise],
        "moved": fp.steady_mixture(steady, points=points, corrected=True)[1].w2,
        "line": densities_on_a_line(run),
    }
    found["orders"] = orders(found["limit"])
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw(found, out / "mass_splitting.png")
    return found


def small_noise(comm: MPI.Comm, epsilon2: float) -> dict[str, float]:
    """Return the distances from the mixture of relaxed wells, and how ρ₀ splits, at a small ε². Collective."""
    line = fp.SGD(LINE_LOSS, variables=("x",), epsilon2=epsilon2)
    epsilon = float(np.sqrt(epsilon2))
    run = fp.evolve(line, LINE, LINE_START, [SPLIT], comm=comm, size=0.25 * epsilon)
    splitting = fp.mass_splitting(run)
    first, last = splitting.masses
    right = int(np.argmax(run.minima[:, 0]))
    moved = fp.mass_splitting(run, corrected=True).w2()[-1, 0]
    result = {"epsilon": epsilon, "l1": splitting.l1()[-1], "w2": splitting.w2()[-1, 0], "moved": moved}
    return result | {"split": float(last[right] - first[right])} | predictions(run.minima[:, 0], last, epsilon)


def predictions(minima: np.ndarray, masses: np.ndarray, epsilon: float) -> dict[str, float]:
    """Return the leading terms in one dimension with Q = 1.

    In the well i, ``ρ = N(1 - ε L''' z³/6)`` with z = (x - x_i)/ε and the variance K = 1/L'', hence
    ``L¹ = ε |L'''| E|z|³/6``; mass must move by ``ε ξ = -ε² L''' K (z² + 2K)/6`` (as ``(Nξ)' = ε N L''' z³/6``), hence
    ``W₂ = ε² |L'''| K² √11/6``; with the centre moved to the mean, √2 in place of √11. At the saddle, κ = -L'', the
    probability to end in the right well has the slope ``∝ exp(-κz²/2 + ε L''' z³/6)``; it gives that well
    ``-ε² (ρ₀'/(2κ) + ρ₀ L'''/(2κ²))`` more than the basin holds.
    """
    from fpsolve.model.expressions import Formula

    second = Formula.parse(LINE_LOSS, ("x",)).derivative().derivative()
    third = second.derivative()
    K, bend = 1 / second(minima[:, None]).ravel(), third(minima[:, None]).ravel()
    saddle = np.array([[(-2 + np.sqrt(4 + RATE**2)) / RATE]])
    kappa, twist = -float(second(saddle).item()), float(third(saddle).item())
    start = float(LINE_START.density(saddle)[0])
    variance = LINE_START.covariance[0][0]
    slope = -(float(saddle[0, 0]) - LINE_START.mean[0]) / variance * start
    bent = epsilon**2 * float(np.sqrt(masses @ (bend**2 * K**4))) / 6
    return {
        "l1 leading": epsilon * float(masses @ (np.abs(bend) * K**1.5)) * np.sqrt(2 / np.pi) / 3,
        "w2 leading": bent * np.sqrt(11),
        "moved leading": bent * np.sqrt(2),
        "split leading": -(epsilon**2) * (slope / (2 * kappa) + start * twist / (2 * kappa**2)),
    }


def orders(limit: list[dict[str, float]]) -> dict[str, float]:
    """Return the powers of ε fitted to the three smallest."""
    last = limit[-3:]
    epsilon = np.log([row["epsilon"] for row in last])
    return {
        name: float(np.polyfit(epsilon, np.log([abs(row[name]) for row in last]), 1)[0])
        for name in ("l1", "w2", "moved", "split")
    }


def densities_on_a_line(run: Any, shown: tuple[float, ...] = (0.4, np.inf)) -> list[tuple[float, np.ndarray]]:
    """Return stored times near those asked for, and the densities on the line then. Collective."""
    from fpsolve.fem.points import evaluate, locate

    where = locate(run.triangulation.mesh, line_points(run))
    numbers = [int(np.argmin(np.abs(run.times - min(t, run.times[-1])))) for t in shown]
    return [(float(run.times[k]), evaluate(run.densities[k], where)) for k in numbers]


def line_points(run: Any) -> np.ndarray:
    """Return points on the straight line through the two minima."""
    left, right = run.minima[np.argsort(run.minima[:, 0])]
    s = np.linspace(-0.45, 1.4, 149)
    return left + s[:, None] * (right - left)


def table(found: dict[str, Any]) -> None:
    """Print distances, masses and orders."""
    run, splitting, chain = found["run"], found["splitting"], found["chain"]
    left = int(np.argmin(run.minima[:, 0]))
    predicted = chain.masses(splitting.times)[:, left]
    w2 = splitting.w2()
    print(f"{run.unknowns} unknowns; mass in the left well against the Markov chain, distance from the mixture:")
    print("       t    mass   chain      L¹   L¹ relaxing      W₂   between    and   relaxation    far")
    for k, t in enumerate(splitting.times):
        print(
            f"{t:8g}  {splitting.masses[k, left]:.4f}  {predicted[k]:.4f}  {splitting.l1()[k]:.4f}  "
            f"{splitting.l1(True)[k]:12.4f}  {w2[k, 0]:.4f}    {w2[k, 1]:.4f} {w2[k, 2]:.4f}  "
            f"{splitting.relaxation[k]:10.1e}  {splitting.far[k]:.1e}"
        )
    print(f"L¹ <= 0.2 at stored times {splitting.valid(0.2)}, W₂ <= 0.08 at {splitting.valid(0.08, 'w2')}")
    rates = chain.rates
    print(
        f"rates {rates[1 - left, left]:.4e} (left to right) and {rates[left, 1 - left]:.4e}; "
        f"next eigenvalue {chain.separation:.0f} times the slow one; "
        f"ρ₀ splits {chain.start[left]:.4f}, by basins of attraction {splitting.masses[0, left]:.4f}"
    )
    for well, mean in zip(splitting.wells, splitting.means[-1], strict=True):
        print(f"minimum {well.x.round(5)}: mean of the well off by {mean - well.x}, leading term {well.shift}")
    moved = found["moved"]
    print(
        f"with the centres there, W₂ is {moved.value:.4f} in the end, between {moved.lower:.4f} and {moved.upper:.4f}"
    )
    print("relaxed wells in one dimension, computed and leading term:")
    print(
        "      ε²        L¹                       W₂                       W₂, centres moved        mass - that of ρ₀"
    )
    for row in found["limit"]:
        pairs = (f"{row[name]: .4e} {row[name + ' leading']: .4e}" for name in ("l1", "w2", "moved", "split"))
        print(f"{row['epsilon'] ** 2:8g}  " + "  ".join(pairs))
    print("fitted powers of ε: " + ", ".join(f"{name} {power:.3f}" for name, power in found["orders"].items()))


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw densities on a line, masses, and distances in time and against ε."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 8.0), layout="constrained", dpi=150)
    axes = figure.subplots(2, 2)
    draw_line(axes[0, 0], found)
    draw_masses(axes[0, 1], found)
    draw_distances(axes[1, 0], found["splitting"])
    draw_orders(axes[1, 1], found)
    figure.savefig(path)


def draw_line(axes: Any, found: dict[str, Any]) -> None:
    """Draw ρ and the mixture on the line through the minima."""
    run, splitting = found["run"], found["splitting"]
    x = line_points(run)
    for (t, density), colour in zip(found["line"], ("#D55E00", "#0072B2"), strict=True):
        k = int(np.flatnonzero(splitting.times == t)[0])
        axes.plot(x[:, 0], density, color=colour, label=rf"$\rho$, t = {t:g}")
        axes.plot(x[:, 0], splitting.mixture(k).density(x), "--", color=colour, label=f"mixture, t = {t:g}")
    axes.set(
        xlabel="x, on the line through both minima",
        ylabel=r"density $\rho$",
        title=rf"two dimensions, $\varepsilon^2$ = {EPSILON2:g}",
        ylim=(0, None),
    )
    axes.legend(fontsize=8)


def draw_masses(axes: Any, found: dict[str, Any]) -> None:
    """Draw m_i(t), measured and from the Markov chain."""
    splitting, chain = found["splitting"], found["chain"]
    t = np.geomspace(splitting.times[1], splitting.times[-1], 200)
    order = np.argsort(found["run"].minima[:, 0])
    for k, colour, name in zip(order, ("#0072B2", "#D55E00"), ("left", "right"), strict=True):
        axes.semilogx(t, chain.masses(t)[:, k], color=colour, label=f"Markov chain, {name} well")
        axes.semilogx(
            splitting.times[1:], splitting.masses[1:, k], "o", color=colour, markersize=4, label=f"measured, {name}"
        )
        axes.axhline(splitting.masses[0, k], color=colour, linewidth=0.8, linestyle=":")
    axes.plot([], [], ":", color="0.4", label="initial mass in the basin")
    axes.set(xlabel="time t  (one SGD step lasts η)", ylabel=r"mass $m_i(t)$ in the basin of attraction", ylim=(0, 1))
    axes.legend(fontsize=8, loc="upper left")


def draw_distances(axes: Any, splitting: Any) -> None:
    """Draw the distances in time, and what they consist of."""
    t, w2, relaxing = splitting.times[1:], splitting.w2()[1:], splitting.w2(True)[1:]
    axes.loglog(t, splitting.l1()[1:], "o-", markersize=4, color="#0072B2", label="L¹, stationary Gaussians")
    axes.loglog(t, splitting.l1(True)[1:], "--", color="#0072B2", label="L¹, relaxing Gaussians")
    axes.loglog(t, w2[:, 0], "s-", markersize=4, color="#D55E00", label="W₂, stationary Gaussians")
    axes.fill_between(t, np.maximum(w2[:, 1], 1e-6), w2[:, 2], color="#D55E00", alpha=0.2, label="bounds of W₂")
    axes.loglog(t, relaxing[:, 0], "--", color="#D55E00", label="W₂, relaxing Gaussians")
    axes.loglog(t, splitting.relaxation[1:], ":", color="0.3", label="relaxation of the wells (closed form)")
    far = f"mass beyond {splitting.deviations:g} standard deviations"
    axes.loglog(t, splitting.far[1:], "-.", color="#009E73", label=far)
    axes.set(xlabel="time t  (one SGD step lasts η)", ylabel="distance from the mixture", ylim=(1e-3, 3))
    axes.legend(fontsize=7.5)


def draw_orders(axes: Any, found: dict[str, Any]) -> None:
    """Draw what stays for t → ∞ and the error of the deterministic split against ε."""
    epsilon = np.array([row["epsilon"] for row in found["limit"]])
    names = (
        ("l1", "L¹ distance, wells relaxed"),
        ("w2", "W₂ distance, wells relaxed"),
        ("moved", "W₂ distance, centres moved to the means"),
        ("split", "mass not as in the basins of ρ₀"),
    )
    for (name, label), colour, marker in zip(names, ("#0072B2", "#D55E00", "#CC79A7", "#009E73"), "osD^", strict=True):
        values, leading = (np.abs([row[key] for row in found["limit"]]) for key in (name, f"{name} leading"))
        power = found["orders"][name]
        axes.loglog(epsilon, values, marker, color=colour, label=rf"{label}: $\varepsilon^{{{power:.2f}}}$")
        axes.loglog(epsilon, leading, color=colour, linewidth=0.9)
    axes.plot([], [], color="0.4", linewidth=0.9, label="leading terms")
    lowest = 0.08 * min(abs(found["limit"][-1]["moved"]), 1e-2)  # room for the legend
    axes.set(
        xlabel=r"noise $\varepsilon$",
        ylabel="distance or mass",
        title=f"one dimension, L = {LINE_LOSS}",
        ylim=(lowest, None),
    )
    axes.legend(fontsize=8, loc="lower right")


if __name__ == "__main__":
    main(MPI.COMM_WORLD)

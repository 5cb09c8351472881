"""5.5: the stationary density L^{-(1 + 1/T)}, its current, and where the dynamics really settle (Figures 5.8-5.10)."""

from __future__ import annotations

from typing import Any

from mpi4py import MPI

import numpy as np
from scipy.linalg import solve_continuous_lyapunov

import fpsolve as fp
from chapter5.escape import ends
from chapter5.model import WINDOW, Model, sde
from chapter5.report import BLUE, GREEN, ORANGE, RED, Report, contours, figure, grid, mark
from fpsolve.theory.laws import loss_proportional_exponent

#: The thesis' temperature and learning rate, B = 1.
TEMPERATURE, RATE = 100.0, 1e-5
#: A rate at which the stationary density round the true minimum is wide enough to see its shape, and where it is.
WIDE, NEAR = 5e-3, fp.Box((0.2, 3.6), (2.4, 6.2))


def run(
    model: Model, report: Report, comm: MPI.Comm, paths: int = 2000, tolerance: float = 2e-2, share: float = 1.0
) -> dict[str, Any]:
    """Compute densities and currents, tabulate and draw. Collective."""
    landscapes = {"diffusion, Q = 2LH*": model.like_true, "diffusion, Q of the data": model.landscape}
    steady = {
        name: fp.steady_state(fp.sgd_process(landscape, fp.noise_level(WIDE, 1)), NEAR, comm=comm, eigenvalues=2,
                              tolerance=tolerance)
        for name, landscape in landscapes.items()
    }  # fmt: skip
    chain = fp.sgd_chain(model.landscape, WIDE, 1)
    settled = fp.simulate_paths(chain, [tuple(model.true.x)], comm=comm, times=[10 * share], paths=paths)
    starts = np.random.default_rng(0).uniform((-6.0, -1.0), (6.0, 6.0), (20, 2))
    process = sde(model.like_true, RATE, 1)
    short = _walks(process, starts, comm, 1000, 100)
    long = _walks(process, starts, comm, int(200_000 * share), 2)[:, -1]
    axes = [np.linspace(low, high, 161) for low, high in zip(NEAR.lower, NEAR.upper, strict=True)]
    points = np.column_stack([m.ravel() for m in np.meshgrid(*axes)])
    found = {
        "steady": steady, "settled": settled.positions[0, 0], "starts": starts, "short": short, "long": long,
        "axes": axes, "points": points, "density": {name: answer.at(points) for name, answer in steady.items()},
    }  # fmt: skip
    if comm.rank == 0:
        _tabulate(found, model, report)
        _draw_current(model, report)
        _draw_density(model, report)
        _draw_paths(found, model, report)
        _draw_near(found, model, report)
    return found


def _walks(process: fp.EulerMaruyama, starts: np.ndarray, comm: MPI.Comm, steps: int, stored: int) -> np.ndarray:
    """Return one path from each start, (starts, stored, 2)."""
    times = process.step * np.linspace(steps / stored, steps, stored)
    return fp.simulate_paths(process, starts, comm=comm, times=times, paths=1).positions[:, :, 0]


def formula(model: Model, points: np.ndarray, exponent: float) -> np.ndarray:
    """Return L^exponent, scaled to 1 at the true minimum."""
    return np.exp(exponent * np.log(model.like_true.loss(points) / model.true.loss))


def masses(model: Model, exponents: list[float], n: int = 401) -> list[tuple[float, float]]:
    """Return for each power of L the share of its mass in `WINDOW` in the true basin, and within 1 of its minimum."""
    fine, coarse = grid(*WINDOW, n)[2], grid(*WINDOW, 81)[2]
    basin = ends(model, coarse) == 0
    near = np.linalg.norm(fine - model.true.x, axis=1) < 1
    pairs = [[(formula(model, x, p), part) for x, part in ((coarse, basin), (fine, near))] for p in exponents]
    first, second = ([float(w[k][0][w[k][1]].sum() / w[k][0].sum()) for w in pairs] for k in (0, 1))
    return list(zip(first, second, strict=True))


def current_ratio(model: Model, temperature: float, rate: float, points: np.ndarray) -> np.ndarray:
    """Return |J|/|P∇L| of P = L^{-(1 + 1/T)} under (4.21): J = -P (I - (η/BT) H*) ∇L, 0 where P is an equilibrium."""
    gradient = model.like_true.gradient(points)
    matrix = np.eye(2) - rate / temperature * model.true.hessian
    return np.linalg.norm(gradient @ matrix, axis=1) / np.linalg.norm(gradient, axis=1)


def _tabulate(found: dict[str, Any], model: Model, report: Report) -> None:
    report.section("5.5 Stationary distribution")
    rows = []
    for name, point in (("true", model.true), ("spurious", model.spurious)):
        for h in point.eigenvalues:
            powers = [loss_proportional_exponent(h, rate) for rate in (RATE, WIDE)]
            rows.append((f"{name}, h* = {h:.4g}", RATE * h, *powers))
    report.table(
        "Temperature T = ηh*/B and power -(1 + 1/T) of L, B = 1 (the thesis' T = 100: power -1.01)",
        ["minimum, eigenvalue", "T at η = 1e-5", "power at η = 1e-5", f"power at η = {WIDE:g}"], rows,
    )  # fmt: skip
    inside = found["points"]
    top = model.true.eigenvalues
    rows = [(f"{t:.3g}", f"{rate:g}", *np.quantile(current_ratio(model, t, rate, inside), (0.0, 0.5, 1.0)))
            for t, rate in ((TEMPERATURE, RATE), (RATE * top[1], RATE), (RATE * top[0], RATE))]  # fmt: skip
    report.table("|J|/|P∇L| of P = L^{-(1+1/T)} near the true minimum: 0 would be equilibrium, 1 is no balance at all",
                 ["T", "η", "smallest", "median", "largest"], rows)  # fmt: skip
    kinds = [(f"L^(-1.01) (T = {TEMPERATURE:g})", -1.01)]
    kinds += [(f"L^({p:.1f}) (T = ηh*, h* = {h:.3g}, η = 1e-5)", p)
              for h in top for p in [loss_proportional_exponent(h, RATE)]]  # fmt: skip
    shares = masses(model, [power for _, power in kinds])
    rows = [(name, *pair) for (name, _), pair in zip(kinds, shares, strict=True)]
    report.table(f"Mass of the formula in {WINDOW}", ["density", "true basin", "within 1 of the true minimum"], rows)
    _near_table(found, model, report)
    basins = {name: float(np.mean(ends(model, np.atleast_2d(x)) == 0)) for name, x in (
        ("starts", found["starts"]), ("after 1000 steps", found["short"][:, -1]), ("after 200 000 steps", found["long"])
    )}  # fmt: skip
    report.table("20 paths of (4.21) from random starts, η = 1e-5: share in the basin of the true minimum",
                 list(basins), [list(basins.values())])  # fmt: skip
    _judge(found, model, report, basins, shares[0][0])


def _near_table(found: dict[str, Any], model: Model, report: Report) -> None:
    points, top = found["points"], model.true.eigenvalues
    rows = []
    for name, answer in found["steady"].items():
        rows.append((name, *_shape(answer.covariance), answer.current_norm, answer.density_error))
    positions = found["settled"]
    alive = positions[NEAR.contains(np.nan_to_num(positions, nan=1e9))]
    rows.append((f"SGD, {len(alive)} of {len(positions)} paths in the box", *_shape(np.cov(alive.T)), "", ""))
    for h in top:
        power = loss_proportional_exponent(h, WIDE)
        weight = formula(model, points, power)
        mean = weight @ points / weight.sum()
        covariance = (weight[:, None] * (points - mean)).T @ (points - mean) / weight.sum()
        rows.append((f"L^({power:.3g}), h* = {h:.3g}", *_shape(covariance), "", ""))
    for name, landscape in (("2LH*", model.like_true), ("Q of the data", model.landscape)):
        q = landscape.covariance(model.true.x[None])[0]
        rows.append((f"linearised, {name}", *_shape(solve_continuous_lyapunov(model.true.hessian, WIDE * q)), "", ""))
    report.table(
        f"Stationary density near the true minimum, η = {WIDE:g}, B = 1 (box {NEAR.lower} to {NEAR.upper})",
        ["density", "std of a", "std of b", "longer axis / shorter", "‖J‖/(‖a∇ρ‖ + ‖βρ‖)", "error in L¹"], rows,
    )  # fmt: skip


def _shape(covariance: np.ndarray) -> tuple[float, float, float]:
    values = np.linalg.eigvalsh(covariance)
    return float(covariance[0, 0] ** 0.5), float(covariance[1, 1] ** 0.5), float((values[1] / values[0]) ** 0.5)


def _judge(found: dict[str, Any], model: Model, report: Report, basins: dict[str, float], share: float) -> None:
    steady = found["steady"]["diffusion, Q = 2LH*"]
    ratio = np.sqrt(model.true.eigenvalues[1] / model.true.eigenvalues[0])
    power = loss_proportional_exponent(model.true.eigenvalues[1], RATE)
    report.verdict(
        "the stationary density is L^{-(1+1/T)}, T = 100 (5.5), (5.6)", "does not hold",
        f"T is ηh*/B and no free number: at η = 1e-5 {RATE * model.true.eigenvalues[1]:.1e} (true) or "
        f"{RATE * model.spurious.eigenvalues[1]:.1e} (spurious), a power of {power:.0f} instead "
        "of -1.01. And only for H* = h*I: with h* = "
        f"{model.true.eigenvalues[0]:.3g} and {model.true.eigenvalues[1]:.3g} no power has a vanishing current.",
    )  # fmt: skip
    report.verdict(
        "the density is stretched along the flat direction (Figure 5.9)", "does not hold",
        f"A function of L has axes 1 : {ratio:.1f} near the true minimum; the density of (4.21) is round "
        f"(1 : {_shape(steady.covariance)[2]:.2f}), as K = (ηL*/B) I solves HK + KH = 2(ηL*/B)H, and its current "
        f"nearly vanishes ({steady.current_norm:.3f}). SGD's own density is nearly round, too.",
    )  # fmt: skip
    report.verdict(
        "the current's zeros at the critical points confirm the density (Figure 5.8)", "does not hold",
        "J = -P (I - (η/BT) H*) ∇L vanishes where ∇L does, for every P that is a function of L; at T = 100 it is the "
        "drift -P∇L itself (their ratio is 1 to five digits).",
    )  # fmt: skip
    report.verdict(
        "20 paths of 1000 steps show the stationary density (Figure 5.10)", "does not hold",
        f"They last 0.01, a twentieth of 1/h_min = {1 / model.true.eigenvalues[0]:.2f}; "
        f"{basins['starts']:.0%} start in the true basin and {basins['after 1000 steps']:.0%} end there. After 200 000 "
        f"steps the shares are the same ({basins['after 200 000 steps']:.0%}): no path crosses at this η (5.4).",
    )  # fmt: skip
    report.verdict(
        "the density is higher at the true, flatter minimum (Figure 5.9)", "holds",
        "L is smaller there. With T = 100 the true basin has "
        f"{share:.0%} of the mass in the window; with T = ηh*/B it has all of it.",
    )  # fmt: skip


def _draw_current(model: Model, report: Report) -> None:
    picture = figure(10.4, 4.2)
    for axes, (lower, upper), title in zip(
        picture.subplots(1, 2), (WINDOW, ((0.3, 4.2), (1.9, 5.8))), ("window", "near the true minimum"), strict=True
    ):
        a, b, points = grid(lower, upper, 61)
        matrix = np.eye(2) - RATE / TEMPERATURE * model.true.hessian
        density = formula(model, points, -(1 + 1 / TEMPERATURE))
        flow = -density[:, None] * (model.like_true.gradient(points) @ matrix)
        size = np.linalg.norm(flow, axis=1)
        image = axes.pcolormesh(
            a, b, np.log10(np.maximum(size, 1e-12)).reshape(61, 61), cmap="viridis", rasterized=True
        )
        picture.colorbar(image, ax=axes, label=r"$\log_{10}|J|$  ($P = 1$ at the true minimum)")
        sparse = np.arange(61 * 61).reshape(61, 61)[2::5, 2::5].ravel()
        unit = flow[sparse] / size[sparse, None]
        axes.quiver(*points[sparse].T, *unit.T, color="white", scale=28, width=0.004)
        for point, colour in ((model.true, BLUE), (model.spurious, RED), (model.saddle, GREEN)):
            if all(lower[k] < point.x[k] < upper[k] for k in (0, 1)):
                axes.plot(*point.x, "o", color=colour, markeredgecolor="white")
        axes.set(xlabel="$a$", ylabel="$b$", xlim=(lower[0], upper[0]), ylim=(lower[1], upper[1]))
        axes.set_title(f"$J[L^{{-1.01}}]$, {title}", fontsize=10)
    report.save(picture, "fig_5_8.png")


def _draw_density(model: Model, report: Report) -> None:
    picture = figure(11.0, 3.6)
    power = loss_proportional_exponent(model.true.eigenvalues[1], WIDE)
    for axes, (lower, upper), p, title in zip(
        picture.subplots(1, 3),
        (WINDOW, ((-8.0, 0.5), (-3.0, 6.0)), (NEAR.lower, NEAR.upper)),
        (-1.01, -1.01, power),
        ("$L^{-1.01}$ ($T = 100$)", "$L^{-1.01}$ near the spurious minimum",
         f"$L^{{{power:.2f}}}$ ($T = \\eta h^*$, $\\eta = {WIDE:g}$)"),
        strict=True,
    ):  # fmt: skip
        a, b, points = grid(lower, upper, 161)
        values = np.log10(formula(model, points, p))
        image = axes.pcolormesh(a, b, values.reshape(161, 161), cmap="viridis", rasterized=True)
        picture.colorbar(image, ax=axes, label=r"$\log_{10}\,P\,/\,P(\theta^*)$")
        for point, colour in ((model.true, BLUE), (model.spurious, RED), (model.saddle, GREEN)):
            if all(lower[k] < point.x[k] < upper[k] for k in (0, 1)):
                axes.plot(*point.x, "o", color=colour, markeredgecolor="white")
        axes.set(xlabel="$a$", ylabel="$b$")
        axes.set_title(title, fontsize=9.5)
    report.save(picture, "fig_5_9.png")


def _draw_paths(found: dict[str, Any], model: Model, report: Report) -> None:
    picture = figure(10.4, 4.0)
    left, right = picture.subplots(1, 2)
    box = ((-7.0, -2.0), (7.0, 8.0))
    places = found["short"].reshape(-1, 2)
    edges = [np.linspace(low, high, 57) for low, high in zip(*box, strict=True)]
    counts, *_ = np.histogram2d(*places.T, bins=edges, density=True)
    image = left.pcolormesh(*edges, np.ma.masked_equal(counts.T, 0), cmap="viridis", rasterized=True)
    picture.colorbar(image, ax=left, label="density")
    left.set_title(r"20 paths of (4.21), 1000 steps, every tenth, $\eta = 10^{-5}$", fontsize=9.5)
    right.plot(*found["long"].T, ".", color=ORANGE, markersize=9, label="after 200 000 steps")
    right.plot(*found["starts"].T, "k+", markersize=5, label="starts")
    right.set_title("the same paths later", fontsize=9.5)
    for axes in (left, right):
        contours(axes, model.like_true, *box)
        mark(axes, model, legend=False)
    right.legend(fontsize=8, loc="upper left")
    report.save(picture, "fig_5_10.png")


def _draw_near(found: dict[str, Any], model: Model, report: Report) -> None:
    picture = figure(11.0, 3.7)
    a, b = found["axes"]
    power = loss_proportional_exponent(model.true.eigenvalues[1], WIDE)
    cells = (a[1] - a[0]) * (b[1] - b[0])
    shapes = {f"$L^{{{power:.2f}}}$, $h^* = {model.true.eigenvalues[1]:.3g}$": formula(model, found["points"], power)}
    shapes |= {f"{name}": np.nan_to_num(values) for name, values in found["density"].items()}
    panels = picture.subplots(1, 4, sharey=True)
    edges = [np.append(x - (x[1] - x[0]) / 2, x[-1] + (x[1] - x[0]) / 2)[::2] for x in (a, b)]
    counts, *_ = np.histogram2d(*found["settled"].T, bins=edges, density=True)
    top = max(np.nan_to_num(v).max() for v in found["density"].values())
    for axes, (name, values) in zip(panels, shapes.items(), strict=False):
        scaled = values / (values.sum() * cells)
        image = axes.pcolormesh(a, b, scaled.reshape(len(b), len(a)), cmap="viridis", vmin=0, vmax=top, rasterized=True)
        axes.set_title(name, fontsize=9)
    panels[3].pcolormesh(*edges, counts.T, cmap="viridis", vmin=0, vmax=top, rasterized=True)
    panels[3].set_title("SGD itself, simulated", fontsize=9)
    picture.colorbar(image, ax=panels, label="density", shrink=0.9)
    for axes in panels:
        axes.plot(*model.true.x, "+", color="white")
        axes.set(xlabel="$a$", xlim=(0.4, 1.8), ylim=(4.4, 5.6))
    panels[0].set_ylabel("$b$")
    report.save(picture, "fig_5_9_true.png")

"""SGD on more parameters than its samples can fix: N = 2 samples, d = 2 parameters, one curve of perfect fits.

The model f = a b x fits (1, 1) and (2, 2) on the curve a b = 1. There all sample gradients vanish, so Q = 0; elsewhere
rank Q <= N - 1 = 1. With Q = q (ab - 1)² (b, a)(b, a)ᵀ the diffusion of SGD keeps the sign of e = a² - b², and
``de = -2ε² q (ab - 1)² e dt`` exactly: noise moves it towards the flat minimum a = b, only as long as the loss lasts.
The density collapses onto the curve; the mean time to leave a neighbourhood of it is infinite unless noise is added.
Run: python overparametrised.py, or mpirun -n 2 python overparametrised.py. Results: results/overparametrised/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp
from fpsolve.errors import NoFiniteAnswer
from fpsolve.fem.functionals import whole_cells

SAMPLES = {"x": np.array([1.0, 2.0]), "y": np.array([1.0, 2.0])}
RATE, MEAN, SPREAD = 0.1, (2.0, 1.2), 0.02
BOX = fp.Box((0.6, -0.6), (3.0, 2.4))
OBSERVABLES = ("(a*b - 1)**2", "a**2 - b**2", "a**2 + b**2")
TIMES = (0.05, 0.1, 0.2, 0.4)
#: Bins of a² - b², which tells places along the curve apart.
BINS = np.array([-np.inf, 1.0, 1.75, 2.5, 3.25, 4.0, np.inf])
STRIP = 0.2
NEAR = fp.Ball((1.0, 1.0), 0.6)
DELTAS = (0.02, 0.05, 0.1, 0.2)
#: Learning rate, δ and the time after which nothing changes any more (δ = 0) or the flat part is reached.
LONG = ((0.02, 0.0, 10.0), (0.1, 0.0, 10.0), (0.15, 0.0, 10.0), (0.1, 0.2, 200.0))


def landscape() -> Any:
    """Return loss and covariance of the two samples."""
    return fp.sample_landscape("a*b*x", ["a", "b"], ["x"], "y", "(model - y)**2/2", SAMPLES)


def process(delta: float = 0.0) -> Any:
    """Return the diffusion of SGD with batches of one, or of noisy SGD."""
    level = fp.noise_level(learning_rate=RATE, batch_size=1, replacement=True, samples=2, extra_noise=delta)
    return fp.sgd_process(landscape(), level)


def main(
    comm: MPI.Comm,
    out: Path = Path("results/overparametrised"),
    size: float = 0.08,
    paths: int = 20_000,
    deltas: tuple[float, ...] = DELTAS,
    times: tuple[float, ...] = TIMES,
) -> dict[str, Any]:
    """Compute, print and draw; return the findings. Collective."""
    end = np.array([1.703, 1 / 1.703])  # where the gradient flow from `MEAN` ends, to three digits
    line = end + np.array([1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 0.0])[:, None] * (MEAN - end)
    start = fp.gaussian_start(MEAN, SPREAD)
    run = fp.evolve(process(), BOX, start, times, comm=comm, size=size, observables=OBSERVABLES)
    sde = fp.simulate_paths(fp.EulerMaruyama(process(), 2.5e-4), start, times, comm=comm, paths=paths, seed=3)
    chains = {
        (rate, delta): fp.simulate_paths(
            fp.sgd_chain(landscape(), rate, extra_noise=delta), start, [0.0, end], comm=comm, paths=paths // 5, seed=4
        )
        for rate, delta, end in LONG
    }
    densities = run.densities[-len(times) :]  # without the start
    found = {
        "line": line, "spectrum": fp.covariance_spectrum(landscape(), line), "run": run, "sde": sde, "chains": chains,
        "masses": [masses(density) for density in densities], "exits": exits(comm, deltas, paths // 10),
        "pictures": [picture(run, density) for density in densities],
    }  # fmt: skip
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw_collapse(found, out / "collapse.png")
        draw_selection(found, out / "selection.png")
    return found


def masses(density: Any) -> np.ndarray:
    """Return the mass with \\|ab - 1\\| < `STRIP`, then those in the bins of a² - b². Collective."""
    total = np.zeros(len(BINS))
    for patch in whole_cells(density.function_space.mesh, 12):
        total += shares(patch.x, np.asarray(patch.weights * patch.values(density)))
    return np.asarray(density.function_space.mesh.comm.allreduce(total))


def shares(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what `masses` does, of weighted points (..., 2)."""
    a, b = x[..., 0].ravel(), x[..., 1].ravel()
    bins = np.histogram(a**2 - b**2, BINS, weights=weights.ravel())[0]
    return np.concatenate([[weights.ravel()[np.abs(a * b - 1) < STRIP].sum()], bins])


def exits(comm: MPI.Comm, deltas: tuple[float, ...], paths: int) -> dict[str, Any]:
    """Return exit times from `NEAR`: without extra noise what is said about them, with it PDE and chain. Collective."""
    said = ""
    try:
        fp.mean_exit_time(process(), NEAR, comm=comm, starts=[(1.0, 1.0)], tolerance=1e-3)
    except NoFiniteAnswer as reason:
        said = str(reason)
    chain = fp.sgd_chain(landscape(), RATE)
    stays = fp.simulate_exit(chain, NEAR, [(1.2, 1.2)], comm=comm, paths=paths, seed=5, max_time=20.0)
    answers, samples = {}, {}
    for delta in deltas:
        answers[delta] = fp.mean_exit_time(process(delta), NEAR, comm=comm, starts=[(1.0, 1.0)], tolerance=1e-3)
        chain = fp.sgd_chain(landscape(), RATE, extra_noise=delta)
        samples[delta] = fp.simulate_exit(chain, NEAR, [(1.0, 1.0)], comm=comm, paths=paths, seed=6)
    return {"said": said, "stays": float(stays.inside[0] / stays.paths), "pde": answers, "chain": samples}


def picture(run: Any, density: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b and the density on a grid. Collective."""
    from fpsolve.fem.points import evaluate, locate

    (left, bottom), (right, top) = BOX.lower, BOX.upper
    a, b = np.linspace(left, right, 201), np.linspace(bottom, top, 251)
    points = np.stack(np.meshgrid(a, b), axis=-1).reshape(-1, 2)
    return a, b, evaluate(density, locate(run.triangulation.mesh, points)).reshape(len(b), len(a))


def table(found: dict[str, Any]) -> None:
    """Print rank and size of Q on the way, the collapse, where it ends and how it leaves."""
    spectrum = found["spectrum"]
    print("on the way to the curve: point, loss, eigenvalues of Q, rank (at most N - 1 = 1)")
    loss = landscape().loss(found["line"])
    for x, value, pair, rank in zip(found["line"], loss, spectrum.eigenvalues, spectrum.rank, strict=True):
        print(f"  ({x[0]:.4f}, {x[1]:.4f})  {value:9.2e}  {pair[0]:9.2e} {pair[1]:9.2e}  {rank}")
    print(f"mass with |ab - 1| < {STRIP} and means: density (dg), paths of the diffusion ± 95 %")
    sde = found["sde"].positions[0]
    for k, record in enumerate(found["run"].records[-len(sde) :]):
        a, b = sde[k, :, 0], sde[k, :, 1]
        weights = np.full(len(a), 1 / len(a))
        strip = shares(sde[k], weights)[0]
        half = 1.96 * np.sqrt(strip * (1 - strip) / len(a))
        texts = [f"t = {record.t:4.2f}  {found['masses'][k][0]:.4f}, {strip:.4f} ± {half:.4f}"]
        for name, value, sample in zip(("(ab-1)²", "a²-b²", "a²+b²"), record.observables,
                                       ((a * b - 1) ** 2, a**2 - b**2, a**2 + b**2), strict=True):  # fmt: skip
            texts.append(f"{name} {value:.4f}, {sample.mean():.4f} ± {1.96 * sample.std() / np.sqrt(len(a)):.4f}")
        print("  " + "   ".join(texts))
    last = shares(sde[-1], np.full(len(sde[-1]), 1 / len(sde[-1])))[1:]
    print("  masses along the curve, bins of a² - b²:", np.round(found["masses"][-1][1:], 4), "density")
    print("                                          ", np.round(last, 4), "paths")
    print("where SGD ends: η, δ, loss, sharpness 2.5 (a² + b²) of the minimum (flattest: 5), |a² - b²| left")
    for (rate, delta), run in found["chains"].items():
        a, b = run.positions[0, -1].T
        first = run.positions[0, 0].T
        left = np.mean(np.abs(a**2 - b**2)) / np.mean(np.abs(first[0] ** 2 - first[1] ** 2))
        mean = np.mean(landscape().loss(run.positions[0, -1]))
        print(f"  {rate:5.2f} {delta:5.2f}  {mean:9.2e}  {2.5 * np.mean(a**2 + b**2):8.4f}  {left:8.4f}")
    leaving = found["exits"]
    print(f"leaving the disc of radius {NEAR.radius} round (1, 1):")
    print(f"  δ = 0: {leaving['stays']:.4f} of SGD's paths from (1.2, 1.2) are inside at t = 20; {leaving['said']}")
    for delta, answer in leaving["pde"].items():
        low, high = leaving["chain"][delta].interval[0]
        print(
            f"  δ = {delta:4.2f}: mean exit time {answer.mean[0]:8.3f} ± {answer.error[0, 0]:.3f}, "
            f"noisy SGD {leaving['chain'][delta].mean[0]:8.3f} ({low:.3f} to {high:.3f})"
        )


def draw_collapse(found: dict[str, Any], path: Path) -> None:
    """Draw the density at three times with the curve of minima, and the eigenvalues of Q on the way to it."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.0, 4.2), layout="constrained", dpi=130)
    panels = figure.subplots(1, 4)
    curve = np.linspace(0.45, 3.0, 200)
    chosen = np.unique(np.linspace(0, len(found["pictures"]) - 1, 3).astype(int))
    records = found["run"].records[-len(found["pictures"]) :]
    for panel, k in zip(panels, chosen, strict=False):
        a, b, density = found["pictures"][k]
        shown = panel.pcolormesh(a, b, np.clip(density, 0, None), norm=PowerNorm(0.5, vmin=0), cmap="magma_r",
                                 shading="gouraud", rasterized=True)  # fmt: skip
        figure.colorbar(shown, ax=panel, label="density", location="bottom", shrink=0.9)
        panel.plot(curve, 1 / curve, color="#0072B2", linewidth=1.2, label="ab = 1: loss 0, Q = 0")
        panel.plot(found["line"][:, 0], found["line"][:, 1], ":", color="0.3", label="way of the right panel")
        panel.set(xlabel="a", ylabel="b", xlim=(a[0], a[-1]), ylim=(b[0], b[-1]), aspect="equal",
                  title=f"t = {records[k].t:g}")  # fmt: skip
    panels[0].legend(fontsize=7, loc="upper right")
    distance = np.abs(found["line"].prod(axis=1) - 1)
    values = found["spectrum"].eigenvalues
    panels[3].loglog(distance[:-1], values[:-1, 1], "o-", color="#D55E00", label="larger eigenvalue of Q")
    panels[3].loglog(distance[:-1], landscape().loss(found["line"][:-1]), "^-", color="#009E73", label="loss")
    panels[3].set(xlabel="|ab - 1|", title="rank Q = 1, but 0 on the curve", xticks=[1e-3, 1e-2, 1e-1, 1.0])
    panels[3].legend(fontsize=7)
    figure.savefig(path)


def draw_selection(found: dict[str, Any], path: Path) -> None:
    """Draw how flat the minima are in which SGD ends, and exit times against the extra noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained", dpi=130)
    left, right = figure.subplots(1, 2)
    runs = found["chains"]
    for ((rate, delta), run), colour in zip(runs.items(), ("0.6", "#0072B2", "#009E73", "#D55E00"), strict=True):
        a, b = run.positions[0, -1].T
        left.hist(2.5 * (a**2 + b**2), np.linspace(4.5, 14, 58), density=True, histtype="step", color=colour,
                  linewidth=1.6, label=rf"$\eta={rate:g}$, $\delta={delta:g}$")  # fmt: skip
    left.axvline(5, color="black", linestyle=":", label="flattest minimum")
    left.set(xlabel=r"curvature $2.5\,(a^2+b^2)$ across the curve", ylabel="density of SGD's final points",
             title="where along the curve SGD ends")  # fmt: skip
    left.legend(fontsize=8)
    leaving = found["exits"]
    deltas = np.array(list(leaving["pde"]))
    right.plot(deltas, [a.mean[0] for a in leaving["pde"].values()], "-", color="#D55E00", label="diffusion (PDE)")
    samples = leaving["chain"].values()
    half = [np.diff(s.interval[0])[0] / 2 for s in samples]
    right.errorbar(deltas, [s.mean[0] for s in samples], half, fmt="o", color="#0072B2", capsize=3,
                   label="noisy SGD, 95 %")  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel=r"extra noise $\delta$", ylabel="mean exit time (one step lasts η)",
              xticks=deltas, xticklabels=[f"{delta:g}" for delta in deltas],
              yticks=[20, 50, 100, 200], yticklabels=["20", "50", "100", "200"],
              title=r"from (1, 1) out of a disc; infinite at $\delta=0$")  # fmt: skip
    right.minorticks_off()
    right.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)

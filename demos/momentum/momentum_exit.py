"""How long momentum SGD stays in a well: its kinetic equation, the chain itself, and plain SGD with η/(1 - μ).

The process leaves {-2 < w < 0} at w = 0 with v > 0 and at w = -2 with v < 0; on the other halves of these sides nothing
is imposed. Friction g = (1 - μ)/√η and noise D = √η Q/(2b) are held while the step √η goes to zero, so that the chain
z ← μz - ηg_B, w ← w + z has one limit. With much friction momentum SGD is SGD with the learning rate η/(1 - μ): the
diffusion with ε² = D/g, whose time is g times as short.
Run: python momentum_exit.py, or mpirun -n 2 python momentum_exit.py. Results: results/momentum/momentum_exit.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp
from fpsolve.model.process import formula_landscape

LOSS, LEFT, RIGHT, START = "(w**2 - 1)**2/4", -2.0, 0.0, -1.0
TEMPERATURE = 0.15
#: √η, the time of one step.
STEPS = (0.4, 0.2, 0.1, 0.05)
FRICTIONS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def kinetic(friction: float) -> Any:
    """Return ``dW = V dt, dV = -(L' + gV) dt + sqrt(2D) dB`` with D = gT."""
    force = f"w - w**3 - {friction!r}*v"
    noise = [["0", "0"], ["0", repr(friction * TEMPERATURE)]]
    return fp.diffusion_process(["v", force], noise, ["w", "v"])


def chain(friction: float, step: float) -> Any:
    """Return momentum SGD with this friction, D = gT and η = step²: μ = 1 - g√η, Q = 2D/√η."""
    landscape = formula_landscape(LOSS, [[repr(2 * friction * TEMPERATURE / step)]], ["w"])
    return fp.sgd_chain(landscape, step**2, momentum=1 - friction * step)


def main(
    comm: MPI.Comm,
    out: Path = Path("results/momentum"),
    steps: tuple[float, ...] = STEPS,
    frictions: tuple[float, ...] = FRICTIONS,
    paths: int = 4000,
    tolerance: float = 2e-3,
) -> dict[str, Any]:
    """Compute, print and draw; return the findings. Collective."""
    well = fp.Interval(LEFT, RIGHT)
    slow = fp.mean_exit_time(fp.SGD(LOSS, variables=["w"], epsilon2=TEMPERATURE), well, comm=comm, starts=[[START]],
                             tolerance=1e-6)  # fmt: skip
    answers, small = {}, {}
    for g in sorted({1.0, *frictions}):
        box = fp.kinetic_domain(kinetic(g), LEFT, RIGHT)
        answers[g] = fp.mean_exit_time(kinetic(g), box, comm=comm, starts=[(START, 0.0)], tolerance=tolerance)
        small[g] = fp.simulate_exit(chain(g, steps[-1]), well, [[START]], comm=comm, paths=paths, seed=1)
    runs = {h: fp.simulate_exit(chain(1.0, h), well, [[START]], comm=comm, paths=4 * paths, seed=2) for h in steps}
    found = {
        "overdamped": float(slow.mean[0]), "kinetic": answers, "by_friction": small, "by_step": runs,
        "truncation": fp.truncation_effect(answers[1.0]), "field": field(answers[1.0]),
    }  # fmt: skip
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw(found, out / "momentum_exit.png")
    return found


def field(answer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return w, v and u on a grid. Collective."""
    (left, bottom), (right, top) = answer.domain.lower, answer.domain.upper
    w, v = np.linspace(left, right, 161), np.linspace(bottom, top, 221)
    points = np.stack(np.meshgrid(w, v), axis=-1).reshape(-1, 2)
    return w, v, answer.at(points).reshape(len(v), len(w))


def table(found: dict[str, Any]) -> None:
    """Print exit times in kinetic time, one step lasts √η."""
    answer = found["kinetic"][1.0]
    print(f"friction 1, temperature D/g = {TEMPERATURE}: mean exit time from ({START}, 0), time √η per step")
    change = found["truncation"]
    print(
        f"  kinetic equation   {answer.mean[0]:9.4f} ± {answer.error[0, 0]:.4f}, |v| < {answer.domain.upper[1]:.3f}; "
        f"velocities twice as far: change {change.change[0, 0]:.4f} (error of both {change.error[0, 0]:.4f})"
    )
    print("      √η     chain   95 % interval        in steps   chain/kinetic")
    for h, run in found["by_step"].items():
        low, high = run.interval[0]
        print(
            f"  {h:6.3f} {run.mean[0]:9.3f}   {low:.3f} to {high:.3f} {run.mean[0] / h:12.1f} "
            f"{run.mean[0] / answer.mean[0]:12.4f}"
        )
    last = min(found["by_step"])
    print(f"       g   kinetic   chain, √η = {last:g}      SGD with η/(1-μ)   kinetic/SGD")
    for g, answer in found["kinetic"].items():
        run, plain = found["by_friction"][g], g * found["overdamped"]
        half = (run.interval[0, 1] - run.interval[0, 0]) / 2
        print(
            f"  {g:6.2f} {answer.mean[0]:9.3f} {run.mean[0]:9.3f} ± {half:6.3f} {plain:20.3f} "
            f"{answer.mean[0] / plain:14.4f}"
        )


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw u(w, v) with the outgoing parts, exit times against √η and against g."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.0, 4.8), layout="constrained", dpi=130)
    picture, middle, right = figure.subplots(1, 3, width_ratios=[1.0, 1.15, 1.15])
    w, v, u = found["field"]
    answer, slow = found["kinetic"][1.0], found["overdamped"]
    shown = picture.pcolormesh(w, v, np.clip(u, 0, None), shading="gouraud", cmap="viridis", rasterized=True)
    figure.colorbar(shown, ax=picture, label=r"mean exit time $u(w,v)$  (time; one step lasts $\sqrt{\eta}$)")
    picture.contour(w, v, u, levels=np.linspace(0.1, 0.9, 5) * np.nanmax(u), colors="white", linewidths=0.7)
    for x, end in ((w[0], v[0]), (w[-1], v[-1])):
        picture.plot([x, x], [0, end], color="#D55E00", linewidth=5, solid_capstyle="butt", clip_on=False)
    picture.plot([], [], color="#D55E00", linewidth=5, label="leaves here (u = 0)")
    picture.plot([START], [0], "o", color="white", markeredgecolor="black", label="start")
    picture.legend(fontsize=8, loc="upper left")
    picture.set(xlabel="position w", ylabel="velocity v", title="friction g = 1", xticks=np.linspace(w[0], w[-1], 5))

    steps = np.array(list(found["by_step"]))
    means = np.array([run.mean[0] for run in found["by_step"].values()])
    bars = np.array([np.diff(run.interval[0])[0] / 2 for run in found["by_step"].values()])
    middle.errorbar(steps, means, bars, fmt="o", color="#0072B2", capsize=3, label="momentum chain, 95 %")
    middle.axhline(answer.mean[0], color="#D55E00", label="kinetic equation")
    middle.axhline(slow, color="0.4", linestyle="--", label=r"diffusion of SGD with $\eta/(1-\mu)$")
    middle.set(xlabel=r"step $\sqrt{\eta}$ at fixed friction $g = (1-\mu)/\sqrt{\eta} = 1$",
               ylabel=f"mean exit time from ({START:g}, 0)", xlim=(0, 1.1 * max(steps)), ylim=(0, None),
               title="the chain tends to the kinetic equation")  # fmt: skip
    middle.legend(fontsize=8, loc="lower left")

    g = np.array(list(found["kinetic"]))
    exact = np.array([a.mean[0] for a in found["kinetic"].values()]) / (g * slow)
    runs = list(found["by_friction"].values())
    ratio = np.array([run.mean[0] for run in runs]) / (g * slow)
    bars = np.array([np.diff(run.interval[0])[0] / 2 for run in runs]) / (g * slow)
    right.plot(g, exact, "-", color="#D55E00", label="kinetic equation")
    right.errorbar(g, ratio, bars, fmt="o", color="#0072B2", capsize=3,
                   label=rf"momentum chain, $\sqrt{{\eta}}={min(steps):g}$, 95 %")  # fmt: skip
    right.axhline(1, color="0.4", linestyle="--", label=r"diffusion of SGD with $\eta/(1-\mu)$")
    right.set_xscale("log", base=2)
    right.set(xlabel=r"friction $g = (1-\mu)/\sqrt{\eta}$", ylabel=r"mean exit time / that of SGD with $\eta/(1-\mu)$",
              xticks=g, xticklabels=[f"{x:g}" for x in g], ylim=(0, None),
              title="with much friction, momentum is a rate")  # fmt: skip
    right.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)

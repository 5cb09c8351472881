"""Examples 1-3 of the paper: which hypotheses hold, with which constants, and which bounds result.

Every constant is proven by interval arithmetic. Also: (8) as printed is not an upper bound.
Run: python paper_examples.py, or mpirun -n 2 python paper_examples.py. Results: results/paper_examples/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

import fpsolve as fp

EPSILON2 = 0.5
DISC = fp.Ball((0.0, 0.0), 1.0)
QUESTIONS: dict[str, tuple[str, Any]] = {
    "1: |x|⁴/4": ("(x**2 + y**2)**2/4", DISC),
    "2: exp(x) + y²/2": ("exp(x) + y**2/2", DISC),
    **{f"3: x²y²/2, |y| < {k}": ("x**2*y**2/2", fp.Box((-1.0, -float(k)), (1.0, float(k)))) for k in (1, 2, 4)},
}


def main(
    comm: MPI.Comm, out: Path = Path("results/paper_examples"), budget: float = 4.0, tolerance: float = 1e-3
) -> dict[str, Any]:
    """Compute, print and draw; return the findings by example. Collective."""
    found: dict[str, Any] = {}
    line = np.column_stack([np.linspace(-1, 1, 81), np.zeros(81)])
    for name, (loss, domain) in QUESTIONS.items():
        process = fp.SGD(loss=loss, covariance="identity", epsilon2=EPSILON2)
        result = fp.mean_exit_time(process, domain, comm=comm, starts=[(0.0, 0.0)], tolerance=tolerance)
        bounds = comm.bcast(fp.bounds.all_bounds(process, domain, budget=budget) if comm.rank == 0 else None)
        violated = fp.compare(result, bounds).violated
        found[name] = {"result": result, "bounds": bounds, "violated": violated, "line": result.at(line)}
    # the counterexample to (8) as printed: L = x²/2, Q = 1, ε² = 1 on (-1, 1)
    process = fp.SGD(loss="x**2/2", variables=("x",), epsilon2=1.0)
    interval = fp.Interval(-1.0, 1.0)
    result = fp.mean_exit_time(process, interval, comm=comm, starts=[[0.0]], tolerance=1e-8)
    pointwise, printed = fp.bounds.paper_bounds(process, interval)[1], fp.bounds.printed_upper(process, interval, 0.9)
    found["printed"] = {"result": result, "pointwise": pointwise, "printed": printed, "line": result.at(line[:, :1])}
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        table(found)
        draw(found, line, out / "paper_examples.png")
    return found


def table(found: dict[str, Any]) -> None:
    """Print each example, its bounds at the origin and the proven constants."""
    for name in QUESTIONS:
        result = found[name]["result"]
        print(f"Example {name}: u(0) = {result.mean[0]:.5f} ± {result.error[0, 0]:.0e}")
        for b in found[name]["bounds"]:
            constants = ", ".join(f"{k} {c.value:.4g}" for k, c in b.hypotheses.items())
            value = f"{b.evaluate(result.starts)[0]:10.5g}" if b.verified else "   no bound"
            print(f"  {b.name:>5} {b.kind} {value}   {constants}  {b.reason}")
    x, case = np.zeros((1, 1)), found["printed"]
    values = [case["result"].mean[0], case["pointwise"].evaluate(x)[0], case["printed"].evaluate(x)[0]]
    print("L = x²/2, ε² = 1 on (-1, 1): u(0) = {:.4f}, pointwise form {:.4f}, (8) as printed {:.4f}".format(*values))


def draw(found: dict[str, Any], line: np.ndarray, path: Path) -> None:
    """Draw u between its bounds in example 1, how Λ grows in example 3, and the failure of (8) as printed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 3.6), layout="constrained", dpi=150)
    first, third, printed = figure.subplots(1, 3)
    colours = {"lower": "#009E73", "upper": "#D55E00"}
    case = found["1: |x|⁴/4"]
    first.plot(line[:, 0], case["line"], color="#0072B2", linewidth=2, label="u")
    for b in case["bounds"]:
        style = "--" if b.name == "paper" else ":"
        first.plot(line[:, 0], b.evaluate(line), style, linewidth=2, color=colours[b.kind], label=f"{b.name} {b.kind}")
    first.set(xlabel=r"$x_1$", ylabel="u", ylim=(0, None), title="(a) Example 1, p = 4")
    cases, heights = [found[name] for name in QUESTIONS if name.startswith("3")], (1, 2, 4)
    third.plot(heights, [c["bounds"][3].hypotheses["Lambda"].value for c in cases], "ks-", label=r"$\Lambda$ (sharp)")
    third.plot(heights, [c["result"].mean[0] for c in cases], "o-", color="#0072B2", label="u(0)")
    for k, name in ((1, "paper upper"), (3, "sharp upper")):
        values = [c["bounds"][k].evaluate(c["result"].starts)[0] for c in cases]
        third.plot(heights, values, "--" if k == 1 else ":", marker="^", color=colours["upper"], label=name)
    third.set(xlabel="K, half the height of the box", ylabel=r"$\Lambda$, time at 0", yscale="log", xticks=heights)
    third.set_title("(b) Example 3")
    case, x = found["printed"], line[:, :1]
    printed.plot(x, case["line"], color="#0072B2", linewidth=2, label="u")
    printed.plot(x, case["pointwise"].evaluate(x), "--", color=colours["upper"], label="pointwise form")
    value = case["printed"].evaluate(x)
    printed.plot(x, np.where(np.isfinite(value), value, np.nan), color="black", label="(8) as printed, r = 0.9")
    printed.set(xlabel="x", ylim=(0, None), title=r"(c) $L = x^2/2$, $\varepsilon^2 = 1$")
    for axes in (first, third, printed):
        axes.legend(fontsize=7.5)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)

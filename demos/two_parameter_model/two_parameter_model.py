"""How long SGD stays near the spurious minimum of the two-parameter model, by learning rate (batch size 1).

Where the answer is a few steps only (large rates) a diffusion is no good model of SGD.
Loss, gradient covariance and their derivatives come from the 600 samples in data.csv (made by make_data.py).
Run: python two_parameter_model.py, or mpirun -n 2 python two_parameter_model.py. Results:
results/two_parameter_model/.
"""

from __future__ import annotations

from pathlib import Path

from mpi4py import MPI

import numpy as np

import fpsolve as fp

DATA = Path(__file__).with_name("data.csv")
MINIMUM = (-5.63687, 2.96346)
DISC = fp.Ball(MINIMUM, 1.5)
COLUMNS = ("rate", "mean", "error", "steps", "lower", "upper", "violated")


def sgd(rate: float) -> fp.Process:
    """Return SGD with batch size 1 on the samples: dX = -∇L dt + sqrt(2ε²Q) dW, ε² = η/2, Q their covariance."""
    data = fp.read_csv(DATA, ["x", "y"])
    model = "a**2 + x*(1 + b/(1 + exp(-a*x)))"
    loss = fp.sample_landscape(model, ["a", "b"], ["x"], "y", "(model - y)**2/2", data)
    return fp.sgd_process(loss, fp.noise_level(learning_rate=rate, batch_size=1))


def main(
    comm: MPI.Comm,
    out: Path = Path("results/two_parameter_model"),
    rates: tuple[float, ...] = (0.004, 0.002, 0.001, 0.0006, 0.0004),
    tolerance: float = 1e-3,
    budget: float = 5.0,
) -> list[dict[str, float]]:
    """Compute, print and draw; return the rows of the table. Collective."""
    process, rows = sgd(max(rates)), []
    for rate in rates:
        process = fp.with_epsilon2(process, rate / 2)
        result = fp.mean_exit_time(process, DISC, comm=comm, starts=[MINIMUM], tolerance=tolerance)
        # the constants are proven on rank 0 within the time budget (in seconds)
        bounds = comm.bcast(found(process, budget) if comm.rank == 0 else None)
        values = {kind: [b.evaluate(result.starts)[0] for b in bounds if b.kind == kind] for kind in ("lower", "upper")}
        numbers = (rate, result.mean[0], result.error[0, 0], result.mean[0] / rate, max(values["lower"], default=0.0),
                   min(values["upper"], default=np.inf), fp.compare(result, bounds).violated)  # fmt: skip
        rows.append(dict(zip(COLUMNS, numbers, strict=True)))
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        print("  ".join(f"{name:>10}" for name in COLUMNS))
        for row in rows:
            print("  ".join(f"{value:>10.5g}" for value in row.values()))
        draw(rows, out / "learning_rates.png")
    return rows


def found(process: fp.Process, budget: float) -> list[fp.bounds.Bound]:
    """Return all bounds that are proven; not collective."""
    return [b for b in fp.bounds.all_bounds(process, DISC, budget=budget) if b.verified]


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Draw the mean exit time and the number of steps against 1/η."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.9), layout="constrained", dpi=150)
    time, steps = figure.subplots(1, 2)
    values = {key: np.array([row[key] for row in rows]) for key in COLUMNS}
    inverse = 1 / values["rate"]
    upper = np.minimum(values["upper"], 1e99)  # inf where the time budget was too short to prove one
    time.fill_between(inverse, values["lower"], upper, color="#56B4E9", alpha=0.3, linewidth=0,
                      label="between the proven bounds (upper one partly off scale)")  # fmt: skip
    time.plot(inverse, values["mean"], "o-", color="#0072B2", label=r"E$\,\tau$, computed")
    time.set(yscale="log", xlabel=r"$1/\eta$", ylabel=r"mean exit time (one step lasts $\eta$)")
    time.set_ylim(0.2 * values["lower"].min(), min(1e4 * values["mean"].max(), 5 * upper.max()))
    time.legend(fontsize=8, loc="upper left")
    steps.plot(inverse, values["steps"], "o-", color="#0072B2")
    for x, n in zip(inverse, values["steps"], strict=True):
        steps.annotate(f"{n:,.0f}", (x, n), xytext=(-6, 5), ha="right", textcoords="offset points", fontsize=8)
    steps.set(yscale="log", xlabel=r"$1/\eta$", ylabel=r"mean number of steps, E$\,\tau/\eta$")
    steps.margins(x=0.14, y=0.1)
    figure.savefig(path)


if __name__ == "__main__":
    main(MPI.COMM_WORLD)

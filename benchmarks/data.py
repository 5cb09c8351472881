"""Models and data: means over 1e5 samples × points, memory and threads; Python functions; files of 1e6 rows."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import COMM, say, table

import fpsolve as fp

MODEL = "a**2 + x*(1 + b/(1 + exp(-a*x)))"
LARGE = 100_000
ROWS = 1_000_000


def main() -> None:
    """Run all parts, on rank 0: nothing here is parallel over ranks."""
    if COMM.rank == 0:
        sizes()
        functions()
        files()


def made(samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x": rng.uniform(-15, 15, samples), "y": rng.normal(size=samples)}


def landscape(samples: int):
    return fp.sample_landscape(MODEL, ["a", "b"], ["x"], "y", None, made(samples))


def points(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-5, 5, (count, 2))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak() -> float:
    """Return the largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sizes() -> None:
    """∇L, D²L, Q and div Q together at few points of many samples and many points of few; runs alternate."""

    def rows():
        for samples, count in ((LARGE, LARGE // 200), (LARGE // 200, LARGE)):
            means, x, before = landscape(samples), points(count), peak()
            spent: dict[str, list[float]] = {"1": [], "2": []}
            for _ in range(3):
                for threads, list_ in spent.items():
                    os.environ["FPSOLVE_THREADS"] = threads
                    list_.append(seconds(lambda means=means, x=x: means.statistics(x)))
            best = {threads: min(list_) for threads, list_ in spent.items()}
            each = [1e9 * best[threads] / samples / count for threads in spent]
            whole = [LARGE**2 * e / 1e9 / 60 for e in each]
            yield (
                f"{samples:,} × {count:,}", *(f"{e:.1f}" for e in each), f"{each[0] / each[1]:.2f}",
                *(f"{w:.0f}" for w in whole), f"{before:.0f}", f"{peak():.0f}",
            )  # fmt: skip
        os.environ.pop("FPSOLVE_THREADS")

    header = ["samples × points", "ns/pair, 1 thread", "2 threads", "ratio", "1e5 × 1e5: min, 1 thread", "2 threads"]
    say(f"load {os.getloadavg()[0]:.1f}")
    table([*header, "MB before", "MB at peak"], rows(), "all means of the two-parameter model, best of 3")
    say(f"results at 1e5 points: {LARGE * (2 + 4 + 4 + 2) * 8 / 1e6:.0f} MB")


def functions() -> None:
    """The same loss as a formula, as functions with given derivatives, and by JAX."""
    import jax.numpy as jnp

    data, x = made(2000), points(2000)

    def parts(theta, u, y):
        a, b = theta
        s = 1 / (1 + np.exp(-a * u))
        first = s * (1 - s)
        model = 2 * a + b * u**2 * first, u * s
        second = 2 + b * u**3 * first * (1 - 2 * s), u**2 * first
        return a**2 + u * (1 + b * s) - y, model, second

    def gradient(theta, u, y):
        r, (ma, mb), _ = parts(theta, u, y)
        return r * ma, r * mb

    def hessian(theta, u, y):
        r, (ma, mb), (maa, mab) = parts(theta, u, y)
        return ma * ma + r * maa, ma * mb + r * mab, mb * mb

    def for_jax(theta, u, y):
        return (theta[0] ** 2 + u * (1 + theta[1] / (1 + jnp.exp(-theta[0] * u))) - y) ** 2 / 2

    def rows():
        for name, means in (
            ("formula", fp.sample_landscape(MODEL, ["a", "b"], ["x"], "y", None, data)),
            ("functions", fp.callable_landscape(
                lambda t, u, y: parts(t, u, y)[0] ** 2 / 2, data, ["a", "b"], gradient, hessian)),
            ("JAX", fp.callable_landscape(for_jax, data, ["a", "b"])),
        ):  # fmt: skip
            first = seconds(lambda means=means: means.statistics(x[:50]))
            best = min(seconds(lambda means=means: means.statistics(x)) for _ in range(3))
            yield name, f"{first:.2f}", f"{1e9 * best / len(x) / 2000:.1f}"

    header = ["loss as", "s, first call (50 points)", "ns/pair"]
    table(header, rows(), f"2,000 × 2,000, {os.environ.get('OMP_NUM_THREADS', '?')} thread(s), best of 3")


def files() -> None:
    """A million rows: reading, and all means at ten points."""
    data = made(ROWS)
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder, "data.csv"), Path(folder, "data.npz")
        np.savetxt(text, np.column_stack([data["x"], data["y"]]), "%.17g", ",", header="x,y", comments="")
        np.savez(binary, **data)
        before = peak()
        read = [seconds(lambda path=path: fp.read_samples(path, ["x", "y"])) for path in (binary, text)]
    means = fp.sample_landscape(MODEL, ["a", "b"], ["x"], "y", None, data)
    answer = seconds(lambda: means.statistics(points(10)))
    table(
        ["rows", "NPZ: s", "CSV: s", "all means at 10 points: s", "MB before", "MB at peak"],
        [(f"{ROWS:,}", *(f"{s:.2f}" for s in (*read, answer)), f"{before:.0f}", f"{peak():.0f}")],
        "files",
    )

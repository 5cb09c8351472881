"""Write data.csv: 20 noisy copies of the two-parameter model at each of 30 inputs (mathematics.md section 6).

The model is f(a, b; x) = a² + x (1 + b/(1 + exp(-a x))) with the true parameters (1, 5); x runs over 30
equispaced points of [-15, 15] and the noise is uniform on (-3, 3). The thesis drew its own noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np


def noisy_data() -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets, 600 of each; the copies of one input follow one another."""
    x = np.linspace(-15.0, 15.0, 30)
    noise = np.random.default_rng(0).uniform(-3.0, 3.0, (30, 20))
    y = 1.0 + x * (1.0 + 5.0 / (1.0 + np.exp(-x)))
    return np.repeat(x, 20), (y[:, None] + noise).ravel()


def csv_text() -> str:
    """Return the file's text; the decimal numbers read back to the same floats."""
    rows = zip(*(column.tolist() for column in noisy_data()), strict=True)
    return "x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in rows)


if __name__ == "__main__":
    Path(__file__).with_name("data.csv").write_text(csv_text(), encoding="ascii")

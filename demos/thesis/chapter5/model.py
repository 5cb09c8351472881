"""The thesis' model on this repository's data, its critical points, and noise proportional to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fpsolve as fp
from fpsolve.model.covariance_models import covariance_model
from fpsolve.model.process import Landscape, formula_landscape, noise_level, sgd_process
from fpsolve.model.samples import SampleLandscape
from fpsolve.simulate.motion import EulerMaruyama
from fpsolve.theory.critical import CriticalPoint, critical_points

DATA = Path(__file__).resolve().parents[2] / "two_parameter_model" / "data.csv"
FORMULA = "a**2 + x*(1 + b/(1 + exp(-a*x)))"
#: Where critical points are looked for and the landscape is drawn.
WINDOW = ((-9.0, -3.0), (4.0, 9.0))
#: The Hessian of Σ r² is this many times that of L = (1/2N) Σ r².
SUM_OF_SQUARES = 1200


@dataclass(frozen=True)
class Model:
    """Loss and noise, where ∇L vanishes, and the noise 2L(x)H* in place of Q.

    Attributes
    ----------
    landscape : SampleLandscape
        The 600 samples.
    true, spurious, saddle : CriticalPoint
    complete : bool
        Whether it is proved that `WINDOW` holds no other critical point.
    like_true, like_spurious : Landscape
        The same L with Q = 2L H*, H* the Hessian at that minimum.
    """

    landscape: SampleLandscape
    true: CriticalPoint
    spurious: CriticalPoint
    saddle: CriticalPoint
    complete: bool
    like_true: Landscape
    like_spurious: Landscape


def two_parameter_model() -> Model:
    """Return the model; the search for critical points is deterministic and the same on every rank."""
    landscape = landscape_of(fp.read_csv(DATA, ["x", "y"]))
    found = critical_points(landscape, WINDOW)
    true, spurious = found.minima[:2]
    loss = formula_landscape(loss_formula(landscape.table), "identity", landscape.variables)
    like = [covariance_model(loss, "loss-proportional", at=point.x) for point in (true, spurious)]
    return Model(landscape, true, spurious, found.saddles[0], found.complete, *like)


def loss_formula(table: np.ndarray) -> str:
    """Return L as a formula in a and b, one term per input: the mean of r² is (mean r)² + the targets' variance."""
    inputs = np.unique(table[0])
    targets = [table[1, table[0] == x] for x in inputs]
    if len({len(t) for t in targets}) != 1:
        raise ValueError("every input needs as many targets")
    terms = [
        f"(a**2 + ({x!r})*(1 + b/(1 + exp(-({x!r})*a))) - ({float(t.mean())!r}))**2"
        for x, t in zip(inputs.tolist(), targets, strict=True)
    ]
    rest = float(np.mean([t.var() for t in targets]))
    return f"(({' + '.join(terms)})/{len(inputs)} + {rest!r})/2"


def sde(landscape: Landscape, rate: float, batch: int, factor: float = 1.0, parts: int = 1) -> EulerMaruyama:
    """Return Euler-Maruyama with step η/parts for dθ = -∇L dt + sqrt(factor (η/B) Q) dW; (4.21) for Q = 2L H*."""
    process = sgd_process(landscape, noise_level(epsilon2=factor * rate / (2 * batch)))
    return EulerMaruyama(process, rate / parts, bridge=False)


def landscape_of(data: dict[str, np.ndarray]) -> SampleLandscape:
    """Return (4.1): L = (1/2N) Σ (f - y)²."""
    return fp.sample_landscape(FORMULA, ["a", "b"], ["x"], "y", "(model - y)**2/2", data)


def value(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the model f(a, b; x), (5.1)."""
    a, b = theta
    return a**2 + x * (1 + b / (1 + np.exp(-a * x)))

"""Time steps of linear equations by rational approximations of the exponential with one real pole.

``e^z ≈ Σ_j b_j (1 - γz)^{-j}``: the restricted Padé approximations, in other words the stability functions of
SDIRK methods (Nørsett 1974; Hairer and Wanner II, section IV.6). A linear equation needs nothing else of such a
method: k solves with one and the same matrix, and the result is exact up to order k. Those used are L-stable.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import comb, factorial

import numpy as np

#: Poles of the L-stable approximations of order k with k solves (Hairer and Wanner II, table IV.6.4).
POLES = {1: 1.0, 2: 1.0 - np.sqrt(0.5), 3: 0.43586652150845899942, 4: 0.57281606248213}


@dataclass(frozen=True)
class Rational:
    """R(z) = Σ_j weights[j] (1 - pole z)^{-j}.

    Attributes
    ----------
    name : str
    order : int
        R(z) = e^z + O(z^{order+1}).
    pole : float
        γ; each solve is with ``M + γ dt B``.
    weights : tuple of float
        b_0 … b_k; b_0 = R(∞) = 0 for L-stable ones.
    error : tuple of float
        Weights of R - R̂ with R̂ the approximation of order k-1 that leaves out the last solve; empty if there is none.
    """

    name: str
    order: int
    pole: float
    weights: tuple[float, ...]
    error: tuple[float, ...] = ()

    @property
    def solves(self) -> int:
        """The number of linear systems in a step."""
        return len(self.weights) - 1

    @property
    def average(self) -> tuple[float, ...]:
        """Return weights c_j of v_1 … v_k with ``M(y_new - y) = -dt B Σ c_j v_j``: M(v_j - v_{j-1}) = -γ dt B v_j."""
        tail = np.cumsum(np.array(self.weights[1:])[::-1])[::-1]
        return tuple(float(self.pole * t) for t in tail)

    def __call__(self, z: complex) -> complex:
        """Return R(z)."""
        return sum(b * (1 - self.pole * z) ** -j for j, b in enumerate(self.weights))


@cache
def l_stable(order: int) -> Rational:
    """Return the L-stable approximation of order 1 to 4 with as many solves."""
    k, pole = order, POLES[order]
    # coefficients of z^m in (1 - γz)^{-j} are binom(j+m-1, m) γ^m; orders 0 … k-1 fix b_1 … b_k
    conditions = np.array([[comb(j + m - 1, m) * pole**m for j in range(1, k + 1)] for m in range(k)])
    weights = np.linalg.solve(conditions, [1 / factorial(m) for m in range(k)])
    # both are of order k-1, so they differ by a multiple of ((1-γz)^{-1} - 1)^k
    error = [weights[-1] * (-1) ** (k - j) * comb(k, j) for j in range(k + 1)]
    return Rational(f"L-stable, order {k}", k, float(pole), (0.0, *map(float, weights)), tuple(map(float, error)))


#: Crank-Nicolson: one solve per step. Not L-stable, so it starts with `HALF_STEPS` (Rannacher 1984).
CRANK_NICOLSON = Rational("Crank-Nicolson with Rannacher start", 2, 0.5, (-1.0, 2.0))
#: A step as two implicit Euler steps of half the length: the same matrix as Crank-Nicolson.
HALF_STEPS = Rational("two half steps of implicit Euler", 1, 0.5, (0.0, 0.0, 1.0))
#: Steps of Crank-Nicolson replaced by half steps at the start.
STARTING_STEPS = 2

"""Chebyshev polynomials near f and a on a box, with proved errors.

Interpolation in the tensor product of N = n+1 Chebyshev points (the zeros of T_N) for each variable. Polynomials are
reproduced, so their error is 0. For other functions, with I_k the interpolation in the variable k and Λ_k its Lebesgue
constant, ``Λ <= (2/π) log N + 1``,

    |g - I_1 … I_d g| <= |g - I_1 g| + Λ_1 |g - I_2 g| + Λ_1 Λ_2 |g - I_3 g|

without the variables in which g is a polynomial, and

    |g - I_k g| <= 4 M ρ^(-n) / (ρ - 1)      if |g| <= M on the filled Bernstein ellipse E_ρ of variable k × the box.

(On E_ρ the coefficients of g have ``|c_j| <= 2 M ρ^(-j)``, and in the nodes T_j, j > n, is plus or minus a T_m, m <= n,
or 0: each term c_j T_j counts at most twice. Trefethen, Approximation Theory and Approximation Practice, Theorem 8.2.)
`surrogate_cover` proves analyticity and M.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flint import arb

from fpsolve.theory.balls import Ball, above
from fpsolve.theory.certified.coefficients import Coefficients, upper_pairs
from fpsolve.theory.certified.surrogate_cover import EllipseBounds, Region, ellipse_bounds
from fpsolve.theory.certified.surrogate_interpolation import interpolants, on_grid

#: Largest degree of non-polynomial entries in each variable, by dimension.
LIMITS = {1: 160, 2: 80, 3: 30}
#: Interpolation may use this many times the degree; the last coefficients are then left out, at a known error.
_OVERSAMPLING = {1: 3.0, 2: 1.6, 3: 1.5}
#: An error above this part of the largest value is no approximation.
_USELESS = 1e-2
_LARGE = (4.5, 6.5, 10.0, 16.0, 32.0, 64.0)
_SMALL = (3.3, 2.6, 2.1, 1.8, 1.55, 1.4, 1.28, 1.2, 1.14, 1.1, 1.07, 1.05, 1.03, 1.02)


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A polynomial ``Σ c_m T_m1(t_1) … T_md(t_d)``, t in [-1, 1]^d, near a function on a box.

    Attributes
    ----------
    shape : tuple of int
        The number of coefficients for each variable.
    coefficients : list of arb
        c, row-major.
    error : arb
        At least the supremum over the box of |function - polynomial| for one polynomial (the interpolant, or a part
        of it) whose coefficients lie in the balls. So the function lies in the polynomial's ball ± error.
    """

    shape: tuple[int, ...]
    coefficients: list[Ball]
    error: Ball

    def __call__(self, t: Sequence[Ball]) -> Ball:
        """Return the polynomial (without the error) at a point t of [-1, 1]^d or over a box of balls."""
        values = self.coefficients
        for n, s in zip(reversed(self.shape), reversed(list(t)), strict=True):
            basis = _chebyshev(n, arb(s))
            values = [
                sum((c * b for c, b in zip(values[k : k + n], basis, strict=True)), arb(0))
                for k in range(0, len(values), n)
            ]
        return values[0]


@dataclass(frozen=True, eq=False)
class Surrogates:
    """Surrogates of f and a on the box from `lower` to `upper`.

    Attributes
    ----------
    lower, upper : tuple of float
    drift : list of Surrogate
        d of them.
    diffusion : list of Surrogate
        d*d of them, row-major; those of (i, j) and (j, i) are the same object.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    drift: list[Surrogate]
    diffusion: list[Surrogate]


def sup(surrogate: Surrogate) -> Ball:
    """Return a bound of the function's modulus on the box, as a ball: Σ|c| + error."""
    return sum((abs(c).upper() for c in surrogate.coefficients), arb(0)) + surrogate.error


def surrogates(
    coefficients: Coefficients,
    lower: Sequence[float],
    upper: Sequence[float],
    relative: float = 1e-14,
    budget_seconds: float = 20.0,
    limit: int | None = None,
) -> Surrogates:
    """Return polynomials near f and a on a box, with proved errors, at flint's current precision.

    Parameters
    ----------
    coefficients : Coefficients
    lower, upper : d floats
        The box.
    relative : float
        Errors aimed at, relative to the largest values of f and of a. They may be larger where `limit` is too small
        or the time is over; what is proved stands in `Surrogate.error`.
    budget_seconds : float
        For the search for ellipses.
    limit : int, optional
        Largest degree in each variable where a function is no polynomial; `LIMITS` by default.

    Raises
    ------
    ValueError
        If the box is empty or unbounded, an entry is not finite on it, or is not proved to be analytic around it.
    """
    lo, hi = tuple(map(float, lower)), tuple(map(float, upper))
    d = coefficients.dimension
    if d not in LIMITS:
        raise ValueError(f"surrogates are made in one, two or three variables, not in {d}")
    if len(lo) != d or len(hi) != d or not all(a < b and math.isfinite(b - a) for a, b in zip(lo, hi, strict=True)):
        raise ValueError(f"surrogates need a bounded box in {d} variables, not {lo} to {hi}")
    degrees = coefficients.degrees
    found: dict[int, Surrogate] = {}
    by_degree: dict[tuple[int, ...], list[int]] = {}
    others = [entry for entry, own in enumerate(degrees) if any(n is None for n in own)]
    for entry, own in enumerate(degrees):
        if entry not in others:
            by_degree.setdefault(tuple(n for n in own if n is not None), []).append(entry)
    for own, entries in by_degree.items():
        for entry, table in interpolants(coefficients, lo, hi, own, entries).items():
            found[entry] = Surrogate(tuple(n + 1 for n in own), table, arb(0))
    if others:
        search = _Analytic(coefficients, lo, hi, others, relative, limit or LIMITS[d], budget_seconds)
        found |= search.surrogates()
    place = {pair: d + k for k, pair in enumerate(upper_pairs(d))}
    diffusion = [found[place[min(i, j), max(i, j)]] for i in range(d) for j in range(d)]
    return Surrogates(lo, hi, [found[i] for i in range(d)], diffusion)


class _Analytic:
    """Interpolants of the entries that are no polynomials."""

    def __init__(
        self,
        coefficients: Coefficients,
        lower: tuple[float, ...],
        upper: tuple[float, ...],
        entries: list[int],
        relative: float,
        limit: int,
        seconds: float,
    ) -> None:
        self.coefficients, self.lower, self.upper = coefficients, lower, upper
        self.entries, self.limit = entries, limit
        self.most = round(_OVERSAMPLING[len(lower)] * limit)
        self.deadline = time.monotonic() + seconds
        degrees = coefficients.degrees
        self.axes = [k for k in range(len(lower)) if any(degrees[entry][k] is None for entry in entries)]
        self.scale = self.largest_values()
        self.tolerance = {entry: relative * scale / 2 for entry, scale in self.scale.items()}
        self.known: dict[int, list[tuple[float, EllipseBounds]]] = {axis: [] for axis in self.axes}

    def largest_values(self) -> dict[int, float]:
        """Return for each entry about the largest value of its kind (drift or diffusion), from a coarse grid."""
        d, names = len(self.lower), self.coefficients.names
        columns = on_grid(self.coefficients, self.lower, self.upper, (9 if d < 3 else 5,) * d)
        largest = []
        for name, column in zip(names, columns, strict=True):
            largest.append(max(above(abs(ball)) for ball in column))  # inf also where there is no number
            if not math.isfinite(largest[-1]):
                raise ValueError(f"{name} is not finite everywhere on the box {self.lower} to {self.upper}")
        kinds = {True: max(largest[:d]), False: max(largest[d:])}
        return {entry: kinds[entry < d] or 1.0 for entry in self.entries}

    def surrogates(self) -> dict[int, Surrogate]:
        """Search ellipses, choose degrees, interpolate."""
        for axis in self.axes:
            self.search(axis)
        shape = tuple(self.degree(axis) for axis in range(len(self.lower)))
        tables = interpolants(self.coefficients, self.lower, self.upper, shape, self.entries)
        result = {}
        for entry, table in tables.items():
            result[entry] = self.trimmed(entry, table, shape, self.error(entry, shape))
            if not result[entry].error < _USELESS * self.scale[entry]:
                raise ValueError(
                    f"{self.coefficients.names[entry]}: polynomials of degree {self.limit} on the box {self.lower} to "
                    f"{self.upper} are proved to be near it up to {above(result[entry].error):.2g} only"
                )
        return result

    def affected(self, axis: int) -> list[int]:
        """Return the entries that are no polynomials in this variable."""
        return [entry for entry in self.entries if self.coefficients.degrees[entry][axis] is None]

    def search(self, axis: int) -> None:
        """Try larger and larger ellipses, then smaller and smaller ones, then others near the best."""
        wanted = self.affected(axis)
        best: dict[int, float] = {}

        def improves(rho: float) -> bool:
            bounds = self.attempt(axis, rho)
            degrees = {entry: self.sufficient(entry, rho, bounds.bounds[entry]) for entry in wanted}
            better = {entry: n for entry, n in degrees.items() if n < best.get(entry, math.inf)}
            best.update(better)
            return bool(better) and time.monotonic() <= self.deadline

        for rho in _LARGE:
            if not improves(rho):
                break
        for rho in _SMALL:
            if not improves(rho) and (len(best) == len(wanted) or time.monotonic() > self.deadline):
                break
        for entry in wanted:
            if entry not in best:
                self.refuse(entry, axis)
        for _ in range(3):
            hardest = max(wanted, key=lambda entry: self.needed(entry, axis))
            best_rho = min(self.known[axis], key=lambda pair: self._cost(hardest, *pair))[0]
            tried = sorted(rho for rho, _ in self.known[axis])
            at = tried.index(best_rho)
            gaps = itertools.pairwise(tried[max(at - 1, 0) : at + 2])
            low, high = max(gaps, key=lambda gap: math.log(gap[1]) / math.log(gap[0]))
            if math.log(high) < 1.1 * math.log(low) or time.monotonic() > self.deadline:
                return
            self.attempt(axis, math.sqrt(low * high))

    def refuse(self, entry: int, axis: int) -> None:
        """Raise the error that an entry is not proved to be analytic."""
        blamed = self.known[axis][-1][1].places[entry] or "its bounds are too large"
        name, variable = self.coefficients.names[entry], self.coefficients.variables[axis]
        box = f"the box {self.lower} to {self.upper}"
        raise ValueError(f"{name} is not proved to be analytic in {variable} around {box}: {blamed}")

    def _cost(self, entry: int, rho: float, bounds: EllipseBounds) -> float:
        return self.sufficient(entry, rho, bounds.bounds[entry])

    def attempt(self, axis: int, rho: float) -> EllipseBounds:
        """Bound the entries on one ellipse."""
        region = Region(self.lower, self.upper, axis, rho)
        bounds = ellipse_bounds(self.coefficients, region, self.affected(axis), deadline=self.deadline)
        self.known[axis].append((rho, bounds))
        return bounds

    def sufficient(self, entry: int, rho: float, bound: float) -> float:
        """Return about the degree (a real number) for which the error bound is within tolerance; inf if none is."""
        if not math.isfinite(bound):
            return math.inf
        share = self.tolerance[entry] / (len(self.axes) * above(_lebesgue(self.most)) ** (len(self.axes) - 1))
        return max(0.0, math.log(max(4 * bound / (rho - 1), 1e-300) / share) / math.log(rho))

    def needed(self, entry: int, axis: int) -> float:
        """Return the smallest sufficient degree over all ellipses tried."""
        return min(self._cost(entry, rho, bounds) for rho, bounds in self.known[axis])

    def degree(self, axis: int) -> int:
        """Return the degree of the interpolation in one variable."""
        exact = [self.coefficients.degrees[entry][axis] for entry in self.entries]
        known = [n for n in exact if n is not None]
        needed = [self.needed(entry, axis) for entry, n in zip(self.entries, exact, strict=True) if n is None]
        return max([*known, *(math.ceil(min(n, self.most)) for n in needed)])

    def error(self, entry: int, degrees: tuple[int, ...]) -> Ball:
        """Return the proved error of the interpolation with these degrees."""
        total, factor = arb(0), arb(1)
        for axis, n in enumerate(degrees):
            if self.coefficients.degrees[entry][axis] is None:
                choices = [
                    4 * arb(bounds.bounds[entry]) / (arb(rho) ** n * (arb(rho) - 1))
                    for rho, bounds in self.known[axis]
                    if math.isfinite(bounds.bounds[entry])
                ]
                total += factor * arb(min(above(choice) for choice in choices))
                factor *= _lebesgue(n)
        return total

    def trimmed(self, entry: int, table: list[Ball], degrees: tuple[int, ...], error: Ball) -> Surrogate:
        """Leave out coefficients beyond a polynomial's degree, which are 0, and small ones, whose sum is an error."""
        array = np.array(table, dtype=object).reshape([n + 1 for n in degrees])
        for axis, own in enumerate(self.coefficients.degrees[entry]):
            if own is not None:
                array = array.take(range(own + 1), axis)
        for axis, own in enumerate(self.coefficients.degrees[entry]):
            if own is None:
                allowed = self.tolerance[entry] / (2 * len(self.axes))
                array, dropped = _without_tail(array, axis, allowed, self.limit + 1)
                error = error + dropped
        return Surrogate(array.shape, list(array.ravel()), arb(above(error)))


def _without_tail(array: np.ndarray, axis: int, allowed: float, most: int) -> tuple[np.ndarray, Ball]:
    """Return at most so many coefficients in one variable, and the sum of the moduli of those left out.

    Further ones are left out as long as the sum is smaller than allowed.
    """
    total, keep = arb(0), array.shape[axis]
    while keep > 1:
        more = total + sum((abs(c).upper() for c in array.take([keep - 1], axis).ravel()), arb(0))
        if keep <= most and not more < allowed:
            break
        total, keep = more, keep - 1
    return array.take(range(keep), axis), total


def _lebesgue(n: int) -> Ball:
    """Return a bound of the Lebesgue constant of n + 1 Chebyshev points."""
    return 2 / arb.pi() * arb(n + 1).log() + 1


def _chebyshev(count: int, t: Ball) -> list[Ball]:
    values = [arb(1), t]
    while len(values) < count:
        values.append(2 * t * values[-1] - values[-2])
    return values[:count]

r"""The spectral gap from below for f = -∇L, a = sI, without flux through the boundary of a bounded convex domain.

The gap γ is the smallest eigenvalue > 0 of -A, ``A = sΔ - ∇L·∇``, with ∂_n u = 0; ρ = e^{-L/s} is invariant.

**Theorem.** Let Ω be a box or a ball, L ∈ C² on its closure, N_1, …, N_d C¹ functions with symmetric matrices as
values, II the second fundamental form (0 on a box's sides, 1/R on a sphere of radius R) and

1. ``D²L + Σ_k (s ∂_kN_k - ∂_kL N_k - s N_k²) >= κ I`` in Ω,
2. ``yᵀ(II I - Σ_k n_k N_k) y >= 0`` on ∂Ω for all y ⊥ n.

Then γ >= κ.

Proof. Let -A u = γ u. u is in H²(Ω), smooth (H³) away from a box's edges, which have codimension 2 and no capacity, so
that parts may be integrated. V = ∇u has V·n = 0. Bochner's formula ``½A|∇u|² = s|D²u|² + VᵀD²L V + V·∇Au`` and
``∂_n ½|∇u|² = -II|V|²`` (differentiate V·n = 0 along V; no term on flat sides) give, times ρ and integrated,

    ``γ∫|V|²ρ = ∫(s|DV|² + VᵀD²L V)ρ + s∮II|V|²ρ``.

For each k, ``0 <= ∫s|∂_kV + N_kV|²ρ``, and ``2∂_kV·N_kV = ∂_k(VᵀN_kV) - Vᵀ∂_kN_kV``; by parts with ``s∂_kρ = -∂_kL ρ``,

    ``∫s|∂_kV|²ρ >= ∫Vᵀ(s∂_kN_k - ∂_kL N_k - sN_k²)Vρ - s∮n_k VᵀN_kVρ``.

The sum over k with 1 and 2 yields ``γ∫|V|²ρ >= κ∫|V|²ρ``, and V is not zero. No reference to whole space is made.

Special cases: N = 0 is Bakry and Émery's bound. ``N_k = -∂_k diag(ψ_1, …, ψ_d)``, weights g_i = e^{ψ_i} (Chen and Wang
in one dimension; intertwinings of Bonnefont and Joulin):

    ``D²L - diag(Aψ_i + s|∇ψ_i|²) >= κ I``;  box: ``∂_nψ_i >= 0`` on the sides across x_j, j ≠ i;
    ball: ``∂_nψ >= -1/R`` with one ψ for all i.

In one dimension there are no y ⊥ n, and with g = e^ψ the condition is ``-s g'' + L' g' + L'' g >= κ g``, g > 0 on the
closed interval. V = u' attains equality: the bound is sharp. If L is a sum of functions of one variable each, the
process on a box has independent coordinates; products of eigenfunctions are complete, so γ is the least of their gaps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
from flint import arb, ctx

from fpsolve.model.domains import Ball as BallDomain
from fpsolve.model.domains import Box as BoxDomain
from fpsolve.model.domains import Interval
from fpsolve.model.expressions import Formula, symbols
from fpsolve.model.process import FormulaLandscape, Process
from fpsolve.theory.balls import Ball
from fpsolve.theory.certified.coefficients import Coefficients, FormulaSource
from fpsolve.theory.certified.gap_line import Line, LineBound, in_powers, line_bound
from fpsolve.theory.certified.gap_weights import Curvature, WeightBound, weight_bound
from fpsolve.theory.certified.generator import Coefficient
from fpsolve.theory.certified.polynomial import Polynomial, tensor
from fpsolve.theory.certified.surrogate import Surrogates, surrogates
from fpsolve.theory.decay import is_reversible

LINE = "Gap on an interval: -s g'' + L' g' + L'' g >= κ g, g > 0"
PRODUCT = "Gap of independent coordinates: the least of " + LINE
WEIGHTS = "Gap with weights: D²L - diag(Aψ_i + s|∇ψ_i|²) >= κ I"
#: Bits beyond those for the range e^{2 osc L/s} of g.
BITS = 100
#: Bits of coefficients on a line; they are polynomials of t in powers there.
LINE_BITS = 1500
BITS_2D = 128


@dataclass(frozen=True)
class GapFunction:
    """A polynomial in the proof: g (`LINE`) or ψ_i (`WEIGHTS`).

    Attributes
    ----------
    name : str
        "g", "psi" or "h" and the variable; "psi" alone serves all. The weights are g_i = h_i e^{ψ_i}.
    lower, upper : tuple of float
        The box.
    coefficients : tuple of ndarray
        In Chebyshev products; the exact sum is meant.
    """

    name: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    coefficients: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class GapBound:
    """A lower bound of the spectral gap, rate per unit of SGD time.

    Attributes
    ----------
    value : float
        κ; nothing is claimed unless `verified`.
    verified : bool
        Whether every inequality is proved in Arb.
    reason : str
        Why there is no bound.
    theorem : str
    computed : float
        The gap (in one dimension) or the best κ of the search, in floating point; not proved. nan where not known.
    functions : tuple of GapFunction
        What the proof rests on.
    seconds : float
    """

    value: float
    verified: bool
    reason: str
    theorem: str
    computed: float = math.nan
    functions: tuple[GapFunction, ...] = ()
    seconds: float = 0.0


def spectral_gap_bound(process: Process, domain: Any, budget: float = 20.0) -> GapBound:
    """Bound the spectral gap of a process without flux through the boundary of Ω from below, with a proof.

    Not collective; deterministic except for the time budget.

    Parameters
    ----------
    process : Process
        With a loss formula and a = sI constant.
    domain : Interval, Box or Ball
        `reflecting` plays no role: nothing leaves.
    budget : float
        Seconds, about.

    Returns
    -------
    GapBound
        Unverified with a reason where no positive bound was proved.
    """
    began = time.monotonic()
    deadline = began + budget
    reason = _unsuitable(process, domain)
    if reason:
        return GapBound(0.0, False, reason, "", seconds=time.monotonic() - began)
    lower, upper = (np.asarray(v, dtype=float) for v in domain.bounding_box())
    landscape = process.landscape
    assert isinstance(landscape, FormulaLandscape)
    parts = None if isinstance(domain, BallDomain) else separated(landscape.loss_formula)
    try:
        if parts is not None:
            found = _lines(process, parts, lower, upper, deadline)
        else:
            found = _weights(process, domain, landscape.loss_formula, deadline)
    except ValueError as error:
        found = GapBound(0.0, False, str(error), LINE if parts is not None else WEIGHTS)
    return GapBound(
        found.value, found.verified, found.reason, found.theorem, found.computed, found.functions,
        time.monotonic() - began,
    )  # fmt: skip


def _unsuitable(process: Process, domain: Any) -> str:
    if not is_reversible(process):
        return "needs f = -∇L and a = sI constant"
    if not isinstance(process.landscape, FormulaLandscape) or process.epsilon2 is None:
        return "needs a loss that is a formula"
    if not isinstance(domain, (Interval, BoxDomain, BallDomain)):
        return "the domain is not known to be convex: interval, box and ball are covered"
    if isinstance(domain, BallDomain) and domain.dimension == 1:
        return "a ball in one dimension: give it as an interval, whose ends are exact"
    return ""


def strength(process: Process) -> Ball:
    """Return s of a = sI, at flint's current precision."""
    landscape = process.landscape
    assert isinstance(landscape, FormulaLandscape) and process.epsilon2 is not None
    first = landscape.covariance_formula.balls([arb(0)] * process.dimension)[0]  # constant
    return arb(process.epsilon2) * arb(process.covariance_scale) * first + arb(process.extra_diffusion)


def separated(loss: Formula) -> list[Formula] | None:
    """Return L_i with L = Σ L_i(x_i) + const as formulas in one variable each; None if L is no such sum."""
    names = symbols(loss.variables)
    if len(names) == 1:
        return [loss]
    gradient = loss.derivative()
    result = []
    for i, name in enumerate(names):
        slope = sympy.expand(gradient.entries[i])
        if slope.free_symbols - {name}:
            return None
        others = {other: 0 for other in names if other != name}
        entry = loss.entries[0].subs(others)
        if entry.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
            return None
        # the derivative is what counts: it must be the one just found
        if sympy.expand(sympy.diff(entry, name) - slope) != 0:
            return None
        result.append(Formula((loss.variables[i],), (entry,)))
    return result


def derivatives(loss: Formula, lower: Sequence[float], upper: Sequence[float], seconds: float) -> Surrogates:
    """Return ∇L (as drift) and D²L (as diffusion) as polynomials with proved errors, at flint's current precision.

    Raises
    ------
    ValueError
        If they are not proved to be analytic around the box.
    """
    gradient = loss.derivative()
    source = FormulaSource.of(gradient, gradient.derivative())
    coefficients = Coefficients(loss.variables, source)
    return surrogates(coefficients, lower, upper, relative=1e-20, budget_seconds=seconds)


def _lines(process: Process, parts: list[Formula], lower: np.ndarray, upper: np.ndarray, deadline: float) -> GapBound:
    theorem = LINE if len(parts) == 1 else PRODUCT
    found: list[LineBound] = []
    functions = []
    for i, part in enumerate(parts):
        share = (deadline - time.monotonic()) / (len(parts) - i)
        bound = _line(process, part, float(lower[i]), float(upper[i]), time.monotonic() + share)
        if not bound.verified:
            where = "" if len(parts) == 1 else f" in {part.variables[0]}"
            return GapBound(0.0, False, bound.reason + where, theorem, bound.computed)
        found.append(bound)
        box = (float(lower[i]),), (float(upper[i]),)
        functions.append(GapFunction(f"g {part.variables[0]}", *box, bound.coefficients))
    least = min(found, key=lambda bound: bound.value)
    return GapBound(least.value, True, "", theorem, least.computed, tuple(functions))


def _line(process: Process, loss: Formula, lower: float, upper: float, deadline: float) -> LineBound:
    with ctx.workprec(LINE_BITS):
        found = derivatives(loss, [lower], [upper], 0.3 * (deadline - time.monotonic()))
        s = strength(process)
        middle, half = (arb(lower) + arb(upper)) / 2, (arb(upper) - arb(lower)) / 2
        slope, curvature = found.drift[0], found.diffusion[0]
        line = Line(
            middle, half, s, in_powers(slope.coefficients), in_powers(curvature.coefficients), slope.error,
            curvature.error,
        )  # fmt: skip
    x = np.linspace(lower, upper, 1001)[:, None]
    range_ = float(np.ptp(loss(x))) / float(s)
    return line_bound(line, deadline, BITS + math.ceil(2 * range_ / math.log(2)))


def _weights(process: Process, domain: BoxDomain | BallDomain, loss: Formula, deadline: float) -> GapBound:
    lower, upper = (tuple(map(float, v)) for v in domain.bounding_box())
    with ctx.workprec(BITS_2D):
        if isinstance(domain, BallDomain):  # the box must hold all of the ball
            lower = tuple(math.nextafter(v, -math.inf) for v in lower)
            upper = tuple(math.nextafter(v, math.inf) for v in upper)
        found = derivatives(loss, lower, upper, 0.3 * (deadline - time.monotonic()))

        def coefficient(s: Any) -> Coefficient:
            return Coefficient(Polynomial(lower, upper, tensor(s.coefficients, tuple(s.shape))), s.error)

        curvature = Curvature(
            domain, strength(process), [coefficient(s) for s in found.drift], [coefficient(s) for s in found.diffusion]
        )
        bound: WeightBound = weight_bound(process, curvature, deadline)
    names = [f"psi {v}" for v in loss.variables] if len(bound.weights) > 1 else ["psi"]
    functions = tuple(
        GapFunction(name, lower, upper, (weight,)) for name, weight in zip(names, bound.weights, strict=False)
    )
    functions += tuple(
        GapFunction(f"h {v}", lower[i : i + 1], upper[i : i + 1], (bound.factors[i],))
        for i, v in enumerate(loss.variables if bound.factors else ())
    )
    return GapBound(bound.value, bound.verified, bound.reason, WEIGHTS, bound.computed, functions)

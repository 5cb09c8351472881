r"""Boundary parts that a diffusion cannot reach: proved, never taken from the user.

The process is ``dX = f dt + sqrt(2a) dW``, generator ``A u = tr(a D²u) + f·∇u``, τ its exit time from the open set Ω.

Theorem. Let P be a closed part of ∂Ω and d a C² function, positive in Ω near P, zero on P, with
``{x ∈ closure(Ω): d = 0} = P``. Write ``a_nn = ∇d·a∇d``. If in a collar ``{x ∈ Ω: 0 < d < δ}``

    A(-log d) = (a_nn - d A d)/d² <= C                                                                        (1)

and, on reflecting sides R with outer normal n that meet the collar, ``n·a∇d <= 0`` there, then almost surely
``d(X_t) > 0`` for all t <= τ, t < ∞: X never hits P, not even its edges. So X_τ lies in the other parts.

Proof. X is continuous on [0, τ], so up to t ∧ τ the path enters {d <= δ/2} from {d >= δ} finitely often. Let ς be
such an entry (0, if it starts in the collar), ρ the next time with d >= δ, ς_k the first time after ς with d <= 1/k.
V = -log d is C² for d >= 1/k and at least -log δ in the collar. Itô's formula from ς to ``ς_k ∧ ρ ∧ τ ∧ t``, with a
localising sequence and Fatou's lemma, gives ``E V <= V(X_ς) + C t`` (X_ς is x or has d = δ/2; the reflection along the
conormal adds ``-(a n)·∇V dℓ = (n·a∇d)/d dℓ <= 0`` to dV). Hence ``P(ς_k <= ρ ∧ τ ∧ t) log k`` is bounded in k, and
d = 0 is hit with probability zero. Edges need no extra argument: (1) is asked for up to them, V is infinite on P.

Sufficient for (1), and what is checked: ``a_nn = q d + O(d²)`` and ``A d - q >= 0`` on P. For then
``a_nn - d A d = (q - A d) d + O(d²)``, and ``q - A d <= O(d)`` near P by Lipschitz continuity. This covers noise
tangential to P with drift inwards, an invariant P (A d = q = 0) and Feller's condition (``a = x``, ``f(0) >= 1``).

- Sides of boxes, ends of intervals: ``d = x_i - lower_i`` or ``upper_i - x_i``; a_nn is zero for d = 0 as a formula;
  finite enclosures of its second derivative in a collar; ``q = ∂_d a_nn`` for d = 0; the sign by cutting, in Arb.
- Balls and sublevel sets: ``d = (R² - |x-c|²)/2`` or ``below - L``; polynomials (also in functions such as exp(x),
  taken as further variables) are divided by d exactly. The sign is proved on all boxes that may meet {d = 0}; the
  others have |d| >= δ > 0, so this is a collar. Balls otherwise in polar coordinates, with d = R - |x-c|, as for boxes.

Floats are exact numbers here: with ``a = x - 0.1`` the side at the float 0.1 is reachable (0.1 is not 1/10).
What cannot be proved is reported as such, which is always safe. Only formulas are covered, not sums over samples.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from fpsolve.model.domains import SIDES, Ball, Box, Interval, Sublevel
from fpsolve.model.expressions import Formula, symbols
from fpsolve.model.process import FormulaLandscape, Process
from fpsolve.theory.certified.signs import Expr, everywhere, is_finite, may_vanish, not_positive, singular, vanishes
from fpsolve.theory.cover import SublevelCover, cover_of

Cell = tuple[np.ndarray, np.ndarray]
COLLAR = 2.0**-12  # width of a collar relative to the domain: any positive number is right
DISTANCE, ANGLE, POLAR = "__d", "__t", "__p"  # no variable of a formula begins like this


@dataclass(frozen=True)
class PartProof:
    """Whether a boundary part is proved unreachable.

    Attributes
    ----------
    name : str
    proved : bool
    reason : str
        The criterion that holds, or what is missing.
    """

    name: str
    proved: bool
    reason: str


@dataclass(frozen=True)
class _Collar:
    """Formulas of a_nn and A d in coordinates (d, y), 0 <= d <= upper[0], of a collar."""

    variables: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    normal: Expr
    rate: Expr

    def zero(self, expression: Expr) -> bool:
        """Tell whether an expression is zero identically."""
        return vanishes(expression, self.variables, self.lower, self.upper)

    def bounded(self, expression: Expr, deadline: float) -> bool:
        """Tell whether the collar is covered by cells on which the expression has a finite enclosure."""
        if singular(expression):
            return False
        return everywhere(self.lower, self.upper, is_finite(expression, self.variables), deadline)


def unreachable_parts(process: Process, domain: Any, seconds: float = 2.0) -> list[PartProof]:
    """Return for each boundary part that is not reflecting whether the process provably never reaches it.

    Parameters
    ----------
    process : Process
        With formulas: made by `diffusion_process` or `SGD`. For others nothing is proved.
    domain : Interval, Box, Ball or Sublevel
        For other domains nothing is proved.
    seconds : float
        Time for the searches of all parts together.

    Notes
    -----
    The theorem and its proof are in the module's docstring.
    """
    names = [name for name in domain.names if name not in domain.reflecting]
    coefficients = _coefficients(process)
    if coefficients is None:
        return [PartProof(name, False, "drift and diffusion are not given by formulas") for name in names]
    proofs, end = [], time.monotonic() + seconds
    for k, name in enumerate(names):
        now = time.monotonic()
        deadline = now + max(end - now, 0.0) / (len(names) - k)
        if isinstance(domain, (Box, Interval)):
            proof = _side(process.variables, coefficients, domain, name, deadline)
        elif isinstance(domain, Ball):
            proof = _sphere(process.variables, coefficients, domain, deadline)
        elif isinstance(domain, Sublevel):
            proof = _level(process.variables, coefficients, domain, deadline)
        else:
            proof = False, "not covered: only boxes, balls and sublevel sets are"
        proofs.append(PartProof(name, *proof))
    return proofs


def _coefficients(process: Process) -> tuple[list[Expr], list[Expr]] | None:
    """Return the exact formulas of f (d) and a (d*d), or None."""
    if isinstance(process.drift, Formula) and isinstance(process.diffusion, Formula):
        return list(process.drift.entries), list(process.diffusion.entries)
    landscape = process.landscape
    if not isinstance(landscape, FormulaLandscape) or process.epsilon2 is None:
        return None
    strength = sympy.Rational(process.epsilon2) * sympy.Rational(process.covariance_scale)
    extra, d = sympy.Rational(process.extra_diffusion), process.dimension
    drift = [-entry for entry in landscape.loss_formula.derivative().entries]
    covariance = landscape.covariance_formula.entries
    return drift, [strength * q + (extra if k % (d + 1) == 0 else 0) for k, q in enumerate(covariance)]


# --- sides of boxes ---------------------------------------------------------------------------------------------------


def _side(
    variables: Sequence[str], coefficients: tuple[list[Expr], list[Expr]], domain: Any, name: str, deadline: float
) -> tuple[bool, str]:
    """Prove that one side of a box cannot be reached."""
    drift, diffusion = coefficients
    lower, upper = domain.bounding_box()
    d, axis, high = len(lower), SIDES.index(name) // 2, SIDES.index(name) % 2 == 1
    distance, x = symbols((DISTANCE,))[0], symbols(variables)
    position = sympy.Rational(upper[axis]) - distance if high else sympy.Rational(lower[axis]) + distance
    sign = -1 if high else 1

    def moved(expression: Expr) -> Expr:
        return expression.subs(x[axis], position)

    others = [j for j in range(d) if j != axis]
    collar = _Collar(
        (DISTANCE, *(variables[j] for j in others)),
        np.array([0.0, *lower[others]]),
        np.array([COLLAR * (upper[axis] - lower[axis]), *upper[others]]),
        moved(diffusion[axis * d + axis]),
        sign * moved(drift[axis]),
    )
    for other in domain.reflecting:
        j, outer = SIDES.index(other) // 2, SIDES.index(other) % 2 == 1
        if j != axis:
            end = sympy.Rational(upper[j] if outer else lower[j])
            push = (sign if outer else -sign) * moved(diffusion[axis * d + j]).subs(x[j], end)
            if not _never_pushed(push, collar, deadline):
                return False, f"the reflection at '{other}' may push the process towards it (n·a∇d <= 0 is not proved)"
    return _prove(collar, deadline)


def _never_pushed(push: Expr, collar: _Collar, deadline: float) -> bool:
    """Tell whether n·a∇d <= 0 is proved on a reflecting side in the collar: zero on P, and not increasing in d."""
    distance = symbols((DISTANCE,))[0]
    if collar.zero(push):
        return True
    slope = sympy.diff(push, distance)
    if not collar.zero(push.subs(distance, 0)) or singular(slope):
        return False
    return everywhere(collar.lower, collar.upper, not_positive(slope, collar.variables), deadline)


def _prove(collar: _Collar, deadline: float) -> tuple[bool, str]:
    """Prove (1) in a collar with coordinates (d, y)."""
    distance = symbols((DISTANCE,))[0]
    on_part = collar.normal.subs(distance, 0)
    if singular(on_part) or not collar.zero(on_part):
        return False, "there is noise across it: ∇d·a∇d is not zero on it"
    if not collar.bounded(sympy.diff(collar.normal, distance, 2), deadline):
        return False, "the second derivative of ∇d·a∇d is not proved bounded near it"
    q = sympy.diff(collar.normal, distance).subs(distance, 0)
    excess = q - collar.rate
    if collar.bounded(sympy.diff(collar.rate, distance), deadline):
        excess, face = excess.subs(distance, 0), collar.upper.copy()
        face[0] = 0.0  # Lipschitz in d: the sign on the part itself is enough
    else:
        face = collar.upper
    if singular(excess):
        return False, "the drift is not finite on it"
    if collar.zero(excess):
        return True, "∇d·a∇d = q d + O(d²) and A d = q on it, so A(-log d) is bounded near it"
    if everywhere(collar.lower, face, not_positive(excess, collar.variables), deadline):
        return True, "∇d·a∇d = q d + O(d²) and A d >= q on it, so A(-log d) is bounded above near it"
    return False, "∇d·a∇d is zero on it, but the drift is not proved strong enough: A d >= q on all of it is missing"


# --- spheres and level sets -------------------------------------------------------------------------------------------


def _sphere(
    variables: Sequence[str], coefficients: tuple[list[Expr], list[Expr]], domain: Ball, deadline: float
) -> tuple[bool, str]:
    """Prove that a sphere cannot be reached: by division, otherwise in polar coordinates."""
    x, center = symbols(variables), [sympy.Rational(c) for c in domain.center]
    radius = sympy.Rational(domain.radius)
    squares = sympy.Add(*((a - c) ** 2 for a, c in zip(x, center, strict=True)))
    if domain.dimension > 1:
        roots = cover_of(domain).roots
        divided = _divided(variables, coefficients, (radius**2 - squares) / 2, roots, deadline)
        if divided is not None and divided[0]:
            return divided
    proof = True, ""
    for unit, angles, lower, upper in _directions(domain.dimension):
        if not proof[0]:
            break
        proof = _prove(_polar(variables, coefficients, domain, unit, (angles, lower, upper)), deadline)
    return proof


def _directions(d: int) -> list[tuple[list[Expr], tuple[str, ...], list[float], list[float]]]:
    """Return unit vectors as formulas of angles, and boxes of angles which give all of them."""
    t, p = symbols((ANGLE, POLAR))
    if d == 1:
        return [([sympy.Integer(1)], (), [], []), ([sympy.Integer(-1)], (), [], [])]
    if d == 2:
        return [([sympy.cos(t), sympy.sin(t)], (ANGLE,), [-3.2], [3.2])]
    unit = [sympy.sin(p) * sympy.cos(t), sympy.sin(p) * sympy.sin(t), sympy.cos(p)]
    return [(unit, (ANGLE, POLAR), [-3.2, 0.0], [3.2, 3.2])]


def _polar(
    variables: Sequence[str],
    coefficients: tuple[list[Expr], list[Expr]],
    domain: Ball,
    unit: list[Expr],
    angles: tuple[tuple[str, ...], list[float], list[float]],
) -> _Collar:
    """Return a collar of the sphere with d = R - |x-c|: ∇d = -e, D²d = -(I - e eᵀ)/|x-c|."""
    d, x, names = domain.dimension, symbols(variables), angles[0]
    r = sympy.Rational(domain.radius) - symbols((DISTANCE,))[0]
    place = {v: sympy.Rational(c) + r * e for v, c, e in zip(x, domain.center, unit, strict=True)}
    drift, a = ([e.subs(place, simultaneous=True) for e in part] for part in coefficients)
    normal = sympy.Add(*(unit[i] * a[i * d + j] * unit[j] for i in range(d) for j in range(d)))
    inward = -sympy.Add(*(f * e for f, e in zip(drift, unit, strict=True)))
    rate = inward - (sympy.Add(*a[:: d + 1]) - normal) / r if d > 1 else inward
    lower, upper = np.array([0.0, *angles[1]]), np.array([COLLAR * domain.radius, *angles[2]])
    return _Collar((DISTANCE, *names), lower, upper, normal, rate)


def _level(
    variables: Sequence[str], coefficients: tuple[list[Expr], list[Expr]], domain: Sublevel, deadline: float
) -> tuple[bool, str]:
    """Prove that the boundary of a component of {L < below} cannot be reached."""
    if not isinstance(domain.landscape, FormulaLandscape) or domain.landscape.variables != tuple(variables):
        return False, "the level set is not given by a formula"
    d = sympy.Rational(domain.below) - domain.landscape.loss_formula.entries[0]
    cover = cover_of(domain)
    if not isinstance(cover, SublevelCover) or not cover.separated:
        return False, "the component is not proved to lie inside its box"
    divided = _divided(variables, coefficients, d, cover.roots, deadline)
    return divided or (False, "there is noise across it, or none is not proved: ∇d·a∇d is no multiple of d")


def _divided(
    variables: Sequence[str],
    coefficients: tuple[list[Expr], list[Expr]],
    d: Expr,
    roots: Sequence[Cell],
    deadline: float,
) -> tuple[bool, str] | None:
    """Prove (1) with a_nn = q d exactly; None if a_nn is not found to be divisible by d.

    ``q - A d = g d + h``: then ``A(-log d) = g + h/d``, so bounded g and h <= 0 where d may be zero are enough.
    """
    drift, a = coefficients
    x, n = symbols(variables), len(variables)
    slope = [sympy.diff(d, v) for v in x]
    normal = sympy.Add(*(slope[i] * a[i * n + j] * slope[j] for i in range(n) for j in range(n)))
    rate = sympy.Add(*(a[i * n + j] * sympy.diff(d, x[i], x[j]) for i in range(n) for j in range(n)))
    rate += sympy.Add(*(f * s for f, s in zip(drift, slope, strict=True)))
    if singular(normal) or singular(rate):
        return None
    if _noise_seen(normal, d, slope, (variables, roots)):
        return None
    quotient = _division(normal, d, x)
    if quotient is None or quotient[1] != 0:
        quotient = _division(sympy.simplify(normal), d, x)
    if quotient is None or quotient[1] != 0:
        return None
    excess = sympy.expand(quotient[0] - rate)
    if singular(excess):
        return None
    choices = [(sympy.Integer(0), excess)]
    for order in (x, x[::-1]):
        choice = _division(excess, d, order)
        if choice is not None and choice not in choices:
            choices.insert(0, choice)
    meets = may_vanish(d, variables)
    for number, (g, h) in enumerate(choices):
        share = time.monotonic() + max(deadline - time.monotonic(), 0.0) / (len(choices) - number)
        fine, finite_g = not_positive(h, variables), is_finite(g, variables)

        def decide(lo: np.ndarray, hi: np.ndarray, fine: Any = fine, finite_g: Any = finite_g) -> bool:
            return not meets(lo, hi) or (fine(lo, hi) and finite_g(lo, hi))

        if all(everywhere(lo, hi, decide, share, aim=0.0 if h == 0 else 1e-3) for lo, hi in roots):
            relation = "=" if h == 0 else ">="
            return True, f"∇d·a∇d = q d and A d {relation} q on it, so A(-log d) is bounded above near it"
    return False, "∇d·a∇d is zero on it, but the drift is not proved strong enough: A d >= q on all of it is missing"


def _noise_seen(normal: Expr, d: Expr, slope: list[Expr], where: tuple[Sequence[str], Sequence[Cell]]) -> bool:
    """Tell whether a_nn is clearly positive at a point of {d = 0} found by Newton's method: saves the algebra."""
    variables, roots = where
    values = Formula(tuple(variables), (d, *slope, normal), (len(slope) + 2,))
    low, high = np.min([lo for lo, _ in roots], axis=0), np.max([hi for _, hi in roots], axis=0)
    x = low + np.random.default_rng(5).random((64, len(low))) * (high - low)
    with np.errstate(all="ignore"):
        for _ in range(30):
            now = values(x)
            step = now[:, 0] / np.sum(now[:, 1:-1] ** 2, axis=1)
            x = x - np.clip(step, -10.0, 10.0)[:, None] * now[:, 1:-1]
        now = values(x)
    on_it = np.abs(now[:, 0]) < 1e-12
    return bool(np.any(now[on_it, -1] > 1e-6 * np.max(np.abs(now[on_it]), initial=0.0)))


def _division(expression: Expr, d: Expr, order: Sequence[Expr]) -> tuple[Expr, Expr] | None:
    """Return g, h with expression = g d + h exactly, by division of polynomials over a common denominator."""
    top, bottom = sympy.fraction(sympy.together(expression))
    over, under = sympy.fraction(sympy.together(d))
    fixed = {function: sympy.Dummy() for function in sorted(_functions(top) | _functions(over), key=str)}
    back = {dummy: function for function, dummy in fixed.items()}
    try:
        quotients, r = sympy.reduced(top.xreplace(fixed), [over.xreplace(fixed)], *order, *back, order="grevlex")
    except (sympy.PolynomialError, sympy.CoercionFailed, NotImplementedError):
        return None
    q = sympy.Add(*quotients)  # one, or none for the zero polynomial
    return q.xreplace(back) * under / bottom, r.xreplace(back) / bottom


def _functions(expression: Expr) -> set[Expr]:
    """Return the non-polynomial subexpressions that hold variables, to be taken as further variables."""
    if not expression.free_symbols or expression.is_Symbol:
        return set()
    if expression.is_Add or expression.is_Mul:
        return set().union(*(_functions(argument) for argument in expression.args))
    if expression.is_Pow and expression.exp.is_Integer and expression.exp > 0:
        return _functions(expression.base)
    return {expression}

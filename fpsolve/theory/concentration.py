r"""The drift regime: how mass gathers around a minimum (paper section 2).

Upper bounds of the second moment, lower bounds of the mass in balls.

**What is solved.** ρ(t) is the law of a process with generator ``A u = tr(a D²u) + f·∇u`` inside Ω that is reflected
(no flux, ``J·n = 0``) or absorbed at ∂Ω. For smooth φ the weak form reads

    d/dt ∫φρ = ∫(∂_tφ + Aφ)ρ - ∮_reflecting (n·a∇φ)ρ - ∮_absorbing φ (J·n),            (W)

with J·n >= 0 on absorbing parts. (Where n·a n = 0 and the drift leads out, a no-flux problem keeps mass on ∂Ω, which
adds ``-∮(f·n)(n·∇φ)``: <= 0 below, as Ω is star-shaped about c wherever the boundary is used.) c is the centre,
y = x - c, and on the set in question

    ``-y·(f(x) - f(c)) >= λ|y|²``, ``|f(c)| <= g``, ``tr a <= T``, ``λ_max(a) <= s``                 (H)

are proven with Arb (`fpsolve.theory.inward`; g is rounding when c is a minimum). λ-convexity gives more than (H),
which the paper's proofs use with λ/2 only. In the paper's notation s = ε²σ. With a noise that changes in time by a
factor θ(t) take T and s times the largest θ so far.

**Lemma 2.1.** (H) on Ω (not on ℝ^d: the process lives in Ω) and ``n·a y >= 0`` on the reflecting parts. For φ = |y|²
the boundary terms of (W) are <= 0 and ``Aφ = 2 tr a + 2 y·f <= 2T - 2λ|y|² + 2g|y|``. As ρ has mass <= 1, M = ∫|y|²ρ
obeys ``M' <= 2T - 2λM + 2g√M``. g = 0 gives

- *sharp*: ``M(t) <= (M₀ - T/λ) e^{-2λt} + T/λ``, an equality for f = -λy, tr a = T on ℝ^d (Examples 4 and 5),
- *paper*: ``M(t) <= (M₀ - 2T/λ) e^{-λt} + 2T/λ``, from λ/2 in place of λ.

For g > 0: ``2g√M <= 2ληM + g²/(2λη)`` gives the sharp form with (1-η)λ and T + g²/(4λη), and for η = ½ the paper's.

**Corollary 2.2.** Chebyshev, where no mass is lost: mass of B_R(c) >= 1 - M(t)/R².

**Theorem 2.4, Corollary 2.5, Theorem 1.2.** (H) on the ball of radius (1+δ)R₀ about c, which lies in Ω; then φ(t, |y|)
of (24) vanishes near ∂Ω for all t, so that both boundary terms of (W) vanish: the statement is the same for reflected,
absorbed and free processes. φ is C¹ with bounded second derivatives that jump at three spheres; mollified in r it
satisfies the inequality below up to o(1), as a convex combination of the values on both sides. With
``N = 4/(δ²R²)``, r = |y|, e = y/r, q = e·a e, ϑ = (δ/2)/(1+δ/2):

 R <= r <= (1+δ/2)R:     ``∂_tφ + Aφ = N [(r-R) r R'/R - (r-R) e·f] - N [q + (1-R/r)(tr a - q)]``,
 (1+δ/2)R <= r <= (1+δ)R: the same with (1+δ)R - r for r - R, and ``+ N [q - ((1+δ)R/r - 1)(tr a - q)]``.

By (H) ``-e·f >= λr - g``, so the first brackets are >= 0 if ``R' >= -λR + g``. In the second ones ``1 - R/r`` and
``(1+δ)R/r - 1`` lie in [0, ϑ], and ``q + ϑ(tr a - q) = (1-ϑ)q + ϑ tr a <= (1-ϑ)s + ϑT``. The two shells are disjoint
and ρ has mass <= 1, so one constant serves for both:

    ``d/dt ∫φρ >= -C/R²``, ``C = (4/δ²)((1-ϑ)s + ϑT) <= (4s/δ²)(1 + (d-1)ϑ)``.

- *sharp*: ``R(t) = g/λ + (R₀ - g/λ)e^{-λt} >= R₀e^{-λt}``: loss ``C (e^{2λt}-1)/(2λR₀²)``.
- *paper*: ``R(t) = R₀e^{-λt/2}``, allowed while R >= 2g/λ, and ``C = (4sd²/δ²)(1 + (1+δ)/(1+δ/2))``: loss
  ``C (e^{λt}-1)/(λR₀²)``.
- Theorem 2.4 with the constant radius R₀ (allowed where λR₀ >= g): loss ``C t/R₀²``, the statement for long times.
- Theorem 1.2: with ``T_ε = (2/λ) log(R₀/(aε^α))`` the loss is at most ``ε^{2-2α} C'/(a²λ)``, C = ε²C', for all
  t <= T_ε; sharp with half that T_ε and loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fpsolve.model.domains import MeshFile, Sublevel
from fpsolve.model.process import Process
from fpsolve.model.schedule import Schedule
from fpsolve.theory.cover import BallCover, SublevelCover, inscribed_radius, sample
from fpsolve.theory.inward import (
    STATIONARY,
    Coefficients,
    Inward,
    coefficients,
    default_center,
    describe,
    reflection_failure,
)
from fpsolve.theory.lower import _inside_sublevel
from fpsolve.theory.search import Budget
from fpsolve.theory.theorem import ATTEMPTS, numbers
from fpsolve.theory.timebounds import Name, TimeBound, inapplicable, vectorised

Boundary = Literal["no-flux", "absorbing"]
#: Relative outward rounding of curves, which are evaluated in double precision.
OUTWARD = 1e-13
#: δ where none is given: the plateau is half as wide as the ball in which the hypotheses must hold.
DELTA = 1.0
SECOND_MOMENT = "second moment about the centre"
BALL_MASS = "mass in the ball"
CUT_MASS = "cut-off mass (24)"


@dataclass(frozen=True)
class Drift:
    """What can be proven about one process in one domain; plain data, so that it can be sent to other ranks.

    Attributes
    ----------
    center : ndarray
    whole : Inward or None
        The constants on Ω.
    boundary_failure : str
        Why the boundary terms of Lemma 2.1 have no sign; empty if proven.
    ball : Inward or None
        The constants on the ball of radius (1+δ)R₀.
    ball_failure : str
        Why there is no ball.
    radius, delta : float
        R₀ and δ.
    """

    center: np.ndarray
    whole: Inward
    boundary_failure: str
    ball: Inward | None
    ball_failure: str
    radius: float
    delta: float


def drift_constants(
    process: Process,
    domain: Any,
    boundary: Boundary = "no-flux",
    center: np.ndarray | None = None,
    radius: float | None = None,
    delta: float | None = None,
    seconds: float = 10.0,
    near: np.ndarray | None = None,
) -> Drift | str:
    """Prove the hypotheses; or return why nothing can be proven. Not collective; run it on one rank and send it.

    Parameters
    ----------
    boundary : "no-flux" or "absorbing"
        With "absorbing" the domain's reflecting parts still reflect.
    center : ndarray (d,), optional
        c; by default the minimum of L in Ω nearest to `near`, else the one with the lowest loss.
    radius, delta : float, optional
        R₀ and δ; by default δ = 1 and R₀ from the balls in Ω on which the loss of mass is smallest.
    """
    known = coefficients(process, domain)
    if isinstance(known, str):
        return known
    budget = Budget.seconds(seconds)
    c = default_center(known, domain, near) if center is None else np.asarray(center, dtype=float)
    whole = known.inward(c, known.cover, budget.share(3))
    parts = tuple(domain.names) if boundary == "no-flux" else tuple(domain.reflecting)
    if isinstance(domain, MeshFile) and domain.contents.cells.shape[1] > domain.dimension + 1:
        failure = "curved cells may reach beyond the box around the mesh's nodes"
    elif isinstance(known.cover, SublevelCover) and not known.cover.separated:
        failure = "the component could not be separated from the edge of its search box"
    else:
        failure = reflection_failure(known, domain, parts, c, whole, budget.share(3))
    delta = DELTA if delta is None else delta
    ball, reason, size = _ball(known, domain, c, radius, delta, budget)
    return Drift(c, whole, failure, ball, reason, size, delta)


def _ball(
    known: Coefficients, domain: Any, center: np.ndarray, radius: float | None, delta: float, budget: Budget
) -> tuple[Inward | None, str, float]:
    """Return the constants on the ball of radius (1+δ)R₀, or why there are none; and R₀."""
    about = f"about {describe(center)}"
    if isinstance(domain, MeshFile):
        return None, "does not apply: no ball inside a mesh file's domain is known to the theory", radius or 0.0
    largest = _largest(domain, center, known)
    if radius is not None:
        if not isinstance(domain, Sublevel) and (1 + delta) * radius > largest * (1 + 1e-14):
            reason = f"does not apply: the ball of radius (1+δ)R₀ = {(1 + delta) * radius:.4g} {about} is not in Ω"
            return None, reason, radius
        sizes = [radius]
    else:
        sizes = [r / (1 + delta) for r in _ranked(known, center, largest)[:ATTEMPTS]]
    reason = f"does not apply: no ball {about} in Ω on which the drift points inwards was found"
    for size in sizes:
        cover = BallCover(center, (1 + delta) * size * (1 + 1e-14))
        if isinstance(domain, Sublevel) and not (
            known.field is not None and _inside_sublevel(known.field, domain, cover, budget.share(3))
        ):
            reason = f"the ball of radius {cover.radius:.4g} {about} is not proven to lie in Ω"
            continue
        found = known.inward(center, cover, budget.share(2))
        if not found.failure:
            return found, "", size
        reason = f"{found.failure}, on the ball of radius (1+δ)R₀ = {cover.radius:.4g} {about}"
    return None, reason, sizes[-1] if sizes else 0.0


def _largest(domain: Any, center: np.ndarray, known: Coefficients) -> float:
    if not isinstance(domain, Sublevel):
        return inscribed_radius(domain, center)
    radius = float(np.max(known.cover.upper - known.cover.lower))
    while radius > 1e-6 and np.max(domain.landscape.loss(sample(BallCover(center, radius), 600))) >= domain.below:
        radius *= 0.95
    return 0.97 * radius


def _ranked(known: Coefficients, center: np.ndarray, largest: float) -> list[float]:
    """Return radii of balls to try, smallest sampled loss of mass (largest λR²) first."""
    if not largest > 0:
        return []
    x = sample(BallCover(center, largest), 3000)
    y, r = x - center, np.linalg.norm(x - center, axis=1)
    drift = known.process.drift(center[None, :]) - known.process.drift(x)
    keep = r > 1e-6 * largest
    quotient, r = (np.sum(y * drift, axis=1)[keep] / r[keep] ** 2), r[keep]
    choices = []
    for fraction in np.concatenate([[1.0], np.linspace(0.95, 0.05, 19)]):
        rate = float(np.min(quotient[r <= fraction * largest], initial=np.inf))
        if np.isfinite(rate) and rate > 0:
            choices.append((rate * fraction**2, float(fraction * largest)))
    return [size for _, size in sorted(choices, reverse=True)]


def cut_off(r: np.ndarray, radius: float, delta: float) -> np.ndarray:
    """Return φ(r) of paper (24): 1 up to R, 0 beyond (1+δ)R, C¹ and piecewise quadratic between."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # the radius may have shrunk to nothing
        z = (np.asarray(r, dtype=float) / radius - 1) / delta
    return np.where(z <= 0, 1.0, np.where(z <= 0.5, 1 - 2 * z**2, np.where(z <= 1, 2 * (1 - z) ** 2, 0.0)))


def concentration_bounds(
    known: Drift | str,
    process: Process,
    initial: Callable[[Callable[[np.ndarray], np.ndarray]], float],
    boundary: Boundary = "no-flux",
    names: tuple[str, ...] = ("paper", "sharp"),
    schedule: Schedule | None = None,
    alpha: float = 0.5,
    a: float | None = None,
) -> list[TimeBound]:
    """Return Lemma 2.1, Corollary 2.2, Theorem 2.4, Corollary 2.5 and Theorem 1.2. Collective if `initial` is.

    Parameters
    ----------
    known : Drift or str
        From `drift_constants`.
    initial : callable
        g -> ∫gρ₀ of the initial datum, g being a function of points (n, d).
    alpha, a : float
        α and a of Theorem 1.2; a = R₀ by default.
    """
    schedule = Schedule() if schedule is None else schedule
    kinds: list[Name] = [name for name in ("paper", "sharp") if name in names]  # type: ignore[misc]
    if isinstance(known, str):
        return [inapplicable(k, t, q, s, known) for k in kinds for t, q, s in _STATEMENTS]  # type: ignore[arg-type]
    found: list[TimeBound] = []
    for name in kinds:
        moment = _moment_bound(name, known, process, initial, schedule)
        found += [moment, _chebyshev(name, known, process, moment, boundary)]
        found += _ball_bounds(name, known, process, initial, schedule, alpha, a)
    return found


_STATEMENTS = (
    ("Lemma 2.1", SECOND_MOMENT, "upper"),
    ("Corollary 2.2", BALL_MASS, "lower"),
    ("Corollary 2.5", CUT_MASS, "lower"),
    ("Theorem 2.4, constant radius", CUT_MASS, "lower"),
    ("Theorem 1.2", CUT_MASS, "lower"),
)


def _distance2(center: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.sum((x - center) ** 2, axis=1)


def _moment_bound(name: Name, known: Drift, process: Process, initial: Any, schedule: Schedule) -> TimeBound:
    theorem, whole = f"Lemma 2.1, {'paper' if name == 'paper' else 'sharp form'}", known.whole
    parameters: dict[str, Any] = {"center": numbers(known.center)}
    hypotheses = whole.hypotheses(process.epsilon2)
    reason = whole.failure and f"{whole.failure}, on Ω"
    if not reason and name == "paper" and not _is_minimum(whole):
        reason = f"does not apply: {describe(known.center)} is not a minimum"
    if reason:
        return inapplicable(name, theorem, SECOND_MOMENT, "upper", reason, hypotheses, parameters)
    start = initial(_distance2(known.center))

    def value(t: float) -> float:
        rate, size = _moment_rate(name, whole, schedule.largest(t))
        limit = size / rate
        decay = math.exp(-2 * rate * t)
        return (start * decay + limit * -math.expm1(-2 * rate * t)) * (1 + OUTWARD)

    rate, size = _moment_rate(name, whole, 1.0)
    parameters |= {"rate": 2 * rate, "limit": size / rate, "initial": start}
    return TimeBound(
        name, theorem, SECOND_MOMENT, "upper", not known.boundary_failure, known.boundary_failure, hypotheses,
        parameters, vectorised(value), lambda t, x: _distance2(known.center)(x),
    )  # fmt: skip


def _is_minimum(inward: Inward) -> bool:
    """Tell whether |f(c)| is so small that it does not matter beside the noise."""
    g, rate = inward.pull.value, inward.rate.value
    return g**2 <= STATIONARY * rate * inward.size


def _moment_rate(name: Name, inward: Inward, noise: float) -> tuple[float, float]:
    """Return κ and S with ``M' <= 2S - 2κM``: sharp (1-η)λ and T + g²/(4λη), paper λ/2 and T + g²/(2λ)."""
    rate, size, g = inward.rate.value, inward.size * noise, inward.pull.value
    if name == "paper":
        return rate / 2, size + g**2 / (2 * rate)
    if g == 0:
        return rate, size
    eta = np.logspace(-12, -0.05, 200)
    best = eta[np.argmin((size + g**2 / (4 * rate * eta)) / (1 - eta))]
    return rate * (1 - float(best)), size + g**2 / (4 * rate * float(best))


def _chebyshev(name: Name, known: Drift, process: Process, moment: TimeBound, boundary: Boundary) -> TimeBound:
    theorem = f"Corollary 2.2, {'paper' if name == 'paper' else 'sharp form'}"
    if moment.curve is None:
        return inapplicable(name, theorem, BALL_MASS, "lower", moment.reason, moment.hypotheses, moment.parameters)
    if boundary != "no-flux":
        reason = "does not apply: mass is lost through the absorbing boundary"
        return inapplicable(name, theorem, BALL_MASS, "lower", reason, moment.hypotheses, moment.parameters)
    radius = known.radius if known.radius > 0 else 2 * math.sqrt(moment.parameters["limit"])
    center = known.center

    def curve(t: np.ndarray) -> np.ndarray:
        return np.maximum(1 - moment.evaluate(t) / radius**2, 0.0)

    return TimeBound(
        name, theorem, BALL_MASS, "lower", moment.verified, moment.reason, moment.hypotheses,
        moment.parameters | {"radius": radius}, curve,
        lambda t, x: (np.linalg.norm(x - center, axis=1) < radius).astype(float),
    )  # fmt: skip


def cut_off_constant(name: Name, s: float, T: float, d: int, delta: float) -> float:
    """Return C of Theorem 2.4 with the noise in it (ε²C in the paper's notation), from s = ε²σ and T >= tr a."""
    if name == "paper":
        return 4 * s * d**2 / delta**2 * (1 + (1 + delta) / (1 + delta / 2))
    share = (delta / 2) / (1 + delta / 2)
    return 4 / delta**2 * ((1 - share) * s + share * min(T, d * s))


def _ball_bounds(
    name: Name, known: Drift, process: Process, initial: Any, schedule: Schedule, alpha: float, a: float | None
) -> list[TimeBound]:
    theorems = [theorem for theorem, quantity, _ in _STATEMENTS if quantity == CUT_MASS]
    ball, label = known.ball, "paper" if name == "paper" else "sharp form"
    parameters: dict[str, Any] = {"center": numbers(known.center), "radius": known.radius, "delta": known.delta}
    reason = known.ball_failure
    if ball is not None and name == "paper" and not _is_minimum(ball):
        reason = f"does not apply: {describe(known.center)} is not a minimum"
    if ball is None or reason:
        hypotheses = {} if ball is None else ball.hypotheses(process.epsilon2)
        return [
            inapplicable(name, f"{t}, {label}", CUT_MASS, "lower", reason, hypotheses, parameters) for t in theorems
        ]
    rate, g, R0 = ball.rate.value, ball.pull.value, known.radius
    hypotheses = ball.hypotheses(process.epsilon2)
    constant = cut_off_constant(name, ball.largest.value, ball.size, process.dimension, known.delta) * (1 + OUTWARD)
    distance = lambda x: np.linalg.norm(x - known.center, axis=1)  # noqa: E731
    start = initial(lambda x: cut_off(distance(x), R0, known.delta))
    shrinking = rate / 2 if name == "paper" else rate

    def shrunk(t: float) -> float:
        floor = 0.0 if name == "paper" else g / rate
        return floor + (R0 - floor) * math.exp(-shrinking * t)

    def loss(t: float) -> float:
        if (name == "paper" and shrunk(t) < 2 * g / rate) or g / rate > R0 or 2 * shrinking * t > 700:
            return math.inf
        return schedule.largest(t) * constant * math.expm1(2 * shrinking * t) / (2 * shrinking * R0**2)

    def bound(theorem: str, lost: Callable[[float], float], size: Callable[[float], float], more: dict) -> TimeBound:
        return TimeBound(
            name, f"{theorem}, {label}", CUT_MASS, "lower", True, "", hypotheses,
            parameters | {"initial": start, "constant": constant} | more, vectorised(lambda t: _left(start, lost(t))),
            lambda t, x: cut_off(distance(x), size(t), known.delta),
        )  # fmt: skip

    steady = lambda t: schedule.largest(t) * constant * t / R0**2 if rate * R0 >= g else math.inf  # noqa: E731
    found = [
        bound(theorems[0], loss, shrunk, {"rate": shrinking}),
        bound(theorems[1], steady, lambda t: R0, {"rate": 0.0}),
    ]
    if process.epsilon2 is None:
        reason = "does not apply: the process has no ε²"
        return [
            *found,
            inapplicable(name, f"{theorems[2]}, {label}", CUT_MASS, "lower", reason, hypotheses, parameters),
        ]
    a = R0 if a is None else a
    end = math.log(R0 / (a * process.epsilon2 ** (alpha / 2))) / shrinking
    allowed = loss(end) if end > 0 else 0.0
    more = {"rate": shrinking, "alpha": alpha, "a": a, "T_epsilon": end, "loss": allowed}
    found.append(bound(theorems[2], lambda t: allowed if 0 <= t <= end else math.inf, shrunk, more))
    return found


def _left(start: float, lost: float) -> float:
    """Return what is surely left; 0 where nothing is known."""
    return max(start - lost, 0.0)

r"""Upper bounds of the mean exit time u by functions of one coordinate v·x.

Paper Theorems 1.4, 3.2 and 3.3. ``dX = -∇L dt + sqrt(2a) dW``, ``a = ε²Q_eff``; only Itô's formula is used.
Let ``y = v·(x-c)``, ``vᵀav >= b > 0`` and |y| <= R on Ω, and w = W(|y|) with ``W'(0) = 0``, W' <= 0, W'' <= 0 and
W(R) >= 0. Then ``-A w >= b|W''| - (sign(y) v·∇L)|W'|``.

- *paper*: ``W = (2/Λ)(e^{ΛR²/2b} - e^{Λy²/2b})`` under ``(v·∇L) y <= Λy² + b/2``, Λ >= 0 (for Λ = 0 the limit
  (R²-y²)/b): ``-A w >= (2/b) e^{Λy²/2b} (b + Λy² - Λy² - b/2) >= 1``.
- *sharp*: under ``sign(y) v·∇L <= Λ|y| + κ`` with κ >= 0 let ``W' = -p``, ``b p' = 1 + (Λ|y| + κ) p``, p(0) = 0. Then
  p, p' > 0 and ``-A w >= b p' - (Λ|y| + κ) p = 1``. As ``p = (1/b)∫₀^y e^{(Λ(y²-t²)/2 + κ(y-t))/b} dt`` is at most
  ``e^{κR/b}|m'(y; 1, Λ, b)|``, W is at most ``e^{κR/b} m(|y|; 1, Λ, b)``. κ = 0 is the statement in mathematics.md
  section 3; κ > 0 allows v·∇L ≠ 0 on y = 0.

|v| = 1 is nowhere used. As w >= 0 on the closure of Ω, Itô gives ``0 <= E w(X_{τ∧t}) <= w(x) - E(τ∧t)``, and t → ∞
gives ``u <= w(x)``. Nothing changes where Ω has characteristic parts through which the process never leaves: w >= 0 is
asked on the whole closure. On reflecting parts w would need a sign of its conormal derivative, which is not checked:
no upper bound is reported then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from fpsolve.model.domains import MeshFile
from fpsolve.model.process import Process
from fpsolve.theory import candidates
from fpsolve.theory.constants import Constant, Field, directional_diffusion_inf, reach_sup
from fpsolve.theory.cover import Cover, SublevelCover
from fpsolve.theory.profiles import StripUpper
from fpsolve.theory.search import Budget
from fpsolve.theory.slopes import paper_slope, plane_sup, sharp_slope
from fpsolve.theory.theorem import ATTEMPTS, THEOREMS, Bound, missing, numbers, per_epsilon2, prepare, search_points


def upper_bound(name: Literal["paper", "sharp"], process: Process, domain: Any, budget: Budget) -> Bound:
    """Return the upper bound of that name for the best direction and centre found; see the module's docstring."""
    if tuple(domain.reflecting):
        return missing(name, "upper", f"does not apply: reflecting part ({', '.join(map(str, domain.reflecting))})")
    prepared = prepare(process, domain)
    if isinstance(prepared, str):
        return missing(name, "upper", prepared)
    rigorous, cover = prepared
    if isinstance(domain, MeshFile) and domain.contents.cells.shape[1] > domain.dimension + 1:
        return missing(name, "upper", "does not apply: curved cells may reach beyond the box around the mesh's nodes")
    if isinstance(cover, SublevelCover) and not cover.separated:
        return missing(name, "upper", "the component could not be separated from the edge of its search box")
    reasons: list[str] = []
    hypotheses: dict[str, Constant] = {}
    for choice in candidates.strips(process, cover, search_points(process, domain, cover), name == "sharp")[:ATTEMPTS]:
        result = _verified_strip(name, rigorous, choice, cover, budget.share(1.4))
        if isinstance(result, Bound):
            return result
        reasons.append(result[0])
        hypotheses = hypotheses or result[1]
    reason = reasons[0] if reasons else "does not apply: no direction v with vᵀQv >= β > 0 on Ω was found"
    return missing(name, "upper", reason, hypotheses)


def _verified_strip(
    name: Literal["paper", "sharp"], rigorous: Field, choice: candidates.StripChoice, cover: Cover, budget: Budget
) -> Bound | tuple[str, dict[str, Constant]]:
    """Check the hypotheses for one direction and centre and return the bound, or the reason why not."""
    v, center = choice.direction, choice.center
    epsilon2 = rigorous.process.epsilon2 or 1.0
    b = directional_diffusion_inf(rigorous, v, cover, budget.share(3))
    found = {"beta": per_epsilon2("beta", b, epsilon2)}
    if not b.verified:
        return "does not apply: " + b.reason, found
    reach = found["R_v"] = reach_sup(v, center, cover, budget.share(3))
    kappa = 0.0
    if name == "paper":
        rate = paper_slope(rigorous, v, center, b.value, reach.value, cover, budget)
    else:
        plane = plane_sup(rigorous, v, center, cover, budget.share(3))
        if not plane.verified:
            return plane.reason, found
        # an offset below this is rounding: then |v·∇L| on the hyperplane itself is taken, 0 if it vanishes exactly
        chosen = choice.offset if choice.offset > 1e-6 * b.value / reach.value else 0.0
        kappa = max(plane.value, chosen)
        found["offset"] = replace(plane, name="offset", value=kappa)
        rate = sharp_slope(rigorous, v, center, kappa, b.value, reach.value, cover, budget)
    found["Lambda"] = rate
    if not rate.verified or not reach.verified:
        return rate.reason or reach.reason, found
    profile = StripUpper(numbers(v), numbers(center), reach.value, rate.value, b.value, kappa, name == "paper")
    parameters = {"direction": numbers(v), "center": numbers(center), "radius": reach.value}
    return Bound(name, "upper", THEOREMS[name, "upper"], True, "", found, parameters, profile)

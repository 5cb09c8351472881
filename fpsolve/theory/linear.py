r"""Which processes are linear, their conditions (I) and (II) and their block structure; the paper's Examples 4-8.

Condition (I): C is positive stable. Condition (II), Hörmander's or Kalman's: rank [a, Ca, …, C^{d-1}a] = d.

(II) is printed as "no eigenvector of C in ker Q₀". That is right for symmetric C. In general it is **no eigenvector of
Cᵀ in ker a** (Hautus): the rank is < d iff some w ≠ 0 has ``wᵀC^k a = 0`` for all k; the set of these w is Cᵀ-invariant
and in ker a, so it holds an eigenvector of Cᵀ. For the kinetic equation ``C = [[0,-1],[c,g]]``, a = diag(0, D), no
eigenvector of either is in ker a; but for C = [[1,1],[0,2]], a = diag(1, 0) the second variable sees no noise, Cᵀ has
the eigenvector (0,1) in ker a, and C has (1,1) and (1,0) only, none in ker a.

Let V be the range of the Kalman matrix, the smallest C-invariant subspace that holds the range of a. In an orthonormal
basis of V (x, n coordinates) and of its complement (y)

    ``C = [[C₀, C₁], [0, C₃]]``,  ``a = [[Q₀, 0], [0, 0]]``,

so y moves deterministically, ``y' = -C₃y``, and (C₀, Q₀) satisfies (II) on ℝⁿ: the paper's Example 8 (with C₁ = 0 in
Theorem 4.13, always so for symmetric C). With (I) the law tends to ``g∞(x) ⊗ δ₀(y)``, the Gaussian with the singular
covariance K of ``CK + KCᵀ = 2a``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy
from flint import arb, fmpq, fmpq_mat
from scipy.linalg import solve_continuous_lyapunov

from fpsolve.model.expressions import Formula, symbols
from fpsolve.model.process import FormulaLandscape, Process
from fpsolve.theory.balls import Ball, dot, smallest_eigenvalue
from fpsolve.theory.constants import Constant
from fpsolve.theory.gaussian import LinearDiffusion

#: New directions are accepted in the Kalman space down to this part of ‖C‖ (and of ‖a‖ for the range of a).
RANK_TOLERANCE = 1e-9
#: Margins, relative to ‖C‖, by which a proven rate may stay below γ; the first one that works is taken.
MARGINS = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2)


def linear_diffusion(process: Process) -> LinearDiffusion | None:
    """Return the process as a linear diffusion if its formulas are affine (drift) and constant (diffusion), else None.

    Recognised exactly, from the expressions: `Process.drift` and `Process.diffusion` as `Formula`, or SGD of a formula
    landscape with quadratic loss and constant covariance. Coefficients that are opaque functions are not probed.
    """
    parts = _formulas(process)
    if parts is None:
        return None
    drift, noise = parts
    names, d = symbols(process.variables), process.dimension
    affine = [_affine(entry, names) for entry in drift]
    constant = [sympy.simplify(entry) for entry in noise[0]]
    if any(entry is None for entry in affine) or any(entry.free_symbols for entry in constant):
        return None
    rows = [entry for entry in affine if entry is not None]
    C = sympy.Matrix(d, d, [-value for row in rows for value in row[:d]])
    b = sympy.Matrix(d, 1, [row[d] for row in rows])
    strength, extra = noise[1], noise[2]
    a = strength * np.array([float(entry) for entry in constant]).reshape(d, d) + extra * np.eye(d)
    matrix = np.array(C.tolist(), dtype=float)
    rational = None
    if all(entry.is_Rational for entry in [*C, *constant]) and extra == 0:
        rational = _fractions(C), _fractions(constant)
    if C.det() != 0:
        x0: np.ndarray = np.array(list(C.solve(b)), dtype=float)
        rest: np.ndarray = np.zeros(d)
    else:
        value = np.array(list(b), dtype=float)
        x0 = np.asarray(np.linalg.pinv(matrix) @ value)
        rest = value - matrix @ x0
        rest = np.where(np.abs(rest) <= 1e-12 * (1e-300 + np.abs(value).max()), 0.0, rest)
    return LinearDiffusion(matrix, a, x0, rest, rational)


def _fractions(entries: object) -> tuple[Fraction, ...]:
    return tuple(Fraction(int(entry.p), int(entry.q)) for entry in entries)  # type: ignore[attr-defined]


def _formulas(process: Process) -> tuple[tuple[sympy.Expr, ...], tuple[tuple[sympy.Expr, ...], float, float]] | None:
    """Return f, and Q, strength, extra with ``a = strength Q + extra I``; None where they are not formulas."""
    if isinstance(process.drift, Formula) and isinstance(process.diffusion, Formula):
        return process.drift.entries, (process.diffusion.entries, 1.0, 0.0)
    landscape = process.landscape
    if not isinstance(landscape, FormulaLandscape) or process.epsilon2 is None:
        return None
    if landscape.variables != process.variables:
        return None
    # a process built by hand may have other coefficients than its landscape's
    x = np.linspace(-0.7, 0.9, 5 * process.dimension).reshape(5, process.dimension)
    drift, strength = -landscape.gradient(x), process.epsilon2 * process.covariance_scale
    a = strength * landscape.covariance(x) + process.extra_diffusion * np.eye(process.dimension)
    if not (np.array_equal(process.drift(x), drift) and np.allclose(process.diffusion(x), a, rtol=1e-14, atol=0)):
        return None
    gradient = landscape.loss_formula.derivative()
    entries = tuple(-entry for entry in gradient.entries)
    return entries, (landscape.covariance_formula.entries, strength, process.extra_diffusion)


def _affine(entry: sympy.Expr, names: tuple[sympy.Symbol, ...]) -> tuple[sympy.Expr, ...] | None:
    """Return the coefficients of an affine expression and its constant, exactly; None if it is not affine."""
    entry = sympy.expand(entry)
    if not entry.is_polynomial(*names):
        entry = sympy.simplify(entry)
        if not entry.is_polynomial(*names):
            return None
    polynomial = sympy.Poly(entry, *names)
    if polynomial.total_degree() > 1:
        return None
    return (*(polynomial.coeff_monomial(name) for name in names), polynomial.coeff_monomial(1))


@dataclass(frozen=True, eq=False)
class Structure:
    """Directions that noise reaches, and those that move deterministically; see the module's docstring.

    Attributes
    ----------
    diffusive : ndarray, shape (d, n)
        Orthonormal basis of V; coordinate axes where V is spanned by some.
    deterministic : ndarray, shape (d, d - n)
        Orthonormal basis of the complement: ``y = deterministicᵀ (x - x₀)``.
    C0, Q0 : ndarray, shape (n, n)
    C1 : ndarray, shape (n, d - n)
    C3 : ndarray, shape (d - n, d - n)
    margin : float
        Smallest singular value that counted as nonzero over its tolerance (the decision is clear when it is large).
    """

    diffusive: np.ndarray
    deterministic: np.ndarray
    C0: np.ndarray
    Q0: np.ndarray
    C1: np.ndarray
    C3: np.ndarray
    margin: float


def structure(law: LinearDiffusion) -> Structure:
    """Return the block structure of a linear diffusion, by an orthogonal staircase (no powers of C are formed)."""
    d, size = law.dimension, max(float(np.linalg.norm(law.C, 2)), 1e-300)
    values, vectors = np.linalg.eigh(law.a)
    tolerance = RANK_TOLERANCE * max(float(values[-1]), 1e-300)
    new, margin = vectors[:, values > tolerance], np.inf
    if new.shape[1]:
        margin = float(values[values > tolerance][0]) / tolerance
    basis = new
    while new.shape[1] and basis.shape[1] < d:
        image = law.C @ new / size
        image -= basis @ (basis.T @ image)
        image -= basis @ (basis.T @ image)  # twice is enough
        left, singular, _ = np.linalg.svd(image, full_matrices=False)
        kept = singular > RANK_TOLERANCE
        new = left[:, kept]
        if kept.any():
            margin = min(margin, float(singular[kept][-1]) / RANK_TOLERANCE)
        basis = np.column_stack([basis, new])
    projector = basis @ basis.T
    on_axis = np.abs(np.diag(projector) - 1) < 1e-10
    if np.count_nonzero(on_axis) == basis.shape[1]:
        inside, outside = np.eye(d)[:, on_axis], np.eye(d)[:, ~on_axis]
    else:
        inside = basis
        outside = np.linalg.svd(np.eye(d) - projector)[0][:, : d - basis.shape[1]]
    return Structure(
        inside, outside, inside.T @ law.C @ inside, inside.T @ law.a @ inside, inside.T @ law.C @ outside,
        outside.T @ law.C @ outside, margin,
    )  # fmt: skip


def kalman_rank(law: LinearDiffusion) -> Constant:
    """Return the rank of [a, Ca, …, C^{d-1}a]; verified where exact arithmetic and the robust staircase agree.

    The exact rank is that of the formulas where these are rational, else that of the floating-point matrices.
    """
    d = law.dimension
    robust = structure(law).diffusive.shape[1]
    if law.rational is not None:
        C, a = (fmpq_mat(d, d, [fmpq(x.numerator, x.denominator) for x in part]) for part in law.rational)
    else:
        C, a = (fmpq_mat(d, d, [fmpq(*float(x).as_integer_ratio()) for x in part.ravel()]) for part in (law.C, law.a))
    power, columns = a, []
    for _ in range(d):
        columns.append(power)
        power = C * power
    exact = fmpq_mat(d, d * d, [part[i, j] for i in range(d) for part in columns for j in range(d)]).rank()
    reason = "" if exact == robust else f"exact rank {exact}, but {robust} up to a relative perturbation of 1e-9"
    return Constant("Kalman rank", float(robust), "lower", "exact rational arithmetic", 1, not reason, reason)


def proven_rate(C: np.ndarray, name: str = "gamma") -> Constant:
    """Return a proven lower bound of min Re eig C.

    ``(C-g)P + P(C-g)ᵀ > 0`` with P > 0 implies that all eigenvalues of C have real part > g (Lyapunov): P comes from
    floating point, both inequalities are proven in Arb.
    """
    d, gamma = len(C), float(np.min(np.linalg.eigvals(C).real))
    size = max(float(np.linalg.norm(C, 2)), 1e-300)
    for margin in MARGINS:
        g = gamma - margin * size
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "nearly singular" means that this margin is too small
            try:
                P = solve_continuous_lyapunov(C - g * np.eye(d), np.eye(d))
            except (np.linalg.LinAlgError, ValueError, RuntimeWarning):
                continue
        P = 0.5 * (P + P.T)
        if np.isfinite(P).all() and positive(P) and contracts(C, g, P):
            return Constant(name, g, "lower", "Lyapunov's matrix inequality, proven in Arb", 1)
    return Constant(name, gamma, "lower", "", 0, False, "no matrix for Lyapunov's inequality could be proven")


def _entries(matrix: np.ndarray) -> list[Ball]:
    return [arb(float(x)) for x in matrix.ravel()]


def positive(matrix: np.ndarray) -> bool:
    """Prove that a symmetric matrix is positive definite."""
    return smallest_eigenvalue(_entries(matrix), len(matrix)) > 0


def contracts(C: np.ndarray, g: float, P: np.ndarray) -> bool:
    """Prove that (C-g)P + P(C-g)ᵀ is positive definite."""
    d, p = len(C), _entries(P)
    c = [x - arb(g) if k % (d + 1) == 0 else x for k, x in enumerate(_entries(C))]
    product = [dot(c[i * d : (i + 1) * d], p[j::d]) for i in range(d) for j in range(d)]
    return smallest_eigenvalue([product[i * d + j] + product[j * d + i] for i in range(d) for j in range(d)], d) > 0


def example4(d: int, rate: float, sigma: float, epsilon2: float) -> LinearDiffusion:
    """Return Example 4: L = λ|x|²/2, Q = (σ/d) I."""
    return LinearDiffusion(rate * np.eye(d), epsilon2 * sigma / d * np.eye(d), np.zeros(d))


def example5(d: int, rate: float, sigma: float, epsilon2: float) -> LinearDiffusion:
    """Return Example 5: L = λ|x|²/2, Q = diag(σ, 0, …, 0)."""
    a = np.zeros((d, d))
    a[0, 0] = epsilon2 * sigma
    return LinearDiffusion(rate * np.eye(d), a, np.zeros(d))


def example6(C: np.ndarray) -> LinearDiffusion:
    """Return Example 6, transport without noise: ``ρ(t, x) = e^{t tr C} ρ₀(e^{Ct}x)``."""
    return LinearDiffusion(C, np.zeros_like(C, dtype=float), np.zeros(len(C)))


def example7() -> LinearDiffusion:
    """Return Example 7: from the point (x̃, ỹ) the x-marginal is N(x̃e^{-t}, 1 - e^{-2t}), y = ỹe^{-t}.

    Printed as ``2/(√2π(1-e^{-2t})) e^{-2x²/(1-e^{-2t})}`` convolved in x - x̃, which is wrong in width and mean.
    """
    return LinearDiffusion(np.eye(2), np.diag([1.0, 0.0]), np.zeros(2))


def example8(C0: np.ndarray, Q0: np.ndarray, C3: np.ndarray, C1: np.ndarray | None = None) -> LinearDiffusion:
    """Return Example 8, C₂ = 0: noise Q₀ in x only, drift [[C₀, C₁], [0, C₃]]; the covariance from a point is 2W(t).

    Printed with W(t) in place of 2W(t) in the exponent and det W without a root.
    """
    n, k = len(C0), len(C3)
    C, a = np.zeros((n + k, n + k)), np.zeros((n + k, n + k))
    C[:n, :n], C[n:, n:], a[:n, :n] = C0, C3, Q0
    if C1 is not None:
        C[:n, n:] = C1
    return LinearDiffusion(C, a, np.zeros(n + k))

"""Exact mean exit times (MET), computed without fpsolve and without finite elements.

Convention of mathematics.md: `dX = f dt + sqrt(2 a) dW`, `A u = tr(a D²u) + f·∇u`, `-A u = 1`, `u = 0` where the
process leaves. Everything is float64 numpy.

* One dimension: with `W' = -f/a`, scale density `s' = e^W` and speed density `m = e^{-W}/a` every quantity is an
  iterated integral of positive functions (no subtraction), so the relative error stays near 1e-13 for MET of any size
  that a double can hold. Quadrature: composite Gauss-Legendre with spectral cumulative integrals; the number of panels
  is doubled until the answer stands still.
* Two dimensions, separable: the Green operator `K = (-A₁)^{-1}` of a 1D factor, `(K g)(x) = ∫ G(x,z) m(z) g(z) dz`, is
  discretised at the same Gauss nodes, where it is exactly symmetric in the weight m, and diagonalised,
  `K φ_i = κ_i φ_i`. Then `u = Σ c_i κ_i φ_i(x) R(κ_i)` with R in closed form (1D exit time: R = 1). Working with K
  instead of A₁ makes the error relative to the largest κ, that is to max u, not to a differentiation matrix.

Points outside the domain get 0. All functions take scalars or arrays (scalars give numpy scalars).

Sources: Karlin & Taylor, *A Second Course in Stochastic Processes* (1981), section 15.3 (scale, speed, Green function);
Borodin & Salminen, *Handbook of Brownian Motion* (Ornstein-Uhlenbeck exit times); DLMF chapters 13 and 15;
Hairer, Lubich & Wanner, *Geometric Numerical Integration*, ch. IV (at Gauss nodes `b_i a_ij + b_j a_ji = b_i b_j`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Function = Callable[[Any], Any]

__all__ = [
    "ball_ou_met",
    "constant_q_disc_met",
    "degenerate_disc_met",
    "double_well_box_met",
    "interval_met",
    "interval_met_one_sided",
    "interval_second_moment",
    "product_survival",
    "strip_ou_rotated",
    "variable_interval_met",
]

ORDER = 16  # Gauss-Legendre nodes per panel


# ---------------------------------------------------------------------------------------------------------------------
# Composite Gauss-Legendre quadrature with cumulative integrals
# ---------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _gauss(order: int = ORDER) -> tuple[Array, Array, Array]:
    """Nodes c, weights b and cumulative matrix A (`∫₀^{c_i} p = Σ_j A_ij p(c_j)`) of Gauss-Legendre on [0, 1]."""
    t, w = legendre.leggauss(order)
    # coefficients of the Lagrange basis by discrete orthogonality (exact for Gauss nodes), then integrated from -1
    coefficients = (np.arange(order)[:, None] + 0.5) * legendre.legvander(t, order - 1).T * w
    integrated = legendre.legint(coefficients, lbnd=-1, axis=0)
    return (t + 1) / 2, w / 2, legendre.legvander(t, order) @ integrated / 2


def _nodes(breaks: Array) -> Array:
    """Gauss nodes of each panel, shape (panels, ORDER)."""
    return breaks[:-1, None] + np.diff(breaks)[:, None] * _gauss()[0]


def _from_left(breaks: Array, values: Array) -> tuple[Array, Array]:
    """`∫_{lower}^x values` for x at the nodes and at the breaks."""
    _, b, a = _gauss()
    h = np.diff(breaks)
    at_breaks = np.concatenate([[0.0], np.cumsum(h * (values @ b))])
    return at_breaks[:-1, None] + h[:, None] * (values @ a.T), at_breaks


def _from_right(breaks: Array, values: Array) -> tuple[Array, Array]:
    """`∫_x^{upper} values` for x at the nodes and at the breaks; not computed as a difference."""
    _, b, a = _gauss()
    h = np.diff(breaks)
    at_breaks = np.concatenate([[0.0], np.cumsum((h * (values @ b))[::-1])])[::-1]
    return at_breaks[1:, None] + h[:, None] * (values @ (b - a).T), at_breaks


def _at_points(solve: Callable[[Array], Array], lower: float, upper: float, x: ArrayLike) -> Any:
    """Values at x of `solve(breaks)` (values at the breaks), doubling the panels until they agree to 1e-12."""
    points = np.clip(np.asarray(x, dtype=float), lower, upper)
    previous, panels = None, 32
    while panels <= 16384:
        breaks = np.unique(np.concatenate([np.linspace(lower, upper, panels + 1), points.ravel()]))
        values = solve(breaks)[np.searchsorted(breaks, points)]
        if previous is not None and np.allclose(values, previous, rtol=1e-12, atol=1e-300):
            return values[()]
        previous, panels = values, 2 * panels
    raise ArithmeticError(f"quadrature on ({lower}, {upper}) did not converge")


def _green(
    breaks: Array, w: Array, a: Array | float, source: Array | float, reflecting: str | None
) -> tuple[Array, Array]:
    """Solution of `-(a u'' + f u') = source`, `w' = -f/a`, at the nodes and at the breaks (subtraction-free)."""
    shift = (w.max() + 2 * w.min()) / 3
    scale, speed = np.exp(w - shift), np.exp(shift - w) / a * source
    if reflecting == "left":
        return _from_right(breaks, scale * _from_left(breaks, speed)[0])
    if reflecting == "right":
        return _from_left(breaks, scale * _from_right(breaks, speed)[0])
    left, right = _from_left(breaks, scale), _from_right(breaks, scale)
    root = np.sqrt(left[1][-1])  # S(a,b)^{1/2} on each factor: no overflow, no underflow
    below, above = _from_left(breaks, left[0] / root * speed), _from_right(breaks, right[0] / root * speed)
    nodes, ends = (right[k] / root * below[k] + left[k] / root * above[k] for k in (0, 1))
    return nodes, ends


# ---------------------------------------------------------------------------------------------------------------------
# One dimension
# ---------------------------------------------------------------------------------------------------------------------


def interval_met(potential: Function, epsilon2: float, lower: float, upper: float, x: ArrayLike) -> Any:
    """MET of `dX = -V'(X) dt + sqrt(2 ε²) dW` from (lower, upper), both ends absorbing.

    Parameters
    ----------
    potential : callable
        V, smooth, vectorised over a numpy array.
    epsilon2 : float
        ε².
    lower, upper : float
        The ends.
    x : array_like
        Starting points.

    Returns
    -------
    numpy scalar or array
        `u = [S(x,b) ∫_a^x S(a,z) m dz + S(a,x) ∫_x^b S(z,b) m dz] / S(a,b)`, `S(p,q) = ∫_p^q e^{V/ε²}`,
        `m = e^{-V/ε²}/ε²`: Karlin & Taylor (1981), section 15.3. All terms are positive. Relative accuracy
        about 1e-12 (rounding of V/ε²: |V/ε²|·1e-16) as long as e^{2(max V - min V)/3ε²} fits in a double.
    """

    def solve(breaks: Array) -> Array:
        return _green(breaks, potential(_nodes(breaks)) / epsilon2, epsilon2, 1.0, None)[1]

    return _at_points(solve, lower, upper, x)


def interval_met_one_sided(
    potential: Function, epsilon2: float, lower: float, upper: float, x: ArrayLike, reflecting: str = "left"
) -> Any:
    """MET of `dX = -V'(X) dt + sqrt(2 ε²) dW` when one end reflects (u' = 0 there) and the other absorbs.

    Parameters
    ----------
    potential, epsilon2, lower, upper, x
        As in `interval_met`.
    reflecting : {"left", "right"}
        The reflecting end.

    Returns
    -------
    numpy scalar or array
        For "left": `u(x) = (1/ε²) ∫_x^b e^{V(y)/ε²} ∫_a^y e^{-V(z)/ε²} dz dy`; for "right" its mirror image
        (Karlin & Taylor 1981, section 15.3; this is the integral of power-law (5.2), see mathematics.md section 8).
    """
    if reflecting not in ("left", "right"):
        raise ValueError("reflecting must be 'left' or 'right'")

    def solve(breaks: Array) -> Array:
        return _green(breaks, potential(_nodes(breaks)) / epsilon2, epsilon2, 1.0, reflecting)[1]

    return _at_points(solve, lower, upper, x)


def interval_second_moment(potential: Function, epsilon2: float, lower: float, upper: float, x: ArrayLike) -> Any:
    """Second moment `E_x τ²` of the exit time of `dX = -V'(X) dt + sqrt(2 ε²) dW`, both ends absorbing.

    Parameters
    ----------
    potential, epsilon2, lower, upper, x
        As in `interval_met`.

    Returns
    -------
    numpy scalar or array
        u₂ with `-A u₂ = 2 u₁`, u₂ = 0 at both ends (Karlin & Taylor 1981, section 15.3): the Green formula of
        `interval_met` with m replaced by 2 u₁ m.
    """

    def solve(breaks: Array) -> Array:
        w = potential(_nodes(breaks)) / epsilon2
        return _green(breaks, w, epsilon2, 2 * _green(breaks, w, epsilon2, 1.0, None)[0], None)[1]

    return _at_points(solve, lower, upper, x)


def variable_interval_met(drift: Function, a: Function, lower: float, upper: float, x: ArrayLike) -> Any:
    """MET of `dX = f(X) dt + sqrt(2 a(X)) dW` from (lower, upper), a > 0, both ends absorbing.

    Parameters
    ----------
    drift, a : callable
        f and a (not its root), smooth, vectorised over a numpy array.
    lower, upper : float
        The ends.
    x : array_like
        Starting points.

    Returns
    -------
    numpy scalar or array
        Formula of `interval_met` with scale density `e^W`, `W' = -f/a`, and speed density `e^{-W}/a`
        (Karlin & Taylor 1981, section 15.3, their σ² is 2a).
    """

    def solve(breaks: Array) -> Array:
        nodes = _nodes(breaks)
        diffusion = a(nodes) + 0.0 * nodes
        w = _from_left(breaks, -drift(nodes) / diffusion)[0]
        return _green(breaks, w, diffusion, 1.0, None)[1]

    return _at_points(solve, lower, upper, x)


# ---------------------------------------------------------------------------------------------------------------------
# Radial, strip and driftless cases
# ---------------------------------------------------------------------------------------------------------------------


def _kummer_integral(kappa: Array, d: float) -> Array:
    """`J(κ) = ∫₀¹ t^{d-1} e^{κ(1-t²)} dt = M(1, d/2+1, κ)/d` by series with positive terms (DLMF 13.2.2, 13.2.39)."""
    size, positive = np.abs(kappa), kappa >= 0
    if size.max(initial=0.0) > 600:
        raise ValueError("λR²/2s beyond the range of a double")
    term = np.where(positive, 1.0, np.exp(-size))  # κ >= 0: κ^k/(d/2+1)_k ; κ < 0: e^κ |κ|^k/k!
    total, k = term / d, 0
    while k <= size.max(initial=0.0) or np.any(term > 1e-18 * total):
        k += 1
        term = term * size / np.where(positive, 0.5 * d + k, k)
        total = total + term / np.where(positive, d, d + 2 * k)
    return total


def ball_ou_met(r: ArrayLike, d: float, lam: float, s: float, R: float) -> Any:
    """MET m(r; d, λ, s) of the OU process `dX = -λX dt + sqrt(2s) dW` in R^d from the ball B_R, |X₀| = r.

    Parameters
    ----------
    r : array_like
        Distance from the centre.
    d : float
        Dimension (>= 1).
    lam : float
        λ of any sign; 0 is Brownian motion, `m = (R²-r²)/(2sd)`.
    s : float
        Diffusion coefficient (ε²σ).
    R : float
        Radius. |λ|R²/2s <= 600.

    Returns
    -------
    numpy scalar or array
        `m(r) = (1/s) ∫_r^R ρ J(λρ²/2s) dρ`, `J(κ) = ∫₀¹ t^{d-1} e^{κ(1-t²)} dt`, which is mathematics.md section 3,
        `m' = -(1/s) r^{1-d} e^{λr²/2s} ∫₀^r t^{d-1} e^{-λt²/2s} dt`, with t = rτ. In closed form
        `m = [R² F(λR²/2s) - r² F(λr²/2s)]/(2sd)`, `F = ₂F₂(1,1; 2,d/2+1; ·)`.
    """

    def solve(breaks: Array) -> Array:
        rho = _nodes(breaks)
        return _from_right(breaks, rho / s * _kummer_integral(lam * rho**2 / (2 * s), d))[1]

    return _at_points(solve, 0.0, R, r)


def strip_ou_rotated(x: ArrayLike, y: ArrayLike, t: float, epsilon2: float, half_width: float = 1.0) -> Any:
    """MET for L = |x|²/2 and Q = e eᵀ, e = (cos t, sin t) (diag(1,0) rotated by t), from the strip |e·x| < half_width.

    Parameters
    ----------
    x, y : array_like
        Starting points.
    t : float
        Angle.
    epsilon2 : float
        ε².
    half_width : float
        Half the width of the strip.

    Returns
    -------
    numpy scalar or array
        `m(|e·x|; 1, 1, ε², half_width)` (`ball_ou_met`): e·X is an autonomous 1D OU process, because e is an
        eigenvector of the drift matrix.

    Notes
    -----
    Exact for every set {|e·x| < w, -H₁ < e⊥·x < H₂} with H₁, H₂ in (0, ∞], whatever they are: e⊥·X is deterministic
    and decays to 0, so the ends e⊥·x = H₂, -H₁ are never crossed (n·a n = 0, drift inward: no Dirichlet data there, and
    u is positive up to them). Not exact for domains whose other sides are inclined to e.
    """
    along = np.cos(t) * np.asarray(x, dtype=float) + np.sin(t) * np.asarray(y, dtype=float)
    return ball_ou_met(np.abs(along), 1, 1.0, epsilon2, half_width)


def constant_q_disc_met(
    x: ArrayLike,
    y: ArrayLike,
    q: ArrayLike,
    epsilon2: float,
    axes: tuple[float, float] = (1.0, 1.0),
    angle: float = 0.0,
) -> Any:
    """MET without drift, Q constant, from a disc or an ellipse centred at 0.

    Parameters
    ----------
    x, y : array_like
        Starting points.
    q : array_like
        Q, 2×2 symmetric, positive semidefinite, not zero (rank one allowed, rotated or not).
    epsilon2 : float
        ε².
    axes : tuple of float
        Semi-axes; (R, R) is the disc.
    angle : float
        Direction of the first axis.

    Returns
    -------
    numpy scalar or array
        Ellipse {xᵀBx < 1}: `u = (1 - xᵀBx)/(2 ε² tr(QB))`, since D²u = -B/(ε² tr QB). For the disc
        B = I/R², so `u = (R² - |x|²)/(2 ε² tr Q)`: only the trace of Q matters. For Q = I this is Thm 3.1's w.
    """
    c, s = np.cos(angle), np.sin(angle)
    frame = np.array([[c, s], [-s, c]])
    form = frame.T @ np.diag([1 / axes[0] ** 2, 1 / axes[1] ** 2]) @ frame
    point = np.stack(np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float)))
    inside = 1 - np.einsum("i...,ij,j...->...", point, form, point)
    return (np.maximum(inside, 0) / (2 * epsilon2 * np.trace(np.asarray(q, dtype=float) @ form)))[()]


# ---------------------------------------------------------------------------------------------------------------------
# Separable cases in two dimensions: spectral decomposition of the 1D Green operator
# ---------------------------------------------------------------------------------------------------------------------


class _Modes(NamedTuple):
    """Green operator of one 1D factor, see `_modes`."""

    breaks: Array
    kappa: Array  # eigenvalues of K = (-A)^{-1}, descending
    c: Array  # 1 = Σ c_i φ_i
    noise: float  # rounding error of each c_i
    truncated: bool  # whether modes with κ > 1e-13 κ₁ were left out
    met: Array  # K 1 at the nodes
    phi: Array  # κ_i φ_i at the nodes

    def at(self, x: Array) -> tuple[Array, Array]:
        """`met` and `phi` at the points x by interpolation in the panel, 0 outside."""
        inside = (x > self.breaks[0]) & (x < self.breaks[-1])
        panel = np.clip(np.searchsorted(self.breaks, x, side="right") - 1, 0, len(self.breaks) - 2)
        local = (x - self.breaks[panel]) / np.diff(self.breaks)[panel]
        c = 2 * _gauss()[0] - 1
        vandermonde = legendre.legvander(c, ORDER - 1)
        lagrange = np.linalg.solve(vandermonde.T, legendre.legvander(2 * local - 1, ORDER - 1).T).T * inside[:, None]
        rows = panel[:, None] * ORDER + np.arange(ORDER)
        return np.einsum("pj,pj->p", lagrange, self.met[rows]), np.einsum("pj,pji->pi", lagrange, self.phi[rows])

    def apply(self, x: Array, change: Array) -> Array:
        """`(g(K) K 1)(x)`, change = g(κ_i) - 1 in [-1, 0] or small, shape (x, κ).

        nan where rounding or the truncation of the expansion may exceed 1e-9 of the value: in the steep tails of the
        potential φ_i grows like e^{V/2ε²} and the sum lives from cancellation, if many modes take part.
        """
        met, phi = self.at(x)
        terms = phi * change * self.c
        value = met + terms.sum(axis=1)
        rounding = self.noise * np.einsum("pi,pi->p", np.abs(phi), np.abs(change))
        rounding += 1e-13 * self.kappa[0] * np.abs(change[:, -1])  # modes with κ < 1e-13 κ₁
        truncation = 10 * np.abs(terms[:, -8:]).max(axis=1) if self.truncated else 0.0
        return np.where(rounding + truncation <= 1e-9 * np.abs(value), value, np.nan)


def _equidistribute(potential: Function, epsilon2: float, lower: float, upper: float) -> Array:
    """Breaks with equal shares of length + variation of V (both normalised); more of them when V/ε² varies more."""
    fine, share = np.linspace(lower, upper, 4001), np.linspace(0, 1, 4001)
    variation = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(potential(fine))))]) / epsilon2
    panels = 24 + int(variation[-1] / 20)
    share += variation / (variation[-1] or 1.0)
    breaks = np.interp(np.linspace(0, share[-1], panels + 1), share, fine)
    breaks[0], breaks[-1] = lower, upper
    return breaks


def _green_kernel(breaks: Array, w: Array, epsilon2: float) -> tuple[Array, Array]:
    """Symmetric matrix `g_i G(x_i,z_j) g_j` of the Green operator at the nodes and g = sqrt(weight × speed density)."""
    panels = len(breaks) - 1
    shift = (w.max() + 2 * w.min()) / 3
    _, b, a = _gauss()
    left, right = (f(breaks, np.exp(w - shift)) for f in (_from_left, _from_right))
    g = np.exp(0.5 * (shift - w)) * np.sqrt(np.diff(breaks)[:, None] * b / epsilon2)
    up, down = ((g * (f[0] / np.sqrt(left[1][-1]))).ravel() for f in (left, right))
    # share of the cell of z_j that lies below x_i: 1, 0, or a_ij/b_j in the diagonal blocks
    below = np.kron(np.tri(panels, k=-1), np.ones((ORDER, ORDER))) + np.kron(np.eye(panels), a / b)
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = np.where(below != 0, below * np.outer(down, up), 0) + np.where(
            below != 1, (1 - below) * np.outer(up, down), 0
        )
    return 0.5 * (kernel + kernel.T), g.ravel()  # symmetric but for rounding


@lru_cache(maxsize=16)
def _modes(potential: Function, epsilon2: float, lower: float, upper: float, limit: int = 96) -> _Modes:
    """Diagonalise the Green operator at the Gauss nodes; at most `limit` modes, and none with κ below 1e-13 κ₁.

    Eigenvectors of the symmetric form have absolute accuracy, and φ = vector/g loses it where the Gibbs weight g² is
    tiny. There (set t, the rest is m) p = κ φ solves `(κ - K_tt) p_t = K_tm p_m` instead.
    """
    breaks = _equidistribute(potential, epsilon2, lower, upper)
    w = potential(_nodes(breaks)) / epsilon2
    kernel, g = _green_kernel(breaks, w, epsilon2)
    kappa, vectors = np.linalg.eigh(kernel)
    resolved = np.flatnonzero(kappa > 1e-13 * kappa[-1])[::-1]
    keep = resolved[:limit]
    kappa, vectors = kappa[keep], vectors[:, keep]
    main = (w - w.min()).ravel() <= 12
    phi = np.zeros_like(vectors)
    phi[main] = vectors[main] * kappa / g[main, None]
    rows = kernel[~main] / g[~main, None] * g
    right_hand_side, tail = rows[:, main] @ phi[main], rows[:, ~main]
    for i, k in enumerate(kappa if len(tail) else []):
        phi[~main, i] = np.linalg.solve(k * np.eye(len(tail)) - tail, right_hand_side[:, i])
    noise = 1e-15 * float(np.linalg.norm(g))
    return _Modes(breaks, kappa, g @ vectors, noise, len(resolved) > limit, kernel @ g / g, phi)


def _ou(x: Any) -> Any:
    """L = x²/2."""
    return 0.5 * x * x


def _double_well(x: Any) -> Any:
    """L = (x²-1)²."""
    return (x * x - 1) ** 2


def _points(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array, tuple[int, ...]]:
    px, py = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    return px.ravel(), py.ravel(), px.shape


def degenerate_disc_met(x: ArrayLike, y: ArrayLike, epsilon2: float) -> Any:
    """MET for L = |x|²/2, Q = diag(1,0) from the unit disc: `ε² u_xx - x u_x - y u_y = -1`, u = 0 on the circle.

    Parameters
    ----------
    x, y : array_like
        Starting points.
    epsilon2 : float
        ε², from about 0.01 up.

    Returns
    -------
    numpy scalar or array
        With q = y², ξ = x/√(1-q): `u = Σ_i c_i κ_i φ_i(ξ) R(κ_i)`, `R(κ) = (1-q) ₂F₁(1,1; 1+1/(2κ); q)`, where
        κ_i, φ_i diagonalise the inverse of `-G`, `G = ε² ∂_ξξ - ξ ∂_ξ` on (-1,1), and 1 = Σ c_i φ_i.

    Notes
    -----
    Derivation (ours). On the chord |x| < √(1-q), u(x,y) = v(ξ,q). Since y ∂_y ξ = ξ q/(1-q), the equation becomes
    `2q(1-q) ∂_q v = G v + (1-q)` with the *fixed* operator G: the shrinking of the chord cancels in the drift. In the
    eigenbasis `2q(1-q) c' = -c/κ + (1-q) c_i`; the solution bounded at q = 0 is
    `c_i κ (1-q)^α ₂F₁(α,α;α+1;q) = c_i κ (1-q) ₂F₁(1,1;α+1;q)`, α = 1/(2κ) (DLMF 15.8.1). At q = 0: the 1D OU MET.
    The series of ₂F₁ has positive terms; about 40/(1-q) of them, so |y| <= 0.999 is practical. u → 0
    at the characteristic points (0, ±1) too. Error about 1e-13 max u; nan where it may exceed 1e-9 of u.
    """
    px, py, shape = _points(x, y)
    q = py**2
    inside = px**2 + q < 1
    q = np.where(inside, q, 0.0)
    xi = np.where(inside, px / np.sqrt(1 - q), 1.0)
    modes = _modes(_ou, float(epsilon2), -1.0, 1.0, 2048)
    c = 1 + 0.5 / modes.kappa
    term: Array = np.ones((len(q), len(c)))
    total: Array = term.copy()
    k = 0
    while term.max(initial=0.0) > 1e-17 * (1 - q.max(initial=0.0)):
        term = term * q[:, None] * ((1 + k) / (c + k))
        total, k = total + term, k + 1
    # modes that were not kept have κ ~ 0 and R = 1 - q
    return ((1 - q) * modes.apply(xi, total - 1)).reshape(shape)[()]


def _ou_survives(kappa: Array, y: Array, rate: float, epsilon2: float, half_width: float) -> Array:
    """`1 - E_y e^{-τ/κ}` for the OU process `dY = -rate·Y dt + sqrt(2ε²) dW` on |y| < half_width, shape (y, κ).

    `E_y e^{-μτ} = M(μ/2rate, 1/2, z_y)/M(μ/2rate, 1/2, z_h)`, `z = rate y²/2ε²` (Borodin & Salminen; DLMF 13.2.2).
    Hence `1 - E = Σ_k t_k (1-(y/h)^{2k}) / Σ_k t_k` with t_k > 0 the terms of the series at z_h.
    """
    z = 0.5 * rate * half_width**2 / epsilon2
    ratio = np.minimum((y / half_width) ** 2, 1.0)[:, None]
    # the drift is inward, so E <= 2 exp(-(h-|y|)/sqrt(ε²κ)); modes with sqrt(ε²κ) < h/300 would overflow
    slow = np.sqrt(epsilon2 * kappa) > half_width / 300
    a = 0.5 / (rate * kappa[slow])
    term, power, k = np.ones_like(a), np.ones_like(ratio), 0
    total, difference = np.ones_like(a), np.zeros((len(y), len(a)))
    while k <= z or np.any(term > 1e-18 * total):
        term = term * (a + k) / (0.5 + k) * z / (k + 1)
        power, k = power * ratio, k + 1
        total, difference = total + term, difference + term * (1 - power)
    result = np.ones((len(y), len(kappa)))
    result[:, slow] = difference / total
    return result


def double_well_box_met(epsilon2: float, x: ArrayLike, y: ArrayLike) -> Any:
    """MET for L = (x²-1)² + y², Q = I from the box (-2.5, 0.5) × (-2, 2), all sides absorbing.

    Parameters
    ----------
    epsilon2 : float
        ε², from 0.03 up (below, the range of a double is exceeded).
    x, y : array_like
        Starting points.

    Returns
    -------
    numpy scalar or array
        `u = ∫₀^∞ P_x(τ₁>t) P_y(τ₂>t) dt = Σ_i c_i κ_i φ_i(x) (1 - E_y e^{-τ₂/κ_i})`: spectral in x (Green operator of
        the double well), closed form (Kummer) in y. The two coordinates are independent, τ = min(τ₁, τ₂).

    Notes
    -----
    Relative error about 1e-10 or better (1e-13 inside the well) for ε² from 0.03 to 0.5 where |y| <= 1.5. nan is
    returned where it may exceed 1e-9, because many modes take part: close to y = ±2 (|y| > 1.9 for ε² >= 0.2,
    |y| > 1.95 for ε² >= 0.05), and already at |y| = 1.8 on the steep slope x < -1.9, where the eigenfunctions
    are large and cancel.
    Known value: ε² = 0.2 at (-1, 0): 177.36975.
    """
    if epsilon2 < 0.03:
        raise ValueError("epsilon2 below 0.03 is out of range")
    px, py, shape = _points(x, y)
    modes = _modes(_double_well, float(epsilon2), -2.5, 0.5)
    u = modes.apply(px, _ou_survives(modes.kappa, py, 2.0, epsilon2, 2.0) - 1)
    return np.where(np.abs(py) < 2, u, 0.0).reshape(shape)[()]


def product_survival(
    potentials: tuple[Function, Function],
    epsilon2: tuple[float, float],
    intervals: tuple[tuple[float, float], tuple[float, float]],
    x: ArrayLike,
    y: ArrayLike,
) -> Any:
    """`E min(τ₁, τ₂)` for two independent 1D gradient diffusions: the MET from a rectangle for V₁(x) + V₂(y).

    Parameters
    ----------
    potentials, epsilon2, intervals
        V, ε² and (lower, upper) of each factor, as in `interval_met`. The two ε² may differ (Q = diag(q₁, q₂)).
    x, y : array_like
        Starting points.

    Returns
    -------
    numpy scalar or array
        `∫₀^∞ P_x(τ₁>t) P_y(τ₂>t) dt = Σ_ij c_i φ_i(x) d_j ψ_j(y)/(μ_i + ν_j)`, in terms of κ = 1/μ, γ = 1/ν:
        `Σ_ij (c_i κ_i φ_i)(d_j γ_j ψ_j)/(κ_i + γ_j)`.

    Notes
    -----
    About 1e-10 where both MET are moderate (below 1e4, say) and the point is not close to the sides or on a steep slope
    of V. Errors of the expansion in x that may exceed 1e-9 give nan; the one in y is not watched. For the steep
    double well use `double_well_box_met`.
    """
    px, py, shape = _points(x, y)
    first, second = (
        _modes(potentials[k], float(epsilon2[k]), float(intervals[k][0]), float(intervals[k][1])) for k in (0, 1)
    )
    met, phi = second.at(py)
    terms = phi * second.c
    survives = terms @ (1 / (second.kappa[:, None] + first.kappa))
    rest = met - terms.sum(axis=1)  # the modes left out
    survives += np.where(np.abs(rest) > 1e-13 * met, rest, 0.0)[:, None] / (second.kappa[-1] + first.kappa)
    inside = (py > intervals[1][0]) & (py < intervals[1][1])
    return np.where(inside, first.apply(px, survives - 1), 0.0).reshape(shape)[()]

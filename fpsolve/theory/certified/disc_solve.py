"""Discs: ``-A w = 1``, ``w = 0`` on the circle by Zernike polynomials and a sparse tau system; high degrees are cheap.

In ``z = x + iy`` (unit disc) the generator is ``A = α∂² + ᾱ∂̄² + s∂∂̄ + φ∂ + φ̄∂̄`` with ``α = a_xx - a_yy + 2i a_xy``,
``s = 2(a_xx + a_yy)``, ``φ = f_x + i f_y``. On ``z^m J(zz̄)`` every term is one angular mode, so a coefficient with few
angular modes couples few m: for a quartic loss the matrix has a band of 4 modes on each side, each block of n/2 radial
polynomials. Rows: the residual's angular modes, projected on radial polynomials with the weight (1-r²)^{-1/2}, which
keeps the residual small up to the circle; and w = 0 for each mode.

Floating point, nothing proved.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from flint import arb, arb_mat, ctx
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from scipy.special import eval_jacobi, gammaln, roots_jacobi

from fpsolve.theory.certified.task import Task

ALPHA = -0.5
SMALL = 1e-17  # angular modes of the coefficients below this part of the largest are left out
SHIFTS = (-2, 2, 0, -1, 1)  # of the angular mode by ∂², ∂̄², ∂∂̄, ∂, ∂̄


@dataclass(frozen=True)
class DiscSolution:
    """Zernike coefficients: ``w = Re Σ_{m>=0} e^{imθ} r^m Σ_j scaled[m][j] P_j^{(-1/2, m)}(2r²-1)``.

    Attributes
    ----------
    degree : int
    scaled : dict of m to complex ndarray
        Real where w is even in y.
    residual, boundary : float
        sup|-A w - 1| and sup|w| on the circle, at sample points.
    """

    degree: int
    scaled: dict[int, np.ndarray]
    residual: float
    boundary: float

    def at(self, z: np.ndarray) -> np.ndarray:
        """Evaluate at points z (n, 2) of the unit disc."""
        point, t = z[:, 0] + 1j * z[:, 1], 2 * np.sum(z**2, axis=1) - 1
        total = np.zeros(len(z))
        for m, c in self.scaled.items():
            total += np.real(point**m * (eval_jacobi(np.arange(len(c))[:, None], ALPHA, m, t).T @ c))
        return total

    def chebyshev(self, even: tuple[bool, ...], precision: int) -> np.ndarray:
        """Return the coefficients in Chebyshev products of [-1, 1]² as flint.arb, shape (degree+1, degree+1)."""
        with ctx.workprec(precision):
            return _chebyshev(self, even)


def solve_disc(task: Task, degree: int, even: tuple[bool, ...]) -> DiscSolution | None:
    """Solve on a disc whose whole circle absorbs.

    Parameters
    ----------
    task : Task
        Its domain is a `Ball` in two dimensions.
    degree : int
        Total degree n.
    even : two bools
        The axes about which the problem is even.

    Returns
    -------
    DiscSolution or None
        None where the coefficients are not finite or the system is singular.
    """
    t, weights = roots_jacobi(degree + 4, ALPHA, 0.0)
    nodes = np.append((1 + t) / 2, 1.0)  # τ = r²; the circle itself is only checked
    system = _System.of(task, degree, nodes, even)
    if system is None:
        return None
    # dτ = dt/2 and (1-τ)^α = ((1-t)/2)^α
    found = system.solve(weights / 2 ** (1 + ALPHA))
    if found is None:
        return None
    scaled, residual, boundary = found
    return DiscSolution(degree, scaled, residual, boundary)


@dataclass(frozen=True)
class _System:
    """The operator's blocks between angular modes, at the radial nodes."""

    degree: int
    nodes: np.ndarray
    modes: list[int]
    folded: bool
    fourier: list[np.ndarray]  # of α, ᾱ, s, φ, φ̄; shape (nodes, angles)
    band: int

    @classmethod
    def of(cls, task: Task, degree: int, nodes: np.ndarray, even: tuple[bool, ...]) -> _System | None:
        domain = task.domain
        lower, upper = domain.bounding_box()
        center, radius = (lower + upper) / 2, float(upper[0] - lower[0]) / 2
        angles = 2 * degree + 24 + (2 * degree) % 4
        theta = 2 * np.pi * np.arange(angles) / angles
        unit = np.stack([np.cos(theta), np.sin(theta)], axis=-1)
        points = center + radius * (np.sqrt(nodes)[:, None, None] * unit).reshape(-1, 2)
        with np.errstate(all="ignore"):
            f, a = task.process.drift(points) / radius, task.process.diffusion(points) / radius**2
        if not (np.all(np.isfinite(f)) and np.all(np.isfinite(a))):
            return None
        alpha = a[:, 0, 0] - a[:, 1, 1] + 2j * a[:, 0, 1]
        phi = f[:, 0] + 1j * f[:, 1]
        parts = [alpha, alpha.conj(), 2 * (a[:, 0, 0] + a[:, 1, 1]) + 0j, phi, phi.conj()]
        fourier: list[np.ndarray] = [np.fft.fft(p.reshape(len(nodes), angles), axis=1) / angles for p in parts]
        folded = even[1]
        if folded:
            fourier = [np.asarray(p.real) for p in fourier]
        size = np.array([np.max(np.abs(p), axis=0) for p in fourier])
        seen = np.max(size / (np.max(size) or 1.0), axis=0) > SMALL
        orders = np.abs(np.fft.fftfreq(angles, 1 / angles))
        band = int(min(np.max(orders[seen], initial=0), angles // 2 - 1))
        step = 2 if even[0] and even[1] else 1
        modes = [m for m in range(0 if folded else -degree, degree + 1) if m % step == 0]
        return cls(degree, nodes, modes, folded, fourier, band)

    def count(self, m: int) -> int:
        """The number of radial polynomials of mode m."""
        return (self.degree - abs(m)) // 2 + 1

    def solve(self, weights: np.ndarray) -> tuple[dict[int, np.ndarray], float, float] | None:
        radial = {m: _Radial.of(m, self.count(m), self.nodes) for m in {abs(k) for k in self.modes}}
        start = dict(zip(self.modes, np.cumsum([0, *(self.count(m) for m in self.modes)]).tolist(), strict=False))
        size = sum(self.count(m) for m in self.modes)
        blocks = {}
        for m in self.modes:
            for out in self._outputs(m):
                block = self._block(radial, out, m)
                if block is not None:
                    blocks[out, m] = block
        matrix = self._assembled(radial, blocks, start, weights, size)
        right = np.zeros(size, dtype=matrix.dtype)
        k = self.count(0) - 1
        project = radial[0].values[: len(weights), :k] * weights[:, None]
        right[start[0] : start[0] + k] = -project.sum(axis=0)  # A w = -1
        c = _solved(matrix, right)
        if c is None:
            return None
        part = {m: c[start[m] : start[m] + self.count(m)] for m in self.modes}
        residual = self._residual(blocks, part)
        edge = np.array([radial[abs(m)].values[-1] @ part[m] for m in self.modes])
        boundary = float(np.sum(np.abs(edge) * np.where(np.array(self.modes) != 0, 2 if self.folded else 1, 1)))
        scaled = {m: part[m] * radial[m].norms * (2 if m else 1) for m in self.modes if m >= 0}
        return scaled, residual, boundary

    def _outputs(self, m: int) -> list[int]:
        """Return the modes that A makes of mode m (folded: and of -m)."""
        reach = self.band + 2
        outs = set(range(m - reach, m + reach + 1))
        if self.folded:
            outs |= set(range(-m - reach, -m + reach + 1))
            outs = {k for k in outs if k >= 0}
        step = 1 if len(self.modes) < 2 else self.modes[1] - self.modes[0]
        return sorted(k for k in outs if k % step == 0)

    def _block(self, radial: dict[int, _Radial], out: int, m: int) -> np.ndarray | None:
        """Return the values of A's mode `out` on mode m, at the nodes; shape (nodes, count)."""
        total: np.ndarray | None = None
        angles = self.fourier[0].shape[1]
        for mode in (m, -m) if self.folded and m else (m,):
            shapes = radial[abs(m)].derivatives
            for i, shift in enumerate(SHIFTS):
                order = out - mode - shift
                if abs(order) > self.band:
                    continue
                # for negative modes ∂ and ∂̄ change places
                shape = shapes[i if mode >= 0 else (1, 0, 2, 4, 3)[i]]
                term = self.fourier[i][:, order % angles, None] * shape
                total = term if total is None else total + term
        return total

    def _assembled(
        self,
        radial: dict[int, _Radial],
        blocks: dict[tuple[int, int], np.ndarray],
        start: dict[int, int],
        weights: np.ndarray,
        size: int,
    ) -> csc_matrix:
        rows, columns, entries = [], [], []
        for (out, m), block in blocks.items():
            if out not in start:
                continue
            k = self.count(out) - 1
            project = radial[abs(out)].values[: len(weights), :k] * weights[:, None]
            part = project.T @ block[: len(weights)]
            i, j = np.meshgrid(np.arange(k) + start[out], np.arange(part.shape[1]) + start[m], indexing="ij")
            rows.append(i.ravel())
            columns.append(j.ravel())
            entries.append(part.ravel())
        for m in self.modes:
            n = self.count(m)
            rows.append(np.full(n, start[m] + n - 1))
            columns.append(start[m] + np.arange(n))
            entries.append(radial[abs(m)].values[-1])
        data = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns)))
        return csc_matrix(data, shape=(size, size))

    def _residual(self, blocks: dict[tuple[int, int], np.ndarray], part: dict[int, np.ndarray]) -> float:
        outs = sorted({out for out, _ in blocks})
        sums = {out: np.zeros(len(self.nodes), dtype=complex) for out in outs}
        for (out, m), block in blocks.items():
            sums[out] += block @ part[m]
        sums[0] += 1
        angles = 2 * (max(map(abs, outs)) + 1)
        spectrum = np.zeros((len(self.nodes), angles), dtype=complex)
        for out, values in sums.items():
            spectrum[:, out % angles] += values
            if self.folded and out:
                spectrum[:, -out % angles] += values
        return float(np.max(np.abs(np.fft.ifft(spectrum, axis=1) * angles)))


@dataclass(frozen=True)
class _Radial:
    """r^m P_j^{(α, m)}(2τ-1), orthonormal for (1-τ)^α dτ, and what the five derivatives make of them (m >= 0)."""

    values: np.ndarray
    derivatives: tuple[np.ndarray, ...]
    norms: np.ndarray

    @classmethod
    def of(cls, m: int, count: int, nodes: np.ndarray) -> _Radial:
        j = np.arange(count)
        t, r = (2 * nodes - 1)[:, None], np.sqrt(nodes)[:, None]
        # ∫ (1-τ)^α τ^m P² dτ = Γ(j+α+1) Γ(j+m+1) / ((2j+α+m+1) j! Γ(j+α+m+1))
        logs = gammaln(j + ALPHA + 1) + gammaln(j + m + 1) - gammaln(j + 1) - gammaln(j + ALPHA + m + 1)
        norms = np.exp(-0.5 * (logs - np.log(2 * j + ALPHA + m + 1)))
        p = [np.zeros((len(nodes), count)) for _ in range(3)]
        for k in range(min(3, count)):  # d^k P_j = (j+α+m+1)_k / 2^k P_{j-k}^{(α+k, m+k)}, and τ' = t/2
            factor = np.exp(gammaln(j[k:] + ALPHA + m + 1 + k) - gammaln(j[k:] + ALPHA + m + 1))
            p[k][:, k:] = factor * eval_jacobi(j[k:] - k, ALPHA + k, m + k, t)
        p = [x * norms for x in p]
        low = m * (m - 1) * r ** max(m - 2, 0) * p[0]
        slope = r ** (m + 1) * p[1]
        bend = r ** (m + 2) * p[2]
        derivatives = (
            low + 2 * m * r**m * p[1] + bend,
            bend,
            (m + 1) * r**m * p[1] + bend,
            m * r ** max(m - 1, 0) * p[0] + slope,
            slope,
        )
        return cls(r**m * p[0], derivatives, norms)


def _solved(matrix: csc_matrix, right: np.ndarray) -> np.ndarray | None:
    """Solve with rows and columns scaled, and one step of refinement."""
    scale = np.asarray(abs(matrix).max(axis=1).todense()).ravel()
    if not np.all(np.isfinite(scale)) or np.any(scale == 0):
        return None
    scaled = csc_matrix(matrix.multiply(1 / scale[:, None]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            factors = splu(scaled)
    except RuntimeError:
        return None
    b = right / scale
    c = factors.solve(b)
    c = c + factors.solve(b - scaled @ c)
    return c if np.all(np.isfinite(c)) else None


# --- Chebyshev products ----------------------------------------------------------------------------------------------


def _chebyshev(solution: DiscSolution, even: tuple[bool, ...]) -> np.ndarray:
    n = solution.degree
    radial = _common_radial(solution)
    axes = [_nodes(n, e) for e in even]
    complex_modes = any(np.iscomplexobj(c) for c in solution.scaled.values())
    rows, radials, imaginary = [], [], []
    modes = list(solution.scaled)
    for x in axes[0]:
        for y in axes[1]:
            re, im = _powers(x, y, n)
            rows.append([re[m] for m in modes])
            if complex_modes:
                imaginary.append([-im[m] for m in modes])
            radials.append(_chebyshev_values(2 * (x * x + y * y) - 1, n // 2))
    harmonic = arb_mat(rows) * radial[0]
    if complex_modes:
        harmonic = harmonic + arb_mat(imaginary) * radial[1]
    products = np.array(harmonic.entries(), dtype=object).reshape(len(rows), -1) * np.array(radials, dtype=object)
    values = products.sum(axis=1).reshape(len(axes[0]), len(axes[1]))
    left, right = (_transform(n, a, e) for a, e in zip(axes, even, strict=True))
    small = np.array((left * arb_mat(values.tolist()) * right.transpose()).entries(), dtype=object)
    result = np.full((n + 1, n + 1), arb(0), dtype=object)
    steps = [2 if e else 1 for e in even]
    shape = tuple(len(range(0, n + 1, s)) for s in steps)
    result[:: steps[0], :: steps[1]] = small.reshape(shape)
    i, j = np.indices(result.shape)
    result[i + j > n] = arb(0)  # what is there is rounding: the polynomial has total degree n
    return result


def _common_radial(solution: DiscSolution) -> tuple[arb_mat, arb_mat]:
    """Return, for each mode, the Chebyshev coefficients in 2τ-1 of its radial factor (real and imaginary part)."""
    count = solution.degree // 2 + 1
    angles = [arb.pi() * (2 * k + 1) / (2 * count) for k in range(count)]
    parts: list[list[list[arb]]] = [[], []]
    for m, c in solution.scaled.items():
        columns = [[arb(float(v)) for v in part] for part in (np.real(c), np.imag(c))]
        values = [_jacobi_sums(columns, m, a.cos()) for a in angles]
        for part, k in zip(parts, (0, 1), strict=True):
            part.append([v[k] for v in values])
    dct = arb_mat([[(2 if k else 1) * (k * a).cos() / count for k in range(count)] for a in angles])
    return (arb_mat(parts[0]) * dct).mid(), (arb_mat(parts[1]) * dct).mid()


def _jacobi_sums(columns: list[list[arb]], m: int, t: arb) -> list[arb]:
    """Return Σ_j c_j P_j^{(-1/2, m)}(t) for each column c by the three-term recurrence."""
    a, b = arb(ALPHA), m
    before, now = arb(0), arb(1)
    totals = [c[0] for c in columns]
    for j in range(1, len(columns[0])):
        s = 2 * j + a + b
        first = 2 * j * (j + a + b) * (s - 2)
        if j == 1:  # the general formula divides by zero for a + b = 0
            now, before = (a + 1) + (a + b + 2) * (t - 1) / 2, now
        else:
            up = (s - 1) * (s * (s - 2) * t + a * a - b * b) * now - 2 * (j + a - 1) * (j + b - 1) * s * before
            now, before = (up / first).mid(), now
        totals = [x + c[j] * now for x, c in zip(totals, columns, strict=True)]
    return totals


def _nodes(n: int, even: bool) -> list[arb]:
    """Return n+1 Chebyshev nodes; for even functions the n//2+1 positive ones of twice as many."""
    total = 2 * (n // 2 + 1) if even else n + 1
    return [(arb.pi() * (2 * k + 1) / (2 * total)).cos().mid() for k in range(total // 2 if even else total)]


def _transform(n: int, nodes: list[arb], even: bool) -> arb_mat:
    """Return the matrix from values at `_nodes` to Chebyshev coefficients (the even ones only, for even functions)."""
    count = len(nodes)
    step = 2 if even else 1
    tables = [_chebyshev_values(x, n) for x in nodes]
    return arb_mat([[(2 if k else 1) * table[k] / count for table in tables] for k in range(0, n + 1, step)])


def _chebyshev_values(x: arb, n: int) -> list[arb]:
    values = [arb(1), x]
    twice = 2 * x
    while len(values) <= n:
        values.append(twice * values[-1] - values[-2])
    return values[: n + 1]


def _powers(x: arb, y: arb, n: int) -> tuple[list[arb], list[arb]]:
    """Return real and imaginary parts of (x + iy)^m for m = 0 … n."""
    re, im = [arb(1)], [arb(0)]
    for _ in range(n):
        re.append(x * re[-1] - y * im[-1])
        im.append(x * im[-1] + y * re[-2])
    return re, im

"""Check a certificate of exit-time bounds from scratch: ``python verify.py CERT.json``.

This file shares nothing with the program that made the certificate. It needs Python, sympy and python-flint.

Theorem. dX = f dt + sqrt(2a) dW in Ω, generator A u = tr(a D²u) + f·∇u, exit time τ, S a closed part of the boundary
with X_τ in S almost surely, w a polynomial. By Itô's formula ``-A w >= m > 0`` in Ω and ``w >= -b`` on S give
``E_x τ <= (w(x) + b)/m``; ``-A w <= M`` in Ω, M > 0, and ``w <= b`` on S give ``E_x τ >= (w(x) - b)/M``. It is assumed
that a is nonnegative. A reflecting side (outer normal n, the process is pushed along -a n) needs n·a n > 0 and, instead
of a condition on w, ``(a n)·∇w >= 0`` for upper and ``<= 0`` for lower bounds. A part {d = 0} of the boundary (d > 0 in
Ω) is left out of S if q = (∇d·a∇d)/d is smooth and e = A d - q is positive on the closed part, or e/d is smooth: then
A(-log d) = -e/d is bounded above in a collar inside Ω and the process does not reach d = 0.

Method. Everything to be bounded is r = Σ g_k P_k with exact rational polynomials P_k and formulas g_k. Ω and its parts
are images of boxes ("cells") of parameters s. On a cell r(s) is interpolated in K_i Chebyshev nodes per direction. If
|r| <= M when s_i runs through the filled ellipse with its interval's ends as foci and semi-axes half·(ρ ± 1/ρ)/2, the
others being real, the error of direction i is at most 4 M ρ^(1-K)/(ρ-1), times the Lebesgue constants of the directions
before. P_k is bounded by |T_j(X)| <= (α + sqrt(α²-1))^j, α = (|X-1| + |X+1|)/2, on the ellipse's boundary (maximum
principle), g_k on a cover of all of it. The interpolant is bounded by its Chebyshev coefficients, c_0 ± Σ|c_j|, on
cells that are halved where this does not suffice. All numbers are exact or balls with outward rounding (Arb).
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import math
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import sympy
from flint import acb, arb, arb_mat, ctx, fmpq, fmpq_mat, fmpq_mpoly_ctx

SIDES = ("left", "right", "bottom", "top", "back", "front")
KEYS = """format made_by question problem unreachable functions claims starts digest variables domain reflecting loss
covariance epsilon2 covariance_scale extra_diffusion drift diffusion shape center radius lower upper coefficients kind
function m M b x"""
BITS, NODES, LIMIT = {1: 200, 2: 80, 3: 60}, {1: 600, 2: 160, 3: 80}, 40_000  # accuracy, most nodes, most cells
RHOS = [
    arb(r) for r in (1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 10, 15, 25, 50, 1e2, 1e3, 1e4, 1e6, 1e9)
]
Cell = list[tuple[fmpq, fmpq]]
UNARY = ["exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf", "abs"]
BINARY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: pow}
BALLS: dict[str, Callable[..., acb]] = {name: operator.methodcaller(name) for name in UNARY} | {
    "Add": lambda *z: sum(z, acb(0)),
    "Mul": lambda *z: math.prod(z, start=acb(1)),
    "Pow": lambda z, e: z.pow(e, analytic=True),  # analytic: not finite on balls that touch a branch cut
    "log": lambda z: z.log(analytic=True),
    "Abs": lambda z: z.real_abs(analytic=True),
    "sign": lambda z: z.real_sgn(analytic=True),
    "asin": lambda z: z.asin() if abs(z.real) < 1 else acb("nan"),  # strips without branch cuts
    "acos": lambda z: z.acos() if abs(z.real) < 1 else acb("nan"),
    "atan": lambda z: z.atan() if abs(z.imag) < 1 else acb("nan"),
    "Pi": acb.pi,
    "Exp1": lambda: acb(1).exp(),
}


class Rejected(Exception):
    """The certificate proves nothing; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """Result of a check: `statements` are sentences that are proved, none unless accepted."""

    accepted: bool
    reason: str
    statements: list[str] = field(default_factory=list)
    readable: bool = True


def need(condition: bool, reason: str) -> None:
    """Reject the certificate unless the condition holds."""
    if not condition:
        raise Rejected(reason)


def number(text: str) -> fmpq:
    """Return the exact value of a finite float in hexadecimal."""
    need(math.isfinite(float.fromhex(text)), f"{text!r} is not finite")
    return fmpq(*float.fromhex(text).as_integer_ratio())


def exact(value: fmpq) -> sympy.Rational:
    """Return a rational number for sympy."""
    return sympy.Rational(int(value.p), int(value.q))


def halves(cell: Cell, i: int) -> list[Cell]:
    """Cut a cell in two along direction i."""
    (a, b), m = cell[i], (cell[i][0] + cell[i][1]) / 2
    return [[*cell[:i], part, *cell[i + 1 :]] for part in ((a, m), (m, b))]


def powers(z: arb, n: int) -> list[arb]:
    """Return 1, z, ..., z^(n-1) (the operator ** fails for balls that contain 0)."""
    return list(itertools.accumulate([z] * (n - 1), operator.mul, initial=arb(1)))


def parse(text: str, names: Sequence[str]) -> sympy.Expr:
    """Return the expression of a formula: numbers (exact decimals), names, + - * / **, functions and pi."""
    symbols = {"pi": sympy.pi} | {n: sympy.Symbol(n, real=True) for n in names}

    def build(node: ast.AST) -> sympy.Expr:
        match node:
            case ast.Constant(value=int() | float() as value) if type(value) is not bool:
                return sympy.Rational(repr(value))
            case ast.Name(id=name) if name in symbols:
                return symbols[name]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=z):
                return -build(z) if isinstance(op, ast.USub) else build(z)
            case ast.BinOp(left=a, op=op, right=b) if type(op) in BINARY:
                a, b = build(a), build(b)
                need(
                    not isinstance(op, ast.Pow) or not b.is_number or abs(b) <= 64 or not a.is_number,
                    "exponent too large",
                )
                return BINARY[type(op)](a, b)  # type: ignore[operator]
            case ast.Call(func=ast.Name(id=name), args=[z], keywords=[]) if name in UNARY:
                return getattr(sympy, name.replace("abs", "Abs"))(build(z))
        raise Rejected(f"{ast.unparse(node)!r} is not allowed in a formula")

    value = build(ast.parse(text.strip(), mode="eval").body)
    need(not value.has(sympy.nan, sympy.zoo, sympy.oo, sympy.I), f"{text!r} is not real and finite")
    return value


def compiled(expressions: Sequence[sympy.Expr], names: Sequence[str]) -> Callable[[Sequence[acb]], list[acb]]:
    """Return a function of complex balls; its values are finite only if the formulas are analytic on the balls."""
    place = {sympy.Symbol(n, real=True): i for i, n in enumerate(names)}
    tape: list[tuple[Callable[..., acb], list[int]]] = []

    def visit(node: sympy.Expr) -> int:
        if node not in place:
            arguments = [visit(part) for part in ([] if node.is_Rational else node.args)]
            need(node.is_Rational or type(node).__name__ in BALLS, f"{type(node).__name__} cannot be evaluated")
            constant = acb(fmpq(int(node.p), int(node.q))) if node.is_Rational else None
            tape.append((BALLS[type(node).__name__] if constant is None else (lambda: constant), arguments))
            place[node] = len(names) + len(tape) - 1
        return place[node]

    wanted = [visit(e) for e in expressions]

    def evaluate(x: Sequence[acb]) -> list[acb]:
        values = list(x)
        for operation, arguments in tape:
            values.append(operation(*[values[i] for i in arguments]))
        return [values[i] for i in wanted]

    return evaluate


class Problem:
    """Drift f, diffusion a, the cells of Ω and of its boundary parts, and d > 0 in Ω for each part.

    In a box x = s. In a ball x = c + t γ with t = s[-1] in [0, 1]; with (p, q) = turn(s[i]) the vector (t) becomes
    (t p, t q), then (t p p', t p q', t q) for the turn before.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        self.names = names = problem["variables"]
        need(all(n.isidentifier() and n not in [*UNARY, "pi"] for n in names), "a variable's name is not allowed")
        need(
            len({*names}) == len(names) and ("loss" in problem) != ("drift" in problem),
            "names or process are not clear",
        )
        self.z, self.d = [sympy.Symbol(n, real=True) for n in names], len(names)
        self.a = [[parse(t, names) for t in row] for row in problem["covariance" if "loss" in problem else "diffusion"]]
        if "loss" in problem:
            e, s, x = (exact(number(problem[k])) for k in ("epsilon2", "covariance_scale", "extra_diffusion"))
            need(e > 0 and s > 0 and x >= 0, "the strength of the noise must be positive")
            self.f = [-sympy.diff(parse(problem["loss"], names), z) for z in self.z]
            self.a = [[e * s * q + x * (i == j) for j, q in enumerate(row)] for i, row in enumerate(self.a)]
        else:
            self.f = [parse(t, names) for t in problem["drift"]]
        need([self.d] * (self.d + 1) == [len(self.f), *map(len, self.a)], "drift or diffusion has the wrong size")
        need(
            all(
                sympy.expand(p - q) == 0
                for r, c in zip(self.a, zip(*self.a, strict=True), strict=True)
                for p, q in zip(r, c, strict=True)
            ),
            "a is not symmetric",
        )
        self.center: list[fmpq] | None = None
        self.turns: list[Callable[[acb], tuple[acb, acb]]] = []
        self.parts: dict[str, list[Cell]] = {}
        self.distance: dict[str, sympy.Expr] = {}
        {"box": self.box, "ball": self.ball}[problem["domain"]["shape"]](problem["domain"])

    def box(self, domain: dict[str, Any]) -> None:
        """Read a box."""
        low, high = ([number(t) for t in domain[k]] for k in ("lower", "upper"))
        self.inside = [list(zip(low, high, strict=True))]
        need(len(low) == self.d and all(p < q for p, q in self.inside[0]), "the corners of the box are wrong")
        for name, (i, side) in zip(SIDES, itertools.product(range(self.d), (0, 1)), strict=False):
            self.parts[name] = [[(c[side], c[side]) if i == j else c for j, c in enumerate(self.inside[0])]]
            self.distance[name] = exact(high[i]) - self.z[i] if side else self.z[i] - exact(low[i])

    def ball(self, domain: dict[str, Any]) -> None:
        """Read a ball."""
        center, r = [number(t) for t in domain["center"]], number(domain["radius"])
        need(len(center) == self.d and r > 0, "a ball needs a centre and a positive radius")
        gap = exact(r) ** 2 - sum((z - exact(c)) ** 2 for z, c in zip(self.z, center, strict=True))
        self.distance, quarter = {"boundary": gap}, fmpq(15708, 10000)  # a little more than π/2
        if self.d == 1:
            self.inside = [[(center[0] - r, center[0] + r)]]
            self.parts = {"boundary": [[(p, p)] for p in self.inside[0][0]]}
            return
        turns = [(lambda s: (s.cos(), s.sin())), (lambda s: (r * s.sin(), r * s.cos()))]
        self.center, self.turns = center, turns if self.d == 3 else [lambda s: (r * s.cos(), r * s.sin())]
        quarters = [[(k * quarter, (k + 1) * quarter) for k in range(n)] for n in (4, 2)[: self.d - 1]]
        self.inside = [[*c, (fmpq(0), fmpq(1))] for c in itertools.product(*quarters)]
        self.parts = {"boundary": [[*c[:-1], (fmpq(1), fmpq(1))] for c in self.inside]}

    def x(self, s: Sequence[acb]) -> list[acb]:
        """Return the point with the parameters s."""
        if self.center is None:
            return list(s)
        y = [s[-1]]
        for turn, angle in zip(reversed(self.turns), reversed(s[:-1]), strict=True):
            y = [y[0] * p for p in turn(angle)] + y[1:]
        return [c + z for c, z in zip(self.center, y, strict=True)]

    def holds(self, part: str, values: Sequence[sympy.Expr], test: Callable[[list[acb]], bool]) -> bool:
        """Tell whether the test is proved for the values, analytic there, in a neighbourhood of a closed part."""
        function, todo, count = compiled(values, self.names), list(self.parts[part]), 0
        while todo:
            cell, count = todo.pop(), count + 1
            found = function(self.x([acb(arb(a).union(arb(b)) + arb(0, 2e-12), arb(0, 2e-12)) for a, b in cell]))
            if all(v.is_finite() for v in found) and test(found):
                continue
            i = max(range(self.d), key=lambda i: cell[i][1] - cell[i][0])
            if count > 2000 or cell[i][0] == cell[i][1]:
                return False
            todo += halves(cell, i)
        return True

    def unreachable(self, part: str) -> bool:
        """Tell whether it is proved that the process does not reach a part."""
        d, n = self.distance[part], range(self.d)
        slope = [sympy.diff(d, z) for z in self.z]
        q = sympy.cancel(sympy.expand(sum(slope[i] * self.a[i][j] * slope[j] for i in n for j in n)) / d)
        second = sum(self.a[i][j] * sympy.diff(d, self.z[i], self.z[j]) for i in n for j in n)
        e = sympy.expand(second + sum(self.f[i] * slope[i] for i in n) - q)
        inward = self.holds(part, [q, e], lambda v: v[1].real > 0)
        return inward or self.holds(part, [q, sympy.cancel(e / d)], lambda v: True)


@lru_cache
def change(n: int, source: bool, target: bool, shift: fmpq = fmpq(0), scale: fmpq = fmpq(1)) -> fmpq_mat:  # noqa: B008
    """Return the matrix of b_k(shift + scale s), k < n, in the basis b_j(s); True Chebyshev, False powers."""
    columns = [[fmpq(j == 0) for j in range(n)]]
    for k in range(1, n):
        times = [fmpq(0)] * (n + 1)  # s b_j = b_{j+1}, or (b_{j+1} + b_{j-1})/2
        for j, c in enumerate(columns[-1][:k]):
            times[j + 1] += c / 2 if target and j else c
            times[j - 1] += c / 2 if target and j else 0
        column = [shift * c + scale * t for c, t in zip(columns[-1], times, strict=False)]
        columns.append([2 * c - b for c, b in zip(column, columns[-2], strict=True)] if source and k > 1 else column)
    return fmpq_mat(n, n, [c for column in columns for c in column]).transpose()


@lru_cache
def to_half(n: int, sign: int) -> arb_mat:
    """Return the matrix from Chebyshev coefficients on [-1, 1] to those on its upper or lower half."""
    return arb_mat(change(n, True, True, fmpq(sign, 2), fmpq(1, 2)))


def along(matrices: Sequence[Any], shape: Sequence[int], flat: list[Any], kind: Any = arb_mat) -> list[Any]:
    """Apply one matrix (None: identity) along each axis of a row-major tensor."""
    for matrix, n in zip(matrices, shape, strict=True):
        block = kind(n, len(flat) // n, flat)
        flat = (block if matrix is None else matrix * block).transpose().entries()
    return flat


class Function:
    """A polynomial w in X = (x - mid)/half with exact rational coefficients."""

    def __init__(self, entry: dict[str, Any], problem: Problem) -> None:
        low, high = ([number(t) for t in entry[k]] for k in ("lower", "upper"))
        need(len(low) == problem.d and all(p < q for p, q in zip(low, high, strict=True)), "the box of w is wrong")
        lists = [[c] if isinstance(c, str) else c for c in entry["coefficients"]]
        flat, shape = [sum(map(number, c), fmpq(0)) for c in lists], entry["shape"]
        flat = along([change(n, True, False) for n in shape], shape, flat, fmpq_mat)
        self.mid, self.half = ([(q + s * p) / 2 for p, q in zip(low, high, strict=True)] for s in (1, -1))
        self.ring = fmpq_mpoly_ctx.get(tuple(f"X{i}" for i in range(problem.d)), "lex")
        exponents = itertools.product(*map(range, shape))
        self.w = self.ring.from_dict({e: c for e, c in zip(exponents, flat, strict=True) if c})
        self.slope = [self.w.derivative(i) * (1 / h) for i, h in enumerate(self.half)]
        self.problem, self.gens = (
            problem,
            [m + h * g for m, h, g in zip(self.mid, self.half, self.ring.gens(), strict=True)],
        )

    def __call__(self, x: Sequence[fmpq]) -> fmpq:
        """Return the exact value of w at x."""
        return self.w(*[(z - m) / h for z, m, h in zip(x, self.mid, self.half, strict=True)])

    def generator(self) -> dict[sympy.Expr, Any]:
        """Return -A w as {g_k: P_k}."""
        a, f, n = self.problem.a, self.problem.f, range(self.problem.d)
        bend = [(-a[i][j], self.slope[i].derivative(j) * (1 / self.half[j])) for i in n for j in n]
        return self.sum(bend + [(-f[i], self.slope[i]) for i in n])

    def sum(self, pairs: Sequence[tuple[sympy.Expr, Any]]) -> dict[sympy.Expr, Any]:
        """Return Σ g P as {g_k: P_k}; what is a rational polynomial goes to g = 1."""
        result = {sympy.S.One: 0 * self.w}
        for g, p in pairs:
            for part in sympy.Add.make_args(sympy.expand(g)):
                factor, body = part.as_coeff_Mul(rational=True)
                poly = sympy.Poly(body, *self.problem.z) if body.is_polynomial(*self.problem.z) else None
                if poly is not None and all(c.is_Rational for c in poly.coeffs()):
                    for e, c in poly.terms():
                        power = math.prod(x**k for x, k in zip(self.gens, e, strict=True))
                        result[sympy.S.One] += p * power * fmpq(int((c * factor).p), int((c * factor).q))
                else:
                    result[body] = result.get(body, 0) + p * fmpq(int(factor.p), int(factor.q))
        return {g: p for g, p in result.items() if not p.is_zero()}


class Interpolation:
    """Interpolants of r = Σ g_k P_k with error bounds; see the top of the file."""

    def __init__(self, w: Function, terms: dict[sympy.Expr, Any]) -> None:
        self.w, self.problem, self.plain = w, w.problem, list(terms) == [1]
        self.g, self.powers, self.sizes = compiled(list(terms), w.problem.names), [], []
        self.shape = shape = [1 + max(p.degrees()[i] for p in terms.values()) for i in range(w.problem.d)]
        self.degree = 1 + max(p.total_degree() for p in terms.values())
        for p in terms.values():
            flat = [p[e] for e in itertools.product(*map(range, shape))]
            sizes = along([change(n, False, True) for n in shape], shape, flat, fmpq_mat)
            self.sizes.append([abs(arb(c)) for c in sizes])
            if self.problem.center is not None:  # powers of x - c instead of X
                frame = zip(shape, self.problem.center, w.mid, w.half, strict=True)
                flat = along(
                    [arb_mat(change(n, False, False, (c - m) / h, 1 / h)) for n, c, m, h in frame],
                    shape,
                    list(map(arb, flat)),
                )
            self.powers.append([arb(c) for c in flat])

    def cover(self, cell: Cell, i: int, radii: Sequence[arb], cuts: int) -> list[list[acb]]:
        """Return the points for s_i on the upper halves of ellipses with these radii ρ, the others in the cell."""
        balls = []
        for j, (a, b) in enumerate(cell):
            ends = [a + (b - a) * k / cuts for k in range(cuts + 1)]
            balls.append([acb(arb(p).union(arb(q))) for p, q in itertools.pairwise(ends)])
            if j == i:
                turns = [acb(0, arb(k).union(arb(k + 1)) * arb.pi() / 24).exp() for k in range(24)]
                balls[j] = [arb((a + b) / 2) + arb((b - a) / 4) * (q * u + 1 / (q * u)) for q in radii for u in turns]
        return [self.problem.x(s) for s in itertools.product(*balls)]

    def bound(self, cell: Cell, i: int, rho: arb) -> arb:
        """Bound |r| for s_i in the filled ellipse, the other parameters in the cell; not finite where it fails."""
        grown = [arb(1)] * self.problem.d
        for x in self.cover(cell, i, [rho], 1):
            for j, (z, m, h) in enumerate(zip(x, self.w.mid, self.w.half, strict=True)):
                alpha = max(arb(1), ((abs((z - m) / h - 1) + abs((z - m) / h + 1)) / 2).upper())
                grown[j] = max(grown[j], (alpha + (alpha**2 - 1).sqrt()).upper())
        rows = [arb_mat(1, n, powers(q, n)) for q, n in zip(grown, self.shape, strict=True)]
        sizes = [along(rows, self.shape, size)[0] for size in self.sizes]
        if self.plain:
            return sizes[0]
        radii = [(rho ** fmpq(k, 4)).union(rho ** fmpq(k + 1, 4)) for k in range(4)]
        values = [self.g(x) for x in self.cover(cell, i, radii, 3)]
        if not all(v.is_finite() for value in values for v in value):
            return arb("nan")
        return sum(size * max(abs(value[k]).upper() for value in values) for k, size in enumerate(sizes))

    def nodes(self, cell: Cell, i: int, tolerance: arb) -> tuple[int, arb]:
        """Return how many nodes direction i needs, and the error with them."""
        if cell[i][0] == cell[i][1]:
            return 1, arb(0)
        best = (10**6, arb("nan"))
        for rho in RHOS:
            size = 4 * self.bound(cell, i, rho) / (rho - 1)
            if not size.is_finite():
                break
            k = 2 + math.ceil(float((1 + size / tolerance).log() / rho.log()))
            if k > best[0] + 20:
                break
            best = min(best, (k, size * rho ** (1 - k)), key=operator.itemgetter(0))
        return best

    def folded(self, terms: dict[tuple[int, ...], arb], grid: list[list[dict[tuple[int, int], arb]]]) -> list[arb]:
        """Return the coefficients of t^l for all parameters of the turns from those of the monomials in x - c."""
        if not grid:
            return [terms.get((k,), arb(0)) for k in range(self.degree)]
        result = []
        for table in grid[0]:
            new: dict[tuple[int, ...], arb] = {}
            for (i, j, *rest), c in terms.items():
                key = (i + j, *rest)
                new[key] = new.get(key, 0) + c * table[i, j]
            result += self.folded(new, grid[1:])
        return result

    def values(self, points: list[list[arb]]) -> list[arb]:
        """Return r on the tensor grid of parameters."""
        if self.problem.center is None:
            frame = zip(points, self.shape, self.w.mid, self.w.half, strict=True)
            matrices = [arb_mat([powers((z - m) / h, n) for z in p]) for p, n, m, h in frame]
            values = [along(matrices, self.shape, flat) for flat in self.powers]
        else:
            last, grid = arb_mat([powers(z, self.degree) for z in points[-1]]).transpose(), []
            for turn, p in zip(self.problem.turns, points[:-1], strict=True):
                pairs = [[powers(z.real, self.degree) for z in turn(acb(s))] for s in p]
                grid.append(
                    [
                        {(i, j): u * v for i, u in enumerate(a) for j, v in enumerate(b[: self.degree - i])}
                        for a, b in pairs
                    ]
                )
            values = []
            for flat in self.powers:
                terms = {
                    e: c
                    for e, c in zip(itertools.product(*map(range, self.shape)), flat, strict=True)
                    if sum(e) < self.degree
                }
                rays = self.folded(terms, grid)
                values.append((arb_mat(len(rays) // self.degree, self.degree, rays) * last).entries())
        if self.plain:
            return values[0]
        found = [self.g(self.problem.x(list(map(acb, s)))) for s in itertools.product(*points)]
        return [
            sum(g.real * v for g, v in zip(gs, vs, strict=True))
            for gs, vs in zip(found, zip(*values, strict=True), strict=True)
        ]

    def interpolants(self, cells: list[Cell], tolerance: arb, what: str) -> list[tuple[list[int], list[arb], arb]]:
        """Return (shape, Chebyshev coefficients, error) on cells that cover the given ones."""
        todo, result = list(cells), []
        while todo:
            cell = todo.pop()
            found = [self.nodes(cell, i, tolerance / 50) for i in range(self.problem.d)]
            i, shape = max(range(len(found)), key=lambda i: found[i][0]), [k for k, _ in found]
            if shape[i] > NODES[self.problem.d]:
                need(len(todo) < LIMIT and cell[i][1] - cell[i][0] > fmpq(1, 2**20), f"{what}: not analytic enough")
                todo += halves(cell, i)
                continue
            angles = [[arb.pi() * (2 * j + 1) / (2 * k) for j in range(k)] for k in shape]
            points = [
                [arb((a + b) / 2) + arb((b - a) / 2) * u.cos() for u in us]
                for us, (a, b) in zip(angles, cell, strict=True)
            ]
            cosines = [
                arb_mat([[(j * u).cos() * (2 if j else 1) / len(us) for u in us] for j in range(len(us))])
                for us in angles
            ]
            error, factor = arb(0), arb(1)
            for k, e in found:
                error, factor = error + factor * e, factor * (1 + 2 / arb.pi() * arb(k).log())
            result.append((shape, along(cosines, shape, self.values(points)), error))
        return result


def positive(shape: list[int], flat: list[arb], error: arb, what: str) -> None:
    """Prove that a polynomial with these Chebyshev coefficients is at least `error`, halving the cell."""
    todo, count = [(shape, flat, error)], 0
    while todo:
        shape, flat, error = todo.pop()
        sizes, count = [abs(c) for c in flat], count + 1
        total = sum(sizes[1:], arb(0))
        if flat[0] - total - error >= 0:
            continue
        need(not flat[0] + total + error < 0, f"{what}: the inequality is false")
        need(count < LIMIT, f"{what}: cannot be verified")
        index = list(itertools.product(*map(range, shape)))
        sums = [[0.0] * n for n in shape]
        for e, c in zip(index, map(float, sizes), strict=True):
            for i, k in enumerate(e):
                sums[i][k] += c
        cut = [max([1] + [j + 1 for j in range(len(s)) if sum(s[j:]) > 1e-9 * float(total)]) for s in sums]
        if cut != shape:  # drop what does not matter, its size is an error
            keep = [k for k, e in enumerate(index) if all(map(operator.lt, e, cut))]
            error += total + sizes[0] - sum((sizes[k] for k in keep), arb(0))
            shape, flat = cut, [flat[k] for k in keep]
        axis = max(range(len(shape)), key=lambda i: sum(j * j * c for j, c in enumerate(sums[i])))
        for sign in (-1, 1):
            matrices = [to_half(n, sign) if i == axis else None for i, n in enumerate(shape)]
            todo.append((shape, along(matrices, shape, flat), error))


def inspect(content: dict[str, Any]) -> list[str]:
    """Check everything; return what is proved."""
    rest = json.dumps({k: v for k, v in content.items() if k != "digest"}, sort_keys=True, separators=(",", ":"))
    need(hashlib.sha256(rest.encode()).hexdigest() == content["digest"], "the digest does not belong to the contents")
    need(content["question"] == "mean exit time", "this question is unknown")
    objects = [
        content,
        content["problem"],
        content["problem"]["domain"],
        *content["functions"].values(),
        *content["claims"],
        *content["starts"],
    ]
    need({k for o in objects for k in o} <= {*KEYS.split()}, "there are unknown keys")
    functions, claims = content["functions"], content["claims"]
    ctx.prec = 320
    problem, one = Problem(content["problem"]), sympy.S.One
    unreachable, reflecting = content["unreachable"], content["problem"]["reflecting"]
    need(
        {*unreachable, *reflecting} <= {*problem.parts} and not {*unreachable} & {*reflecting},
        "boundary parts are not clear",
    )
    need({*reflecting} <= {*SIDES}, "only straight sides can reflect")
    for part in unreachable:
        need(problem.unreachable(part), f"{part}: not proved unreachable")
    for part in reflecting:
        i = SIDES.index(part) // 2
        need(
            problem.holds(part, [problem.a[i][i]], lambda v: v[0].real > 0), f"{part}: reflection needs noise across it"
        )
    numbers = [
        (c["kind"] == "upper", c["function"], number(c["m" if c["kind"] == "upper" else "M"]), number(c["b"]))
        for c in claims
    ]
    need(
        all(c["kind"] in ("upper", "lower") for c in claims) and all(m > 0 for _, _, m, _ in numbers),
        "m and M must be positive",
    )
    accuracy = arb(2) ** -BITS[problem.d]
    rate, level = (accuracy * min([arb(abs(n[k])) for n in numbers if n[k] != 0] or [arb(1)]) for k in (2, 3))
    ws = {name: Function(entry, problem) for name, entry in functions.items()}
    for name, w in ws.items():
        own = [n for n in numbers if n[1] == name]
        tasks = [
            ("-A w in the domain", w.generator(), problem.inside, rate, [(-1 if up else 1, m) for up, _, m, _ in own])
        ]
        for part, cells in problem.parts.items():
            if part in reflecting:
                i, side = divmod(SIDES.index(part), 2)
                flux = w.sum([((2 * side - 1) * problem.a[i][j], w.slope[j]) for j in range(problem.d)])
                tasks.append((f"(a n)·∇w on {part}", flux, cells, rate, [(-1 if up else 1, fmpq(0)) for up, *_ in own]))
            elif part not in unreachable:
                tasks.append(
                    (
                        f"w on {part}",
                        {one: w.w},
                        cells,
                        level,
                        [(-1 if up else 1, -b if up else b) for up, _, _, b in own],
                    )
                )
        for what, terms, cells, tolerance, sides in tasks:
            pieces = (
                Interpolation(w, terms).interpolants(cells, tolerance, what) if terms else [([1], [arb(0)], arb(0))]
            )
            for (shape, flat, error), (sign, value) in itertools.product(pieces, sides):
                positive(shape, [sign * (value - flat[0]), *[-sign * c for c in flat[1:]]], error, f"{name}, {what}")
    statements = []
    for start in content["starts"]:
        x = [number(t) for t in start["x"]]
        at = dict(zip(problem.z, map(exact, x), strict=True))
        need(all(d.subs(at) >= 0 for d in problem.distance.values()), f"the start {start['x']} is not in the domain")
        low = max([(ws[n](x) - b) / m for up, n, m, b in numbers if not up] + [fmpq(0)])
        need(number(start["lower"]) <= low, "a lower bound at a start does not follow")
        highs = [(ws[n](x) + b) / m for up, n, m, b in numbers if up]
        need(
            start["upper"] == "inf" or any(h <= number(start["upper"]) for h in highs),
            "an upper bound at a start does not follow",
        )
        point = ", ".join(repr(float.fromhex(t)) for t in start["x"])
        statements.append(
            f"E_x τ at x = ({point}) lies in [{float.fromhex(start['lower'])!r}, {float.fromhex(start['upper'])!r}]"
        )
    return statements


def check(text: str) -> Verdict:
    """Check the text of a certificate."""
    precision = ctx.prec
    try:
        content = json.loads(text)
        need(content["format"] == "fpsolve-certificate-1", "this format is unknown")
    except (ValueError, KeyError, TypeError, RecursionError, Rejected) as error:
        return Verdict(False, f"not a readable certificate: {error}", readable=False)
    try:
        return Verdict(True, "every inequality is proved", inspect(content))
    except Exception as error:  # whatever goes wrong, nothing is proved
        return Verdict(
            False, str(error) if isinstance(error, Rejected) else f"malformed: {type(error).__name__}: {error}"
        )
    finally:
        ctx.prec = precision


def main(argv: Sequence[str] | None = None) -> int:
    """Check one file; return 0 accepted, 1 rejected, 2 unreadable."""
    try:
        (path,) = sys.argv[1:] if argv is None else argv
        verdict = check(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        verdict = Verdict(False, f"usage: python verify.py CERT.json ({error})", readable=False)
    print("\n".join([("accepted: " if verdict.accepted else "rejected: ") + verdict.reason, *verdict.statements]))
    return 0 if verdict.accepted else 1 if verdict.readable else 2


if __name__ == "__main__":
    sys.exit(main())

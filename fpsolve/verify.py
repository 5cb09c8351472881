"""Check a certificate of exit-time bounds from scratch: ``python verify.py CERT.json``.

This file shares nothing with the program that made the certificate. It needs Python, sympy and python-flint.

Theorem. dX = f dt + sqrt(2a) dW in Ω, a >= 0 (assumed), generator A u = tr(a D²u) + f·∇u, exit time τ, S a closed part
of the boundary with X_τ in S almost surely, w a polynomial. By Itô's formula ``-A w >= m > 0`` in Ω and ``w >= -b`` on
S give ``E_x τ <= (w(x) + b)/m``; ``-A w <= M`` in Ω, M > 0, and ``w <= b`` on S give ``E_x τ >= (w(x) - b)/M``.
On a reflecting side (outer normal n, push along -a n) n·a n > 0 and, instead of a condition on w, ``(a n)·∇w >= 0`` for
upper and ``<= 0`` for lower bounds. A part {d = 0} of the boundary (d > 0 in Ω) is not in S if (∇d·a∇d)/d =: q is
smooth and e := A d - q is positive on the closed part or a smooth multiple of d: then A(-log d) = -e/d is bounded above
in a collar inside Ω, so that d does not become 0.

Method. X = (x - mid)/half maps the box of w to [-1, 1]^d. A formula that is no polynomial is replaced by an interpolant
in K Chebyshev nodes per direction. If |g| <= G for one coordinate in the filled ellipse with foci ±1 and semi-axes
(ρ ± 1/ρ)/2 (times κ), the others real, this costs an error of 4 G ρ^(1-K)/(ρ-1), times the Lebesgue constants of the
directions before. It remains to prove p >= 0 for polynomials p with exact rational coefficients, on boxes, or on balls,
where X = t (2p, ±(1 - |p|²))/(1 + |p|²) gives polynomials of p and t after multiplication by a power of 1 + |p|². On a
cell, a polynomial is not below its least Bernstein coefficient; cells are halved where this does not suffice.
All numbers are exact or balls with outward rounding (Arb).
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
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import sympy
from flint import acb, arb, arb_mat, ctx, fmpq, fmpq_mat, fmpq_mpoly_ctx

KEYS = """format made_by question problem unreachable functions claims starts digest variables domain reflecting loss
covariance epsilon2 covariance_scale extra_diffusion drift diffusion shape center radius lower upper coefficients kind
function m M b x"""
SIDES = ("left", "right", "bottom", "top", "back", "front")
RHOS = [arb(r) for r in (1.2, 1.5, 1.9, 2.4, 3, 4, 6, 9, 15, 30, 100)]
NODES, CUTS, LIMIT, KAPPA, SMALL = (400, 160, 40), (1, 16, 6), 100_000, fmpq(1024, 1023), fmpq(1, 2**40)
NAMES = ("exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf", "abs")
ACTIONS = {"Add": operator.add, "Sub": operator.sub, "Mult": operator.mul, "Div": operator.truediv, "Pow": pow}
EXACT = ACTIONS | {"number": lambda t: fmpq(*Fraction(t).as_integer_ratio()), "Pow": lambda z, e: z ** int(str(e))}
SYMBOLS = ACTIONS | {n: getattr(sympy, "Abs" if n == "abs" else n) for n in NAMES}
SYMBOLS |= {"number": sympy.Rational, "pi": lambda: sympy.pi}
BALLS = ACTIONS | {n: operator.methodcaller(n) for n in NAMES} | {"number": lambda t: acb(EXACT["number"](t))}
BALLS |= {n: operator.methodcaller(n, analytic=True) for n in ("log", "sqrt")}  # not finite on a branch cut
BALLS |= dict.fromkeys(("abs", "Abs"), operator.methodcaller("real_abs", analytic=True))
BALLS |= {"sign": lambda z: z.real_sgn(analytic=True), "Pow": lambda z, e: z.pow(e, analytic=True)}
BALLS |= {n: lambda z, n=n: getattr(z, n)() if abs(z.real) < 1 else acb("nan") for n in ("asin", "acos")}
BALLS |= {"atan": lambda z: z.atan() if abs(z.imag) < 1 else acb("nan"), "pi": acb.pi, "E": lambda: acb(1).exp()}


class Verdict(NamedTuple):
    """Result of a check: `statements` are sentences that are proved, none unless accepted."""

    accepted: bool
    reason: str
    statements: list[str]
    readable: bool = True


def need(condition: bool, reason: str) -> None:
    """Reject the certificate unless the condition holds."""
    if not condition:
        raise ValueError(reason)


def number(text: str) -> fmpq:
    """Return the exact value of a finite float in hexadecimal."""
    return fmpq(*float.fromhex(text).as_integer_ratio())


def compiled(text: str, names: Sequence[str], algebra: dict[str, Any]) -> Callable[[Sequence[Any]], Any]:
    """Return a formula as a function of the variables in an algebra. Nothing in a formula is executed."""

    def build(node: ast.AST) -> Callable[[Sequence[Any]], Any]:
        match node:
            case ast.Constant(value=int() | float() as value) if type(value) is not bool:
                constant = algebra["number"](repr(value))  # 0.1 means 1/10
                return lambda x: constant
            case ast.Name(id=name) if name in names:
                return operator.itemgetter(names.index(name))
            case ast.Name(id="pi" | "E" as name):
                return lambda x: algebra[name]()
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=part):
                z = build(part)
                return (lambda x: -z(x)) if isinstance(sign, ast.USub) else z
            case ast.BinOp(left=left, op=op, right=right) if type(op).__name__ in ACTIONS:
                need(not isinstance(op, ast.Pow) or len(ast.unparse(right).replace("**", " " * 9)) < 8, "exponent")
                p, q, action = build(left), build(right), algebra[type(op).__name__]
                return lambda x: action(p(x), q(x))
            case ast.Call(func=ast.Name(id=name), args=[part], keywords=[]) if name in (*NAMES, "Abs", "sign"):
                z, function = build(part), algebra[name]
                return lambda x: function(z(x))
        raise ValueError(f"{ast.unparse(node)!r} is not allowed in a formula")

    return build(ast.parse(text.strip(), mode="eval").body)


@lru_cache
def change(n: int, source: bool, target: bool, shift: fmpq, scale: fmpq) -> fmpq_mat:
    """Return the matrix of b_k(shift + scale s), k < n, in the basis b_j(s); True Chebyshev, False powers."""
    columns = [[fmpq(j == 0) for j in range(n)]]
    for k in range(1, n):
        times = [fmpq(0)] * (n + 1)  # s b_j = b_{j+1}, or (b_{j+1} + b_{j-1})/2
        for j, c in enumerate(columns[-1][:k]):
            times[j + 1] += c / 2 if target and j else c
            times[j - 1] += c / 2 if target and j else 0
        column = [shift * c + scale * t for c, t in zip(columns[-1], times, strict=False)]
        columns.append([2 * c - b for c, b in zip(column, columns[-2], strict=True)] if source and k > 1 else column)
    return fmpq_mat(columns).transpose()


@lru_cache
def bernstein(n: int) -> arb_mat:
    """Return the matrix from Chebyshev to Bernstein coefficients on [-1, 1]."""
    rows = [[fmpq(math.comb(j, k), math.comb(n - 1, k)) for k in range(n)] for j in range(n)]
    return arb_mat(fmpq_mat(rows) * change(n, True, False, fmpq(-1), fmpq(2)))


def along(matrices: Sequence[Any], flat: list[Any]) -> list[Any]:
    """Apply one matrix along each axis of a row-major tensor."""
    for m in matrices:
        flat = (m * type(m)(m.ncols(), len(flat) // m.ncols(), flat)).transpose().entries()
    return flat


def dense(p: Any) -> tuple[list[int], list[fmpq]]:
    """Return the coefficients of a polynomial as a row-major tensor."""
    shape = [max(n, 0) + 1 for n in p.degrees()]
    return shape, [p[e] for e in itertools.product(*map(range, shape))]


def positive(p: Any, cell: Sequence[tuple[fmpq, fmpq]]) -> None:
    """Prove that a polynomial is not negative on a box, or reject."""
    shape, exact = dense(p)
    try:
        ctx.prec += 3 * sum(shape) // 2  # for the cancellation in the change of the basis
        frame = zip(shape, [((a + b) / 2, (b - a) / 2) for a, b in cell], strict=True)
        flat = along([arb_mat(change(n, False, True, *place)) for n, place in frame], list(map(arb, exact)))
    finally:
        ctx.prec -= 3 * sum(shape) // 2
    todo, negligible = [(shape, flat, arb(0))], 1e-10 * sum(abs(float(c)) for c in flat[1:])
    for _ in range(LIMIT):
        if not todo:
            return
        shape, flat, error = todo.pop()
        if max(shape) < 24:
            values = along([bernstein(n) for n in shape], flat)
            if all(v >= error for v in values):
                continue
            need(len(flat) > 1 and not values[0] < -error, "the inequality is false")
        (n, *others), width, rest = shape, len(flat) // shape[0], negligible
        while n > 1 and (rest := rest - sum(abs(float(c)) for c in flat[(n - 1) * width : n * width])) >= 0:
            n -= 1  # small coefficients of the highest degree become part of the error
        block, error = arb_mat(n, width, flat[: n * width]), sum(map(abs, flat[n * width :]), error)
        for sign in (-1, 1) if n > 1 else (0,):  # halves of the first direction, which becomes the last one
            half = arb_mat(change(n, True, True, fmpq(sign, 2), fmpq(1, 2))) * block
            todo.append(([*others, n], half.transpose().entries(), error))
    raise ValueError("cannot be verified")


class Setting:
    """A problem in the coordinates X = (x - mid)/half of a polynomial w; polynomials are exact."""

    def __init__(self, problem: dict[str, Any], entry: dict[str, Any]) -> None:
        self.names, domain, shape = problem["variables"], problem["domain"], entry["shape"]
        low, high = ([number(t) for t in entry[k]] for k in ("lower", "upper"))
        self.d, self.half = len(low), [(q - p) / 2 for p, q in zip(low, high, strict=True)]
        self.mid, self.reflecting = [p + h for p, h in zip(low, self.half, strict=True)], problem["reflecting"]
        need(len({*self.names} - {*BALLS}) == self.d == len(self.names) and min(self.half) > 0, "names or box of w")
        self.ring = fmpq_mpoly_ctx.get(tuple("XYZ"[: self.d]), "lex")
        self.x = [m + h * g for m, h, g in zip(self.mid, self.half, self.ring.gens(), strict=True)]
        flat = [sum(map(number, [c] if isinstance(c, str) else c), fmpq(0)) for c in entry["coefficients"]]
        self.w = self.polynomial(shape, along([change(n, True, False, 0, 1) for n in shape], flat))
        need(("loss" in problem) != ("drift" in problem), "loss or drift, not both")
        matrix, strength, extra = problem["covariance" if "loss" in problem else "diffusion"], fmpq(1), fmpq(0)
        if "loss" in problem:
            strength, extra = number(problem["epsilon2"]), number(problem["extra_diffusion"])
            strength *= number(problem["covariance_scale"])
            z = [sympy.Symbol(n, real=True) for n in self.names]
            loss = compiled(problem["loss"], self.names, SYMBOLS)(z)
            self.f = [sympy.sstr(-sympy.diff(loss, v)) for v in z]
        else:
            self.f = problem["drift"]
        need(strength > 0 and extra >= 0, "the strength of the noise must be positive")
        need(len(self.f) == self.d and matrix == [list(r) for r in zip(*matrix, strict=True)], "a is not symmetric")
        n = range(self.d)
        self.a = [(i, j, matrix[i][j], strength) for i in n for j in n] + [(i, i, "1", extra) for i in n]
        if domain["shape"] == "ball":
            self.center, r = [number(t) for t in domain["center"]], number(domain["radius"])
            square = sum(((x - c) ** 2 for x, c in zip(self.x, self.center, strict=True)), 0 * self.w)
            off = sum(abs(c - m) for c, m in zip(self.center, self.mid, strict=True))
            self.shell, self.distance = (
                ((r - off) / max(self.half), (r + off) / min(self.half)),
                {"boundary": r * r - square},
            )
            need(1 - SMALL < self.shell[0] and self.shell[1] < 1 + SMALL, "the box of w does not fit the ball")
            return
        need(domain["shape"] == "box", "this domain is unknown")
        ends = [[number(t) for t in domain[k]] for k in ("lower", "upper")]
        self.shell = None
        self.box = [tuple((e[i] - self.mid[i]) / self.half[i] for e in ends) for i in n]
        need(all(-1 - SMALL < p < q < 1 + SMALL for p, q in self.box), "the box of w does not fit the domain")
        self.distance = {SIDES[2 * i + k]: (1 - 2 * k) * (self.x[i] - ends[k][i]) for i in n for k in (0, 1)}

    def polynomial(self, shape: Sequence[int], flat: list[fmpq]) -> Any:
        """Return the polynomial in X with these coefficients."""
        return self.ring.from_dict(dict(zip(itertools.product(*map(range, shape)), flat, strict=True)))

    def at(self, p: Any, x: Sequence[fmpq]) -> fmpq:
        """Return the exact value of a polynomial."""
        return p(*[(z - m) / h for z, m, h in zip(x, self.mid, self.half, strict=True)])

    def slope(self, p: Any, i: int) -> Any:
        """Return the derivative in x_i."""
        return p.derivative(i) * (1 / self.half[i])

    def generator(self, p: Any) -> list[tuple[str, Any]]:
        """Return A p as pairs of a text g and a polynomial P."""
        slopes = [self.slope(p, i) for i in range(self.d)]
        return [(g, s * self.slope(slopes[i], j)) for i, j, g, s in self.a] + list(zip(self.f, slopes, strict=True))

    def flux(self, p: Any, q: Any) -> list[tuple[str, Any]]:
        """Return ∇p·a∇q as pairs of a text g and a polynomial P."""
        return [(g, s * self.slope(p, i) * self.slope(q, j)) for i, j, g, s in self.a]

    def total(self, pairs: Sequence[tuple[str, Any]], scale: fmpq = SMALL) -> tuple[Any, fmpq]:
        """Return Σ g P as a polynomial for |X_i| <= 1 + SMALL, and a bound of the error."""
        result, error = 0 * self.w, fmpq(0)
        for text, p in pairs:
            if p != 0:
                shape, flat = dense(p)
                size = 2 * sum(map(abs, along([change(n, False, True, 0, 1) for n in shape], flat)))  # |T_k| <= 2
                g, e = self.formula(text, scale * SMALL / (64 * size))
                result, error = result + g * p, error + e * size
        return result, error

    @lru_cache  # noqa: B019
    def formula(self, text: str, tolerance: fmpq) -> tuple[Any, fmpq]:
        """Return a formula as a polynomial for |X_i| <= κ, and a bound of the error."""
        try:
            return 0 * self.w + compiled(text, self.names, EXACT)(self.x), fmpq(0)
        except Exception:  # a function, a division: no polynomial
            g = compiled(text, self.names, BALLS)
        d, frame, accuracy = self.d, list(zip(self.mid, self.half, strict=True)), arb(tolerance)

        def values(*spots: list[Any]) -> list[acb]:
            return [
                g([acb(m + h * KAPPA * z) for (m, h), z in zip(frame, s, strict=True)])
                for s in itertools.product(*spots)
            ]

        cuts, units = CUTS[d - 1], [acb(0, arb(k + 0.5, 0.5) * arb.pi() / 24).exp() for k in range(24)]
        found, nodes, rows, error, factor = [], [], [], arb(0), arb(1)
        for i in range(d):
            best = (NODES[d - 1] + 1, arb(0))
            for rho in RHOS:
                radii = [(rho ** fmpq(k, 4)).union(rho ** fmpq(k + 1, 4)) for k in range(4)]
                spots = [[acb(arb(k, 1) / cuts) for k in range(1 - cuts, cuts, 2)]] * d
                spots[i] = [(q * u + 1 / (q * u)) / 2 for q in radii for u in units]  # upper half: g is real
                size = 4 * max((abs(v).upper() for v in values(*spots)), key=float) / (rho - 1)
                if not size.is_finite():
                    break
                k = 2 + math.ceil(float((1 + 4 * d * size / accuracy).log() / rho.log()))
                best = min(best, (k, size * rho ** (1 - k)), key=operator.itemgetter(0))
            k, e = best
            need(k <= NODES[d - 1], f"{text} is not analytic enough")
            angles = [arb.pi() * (2 * j + 1) / (2 * k) for j in range(k)]
            nodes.append([u.cos() for u in angles])
            rows.append(arb_mat([[(j * u).cos() * (2 if j else 1) / k for u in angles] for j in range(k)]))
            error, factor = error + factor * e, factor * (1 + 2 / arb.pi() * arb(k).log())
        flat, kept = along(rows, [v.real for v in values(*nodes)]), []
        for c in flat:
            high = float(c) if abs(float(c)) * 4 * len(flat) > float(accuracy) else 0.0
            kept.append(number(high.hex()) + number(float(c - high if high else 0).hex()))
            error += abs(c - kept[-1])
        need(error.is_finite(), f"{text} cannot be evaluated")
        shape = [len(p) for p in nodes]
        flat = along([change(k, True, False, 0, 1 / KAPPA) for k in shape], kept)
        return self.polynomial(shape, flat), number(float(error.upper() * 2).hex())

    def prove(
        self, what: str, pairs: Sequence[tuple[str, Any]], part: str, sign: int, value: fmpq, scale: fmpq
    ) -> None:
        """Prove sign·(Σ g P - value) >= 0 on a part of the boundary or, if there is no such part, in Ω."""
        try:
            p, error = self.total(pairs, scale)
            p = sign * (p - value) - error
            if not self.shell:
                k = SIDES.index(part) if part else -1
                return positive(p, [(b[k % 2],) * 2 if i == k // 2 else b for i, b in enumerate(self.box)])
            *ps, t = self.ring.gens()
            square, degree = sum((q * q for q in ps), 0 * t), max(0, p.total_degree())
            n = 1 + degree // 5  # 1 + square varies moderately on a cell
            cells = [[(fmpq(2 * k, n) - 1, fmpq(2 * k + 2, n) - 1) for k in range(n)]] * len(ps)
            ring = fmpq_mpoly_ctx.get((*self.ring.names(), "h"), "lex")
            homogeneous = ring.from_dict({(*e, degree - sum(e)): c for e, c in p.to_dict().items()})
            for side in (1, -1):
                gamma = [*(2 * t * q for q in ps), side * t * (1 - square), 1 + square]
                whole = homogeneous.compose(*gamma, ctx=self.ring)
                for cell in itertools.product(*cells, [(self.shell[0] if part else fmpq(0), self.shell[1])]):
                    positive(whole, cell)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error


def inspect(content: dict[str, Any]) -> list[str]:
    """Check everything; return what is proved."""
    rest = json.dumps({k: v for k, v in content.items() if k != "digest"}, sort_keys=True, separators=(",", ":"))
    need(hashlib.sha256(rest.encode()).hexdigest() == content["digest"], "the digest does not belong to the contents")
    need(content["question"] == "mean exit time", "this question is unknown")
    problem, claims, unreachable = content["problem"], content["claims"], content["unreachable"]
    objects = [content, problem, problem["domain"], *content["functions"].values(), *claims, *content["starts"]]
    need({k for o in objects for k in o} <= {*KEYS.split()}, "there are unknown keys")
    ws = {name: Setting(problem, entry) for name, entry in content["functions"].items()}
    w = next(iter(ws.values()))
    parts, reflecting = {*w.distance}, {*problem["reflecting"]}
    need({*unreachable} | reflecting <= parts and not {*unreachable} & reflecting, "the parts are not clear")
    need(not reflecting or not w.shell, "only straight sides can reflect")
    for part in reflecting:
        w.prove(f"{part} reflects", w.flux(w.distance[part], w.distance[part]), part, 1, SMALL, SMALL)
    for part in unreachable:
        d = w.distance[part]
        normal, error = w.total(w.flux(d, d))
        q, remainder = divmod(normal, d)
        need(remainder == 0 and error == 0, f"{part} can be reached: there is noise across it")
        e, error = w.total([*w.generator(d), ("-1", q)])
        if error != 0 or divmod(e, d)[1] != 0:
            w.prove(f"{part} is unreachable", [*w.generator(d), ("-1", q)], part, 1, SMALL, SMALL)
    bounds: dict[int, list[Any]] = {1: [], -1: []}
    for claim in claims:
        sign, name = {"upper": 1, "lower": -1}[claim["kind"]], claim["function"]
        w, m, b = ws[name], number(claim["m" if sign == 1 else "M"]), number(claim["b"])
        need(m > 0, "m and M must be positive")
        bounds[sign].append((w, m, b))
        w.prove(f"A {name}", w.generator(w.w), "", -sign, -m, m)
        for part in parts - {*unreachable} - reflecting:
            w.prove(f"{name} on {part}", [("1", w.w)], part, sign, -sign * b, m)
        for part in reflecting:
            w.prove(f"(a n)·∇{name} on {part}", w.flux(w.distance[part], w.w), part, -sign, fmpq(0), m)
    statements = []
    for start in content["starts"]:
        x, low, high = [number(t) for t in start["x"]], start["lower"], start["upper"]
        need(all(w.at(d, x) >= 0 for d in w.distance.values()), f"a start, {start['x']}, is not in the domain")
        best = max([(w.at(w.w, x) - b) / m for w, m, b in bounds[-1]] + [fmpq(0)])
        need(number(low) <= best, "a lower bound at a start does not follow")
        need(
            high == "inf" or number(high) >= min((w.at(w.w, x) + b) / m for w, m, b in bounds[1]),
            "an upper bound at a start does not follow",
        )
        place = ", ".join(repr(float.fromhex(t)) for t in start["x"])
        statements.append(f"E_x τ at x = ({place}) lies in {[float.fromhex(low), float.fromhex(high)]}")
    return statements


def check(text: str) -> Verdict:
    """Check the text of a certificate."""
    precision, readable = ctx.prec, False
    try:
        content = json.loads(text)
        need(content["format"] == "fpsolve-certificate-1", "this format is unknown")
        readable, ctx.prec = True, 192
        return Verdict(True, "every inequality is proved", inspect(content))
    except Exception as error:  # whatever goes wrong, nothing is proved
        reason = str(error) if type(error) is ValueError else f"malformed, {type(error).__name__}: {error}"
        return Verdict(False, reason if readable else f"not a readable certificate: {error}", [], readable)
    finally:
        ctx.prec = precision


def main(argv: Sequence[str] | None = None) -> int:
    """Check one file; return 0 accepted, 1 rejected, 2 unreadable."""
    try:
        (path,) = sys.argv[1:] if argv is None else argv
        verdict = check(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        verdict = Verdict(False, f"{error} (usage: python verify.py CERT.json)", [], readable=False)
    print("\n".join(["accepted" if verdict.accepted else f"rejected: {verdict.reason}", *verdict.statements]))
    return 0 if verdict.accepted else 1 if verdict.readable else 2


if __name__ == "__main__":
    sys.exit(main())

"""Check a certificate of exit-time bounds from scratch: ``python verify.py CERT.json``; needs sympy and python-flint.

Theorem. dX = f dt + sqrt(2a) dW in Ω, a >= 0 (assumed), generator A u = tr(a D²u) + f·∇u, exit time τ, S a closed part
of the boundary with X_τ in S almost surely, w a polynomial. By Itô's formula ``-A w >= m > 0`` in Ω and ``w >= -b`` on
S give ``E_x τ <= (w(x) + b)/m``; ``-A w <= M`` in Ω, M > 0, and ``w <= b`` on S give ``E_x τ >= (w(x) - b)/M``.
On a reflecting side (outer normal n, push along -a n) n·a n > 0 and, instead of a condition on w, ``(a n)·∇w >= 0`` for
upper and ``<= 0`` for lower bounds. A part {d = 0} (d > 0 in Ω) is not in S if q = (∇d·a∇d)/d is smooth and e = A d - q
is positive on the closed part or a smooth multiple of d: then A(-log d) = -e/d is bounded above near the part.
Method. X = (x - mid)/half maps the box of w to [-1, 1]^d. Formulas that are no polynomials are replaced by interpolants
in K Chebyshev nodes per direction. If |g| <= G for one coordinate in the filled ellipse with foci ±κ and semi-axes
κ(ρ ± 1/ρ)/2, the others real, the error is at most 4 G ρ^(1-K)/(ρ-1), times Lebesgue constants of other directions.
There remains p >= 0 for polynomials on boxes, or on balls X = t (2s, ±(1 - |s|²))/(1 + |s|²) times a power of 1 + |s|².
On a cell p is not below its least Bernstein coefficient; cells are halved. Numbers: exact, or balls rounded outward."""

import ast
import hashlib
import importlib
import json
import math
import sys
from contextlib import suppress
from functools import lru_cache
from itertools import chain, product, takewhile
from operator import add, methodcaller, mul, sub, truediv
from pathlib import Path
from typing import Any, NamedTuple

import sympy
from flint import acb, arb, arb_mat, ctx, fmpq, fmpq_mat, fmpq_mpoly_ctx, fmpq_poly

KEYS = """format made_by question problem unreachable functions claims starts digest variables domain reflecting loss
covariance epsilon2 covariance_scale extra_diffusion drift diffusion shape center radius lower upper coefficients kind
function m M b x data"""
FORMAT, KAPPA, SMALL, LIMIT = "fpsolve-certificate-1", fmpq(1024, 1023), fmpq(1, 2**40), 100_000
SIDES = ("left", "right", "bottom", "top", "back", "front")
CUT = {"log": "log", "sqrt": "sqrt", "abs": "real_abs", "Abs": "real_abs", "sign": "real_sgn"}
NAMES = (*CUT, "exp", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf")
ACTIONS: dict[str, Any] = {"Add": add, "Sub": sub, "Mult": mul, "Div": truediv, "Pow": pow, "number": sympy.Rational}
EXACT = ACTIONS | {"number": lambda t: fmpq(str(sympy.Rational(t))), "Pow": lambda z, e: z ** int(str(e))}
BALLS = ACTIONS | {n: methodcaller(n) for n in NAMES}
BALLS |= {"number": lru_cache(lambda t: acb(EXACT["number"](t))), "pi": acb.pi, "E": lambda: acb(1).exp()}
BALLS |= {n: methodcaller(name, analytic=True) for n, name in CUT.items()}  # not finite on a branch cut
BALLS |= {n: lambda z, n=n: getattr(z, n)() if abs(z.real) < 1 else acb("nan") for n in ("asin", "acos")}
BALLS |= {"Pow": lambda z, e: z.pow(e, analytic=True), "atan": lambda z: z.atan() if abs(z.imag) < 1 else acb("nan")}
SYMBOLS = ACTIONS | {n: getattr(sympy, "Abs" if n == "abs" else n) for n in NAMES} | {"pi": lambda: sympy.pi}
parse = lru_cache(lambda text: ast.parse(text.strip(), mode="eval").body)
Verdict = NamedTuple("Verdict", [("accepted", bool), ("reason", str), ("statements", list[str]), ("readable", bool)])  # noqa: UP014


def need(condition: bool, reason: str) -> None:
    """Reject the certificate unless the condition holds."""
    if not condition:
        raise ValueError(reason)


def number(text: str | list[str]) -> fmpq:
    """Return the exact value of a finite float in hexadecimal, or of a sum of such."""
    return sum((fmpq(*float.fromhex(t).as_integer_ratio()) for t in ([text] if type(text) is str else text)), fmpq(0))


def evaluate(node: ast.AST, x: dict[str, Any], algebra: dict[str, Any]) -> Any:
    """Return the value of a formula in an algebra; only what is listed here is allowed, nothing is executed."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return algebra["number"](repr(value))  # 0.1 means 1/10
        case ast.Name(id=name) if name in x or name in ("pi", "E"):
            return x[name] if name in x else algebra[name]()
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=part):
            return evaluate(part, x, algebra) * (-1 if isinstance(sign, ast.USub) else 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op).__name__ in EXACT:
            return algebra[type(op).__name__](evaluate(left, x, algebra), evaluate(right, x, algebra))
        case ast.Call(func=ast.Name(id=name), args=[part], keywords=[]) if name in algebra.get("calls", NAMES):
            return algebra[name](evaluate(part, x, algebra))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed in a formula")


@lru_cache
def change(n: int, source: bool, target: bool, shift: fmpq, scale: fmpq) -> fmpq_mat:
    """Return the matrix of b_k(shift + scale s), k < n, in the basis b_j(s); True Chebyshev, False powers."""
    b, step = [fmpq_poly([1]), fmpq_poly([shift, scale])], fmpq_poly([shift, scale]) * (2 if source else 1)
    for _ in range(2, n):  # T_k = 2 s T_{k-1} - T_{k-2}
        b.append(step * b[-1] - (b[-2] if source else 0))
    entry = lambda j, k: fmpq((1 + (j > 0)) * (1 - (j + k) % 2) * math.comb(k, (j + k) // 2), 2**k)  # noqa: E731
    back = fmpq_mat([[entry(j, k) if target else fmpq(j == k) for k in range(n)] for j in range(n)])
    return back * fmpq_mat([[p[j] for p in b[:n]] for j in range(n)])


@lru_cache
def bernstein(n: int) -> arb_mat:
    """Return the matrix from Chebyshev to Bernstein coefficients on [-1, 1]."""
    powers = fmpq_mat([[fmpq(math.comb(j, k), math.comb(n - 1, k)) for k in range(n)] for j in range(n)])
    return arb_mat(powers * change(n, True, False, fmpq(-1), fmpq(2)))


def along(matrices: list[Any], flat: list[Any]) -> list[Any]:
    """Apply one matrix along each axis of a row-major tensor."""
    for m in matrices:
        flat = (m * type(m)(m.ncols(), len(flat) // m.ncols(), flat)).transpose().entries()
    return flat


def chebyshev(p: Any, cell: Any) -> tuple[list[int], list[arb]]:
    """Return the Chebyshev coefficients of a polynomial on a box, a row-major tensor with this shape."""
    shape = [max(n, 0) + 1 for n in p.degrees()]
    with ctx.extraprec(3 * sum(shape) // 2):  # for the cancellation in the change of the basis
        m = [arb_mat(change(n, False, True, (a + b) / 2, (b - a) / 2)) for n, (a, b) in zip(shape, cell, strict=True)]
        return shape, along(m, [arb(p[e]) for e in product(*map(range, shape))])


def positive(p: Any, cell: Any) -> None:
    """Prove that a polynomial is not negative on a box, or reject."""
    todo, count = [(*chebyshev(p, cell), arb(0))], 0
    while todo and p != 0:
        (shape, flat, error), count = todo.pop(), count + 1
        corners = along([arb_mat([[1] * n, [(-1) ** k for k in range(n)]]) for n in shape], flat)
        need(not any(c < -error for c in corners), "the inequality is false")
        if max(shape) < 24 and all(v >= error for v in along([bernstein(n) for n in shape], flat)):
            continue
        need(len(flat) > 1 and count < LIMIT, "cannot be verified")
        (n, *others), width, rest = shape, len(flat) // shape[0], 1e-12 * min(abs(float(c)) for c in corners)
        while n > 1 and (rest := rest - sum(abs(float(c)) for c in flat[(n - 1) * width : n * width])) >= 0:
            n -= 1  # small coefficients of the highest degree become part of the error
        flat, error = flat[: n * width], sum(map(abs, flat[n * width :]), error)
        for sign in (-1, 1) if n > 1 else (0,):  # halves of the first direction, which becomes the last one
            todo.append(([*others, n], along([arb_mat(change(n, True, True, fmpq(sign, 2), fmpq(1, 2)))], flat), error))


class Setting:
    """A problem in the coordinates X = (x - mid)/half of a polynomial w; polynomials are exact."""

    def __init__(self, problem: dict[str, Any], entry: dict[str, Any]) -> None:
        self.names, domain, shape, flat = problem["variables"], problem["domain"], entry["shape"], entry["coefficients"]
        low, high = ([number(t) for t in entry[k]] for k in ("lower", "upper"))
        self.d, self.half = len(low), [(q - p) / 2 for p, q in zip(low, high, strict=True)]
        self.mid, n, self.evaluate = [p + h for p, h in zip(low, self.half, strict=True)], range(self.d), evaluate
        need(len({*self.names} - {*BALLS}) == self.d == len(self.names) and min(self.half) > 0, "names or box of w")
        ring = self.ring = fmpq_mpoly_ctx.get(tuple("XYZ"[: self.d]), "lex")
        self.at = lambda p, x: p(*[(z - m) / h for z, m, h in zip(x, self.mid, self.half, strict=True)])
        grad = self.gradient = lambda p: [p.derivative(i) * (1 / h) for i, h in enumerate(self.half)]
        self.x = [m + h * g for m, h, g in zip(self.mid, self.half, ring.gens(), strict=True)]
        self.polynomial = lambda n, c: ring.from_dict(dict(zip(product(*map(range, n)), c, strict=True)))
        self.w = self.polynomial(shape, along([change(k, True, False, 0, 1) for k in shape], [*map(number, flat)]))
        need(("loss" in problem) != ("drift" in problem), "a process has a loss or a drift")
        scales, f, matrix = [fmpq(1), fmpq(1), fmpq(0)], problem.get("drift", []), problem.get("diffusion", [])
        if "loss" in problem:
            scales = [number(problem[k]) for k in ("epsilon2", "covariance_scale", "extra_diffusion")]
            z, matrix = {name: sympy.Symbol(name, real=True) for name in self.names}, problem["covariance"]
            f = [sympy.sstr(-sympy.diff(evaluate(parse(problem["loss"]), z, SYMBOLS), s)) for s in z.values()]
        need(min(scales[:2]) > 0 <= scales[2] and len(f) == len(matrix) == self.d, "drift or noise is wrong")
        need(matrix == [*map(list, zip(*matrix, strict=True))], "a is not symmetric")
        a = [(i, j, matrix[i][j], scales[0] * scales[1]) for i in n for j in n] + [(i, i, "1", scales[2]) for i in n]
        self.flux = lambda p, q: [(g, s * grad(p)[i] * grad(q)[j]) for i, j, g, s in a]  # a pair (g, P) means g P
        self.generator = lambda p: [(g, s * grad(grad(p)[i])[j]) for i, j, g, s in a] + [*zip(f, grad(p), strict=True)]
        if domain["shape"] == "ball":
            center, r = [number(t) for t in domain["center"]], number(domain["radius"])
            self.distance = {"boundary": r * r - sum((x - c) ** 2 for x, c in zip(self.x, center, strict=True))}
            off = sum(abs(c - m) for c, m in zip(center, self.mid, strict=True))  # |X| is in shell for |x - center| = r
            self.box, self.shell = [], ((r - off) / max(self.half), (r + off) / min(self.half))
            need(r > 0 and self.shell[1] < 1 + SMALL, "w does not reach the boundary")
        else:
            need(domain["shape"] == "box", f"the domain {domain['shape']!r} is not covered")
            ends = [*zip(*([number(t) for t in domain[k]] for k in ("lower", "upper")), strict=True)]
            self.distance = {SIDES[2 * i + k]: (1 - 2 * k) * (self.x[i] - ends[i][k]) for i in n for k in (0, 1)}
            self.box = [[(c - m) / h for c in e] for e, m, h in zip(ends, self.mid, self.half, strict=True)]
            need(all(-1 - SMALL < p < q < 1 + SMALL for p, q in self.box), "w does not reach the boundary")

    def total(self, pairs: list[tuple[str, Any]], scale: fmpq) -> tuple[Any, fmpq]:
        """Return Σ g P as a polynomial for |X_i| <= 1 + SMALL, and a bound of the error."""
        result, error = 0 * self.w, fmpq(0)
        for text, p in [pair for pair in pairs if pair[1] != 0]:
            _, flat = chebyshev(p, [(fmpq(-1), fmpq(1))] * self.d)
            size = 4 * number(float(sum(map(abs, flat), arb(0)).upper()).hex())  # |T_k| <= 2 here, 2 for rounding
            g, e = self.formula(text, int((8 * size / scale).ceil()).bit_length())
            result, error = result + g * p, error + e * size
        return result, error

    @lru_cache  # noqa: B019
    def formula(self, text: str, bits: int) -> tuple[Any, fmpq]:
        """Return a formula as a polynomial for |X_i| <= κ, and a bound of the error, about 2^-bits."""
        tree, d, frame = parse(text), self.d, [*zip(self.names, self.mid, self.half, strict=True)]
        with suppress(Exception):  # a function, a division: no polynomial
            return 0 * self.w + evaluate(tree, dict(zip(self.names, self.x, strict=True)), EXACT), fmpq(0)
        cuts, most, k, error = 64 // d**2, 640 // d**2, 10**6, arb(0)
        g = lambda s: self.evaluate(tree, {n: m + h * KAPPA * z for (n, m, h), z in zip(frame, s, strict=True)}, BALLS)  # noqa: E731
        real = [acb(arb(j, 1) / cuts) for j in range(1 - cuts, cuts, 2)]
        turns = [(arb(2 * i + 1, 1) / 8, arb.pi() * arb(2 * j + 1, 1) / 48) for i in range(4) for j in range(24)]
        for rho in map(arb, (100, 30, 15, 9, 6, 4, 3, 2.4, 1.9, 1.5, 1.2)):
            filled = [acb(rho.log() * u, v).cosh() for u, v in turns]  # the upper half: g is real on the real axis
            cells = (s for i in range(d) for s in product(*(filled if i == j else real for j in range(d))))
            found = [*takewhile(lambda v: v.is_finite(), (abs(g(s)) for s in cells))]
            if len(found) == d * len(filled) * len(real) ** (d - 1):  # finite in all cells
                size = 4 * max(v.upper() for v in found) / (rho - 1)
                enough = 2 + math.ceil(float((1 + size * 2 ** (bits + 2)).log() / rho.log()))
                if enough > k:
                    break
                k, error = enough, size * rho ** (1 - enough)
        need(k <= most, f"{text} is not analytic enough")
        angles = [arb.pi() * (2 * j + 1) / (2 * k) for j in range(k)]
        cosines = arb_mat([[(j * u).cos() * (2 if j else 1) / k for u in angles] for j in range(k)])
        flat = along([cosines] * d, [g(s).real for s in product([acb(u.cos()) for u in angles], repeat=d)])
        error, step = error * d * (1 + 2 / arb.pi() * arb(k).log()) ** (d - 1), fmpq(1, 2 ** (bits + 2) * k**d)
        kept = [step * (c.mid() / step + 0.5).floor().unique_fmpz() for c in flat]
        error = sum((abs(c - z) for c, z in zip(flat, kept, strict=True)), error)
        result = self.polynomial([k] * d, along([change(k, True, False, 0, 1 / KAPPA)] * d, kept))
        return result, number(float(error.upper()).hex()) * 2 + step

    def prove(self, what: str, pairs: Any, part: str, sign: int, value: fmpq, scale: fmpq) -> None:
        """Prove sign·(Σ g P - value) >= 0 on a part of the boundary or, for the part "", in Ω."""
        for bits in (16, 28, 40, 52):  # formulas are replaced by polynomials as accurately as is needed
            p, error = self.total(pairs, scale / 2**bits)
            try:
                return self.nonnegative(sign * (p - value) - error, part)
            except ValueError as failure:
                need(error > 0 and bits < 52, f"{what}: {failure}")

    def nonnegative(self, p: Any, part: str) -> None:
        """Prove p >= 0 on a part of the boundary or, for the part "", in Ω."""
        if self.box:
            k = SIDES.index(part) if part else -1
            return positive(p, [(b[k % 2], b[k % 2]) if i == k // 2 else b for i, b in enumerate(self.box)])
        (*angles, t), degree = self.ring.gens(), max(0, p.total_degree())
        square, n = sum((s * s for s in angles), 0 * t), 1 + degree // 16  # 1 + square varies moderately on a cell
        cells = [[(fmpq(2 * k, n) - 1, fmpq(2 * k + 2, n) - 1) for k in range(n)]] * len(angles)
        larger = fmpq_mpoly_ctx.get((*self.ring.names(), "h"), "lex")
        homogeneous = larger.from_dict({(*e, degree - sum(e)): c for e, c in p.to_dict().items()})
        for last in (t * (1 - square), t * (square - 1)):
            whole = homogeneous.compose(*(2 * t * s for s in angles), last, 1 + square, ctx=self.ring)
            for cell in product(*cells, [(self.shell[0] if part else fmpq(0), self.shell[1])]):
                positive(whole, cell)


def inspect(content: dict[str, Any]) -> Any:
    """Check everything; yield what is proved."""
    rest = json.dumps({k: v for k, v in content.items() if k != "digest"}, sort_keys=True, separators=(",", ":"))
    need(hashlib.sha256(rest.encode()).hexdigest() == content["digest"], "the digest does not belong to the contents")
    need(content["question"] == "mean exit time", "this question is unknown")
    problem, claims, unreachable = content["problem"], content["claims"], {*content["unreachable"]}
    objects = [content, problem, problem["domain"], *content["functions"].values(), *claims, *content["starts"]]
    need(not (new := {*chain(*objects)} - {*KEYS.split()}), f"unknown or not covered: {', '.join(sorted(new))}")
    module = f"{__package__ or ''}.verify_data".lstrip(".") if "data" in problem else ""
    need(not module or Path(__file__[:-3] + "_data.py").is_file(), "data need verify_data.py beside this file")
    kind = importlib.import_module(module).DataSetting if module else Setting
    ws = {name: kind(problem, entry) for name, entry in content["functions"].items()}
    w, reflecting, bounds = next(iter(ws.values())), {*problem["reflecting"]}, {1: list[Any](), -1: list[Any]()}
    need(unreachable | reflecting <= {*w.distance} and not unreachable & reflecting, "the parts are not clear")
    need(not reflecting or bool(w.box), "only straight sides can reflect")
    for part, d in w.distance.items():
        if part in reflecting:
            w.prove(f"{part} reflects", w.flux(d, d), part, 1, SMALL, fmpq(1))
        elif part in unreachable:
            (normal, error), away = w.total(w.flux(d, d), fmpq(1)), w.generator(d)
            q, remainder = divmod(normal, d)
            need(remainder == 0 == error, f"{part} can be reached: there is noise across it")
            e, error = w.total([*away, ("-1", q)], fmpq(1))
            if error != 0 or divmod(e, d)[1] != 0:
                w.prove(f"{part} is unreachable", [*away, ("-1", q)], part, 1, SMALL, fmpq(1))
    for claim in claims:
        sign, name = {"upper": 1, "lower": -1}[claim["kind"]], claim["function"]
        w, m, b = ws[name], number(claim["m" if sign == 1 else "M"]), number(claim["b"])
        need(m > 0, "m and M must be positive")
        w.prove(f"A {name}", w.generator(w.w), "", -sign, -m, m)
        for part in {*w.distance} - unreachable:
            if part in reflecting:
                w.prove(f"(a n)·∇{name} on {part}", w.flux(w.distance[part], w.w), part, -sign, fmpq(0), m)
            else:
                w.prove(f"{name} on {part}", [("1", w.w)], part, sign, -sign * b, m)
        bounds[sign].append((w, m, sign * b))
    for start in content["starts"]:
        x, low, high = [number(t) for t in start["x"]], start["lower"], start["upper"]
        need(all(w.at(d, x) >= 0 for d in w.distance.values()), f"the start {start['x']} is not in the domain")
        lowest, highest = ([(w.at(w.w, x) + b) / m for w, m, b in bounds[sign]] for sign in (-1, 1))
        need(number(low) <= max([*lowest, fmpq(0)]), "a lower bound at a start does not follow")
        need(high == "inf" or number(high) >= min(highest), "an upper bound at a start does not follow")
        last = math.inf if high == "inf" else math.nextafter(float(number(high)), math.inf)  # rounded outward
        ends = [max(0.0, math.nextafter(float(number(low)), -math.inf)), last]
        yield f"E_x τ at x = {tuple(map(float.fromhex, start['x']))} lies in {ends}"


def check(text: str) -> Verdict:
    """Check the text of a certificate."""
    content = None
    try:
        content = json.loads(text)
        need(content["format"] == FORMAT, "this format is unknown")
        with ctx.workprec(192):
            return Verdict(True, "every inequality is proved", [*inspect(content)], True)
    except Exception as error:  # whatever goes wrong, nothing is proved
        kind = "" if type(error) is ValueError else f"malformed, {type(error).__name__}: "
        return Verdict(False, f"{kind}{error}", [], isinstance(content, dict) and content.get("format") == FORMAT)


def main(arguments: list[str]) -> int:
    """Check one file; return 0 accepted, 1 rejected, 2 unreadable."""
    verdict = check(p.read_text(encoding="utf-8", errors="replace") if (p := Path(*arguments)).is_file() else "")
    print("accepted" if verdict.accepted else f"rejected: {verdict.reason}", *verdict.statements, sep="\n")
    return 0 if verdict.accepted else 1 if verdict.readable else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

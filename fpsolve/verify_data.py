"""Certificates of problems whose loss is a mean over data: the part that verify.py loads when it stands beside it.

L is the mean of sample_loss over the rows and Q the covariance of its gradient over them, so with s_i the slopes of
sample_loss f_i = -mean(s_i) and a = ε²·scale·(mean(s_i s_j) - mean(s_i) mean(s_j)) + extra·I. The slopes must be
polynomials in the target of degree 4 at most. Rows with equal inputs are summed by the moments of their targets.
"""

import importlib
import math
from typing import TYPE_CHECKING, Any

import sympy
from flint import acb, acb_mat, fmpq, fmpq_mat

if TYPE_CHECKING:
    from fpsolve import verify
else:  # in the package, or two files beside one another
    verify = importlib.import_module(f"{__package__ or ''}.verify".lstrip("."))

CALLS, SCALES = (*verify.NAMES, "Logistic", "Softplus"), ("epsilon2", "covariance_scale", "extra_diffusion")
Logistic: Any = type("Logistic", (sympy.Function,), {"fdiff": lambda z, _: z * Logistic(-z.args[0])})  # 1/(1 + exp(-z))
SYMBOLS: dict[str, Any] = verify.SYMBOLS | {"calls": CALLS, "Logistic": Logistic}
SYMBOLS |= {"Softplus": lambda z: -sympy.log(Logistic(-z))}  # log(1 + exp(z))
BALLS: dict[str, Any] = verify.BALLS | {"calls": CALLS}
BALLS |= {"Logistic": lambda z: 1 / (1 + (-z).exp()) if z.real.mid() > 0 else z.exp() / (1 + z.exp())}
BALLS |= {"Softplus": lambda z: -BALLS["Logistic"](-z).log(analytic=True)}


def sampled(names: list[str], sample_loss: str, inputs: list[str], target: str, rows: list[list[str]]) -> Any:
    """Return steps, coefficients of the slopes in powers of the target, and inputs with moments of targets."""
    z = {name: sympy.Symbol(name, real=True) for name in (*names, *inputs, target)}
    verify.need(len({*z} - {*BALLS}) == len(names) + len(inputs) + 1, "names of data")
    verify.need(all(name[0] != "_" for name in z), "names that begin with _ are for steps and means")
    verify.need(len(rows) > 0, "there are no data")
    loss, y = verify.evaluate(verify.parse(sample_loss), z, SYMBOLS), z[target]
    slopes = [*(sympy.diff(loss, z[name]) for name in names), sympy.Integer(1)]  # 1: for means
    verify.need(all(sympy.diff(g, y, 5) == 0 for g in slopes), "a slope of sample_loss is no polynomial in the target")
    table = [sympy.diff(g, y, k).subs(y, 0) / math.factorial(k) for g in slopes for k in range(5)]
    steps, values = sympy.cse(table, sympy.numbered_symbols("_s"))
    groups: dict[tuple[str, ...], list[fmpq]] = {}
    for *x, t in rows:
        groups.setdefault(tuple(x), []).append(verify.number(t))
    power = lambda t, k: sum((v**k for v in t), fmpq(0)) / len(rows)  # noqa: E731
    moments = [fmpq_mat([[power(t, j + k) for j in range(5)] for k in range(5)]) for t in groups.values()]
    points = [dict(zip(inputs, map(acb, map(verify.number, x)), strict=True)) for x in groups]
    program = [(str(s), verify.parse(sympy.sstr(e))) for s, e in steps]
    return program, [verify.parse(sympy.sstr(e)) for e in values], [*zip(points, map(acb_mat, moments), strict=True)]


class DataSetting(verify.Setting):
    """A problem with data: a drift "_i" and a diffusion "_i_j" that have values, but no formulas."""

    def __init__(self, problem: dict[str, Any], entry: dict[str, Any]) -> None:
        names, keys = problem["variables"], {"variables", "domain", "reflecting"}
        verify.need({*problem} == keys | {"data", *SCALES}, "data need epsilon2, covariance_scale and extra_diffusion")
        self.scales, n = [verify.number(problem[k]) for k in SCALES], range(len(names))
        verify.need(min(self.scales[:2]) > 0 <= self.scales[2], "the noise is wrong")
        self.program, self.table, self.groups = sampled(names, **problem["data"])
        a = [[f"_{min(i, j)}_{max(i, j)}" for j in n] for i in n]
        super().__init__({k: problem[k] for k in keys} | {"drift": [f"_{i}" for i in n], "diffusion": a}, entry)
        self.known: dict[Any, dict[str, acb]] = {}
        self.evaluate = lambda node, x, algebra: verify.evaluate(node, self.means(x), algebra)

    def means(self, variables: dict[str, acb]) -> dict[str, acb]:
        """Return the variables, the drift and the diffusion at a place or in a cell; the last only once for each."""
        balls = [part for z in variables.values() for part in (z.real, z.imag)]
        key = tuple(number.man_exp() for z in balls for number in (z.mid(), z.rad()))
        if key in self.known:
            return self.known[key]
        x, d = {**variables}, self.d
        q = acb_mat(d + 1, d + 1)  # means of the products of the slopes and 1
        for inputs, moments in self.groups:
            y = x | inputs
            for name, tree in self.program:
                y[name] = verify.evaluate(tree, y, BALLS)
            c = acb_mat(d + 1, 5, [verify.evaluate(tree, y, BALLS) for tree in self.table])
            q += c * moments * c.transpose()
        scale, extra = self.scales[0] * self.scales[1], self.scales[2]
        x |= {f"_{i}": -q[i, d] for i in range(d)}
        for i in range(d):
            x |= {f"_{i}_{j}": scale * (q[i, j] - q[i, d] * q[j, d]) + extra * (i == j) for j in range(i, d)}
        self.known[key] = x
        return x

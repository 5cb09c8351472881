"""The independent checker accepts honest certificates and rejects forged ones.

The certificates are made here by a small least squares of its own, so that neither side can hide behind the engine.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy

from fpsolve import verify
from fpsolve.verify import check

Certificate = dict[str, Any]
IDENTITY = [["1", "0"], ["0", "1"]]
HARMONIC = "x**2/2 + y**2/2"


def hexes(values: Any) -> list[str]:
    return [float(v).hex() for v in np.ravel(values)]


def signed(content: Certificate) -> str:
    """Return the text with a fitting digest."""
    rest = {k: v for k, v in content.items() if k != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return json.dumps(rest | {"digest": hashlib.sha256(text.encode()).hexdigest()})


def chebyshev(n: int, x: np.ndarray) -> np.ndarray:
    """Return T_k and its first two derivatives at x, shape (3, points, n + 1)."""
    t = np.zeros((3, len(x), max(n, 1) + 1))
    t[0, :, 0] = t[1, :, 1] = 1
    t[0, :, 1] = x
    for k in range(2, n + 1):
        for i in range(3):
            t[i, :, k] = 2 * x * t[i, :, k - 1] - t[i, :, k - 2] + (2 * i * t[i - 1, :, k - 1] if i else 0)
    return t[:, :, : n + 1]


def fields(names: str, loss: str, matrix: list[list[str]], epsilon2: float) -> tuple[Callable, Callable]:
    symbols = sympy.symbols(list(names))
    slope = [sympy.lambdify(symbols, -sympy.diff(sympy.sympify(loss), z)) for z in symbols]
    entries = [[sympy.lambdify(symbols, epsilon2 * sympy.sympify(q)) for q in row] for row in matrix]

    def drift(x: np.ndarray) -> np.ndarray:
        return np.stack([np.broadcast_to(g(*x.T), len(x)) for g in slope], 1)

    def diffusion(x: np.ndarray) -> np.ndarray:
        return np.stack([np.stack([np.broadcast_to(g(*x.T), len(x)) for g in row], 1) for row in entries], 1)

    return drift, diffusion


def columns(x: np.ndarray, half: float, middle: np.ndarray, index: list, fs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return w and -A w of the basis functions at points x."""
    d, n = x.shape[1], max(max(e) for e in index)
    t = [chebyshev(n, (x[:, i] - middle[i]) / half) / half ** np.arange(3)[:, None, None] for i in range(d)]
    f, a = fs[0](x), fs[1](x)

    def product(e: tuple[int, ...], order: np.ndarray) -> np.ndarray:
        return np.prod([t[i][order[i]][:, e[i]] for i in range(d)], axis=0)

    unit = np.eye(d, dtype=int)
    w = np.stack([product(e, 0 * unit[0]) for e in index], 1)
    pairs = list(itertools.product(range(d), range(d)))
    rows = []
    for e in index:
        drift = sum(f[:, i] * product(e, unit[i]) for i in range(d))
        rows.append(-drift - sum(a[:, i, j] * product(e, unit[i] + unit[j]) for i, j in pairs if a[:, i, j].any()))
    return w, np.stack(rows, 1)


def certificate(
    names: str,
    loss: str,
    matrix: list[list[str]],
    epsilon2: float,
    domain: dict[str, Any],
    degree: int,
    middle: Any,
    half: float,
    inside: np.ndarray,
    edge: np.ndarray,
    unreachable: tuple[str, ...] = (),
    total: bool = False,
) -> Certificate:
    """Solve -A w = 1, w = 0 on the edge by least squares and claim a little less than what is seen at the points."""
    middle, d = np.asarray(middle, dtype=float), len(names)
    fs = fields(names, loss, matrix, epsilon2)
    index = [e for e in itertools.product(range(degree + 1), repeat=d) if not total or sum(e) <= degree]
    _, a = columns(inside, half, middle, index, fs)
    w, _ = columns(edge, half, middle, index, fs)
    m = np.vstack([a, degree**2 * w])
    scale = np.linalg.norm(m, axis=0)
    c = np.linalg.lstsq(m / scale, np.r_[np.ones(len(inside)), np.zeros(len(edge))], rcond=1e-16)[0] / scale
    spread, b = 1.5 * abs(a @ c - 1).max() + 1e-13, 1.5 * abs(w @ c).max() + 1e-14
    full = np.zeros((degree + 1,) * d)
    for e, v in zip(index, c, strict=True):
        full[e] = v
    value = float((columns(middle[None, :], half, middle, index, fs)[0] @ c)[0])
    low, high = (value - b) / (1 + spread) * (1 - 1e-14), (value + b) / (1 - spread) * (1 + 1e-14)
    corners = {"lower": hexes(middle - half), "upper": hexes(middle + half)}
    return {
        "format": "fpsolve-certificate-1",
        "made_by": {"fpsolve": "0"},
        "question": "mean exit time",
        "problem": {
            "variables": list(names),
            "loss": loss,
            "covariance": matrix,
            "epsilon2": float(epsilon2).hex(),
            "covariance_scale": (1.0).hex(),
            "extra_diffusion": (0.0).hex(),
            "domain": domain,
            "reflecting": [],
        },
        "unreachable": list(unreachable),
        "functions": {"w": corners | {"shape": list(full.shape), "coefficients": hexes(full)}},
        "claims": [
            {"kind": "upper", "function": "w", "m": (1 - spread).hex(), "b": b.hex()},
            {"kind": "lower", "function": "w", "M": (1 + spread).hex(), "b": b.hex()},
        ],
        "starts": [{"x": hexes(middle), "lower": low.hex(), "upper": high.hex()}],
    }


def nodes(n: int) -> np.ndarray:
    return np.cos(np.pi * (2 * np.arange(n) + 1) / (2 * n))


@cache
def line() -> Certificate:
    domain = {"shape": "box", "lower": hexes([-1]), "upper": hexes([1])}
    return certificate("x", "x**2/2", [["1"]], 0.5, domain, 24, [0.0], 1.0, nodes(60)[:, None], np.array([[-1.0], [1]]))


def disc(loss: str, matrix: list[list[str]], epsilon2: float, radius: float, degree: int) -> Certificate:
    r, t = np.meshgrid(radius * nodes(2 * degree + 8)[: degree + 4], 2 * np.pi * np.arange(3 * degree) / (3 * degree))
    inside = np.c_[(r * np.cos(t)).ravel(), (r * np.sin(t)).ravel()]
    t = 2 * np.pi * np.arange(5 * degree) / (5 * degree)
    edge = radius * np.c_[np.cos(t), np.sin(t)]
    domain = {"shape": "ball", "center": hexes([0, 0]), "radius": float(radius).hex()}
    return certificate("xy", loss, matrix, epsilon2, domain, degree, [0, 0], radius, inside, edge, total=True)


@cache
def harmonic() -> Certificate:
    return disc(HARMONIC, IDENTITY, 0.5, 1.0, 14)


@cache
def square(loss: str = HARMONIC) -> Certificate:
    """Noise along x only: the sides bottom and top are not reached."""
    inside = np.array(list(itertools.product(nodes(24), nodes(24))))
    edge = np.array(list(itertools.product([-1.0, 1.0], nodes(24))))
    domain = {"shape": "box", "lower": hexes([-1, -1]), "upper": hexes([1, 1])}
    matrix = [["1", "0"], ["0", "0"]]
    return certificate("xy", loss, matrix, 0.5, domain, 12, [0, 0], 1.0, inside, edge, ("bottom", "top"))


@cache
def log_cosh() -> Certificate:
    return disc("log(cosh(x)) + y**2/2", [["1", "0"], ["0", "1 + sin(x)/2"]], 0.5, 1.0, 12)


@cache
def tanh() -> Certificate:
    """A drift with poles near the domain: 2x + y = iπ/2."""
    return disc("log(cosh(2*x + y)) + y**2/4", IDENTITY, 1.0, 1.0, 16)


@cache
def ball() -> Certificate:
    points = np.random.default_rng(1).normal(size=(1500, 3))
    edge = points / np.linalg.norm(points, axis=1)[:, None]
    inside = edge * np.cos(np.linspace(0, np.pi / 2, len(edge)))[:, None]
    domain = {"shape": "ball", "center": hexes([0, 0, 0]), "radius": (1.0).hex()}
    eye = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]]
    loss = HARMONIC + " + z**2/2"
    return certificate("xyz", loss, eye, 1.0, domain, 6, [0, 0, 0], 1.0, inside, edge, total=True)


@pytest.mark.parametrize("make", [line, harmonic, square, log_cosh, tanh, ball])
def test_honest_certificates_are_accepted(make: Callable[[], Certificate]) -> None:
    verdict = check(signed(make()))
    assert verdict.accepted, verdict.reason
    assert len(verdict.statements) == 1 and "E_x τ at x = (0.0" in verdict.statements[0]


def test_the_line_contains_the_value_from_quadrature() -> None:
    from scipy.integrate import quad

    start = line()["starts"][0]
    value = 2 * quad(lambda y: np.exp(y * y) * quad(lambda z: np.exp(-z * z), 0, y)[0], 0, 1, epsabs=1e-13)[0]
    assert float.fromhex(start["lower"]) - 1e-12 < value < float.fromhex(start["upper"]) + 1e-12
    assert float.fromhex(start["upper"]) - float.fromhex(start["lower"]) < 1e-8


def forged(content: Certificate, *path: Any, value: Any) -> Certificate:
    content = copy.deepcopy(content)
    entry: Any = content
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value(entry[path[-1]]) if callable(value) else value
    return content


def factor(text: str, by: float) -> str:
    return (float.fromhex(text) * by).hex()


ATTACKS: dict[str, tuple[Callable[[], Certificate], tuple[Any, ...], Any]] = {
    "smaller noise": (harmonic, ("problem", "epsilon2"), (0.49).hex()),
    "larger noise": (harmonic, ("problem", "epsilon2"), (0.51).hex()),
    "no noise": (harmonic, ("problem", "epsilon2"), (0.0).hex()),
    "scaled covariance": (harmonic, ("problem", "covariance_scale"), (1.01).hex()),
    "extra noise": (harmonic, ("problem", "extra_diffusion"), (0.01).hex()),
    "larger disc": (harmonic, ("problem", "domain", "radius"), (1.01).hex()),
    "smaller disc": (harmonic, ("problem", "domain", "radius"), (0.99).hex()),
    "moved disc": (harmonic, ("problem", "domain", "center", 1), (0.01).hex()),
    "longer interval": (line, ("problem", "domain", "upper", 0), (1.01).hex()),
    "infinite radius": (harmonic, ("problem", "domain", "radius"), "inf"),
    "negative radius": (harmonic, ("problem", "domain", "radius"), (-1.0).hex()),
    "another shape": (harmonic, ("problem", "domain", "shape"), "cube"),
    "other loss": (harmonic, ("problem", "loss"), "x**2/2 + 0.51*y**2"),
    "other covariance": (harmonic, ("problem", "covariance", 0, 1), "0.01"),
    "better m": (harmonic, ("claims", 0, "m"), lambda t: factor(t, 1.01)),
    "better M": (harmonic, ("claims", 1, "M"), lambda t: factor(t, 0.99)),
    "negative m": (harmonic, ("claims", 0, "m"), (-1.0).hex()),
    "NaN m": (harmonic, ("claims", 0, "m"), "nan"),
    "better b": (harmonic, ("claims", 0, "b"), lambda t: factor(t, 0.01)),
    "negative b": (harmonic, ("claims", 1, "b"), lambda t: factor(t, -1.0)),
    "better lower number": (harmonic, ("starts", 0, "lower"), lambda t: factor(t, 1.01)),
    "better upper number": (harmonic, ("starts", 0, "upper"), lambda t: factor(t, 0.99)),
    "infinite lower number": (harmonic, ("starts", 0, "lower"), "inf"),
    "start outside": (harmonic, ("starts", 0, "x"), hexes([1.0, 0.1])),
    "NaN coefficient": (harmonic, ("functions", "w", "coefficients", 3), "nan"),
    "infinite coefficient": (harmonic, ("functions", "w", "coefficients", 3), "inf"),
    "coefficient as a number": (harmonic, ("functions", "w", "coefficients", 3), 0.0),
    "wrong shape": (harmonic, ("functions", "w", "shape"), [15, 14]),
    "other box of w": (harmonic, ("functions", "w", "upper", 0), (1.01).hex()),
    "a side that is reached": (square, ("unreachable",), ["bottom", "top", "left"]),
    "a part that is reached": (harmonic, ("unreachable",), ["boundary"]),
    "a side that is not there": (square, ("unreachable",), ["bottom", "top", "front"]),
    "drift leads out": (square, ("problem", "loss"), "x**2/2 - y**2/2"),
    "noise across the side": (square, ("problem", "covariance", 1, 1), "0.001"),
    "unasked reflection": (harmonic, ("problem", "reflecting"), ["boundary"]),
    "reflection without noise": (square, ("problem", "reflecting"), ["left"]),
    "other format": (line, ("format",), "fpsolve-certificate-2"),
    "other question": (line, ("question",), "second moment"),
    "unknown key": (line, ("problem",), lambda p: p | {"drift_term": ["0"]}),
    "both loss and drift": (line, ("problem",), lambda p: p | {"drift": ["-x"], "diffusion": [["0.5"]]}),
    "unknown kind": (line, ("claims", 0, "kind"), "middle"),
    "no function": (line, ("claims", 0, "function"), "v"),
    "forbidden call": (line, ("problem", "loss"), "__import__('os').getpid()*x"),
    "forbidden function": (line, ("problem", "loss"), "gamma(x)"),
    "forbidden name": (line, ("problem", "loss"), "x*y"),
    "forbidden attribute": (line, ("problem", "loss"), "x.real**2/2"),
    "singular loss": (line, ("problem", "loss"), "log(x)"),
    "kink": (line, ("problem", "loss"), "abs(x)"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_forged_certificates_are_rejected(name: str) -> None:
    make, path, value = ATTACKS[name]
    content = forged(make(), *path, value=value)
    verdict = check(signed(content))
    assert not verdict.accepted and not verdict.statements, name
    assert verdict.reason and "digest" not in verdict.reason


@pytest.mark.parametrize("make", [line, harmonic, square])
def test_each_coefficient_matters(make: Callable[[], Certificate]) -> None:
    """A change that moves w or A w by more than the claims' slack is seen; which coefficient it is does not matter."""
    content = make()
    texts = content["functions"]["w"]["coefficients"]
    random = np.random.default_rng(3)
    large = [k for k, t in enumerate(texts) if abs(float.fromhex(t)) > 1e-3]
    for k in random.choice(large, size=3, replace=False):
        assert not check(
            signed(forged(content, "functions", "w", "coefficients", k, value=lambda t: factor(t, 1.01)))
        ).accepted


def test_a_changed_digit_is_seen_by_the_digest() -> None:
    text = signed(line())
    for position in (text.index("0x1.") + 6, text.index('"m": "0x1.') + 20, text.index("x**2/2") + 3):
        old = text[position]
        new = "1" if old != "1" else "3"
        verdict = check(text[:position] + new + text[position + 1 :])
        assert not verdict.accepted and "digest" in verdict.reason


def setting(names: list[str]) -> verify.Setting:
    """Return a problem on (-1, 1)^d, for its polynomials."""
    ends = {"lower": hexes([-1] * len(names)), "upper": hexes([1] * len(names))}
    matrix = [["1" if i == j else "0" for j in names] for i in names]
    problem = {"variables": names, "drift": ["0"] * len(names), "diffusion": matrix, "reflecting": []}
    entry = ends | {"shape": [1] * len(names), "coefficients": hexes([1])}
    return verify.Setting(problem | {"domain": ends | {"shape": "box"}}, entry)


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("tanh(2*x + y)", lambda x, y: np.tanh(2 * x + y)),
        ("log(1.5 + x)*sin(3*y)", lambda x, y: np.log(1.5 + x) * np.sin(3 * y)),
        ("sqrt(2 + x*y) + 0*x", lambda x, y: np.sqrt(2 + x * y)),
        ("atan(x)*asin(y/2)", lambda x, y: np.arctan(x) * np.arcsin(y / 2)),
        ("1/(x**2 + 0.5) + abs(y + 2)", lambda x, y: 1 / (x * x + 0.5) + abs(y + 2)),
    ],
)
def test_polynomials_of_formulas_have_honest_errors(text: str, function: Callable) -> None:
    with verify.ctx.workprec(192):
        polynomial, error = setting(["x", "y"]).formula(text, 20)
    corners = [(p, q) for p in (-1.0, 1.0) for q in (-1.0, 1.0)]
    for x, y in [*np.random.default_rng(7).uniform(-1, 1, (200, 2)), *corners]:
        value = polynomial(*(verify.number(float(c).hex()) for c in (x, y)))
        assert abs(int(value.p) / int(value.q) - function(x, y)) <= int(error.p) / int(error.q) + 1e-14
    assert 0 < int(error.p) / int(error.q) < 1e-5


@pytest.mark.parametrize(
    "text",
    [
        "1/(x**2 + y**2 + 0.0001)",
        "1/(x - 0.999)",
        "abs(x + 0.9)",
        "asin(x)",
        "x**0.5",
        "log(x**2)",
        "sqrt((x - 0.1)**2)",
        "atan(1/x)",
        "exp(-1/(x + 1)**2)",
        "tan(1.6*y)",
    ],
)
def test_formulas_that_are_not_analytic_are_refused(text: str) -> None:
    """Also where most of the balls that cover the ellipse are finite."""
    with verify.ctx.workprec(192), pytest.raises(ValueError, match="analytic"):
        setting(["x", "y"]).formula(text, 20)


@pytest.mark.parametrize("shift", [1e-4, -1e-4])
def test_polynomials_that_are_somewhere_negative_are_found(shift: float) -> None:
    """(x - 1/3)² + (y + 1/7)² + shift on the square."""
    w = setting(["x", "y"])
    x, y = w.ring.gens()
    p = (3 * x - 1) ** 2 / 9 + (7 * y + 1) ** 2 / 49 + verify.number(shift.hex())
    if shift > 0:
        verify.positive(p, w.box)
        return
    with pytest.raises(ValueError, match="false"):
        verify.positive(p, w.box)


@pytest.mark.parametrize("pull", ["2", "0.5"])
@pytest.mark.parametrize("radial", ["", "(1 - x**2 - y**2)/10 + "])
def test_a_sphere_with_tangential_noise_is_unreachable_if_the_drift_is_strong(pull: str, radial: str) -> None:
    """a = |x|² I - x xᵀ (+ a part that vanishes on the circle), f = -pull·x: e = (2 pull - 2)|x|² - ..., w = 0."""
    content = copy.deepcopy(harmonic())
    zeros = {"shape": [1, 1], "coefficients": hexes([0])}
    content["functions"]["w"] |= zeros
    content["problem"] = {
        "variables": ["x", "y"],
        "drift": [f"-{pull}*x", f"-{pull}*y"],
        "diffusion": [[radial + "y**2", "-x*y"], ["-x*y", radial + "x**2"]],
        "domain": content["problem"]["domain"],
        "reflecting": [],
    }
    content["unreachable"] = ["boundary"]
    content["claims"] = [{"kind": "lower", "function": "w", "M": (1.0).hex(), "b": (-1e6).hex()}]
    content["starts"] = [{"x": hexes([0.5, 0]), "lower": (1e6).hex(), "upper": "inf"}]
    verdict = check(signed(content))
    assert verdict.accepted == (pull == "2"), verdict.reason  # the process never leaves, so that any lower bound holds


def test_a_pole_in_the_domain_is_rejected() -> None:
    """1/(x² + y² - 1/4) and log(x² + y² - 1/25) have no bound on the disc."""
    for loss in ("x**2/2 + y**2/2 + 0.0001/(x**2 + y**2 - 0.25)", "x**2/2 + y**2/2 + log(x**2 + y**2 - 0.04)/9"):
        verdict = check(signed(forged(harmonic(), "problem", "loss", value=loss)))
        assert not verdict.accepted


def test_reflecting_sides() -> None:
    """On (0, 1) with reflection at 0, f = 0 and a = 1/2, w = u = 1 - x² up to a tilt that makes w' positive at 0."""
    content = copy.deepcopy(line())
    content["problem"] = {
        "variables": ["x"],
        "drift": ["0"],
        "diffusion": [["0.5"]],
        "domain": {"shape": "box", "lower": hexes([0]), "upper": hexes([1])},
        "reflecting": ["left"],
    }
    w = {"lower": hexes([-1]), "upper": hexes([1]), "shape": [3], "coefficients": hexes([0.5, 0, -0.5])}
    content["functions"] = {"w": w}
    content["claims"] = [
        {"kind": "upper", "function": "w", "m": (1 - 1e-9).hex(), "b": (1e-9).hex()},
        {"kind": "lower", "function": "w", "M": (1 + 1e-9).hex(), "b": (1e-9).hex()},
    ]
    content["starts"] = [{"x": hexes([0.5]), "lower": (0.75 - 4e-9).hex(), "upper": (0.75 + 4e-9).hex()}]
    assert check(signed(content)).accepted
    tilted = forged(content, "functions", "w", "coefficients", value=[hexes([0.5]), ["0x1p-20", "0x0p0"], "-0x1p-1"])
    assert "(a n)·∇w on left" in check(signed(tilted)).reason
    assert not check(signed(forged(content, "problem", "reflecting", value=[]))).accepted


def test_a_characteristic_side_is_unreachable_only_with_the_right_drift() -> None:
    """a = x/2: 0 is not reached if f = 1 - x, since e = f - 1/2 > 0 there, but it is if f = 1/4 - x."""
    content = copy.deepcopy(line())
    content["problem"] = {
        "variables": ["x"],
        "drift": ["1 - x"],
        "diffusion": [["x/2"]],
        "domain": {"shape": "box", "lower": hexes([0]), "upper": hexes([1])},
        "reflecting": [],
    }
    content["unreachable"] = ["left"]
    # w = 1 - x, -A w = 1 - x <= 1
    w = {"lower": hexes([0]), "upper": hexes([1]), "shape": [2], "coefficients": hexes([0.5, -0.5])}
    content["functions"] = {"w": w}
    content["claims"] = [{"kind": "lower", "function": "w", "M": (1 + 1e-9).hex(), "b": (1e-9).hex()}]
    content["starts"] = [{"x": hexes([0.5]), "lower": (0.5 - 4e-9).hex(), "upper": "inf"}]
    verdict = check(signed(content))
    assert verdict.accepted, verdict.reason
    verdict = check(signed(forged(content, "problem", "drift", value=["0.25 - x"])))
    assert not verdict.accepted and "left" in verdict.reason


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {0: signed(line()), 1: signed(forged(line(), "claims", 0, "m", value="0x1p0")), 2: "not a certificate"}
    for code, text in texts.items():
        path = tmp_path / f"{code}.json"
        path.write_text(text, encoding="utf-8")
        assert verify.main([str(path)]) == code
    assert verify.main([str(tmp_path / "missing.json")]) == 2
    assert "accepted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("domain", {"shape": "sublevel", "lower": hexes([-1]), "upper": hexes([1])}, "sublevel"),
        ("data", {"inputs": ["s"]}, "data"),
    ],
)
def test_what_is_not_covered_is_said(key: str, value: Any, reason: str) -> None:
    assert reason in check(signed(forged(line(), "problem", key, value=value))).reason


def test_the_checker_stands_alone() -> None:
    source = Path(verify.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300  # blank lines and comments included
    assert "fpsolve" not in [
        line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import", "from"))
    ]

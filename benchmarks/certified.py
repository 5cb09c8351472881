"""Certified enclosures: widths and seconds of known problems, and 200 random ones against independent values.

Also alone, with fewer random problems or some of the known ones: docker/run python benchmarks/certified.py --help.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import say, table

import fpsolve as fp
from fpsolve.model.domains import Domain
from fpsolve.model.process import Process
from fpsolve.theory.certified.certify import certify
from fpsolve.verify import check

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from random_problems import RandomProblem, outside, random_problem  # noqa: E402

REFERENCES = ROOT / "tests" / "data_certified" / "references.json"
OU, WELL = "(x**2 + y**2)/2", "(x**2 - 1)**2 + y**2"
UNIT, SQUARE = fp.Ball((0.0, 0.0), 1.0), fp.Box((-1.0, -1.0), (1.0, 1.0))
WELL_DISC, WELL_BOX = fp.Ball((-1.0, 0.0), 0.8), fp.Box((-2.5, -2.0), (0.5, 2.0))
ALONG = [["1", "0"], ["0", "0"]]
TURNING = [["1", "x/2"], ["x/2", "x**2/4"]]


@dataclass(frozen=True)
class Known:
    """A problem with the width asked for.

    Attributes
    ----------
    title : str
    make : callable
        ε² to process and domain.
    figures : tuple of (ε², width to reach, seconds to reach it in)
        Seconds inf: as long as `BUDGET`.
    start : tuple of float, optional
        Instead of the domain's centre.
    """

    title: str
    make: Callable[[float], tuple[Process, Domain]]
    figures: tuple[tuple[float, float, float], ...]
    start: tuple[float, ...] | None = None


#: Width asked for in random problems.
FINEST = 1e-7
#: Seconds for what the trial implementation could not do, and the largest for anything.
BUDGET = 60.0


def formulas(
    loss: str, covariance: object, domain: Domain, variables: Sequence[str] = ("x", "y")
) -> Callable[[float], tuple[Process, Domain]]:
    """Return the problem of a loss and a covariance as a function of ε²."""
    return lambda epsilon2: (fp.SGD(loss, covariance, variables, epsilon2=epsilon2), domain)


def two_parameters(epsilon2: float) -> tuple[Process, Domain]:
    """Return the model with 600 data points and the disc of radius 1.5 about its spurious minimum."""
    sys.path.append(str(ROOT / "demos" / "two_parameter_model"))
    import two_parameter_model

    return two_parameter_model.sgd(2 * epsilon2), two_parameter_model.DISC


KNOWN = {
    "ou1": Known(
        "1D OU", formulas("x**2/2", "identity", fp.Interval(-1.0, 1.0), ("x",)),
        ((1.0, 4e-35, 0.2), (0.1, 4e-14, 0.2), (0.02, 5e-27, 0.2)),
    ),
    "ou2": Known(
        "2D OU disc", formulas(OU, "identity", UNIT), ((1.0, 4e-12, 0.5), (0.2, 2e-10, 0.5), (0.1, 3.5e-6, 0.5))
    ),
    "well": Known(
        "double well, disc .8", formulas(WELL, "identity", WELL_DISC),
        ((0.5, 9e-7, 2.0), (0.2, 3e-5, 9.0), (0.1, 1e-2, BUDGET)),
    ),
    "box": Known(
        "double well, box about the minimum", formulas(WELL, "identity", fp.Box((-1.8, -0.8), (-0.2, 0.8))),
        ((0.5, 9e-3, BUDGET), (0.2, 2e-2, BUDGET)),
    ),
    "well box": Known(
        "double well, box beyond the saddle", formulas(WELL, "identity", WELL_BOX),
        ((0.5, 9e-3, 0.2), (0.2, 2e-2, BUDGET)), (-1.0, 0.0),
    ),
    "square": Known(
        "diag(1,0) OU square", formulas(OU, ALONG, SQUARE),
        ((1.0, 1e-11, 0.04), (0.2, 1.6e-9, 0.04), (0.1, 2.8e-5, 0.04)),
    ),
    "disc": Known("diag(1,0) OU disc", formulas(OU, ALONG, UNIT), ((1.0, 2e-3, 3.0), (0.2, 1e-2, BUDGET))),
    "turning": Known("a aᵀ, a = (1, x/2), OU disc", formulas(OU, TURNING, UNIT), ((1.0, 1e-3, BUDGET),)),
    "partly": Known(
        "diag(.5+.5x², 0), double-well box", formulas(WELL, [["0.5 + 0.5*x**2", "0"], ["0", "0"]], WELL_BOX),
        ((0.5, 3e-10, 0.3), (0.2, 3.6e-4, 0.3)), (-1.0, 0.0),
    ),
    "logcosh": Known(
        "log cosh, diag(1, 1+sin(x)/2), disc",
        formulas("log(cosh(2*x + y)) + y**2/2", [["1", "0"], ["0", "1 + sin(x)/2"]], UNIT), ((0.5, 1e-6, 5.0),),
    ),
    "ou3": Known(
        "3D OU ball", formulas("(x**2 + y**2 + z**2)/2", "identity", fp.Ball((0.0, 0.0, 0.0), 1.0), ("x", "y", "z")),
        ((0.5, 1e-5, BUDGET),),
    ),
    "data": Known("two parameters, 600 data points", two_parameters, ((5e-4, 5e-2, BUDGET),)),
}  # fmt: skip


def run(process: Process, domain: Domain, width: float, budget: float, starts: Any) -> tuple[Any, float, str, float]:
    """Return the enclosure (None after an error), its seconds, and what the independent checker says and takes.

    Seconds are the processor's, which other jobs on the machine hardly change; the budget is on the wall's clock.
    """
    began = time.process_time()
    try:
        found = certify(process, domain, width=width, budget=budget, starts=starts)
    except Exception as error:  # the table goes on
        return None, time.process_time() - began, f"{type(error).__name__}: {error}", 0.0
    seconds, began = time.process_time() - began, time.process_time()
    verdict = "no certificate"
    if found.certificate is not None:
        checked = check(json.dumps(found.certificate))
        verdict = "yes" if checked.accepted else f"NO: {checked.reason}"
    return found, seconds, verdict, time.process_time() - began


def exact_width(certificate: dict[str, Any]) -> float:
    """Return the relative width of what the certificate claims at its first start, below the reach of floats in 1D."""
    from flint import arb, ctx

    def exact(entry: str | list[str]) -> Any:  # a list is a sum
        return sum((arb(float.fromhex(part)) for part in ([entry] if isinstance(entry, str) else entry)), arb(0))

    before, ctx.prec = ctx.prec, 600
    try:
        lower, upper, x = arb(0), arb("inf"), exact(certificate["starts"][0]["x"][0])
        for claim in certificate["claims"]:
            w = certificate["functions"][claim["function"]]
            left, right = exact(w["lower"][0]), exact(w["upper"][0])
            t, one, other = (2 * x - left - right) / (right - left), arb(0), arb(0)
            for entry in reversed(w["coefficients"]):  # Clenshaw
                one, other = exact(entry) + 2 * t * one - other, one
            value = one - t * other
            if claim["kind"] == "upper":
                upper = upper.min((value + exact(claim["b"])) / exact(claim["m"]))
            else:
                lower = lower.max((value - exact(claim["b"])) / exact(claim["M"]))
        return float((upper - lower) / upper)
    finally:
        ctx.prec = before


def known(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield the rows of the table of known problems."""
    for name in names:
        problem = KNOWN[name]
        for epsilon2, width, seconds in problem.figures:
            process, domain = problem.make(epsilon2)
            starts = None if problem.start is None else np.array([problem.start])
            asked = width
            found, taken, verdict, checking = run(process, domain, asked, BUDGET, starts)
            if found is None:
                yield [
                    problem.title,
                    f"{epsilon2:g}",
                    "",
                    "",
                    f"{width:.1e}",
                    f"{taken:.2f}",
                    f"{seconds:g}",
                    "NO",
                    verdict,
                ]
                continue
            start, narrow = found.starts[0], found.width
            if domain.dimension == 1 and found.certificate is not None:
                narrow = exact_width(found.certificate)
            reached = "yes" if narrow <= width and taken <= seconds else "NO"
            yield [
                problem.title, f"{epsilon2:g}", f"{start.lower:.6g}", f"{narrow:.1e}", f"{width:.1e}",
                f"{taken:.2f}", f"{seconds:g}", reached, verdict, f"{checking:.1f}", found.limited_by,
            ]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One random problem: its width in the centre, seconds, and by how many errors a value lies outside.

    `soon` is after how many seconds the width was 1 % at all starts, inf if it never was.
    """

    problem: RandomProblem
    width: float
    seconds: float
    soon: float
    outside: float
    verdict: str
    checking: float
    limited_by: str


def outcome(seed: int, line: dict[str, Any], dimension: int, budget: float) -> Outcome:
    """Certify a random problem and compare."""
    problem = random_problem(seed, line["index"], dimension)
    if problem.digest != line["digest"]:
        raise ValueError(f"problem {line['index']} is not that of the references: run certified_references.py")
    found, seconds, verdict, checking = run(problem.process, problem.domain, FINEST, budget, problem.starts)
    if found is None:
        return Outcome(problem, 2.0, seconds, float("inf"), 0.0, verdict, checking, verdict)
    far = outside(found.starts, line["mean"], line["error"])
    sums = itertools.accumulate(attempt.seconds for attempt in found.attempts)
    soon = min((s for s, a in zip(sums, found.attempts, strict=True) if a.width <= 1e-2), default=float("inf"))
    return Outcome(problem, found.starts[0].width, seconds, soon, far, verdict, checking, found.limited_by)


def random(dimension: int, count: int, budget: float) -> list[Outcome]:
    """Certify random problems, with a line for each that is not as it should be."""
    stored = json.loads(REFERENCES.read_text(encoding="utf-8"))
    outcomes = []
    for line in stored[f"{dimension}D"][:count]:
        one = outcome(stored["seed"], line, dimension, budget)
        outcomes.append(one)
        if one.outside > 1 or one.verdict != "yes" or one.width > 1:
            p = one.problem
            say(f"{dimension}D {p.index} ({p.rank} {p.dependence} {p.shape} {p.potential}, ε² {p.epsilon2:g}): width "
                f"{one.width:.1e} in {one.seconds:.1f} s, outside by {one.outside:.2g} errors, checked: {one.verdict}, "
                f"limited by {one.limited_by}")  # fmt: skip
    return outcomes


def quantiles(outcomes: list[Outcome]) -> Iterator[list[str]]:
    """Yield the widths by class."""
    groups: dict[str, list[Outcome]] = {"all": outcomes}
    for one in outcomes:
        p = one.problem
        for name in (f"{p.rank}, {p.dependence}, {p.shape}", p.potential):
            groups.setdefault(name, []).append(one)
    for name, members in sorted(groups.items()):
        widths = np.array([one.width for one in members])
        soon, seconds = (np.array([getattr(one, key) for one in members]) for key in ("soon", "seconds"))
        checking = np.array([one.checking for one in members])
        values = [f"{np.quantile(widths, q, method='nearest'):.1e}" for q in (0.1, 0.5, 0.9, 1.0)]
        missed = sum(one.outside > 1 for one in members)
        refused = sum(one.verdict != "yes" for one in members)
        yield [
            name, str(len(members)), *values, f"{np.mean(widths <= 1e-2):.0%}",
            f"{np.quantile(soon, 0.5, method='nearest'):.1f}", f"{np.median(seconds):.1f}", f"{seconds.max():.1f}",
            f"{np.median(checking):.1f}", str(missed), str(refused),
        ]  # fmt: skip


def main(
    names: Sequence[str] | None = None, counts: Sequence[int] = (32, 200, 2), budget: float = 5.0
) -> list[Outcome]:
    """Print both tables; return the outcomes of the random problems.

    Parameters
    ----------
    names : keys of `KNOWN`, optional
        All by default.
    counts : three int
        How many random problems in 1D, 2D and 3D.
    budget : float
        Seconds for each of them.
    """
    header = ["problem", "ε²", "u >=", "width", "to beat", "s", "in", "reached", "checked", "s", "limited by"]
    table(header, known(KNOWN if names is None else names), "known problems")
    outcomes = []
    for dimension, count in zip((1, 2, 3), counts, strict=True):
        if count:
            found = random(dimension, count, budget)
            header = ["class", "n", "10 %", "median", "90 %", "largest width", "within 1 %", "s to 1 %", "s",
                      "largest s", "checking s", "outside", "refused"]  # fmt: skip
            table(header, quantiles(found), f"random problems, {dimension}D")
            outcomes += found
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--known", nargs="*", choices=list(KNOWN), default=None)
    parser.add_argument("--counts", nargs=3, type=int, default=(32, 200, 2), help="random problems in 1D, 2D, 3D")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each random problem")
    options = parser.parse_args()
    main(options.known, options.counts, options.budget)

"""A certificate: what is claimed and all that is needed to check it again, as plain data.

Floats are written in hexadecimal, so nothing is rounded. The digest catches every changed digit; the checker
(`fpsolve.verify`) proves the inequalities again.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from typing import Any

import flint
import numpy as np
import sympy

import fpsolve
from fpsolve.model.domains import Ball, Box, Interval, Sublevel
from fpsolve.model.expressions import Formula
from fpsolve.model.process import FormulaLandscape, Process
from fpsolve.model.samples import SampleLandscape
from fpsolve.theory.balls import Ball as Number
from fpsolve.theory.certified.arcs import StarBracket
from fpsolve.theory.certified.barrier import Barrier, terms

FORMAT = "fpsolve-certificate-1"


def hexadecimal(values: Any) -> Any:
    """Return numbers (nested) as hexadecimal strings."""
    if isinstance(values, (list, tuple, np.ndarray)):
        return [hexadecimal(value) for value in values]
    return float(values).hex()


def digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 sum of a certificate without its entry "digest"."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def certificate(
    process: Process,
    domain: Interval | Box | Ball | Sublevel,
    unreachable: Sequence[str],
    barriers: Sequence[Barrier],
    starts: Sequence[tuple[tuple[float, ...], Number, Number]],
    star: StarBracket | None = None,
) -> dict[str, Any]:
    """Return the certificate of a mean exit time.

    Parameters
    ----------
    barriers : sequence of Barrier
        What is claimed.
    starts : sequence of (x, lower, upper)
        What follows at points; lower 0 and upper inf where nothing does.

    Raises
    ------
    ValueError
        If the process cannot be written down, e.g. a callable.
    """
    functions: dict[str, Any] = {}
    claims = []
    for k, barrier in enumerate(barriers):
        name = next((n for n, f in functions.items() if f == _function(barrier)), f"w{k + 1}")
        functions[name] = _function(barrier)
        factor = "m" if barrier.kind == "upper" else "M"
        claims.append(
            {
                "kind": barrier.kind,
                "function": name,
                factor: hexadecimal(barrier.factor),
                "b": hexadecimal(barrier.offset),
            }
        )
    content: dict[str, Any] = {
        "format": FORMAT,
        "made_by": {
            "fpsolve": fpsolve.__version__,
            "python-flint": flint.__version__,
            "python": platform.python_version(),
        },
        "question": "mean exit time",
        "problem": {**_process(process), "domain": _domain(domain, star), "reflecting": list(domain.reflecting)},
        "unreachable": list(unreachable),
        "functions": functions,
        "claims": claims,
        "starts": [
            {
                "x": hexadecimal(x),
                "lower": hexadecimal(terms(low, False)),
                "upper": hexadecimal(terms(high, True)) if high.is_finite() else "inf",
            }
            for x, low, high in starts
        ],
    }
    return content | {"digest": digest(content)}


def _function(barrier: Barrier) -> dict[str, Any]:
    parts = [np.ravel(part) for part in barrier.coefficients]
    values = (
        [float(c).hex() for c in parts[0]] if len(parts) == 1 else [hexadecimal(c) for c in zip(*parts, strict=True)]
    )
    return {
        "lower": hexadecimal(barrier.lower_corner),
        "upper": hexadecimal(barrier.upper_corner),
        "shape": list(barrier.coefficients[0].shape),
        "coefficients": values,
    }


def _text(formula: Formula) -> list[str]:
    return [_written(entry) for entry in formula.entries]


def _written(entry: sympy.Expr) -> str:
    return sympy.sstr(entry).replace("Abs(", "abs(")


def _rows(formula: Formula) -> list[list[str]]:
    entries, d = _text(formula), formula.shape[-1]
    return [entries[i : i + d] for i in range(0, len(entries), d)]


def _process(process: Process) -> dict[str, Any]:
    found: dict[str, Any] = {"variables": list(process.variables)}
    landscape = process.landscape
    if landscape is None:
        if not isinstance(process.drift, Formula) or not isinstance(process.diffusion, Formula):
            raise ValueError("drift and diffusion are not formulas")
        return found | {"drift": _text(process.drift), "diffusion": _rows(process.diffusion)}
    if isinstance(landscape, FormulaLandscape):
        found |= {
            "loss": _written(landscape.loss_formula.entries[0]),
            "covariance": _rows(landscape.covariance_formula),
        }
    elif isinstance(landscape, SampleLandscape):
        found["data"] = {
            "sample_loss": _written(landscape.sample_loss),
            "inputs": list(landscape.names[len(landscape.variables) : -1]),
            "target": landscape.names[-1],
            "rows": hexadecimal(landscape.table.T),
        }
    else:
        raise ValueError(f"no certificate of a process with a {type(landscape).__name__}")
    scales = {
        "epsilon2": process.epsilon2,
        "covariance_scale": process.covariance_scale,
        "extra_diffusion": process.extra_diffusion,
    }
    return found | {key: hexadecimal(value) for key, value in scales.items()}


def _domain(domain: Interval | Box | Ball | Sublevel, star: StarBracket | None) -> dict[str, Any]:
    if isinstance(domain, Ball):
        return {"shape": "ball", "center": hexadecimal(domain.center), "radius": hexadecimal(domain.radius)}
    if isinstance(domain, Sublevel):
        return {
            "shape": "sublevel",
            "below": hexadecimal(domain.below),
            "containing": hexadecimal(domain.containing),
            "lower": hexadecimal(domain.lower),
            "upper": hexadecimal(domain.upper),
            "star": None if star is None else star.to_json(),
        }
    lower, upper = domain.bounding_box()
    return {"shape": "box", "lower": hexadecimal(lower), "upper": hexadecimal(upper)}

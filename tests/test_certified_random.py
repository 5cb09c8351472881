"""Certified enclosures of random problems contain values that were found by other means; see certified_references.py.

The references are made by benchmarks/certified_references.py; all problems are tried by benchmarks/certified.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_problems import RandomProblem, outside, random_problem

from fpsolve.theory.certified.certify import CertifiedEnclosure, certify
from fpsolve.verify import check

REFERENCES = Path(__file__).with_name("data_certified") / "references.json"
#: Dimension and index: in 2D each combination of rank, dependence and shape once, half of them with a minimum inside.
HANDFUL = [(1, 3), (1, 10), (2, 0), (2, 3), (2, 6), (2, 13), (2, 37), (2, 39), (2, 9), (2, 14), (3, 0)]
#: Estimated errors of finite elements are now and then a little short.
ERRORS = 3.0
COUNTS = {1: 32, 2: 200}


@cache
def references() -> dict[str, Any]:
    return json.loads(REFERENCES.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Enclosed:
    lower: float
    upper: float


def test_references_are_complete_and_paths_agree_with_them() -> None:
    for dimension, count in COUNTS.items():
        lines = references()[f"{dimension}D"]
        assert [line["index"] for line in lines] == list(range(count))
        assert len({line["digest"] for line in lines}) == count
        mean, error, paths, paths_error = (
            np.array([line[key] for line in lines]) for key in ("mean", "error", "paths", "paths_error")
        )
        assert np.all((mean > 0) & (error > 0) & np.isfinite(mean + error))
        assert np.all(error < 2e-2 * mean)
        # two standard errors each, and the bias: three of them leave no more than chance for hundreds of values
        assert np.all(np.abs(mean - paths) <= 2.5 * paths_error + ERRORS * error)
        assert np.mean(np.abs(mean - paths) <= paths_error + error) > 0.9


def test_problems_do_not_depend_on_how_many_are_asked_for() -> None:
    one, same, other = random_problem(5, 3), random_problem(5, 3), random_problem(6, 3)
    assert one.digest == same.digest != other.digest


def test_values_outside_are_noticed() -> None:
    starts = [Enclosed(1.0, 1.1), Enclosed(2.0, 2.1)]
    assert outside(starts, [1.05, 2.05], [1e-3, 1e-3]) < 0
    assert outside(starts, [1.05, 2.102], [1e-3, 1e-3]) == pytest.approx(2.0)
    assert outside(starts, [0.998, 2.05], [1e-3, 1e-3]) == pytest.approx(2.0)
    assert outside([Enclosed(1.1, 1.0)], [1.05], [1.0]) == np.inf
    assert outside([Enclosed(float("nan"), 1.0)], [1.05], [1.0]) == np.inf


@cache
def enclosed(dimension: int, index: int) -> tuple[RandomProblem, CertifiedEnclosure]:
    problem = random_problem(references()["seed"], index, dimension)
    # what is reached depends on the machine; in 3D a second may be too short for anything
    width, budget = (0.3, 4.0) if dimension == 3 else (1e-3, 1.0)
    for longer in (1, 5, 25):
        found = certify(problem.process, problem.domain, width=width, budget=longer * budget, starts=problem.starts)
        if found.certificate is not None:
            break
    return problem, found


@pytest.mark.parametrize(("dimension", "index"), HANDFUL)
def test_enclosure_contains_the_independent_value(dimension: int, index: int) -> None:
    problem, found = enclosed(dimension, index)
    line = references()[f"{dimension}D"][index]
    assert problem.digest == line["digest"]
    assert len(found.starts) == len(problem.starts)
    assert all(0 <= start.lower <= start.upper for start in found.starts)
    assert outside(found.starts, line["mean"], line["error"]) <= ERRORS
    assert found.width == max(start.width for start in found.starts)


@pytest.mark.parametrize(("dimension", "index"), HANDFUL)
def test_certificate_passes_the_checker(dimension: int, index: int) -> None:
    found = enclosed(dimension, index)[1]
    assert found.certificate is not None, found.limited_by
    verdict = check(json.dumps(found.certificate))
    assert verdict.accepted, verdict.reason

"""The steady command's summary.json and table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app.report import aligned, common_summary, heading, point_text, solver_facts, table_text
from fpsolve.app.report_numbers import enclosure_text

if TYPE_CHECKING:
    from fpsolve.app.run_steady import SteadyAnswer
    from fpsolve.problems.noisy_limit import NoisyLimit
    from fpsolve.problems.steady_result import SteadyResult
    from fpsolve.theory.certified.gap import GapBound

#: Multiples of the estimated error, and part of the gap, by which it may lie below its proved bound.
ERRORS, PART = 3.0, 1e-9


def steady_summary(answer: SteadyAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the steady command (the contract of the design, and more keys).

    Eigenvalues are those of -A: their real parts are rates of decay.
    """
    result = answer.result
    return common_summary("steady", answer.case, result, answer.seconds, answer.messages) | {
        "mass": result.mass,
        "minimum": result.minimum,
        "maximum": result.maximum,
        "mean": result.mean,
        "covariance": result.covariance,
        "observables": result.expectations,
        "errors": {
            "density": result.density_error,
            "mean": result.mean_error,
            "covariance": result.covariance_error,
            "observables": result.expectation_errors,
        },
        "residual": result.residual,
        "eigenvalues": result.eigenvalues.real,
        "eigenvalues_imaginary": result.eigenvalues.imag,
        "eigenvalue_errors": result.eigenvalue_errors,
        "zero_count": result.zero_count,
        "unique": result.unique,
        "spectral_gap": result.spectral_gap,
        "spectral_gap_bound": None if answer.gap_bound is None else _gap(answer.gap_bound),
        "poincare": result.poincare,
        "poincare_reason": result.poincare_reason,
        "current_norm": result.current_norm,
        "current_error": result.current_error,
        "detailed_balance": result.detailed_balance,
        "wells": [{"minimum": x, "mass": m} for x, m in zip(result.minima, result.basin_masses, strict=True)],
        "levels": [
            {
                "cells": v.cells,
                "dofs": v.unknowns,
                "density_error": v.density_error,
                "eigenvalues": v.eigenvalues.real,
                "eigenvalue_errors": v.eigenvalue_errors,
                "seconds": v.seconds,
            }
            for v in result.levels
        ],
        "noisy_limit": None if answer.limit is None else _limit(answer.limit),
    }


def _gap(bound: GapBound) -> dict[str, Any]:
    """Return the proved lower bound of the spectral gap; null where there is none."""
    value = bound.value if bound.verified else None
    return {"value": value, "verified": bound.verified, "reason": bound.reason, "theorem": bound.theorem}


def _limit(limit: NoisyLimit) -> dict[str, Any]:
    """Return the sequence δ → 0 and the limits."""
    return {
        "deltas": limit.deltas,
        "strengths": limit.strengths,
        "sequence": [
            {
                "delta": d,
                "mean": r.mean,
                "covariance": r.covariance,
                "observables": r.expectations,
                "maximum": r.maximum,
            }
            for d, r in zip(limit.deltas, limit.results, strict=True)
        ],
        "mean": limit.mean,
        "covariance": limit.covariance,
        "observables": limit.expectations,
        "errors": {
            "mean": limit.mean_error,
            "covariance": limit.covariance_error,
            "observables": limit.expectation_errors,
        },
        "directions": limit.directions,
        "exponents": limit.exponents,
        "density_converges": limit.density_converges,
        "converged": limit.converged,
    }


# --- for people ------------------------------------------------------------------------------------------


def steady_table(answer: SteadyAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: eigenvalues, moments, wells, the noisy limit, messages and files."""
    result = answer.result
    blocks = [
        heading(answer.case, result.process),
        _eigenvalues(answer),
        _moments(answer),
        _wells(answer),
        [] if answer.limit is None else _noisy(answer.limit),
        [*_facts(answer), *solver_facts(answer.case, result, answer.seconds, len(result.levels))],
    ]
    return table_text(blocks, answer.messages, files)


def _eigenvalues(answer: SteadyAnswer) -> list[str]:
    result = answer.result
    rows = [["eigenvalues of -A", "real", "imaginary", "± error"]]
    for k, (value, error) in enumerate(zip(result.eigenvalues, result.eigenvalue_errors, strict=True)):
        rows.append([f"{k}", f"{value.real:.10g}", f"{value.imag:.10g}", f"{error:.1e}"])
    constant = f"none: {result.poincare_reason}" if result.poincare is None else f"{result.poincare:.8g}"
    one = "one" if result.unique else f"{result.zero_count} with a density"
    lines = [f"spectral gap {result.spectral_gap:.8g}; Poincaré constant {constant}; invariant measures: {one}"]
    bound = answer.gap_bound
    if bound is not None and bound.verified:
        lines.append(f"spectral gap >= {enclosure_text(bound.value, None)[0]}, proved; {bound.theorem}")
    return [*aligned(rows), *lines]


def gap_violated(result: SteadyResult, bound: GapBound | None) -> bool:
    """Tell whether the computed spectral gap lies below its proved lower bound beyond the error estimate."""
    if bound is None or not bound.verified:
        return False
    error = result.eigenvalue_errors[np.argmin(np.abs(result.eigenvalues.real - result.spectral_gap))]
    return bool(bound.value - result.spectral_gap > ERRORS * error + PART * abs(bound.value))


def gap_messages(result: SteadyResult, bound: GapBound | None) -> list[str]:
    """Return why no lower bound of the spectral gap is proved, or that the computed one lies below it."""
    if bound is None:
        return []
    if not bound.verified:
        theorem = f" ({bound.theorem})" if bound.theorem else ""
        return [f"warning: no lower bound of the spectral gap was proved{theorem}: {bound.reason}"]
    if gap_violated(result, bound):
        return [
            f"error: the spectral gap {result.spectral_gap:.8g} lies below the proved lower bound {bound.value:.8g} "
            "beyond the error estimate; the eigenvalue, its error estimate or the bound is wrong"
        ]
    return []


def _moments(answer: SteadyAnswer) -> list[str]:
    result = answer.result
    names = result.process.variables
    rows = [["invariant density", "mean", "± error", *(f"cov {name}" for name in names), "± error"]]
    for i, name in enumerate(names):
        entries = [f"{v:.8g}" for v in result.covariance[i]]
        error = f"{float(np.max(result.covariance_error[i])):.1e}"
        rows.append([name, f"{result.mean[i]:.8g}", f"{result.mean_error[i]:.1e}", *entries, error])
    expected = zip(result.observables, result.expectations, result.expectation_errors, strict=True)
    return [*aligned(rows), *(f"E {formula} = {value:.8g} ± {error:.1e}" for formula, value, error in expected)]


def _wells(answer: SteadyAnswer) -> list[str]:
    result = answer.result
    if not len(result.minima):
        return []
    rows = [["minimum of the loss", "mass of its basin"]]
    rows += [[point_text(x), f"{m:.8g}"] for x, m in zip(result.minima, result.basin_masses, strict=True)]
    return aligned(rows)


def _noisy(limit: NoisyLimit) -> list[str]:
    """Return the sequence δ → 0 and its limit."""
    names = limit.process.variables
    d = len(names)
    head = ["noisy SGD, δ", *(f"mean {name}" for name in names), *(f"var {name}" for name in names)]
    rows = [[*head, *(f"g{k + 1}" for k in range(len(limit.observables)))]]
    for delta, r in zip(limit.deltas, limit.results, strict=True):
        rows.append([f"{delta:g}", *(f"{v:.8g}" for v in (*r.mean, *np.diag(r.covariance), *r.expectations))])
    limits = (*limit.mean, *np.diag(limit.covariance), *limit.expectations)
    errors = (*limit.mean_error, *np.diag(limit.covariance_error), *limit.expectation_errors)
    rows.append(["limit δ → 0", *(f"{v:.8g}" for v in limits)])
    rows.append(["± error", *(f"{v:.1e}" for v in errors)])
    legend = [f"g{k + 1} = {formula}" for k, formula in enumerate(limit.observables)]
    legend += [f"concentrates in the direction {point_text(v)}" for v in limit.directions.reshape(-1, d)]
    if not limit.density_converges:
        legend.append("the density itself does not converge, only expectations do")
    return [*aligned(rows), *legend]


def _facts(answer: SteadyAnswer) -> list[str]:
    result = answer.result
    balance = "detailed balance" if result.detailed_balance else "no detailed balance"
    return [
        f"check     mass {result.mass:.12g}, minimum {result.minimum:.1e}, residual {result.residual:.1e}, "
        f"density error {result.density_error:.1e} in L1",
        f"current   {result.current_norm:.2e} of its two parts (error {result.current_error:.1e}): {balance}",
    ]

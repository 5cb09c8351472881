"""The landscape command's summary.json and table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpsolve.app.report import aligned, common_summary, heading, point_text, table_text

if TYPE_CHECKING:
    from fpsolve.app.run_landscape import LandscapeAnswer
    from fpsolve.theory.critical import Certificate, CriticalPoint
    from fpsolve.theory.heights import Height

#: Undecided boxes of the summary, and heights of the table: the largest, and the lowest.
SHOWN_BOXES, SHOWN_HEIGHTS = 20, 20


def landscape_summary(answer: LandscapeAnswer) -> dict[str, Any]:
    """Return the contents of summary.json of the landscape command.

    Points are named by their places in ``critical_points``.
    """
    critical = answer.critical
    undecided = critical.undecided
    lower, upper = critical.domain.bounding_box()
    return common_summary("landscape", answer.case, answer, answer.seconds, answer.messages) | {
        "box": {"lower": lower, "upper": upper},
        "critical_points": [_point(answer, k) for k in range(len(critical.points))],
        "complete": critical.complete,
        "boxes": critical.boxes,
        "undecided": {
            "count": undecided.count,
            "measure": undecided.measure,
            "share": undecided.share,
            "reason": critical.reason,
            "boxes": [
                {"lower": a, "upper": b}
                for a, b in zip(undecided.lower[:SHOWN_BOXES], undecided.upper[:SHOWN_BOXES], strict=True)
            ],
        },
        "heights": [_height(answer, h) for h in answer.heights.pairs],
        "descents": [
            {"saddle": _place(answer, critical.saddles[d.saddle]), "ends": [_end(answer, end) for end in d.ends]}
            for d in answer.heights.descents
        ],
        "basins": _basins(answer),
        "elsewhere": None if answer.basins is None else answer.basins.elsewhere,
    }


def _place(answer: LandscapeAnswer, point: CriticalPoint) -> int:
    return next(k for k, p in enumerate(answer.critical.points) if p is point)


def _end(answer: LandscapeAnswer, minimum: int) -> int | None:
    return None if minimum < 0 else _place(answer, answer.critical.minima[minimum])


def _point(answer: LandscapeAnswer, k: int) -> dict[str, Any]:
    p = answer.critical.points[k]
    return {
        "x": p.x,
        "loss": p.loss,
        "kind": p.kind,
        "index": p.index,
        "gradient": p.gradient,
        "eigenvalues": p.eigenvalues,
        "eigenvectors": p.eigenvectors.T,
        "certificate": None if p.certificate is None else _certificate(p.certificate),
        "covariance": {"eigenvalues": answer.spectrum.eigenvalues[k], "rank": int(answer.spectrum.rank[k])},
    }


def _certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "lower": certificate.lower,
        "upper": certificate.upper,
        "region": {"lower": certificate.region_lower, "upper": certificate.region_upper},
        "loss": [certificate.loss_lower, certificate.loss_upper],
        "index_proved": certificate.index_proved,
    }


def _height(answer: LandscapeAnswer, height: Height) -> dict[str, Any]:
    minima, saddles = answer.critical.minima, answer.critical.saddles
    return {
        "minima": [_place(answer, minima[height.first]), _place(answer, minima[height.second])],
        "saddle": None if height.saddle is None else _place(answer, saddles[height.saddle]),
        "level": height.level,
        "lower": height.lower,
        "barriers": height.barriers,
        "direct": height.direct,
        "exact": height.exact,
        "reason": height.reason,
        "eyring_kramers": None
        if height.times is None
        else {"there": height.times[0], "back": height.times[1], "law": "asymptotic as ε² → 0, not an answer"},
    }


def _basins(answer: LandscapeAnswer) -> list[dict[str, Any]]:
    basins = answer.basins
    if basins is None:
        return []
    rows = zip(basins.minima, basins.volumes, basins.shares, basins.errors, strict=True)
    return [{"minimum": x, "volume": v, "share": s, "error": e} for x, v, s, e in rows]


# --- for people ------------------------------------------------------------------------------------------


def landscape_table(answer: LandscapeAnswer, files: Sequence[Path] = ()) -> str:
    """Return the result as text: critical points, heights, basins, messages and files."""
    blocks = [
        heading(answer.case, answer.process),
        _points(answer),
        _heights(answer),
        _basin_lines(answer),
        _facts(answer),
    ]
    return table_text(blocks, answer.messages, files)


def _point_text(answer: LandscapeAnswer, x: np.ndarray) -> str:
    """Return coordinates, those that are rounding of 0 as 0."""
    lower, upper = answer.critical.domain.bounding_box()
    return point_text(np.where(np.abs(x) <= 1e-14 * (upper - lower), 0.0, x))


def _points(answer: LandscapeAnswer) -> list[str]:
    rows = [
        ["  critical point", "kind", "loss", "eigenvalues of D²L", "rank Q", "eigenvalues of Q", "proved", "within"]
    ]
    for k, p in enumerate(answer.critical.points):
        kind = p.kind if p.kind != "saddle" or len(p.x) < 3 else f"saddle, index {p.index}"
        proved, within = "no", ""
        if p.certificate is not None:
            proved = "exists, index" if p.certificate.index_proved else "exists"
            within = f"{float(np.max(p.certificate.upper - p.certificate.lower)):.0e}"
        spectrum = answer.spectrum
        noise = ", ".join(f"{v:.5g}" for v in spectrum.eigenvalues[k])
        bends = ", ".join(f"{v:.6g}" for v in p.eigenvalues)
        name = f"{k} {_point_text(answer, p.x)}"
        rows.append([name, kind, f"{p.loss:.8g}", bends, str(int(spectrum.rank[k])), noise, proved, within])
    return aligned(rows) if len(rows) > 1 else ["no critical points were found"]


def _heights(answer: LandscapeAnswer) -> list[str]:
    pairs = sorted(answer.heights.pairs, key=lambda h: h.level)
    if not pairs:
        return []
    laws = any(h.times is not None for h in pairs)
    head = ["height between", "saddle", "loss there", "proved >=", "barriers", "exact"]
    rows = [[*head, "Eyring-Kramers law"] if laws else head]
    minima, saddles = answer.critical.minima, answer.critical.saddles
    for h in pairs[:SHOWN_HEIGHTS]:
        ends = f"{_place(answer, minima[h.first])} and {_place(answer, minima[h.second])}"
        saddle = "none found" if h.saddle is None else str(_place(answer, saddles[h.saddle]))
        lower = "-" if h.lower is None else f"{h.lower:.8g}"
        barriers = f"{h.barriers[0]:.6g}, {h.barriers[1]:.6g}"
        row = [ends, saddle, f"{h.level:.8g}", lower, barriers, "yes" if h.exact else "upper bound"]
        rows.append([*row, "-" if h.times is None else f"{h.times[0]:.4g}, {h.times[1]:.4g}"] if laws else row)
    more = len(pairs) - SHOWN_HEIGHTS
    return [*aligned(rows), *([f"and {more} higher ones, in summary.json"] if more > 0 else [])]


def _basin_lines(answer: LandscapeAnswer) -> list[str]:
    basins = answer.basins
    if basins is None:
        return []
    rows = [["basin of", "volume", "± error", "share"]]
    for x, v, s, e in zip(basins.minima, basins.volumes, basins.shares, basins.errors, strict=True):
        rows.append([_point_text(answer, x), f"{v:.6g}", f"{e:.1e}", f"{100 * s:.2f} %"])
    share = 100 * basins.elsewhere / basins.total
    if share > 5e-3:
        rows.append(["elsewhere", f"{basins.elsewhere:.6g}", "", f"{share:.2f} %"])
    return aligned(rows)


def _facts(answer: LandscapeAnswer) -> list[str]:
    critical = answer.critical
    lower, upper = critical.domain.bounding_box()
    box = " × ".join(f"[{a:g}, {b:g}]" for a, b in zip(lower, upper, strict=True))
    state = "complete: proved that there are no others" if critical.complete else "may be incomplete"
    return [
        f"critical points in {box}: {state} ({critical.boxes} boxes, {critical.seconds:.1f} s)",
        f"{answer.comm.size} rank(s), {answer.seconds:.1f} s",
    ]

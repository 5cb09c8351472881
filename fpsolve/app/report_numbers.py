"""Two-sided bounds as text: rounded outwards, with as many digits as their distance justifies."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

#: Digits of a bound without a partner, and the most and fewest of an enclosure.
ALONE, FEWEST, MOST = 6, 6, 17


def enclosure_text(lower: float | None, upper: float | None) -> tuple[str, str]:
    """Return both bounds as text, the lower one rounded down and the upper one up; ``-`` where there is none.

    Two digits of their distance are shown.
    """
    digits = ALONE
    if lower is not None and upper is not None and 0 < lower <= upper < math.inf:
        distance = (upper - lower) / upper
        digits = MOST if distance == 0 else min(max(math.ceil(-math.log10(distance)) + 2, FEWEST), MOST)
    return _rounded(lower, digits, ROUND_FLOOR), _rounded(upper, digits, ROUND_CEILING)


def width_text(width: float | None) -> str:
    """Return a relative width; ``-`` where there is none."""
    return "-" if width is None or not math.isfinite(width) else f"{width:.2g}"


def _rounded(value: float | None, digits: int, rounding: str) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    text = str(Context(prec=digits, rounding=rounding).create_decimal(Decimal(value)))
    return text.replace("E", "e")

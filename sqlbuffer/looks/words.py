"""Numbers as people read them: few digits, times in units, shares as per cent."""

from __future__ import annotations

import math

from sqlbuffer.records import LEAST_ROWS

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def count(value: int | None) -> str:
    """Return a whole number with its thousands apart; a dash for None."""
    return "-" if value is None else f"{value:,}"


def number(value: float | None) -> str:
    """Return a number to four digits."""
    if value is None or not math.isfinite(value):
        return "-" if value is None else str(value)
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.4g}" if abs(value) < 10_000 else count(round(value))


def rounded(seconds: float | None) -> float | None:
    """Return seconds to three digits, which is all that a clock tells of a measurement."""
    return None if seconds is None else float(f"{seconds:.3g}")


def correlation(value: float | None, rows: int | None) -> float | None:
    """Return a measure of predictions if it is of enough rows to be shown.

    0 or None rows are those of a measure that its user has stored without their number.
    """
    return value if not rows or rows >= LEAST_ROWS else None


def share(value: float) -> str:
    """Return a share as per cent."""
    percent = 100 * value
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def duration(seconds: float | None) -> str:
    """Return a time in its two largest units, such as 2 h 5 min."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    left = round(seconds)
    if left < 1:
        return "0 s"
    parts: list[str] = []
    for size, unit in _UNITS:
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size:,} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts)

"""Means of floats of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SAFE = 2.0**-64
"""A power of two: dividing by it is exact, but for the smallest numbers."""


def mean(numbers: Sequence[float]) -> float:
    """Return the mean of finite floats, one at least, also if their sum overflows."""
    total = sum(numbers)
    if math.isfinite(total):
        return total / len(numbers)
    return sum(number * _SAFE for number in numbers) / len(numbers) / _SAFE

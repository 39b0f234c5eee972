"""Limits of samples: a stored sample must not take long to hash or to read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

MAX_DEPTH = 64
"""Levels that a sample may nest; a sample that contains itself is refused by this limit."""

MAX_ALIKE = 1_000
"""Elements of a set, or keys of a dict, with one hash(): Python compares each with all others."""

MAX_RATIO_BITS = 1 << 16
"""Bits of a numerator or denominator: reducing a ratio takes quadratic time."""


def are_too_alike(elements: Collection[Any]) -> bool:
    """Tell whether more than `MAX_ALIKE` elements have one hash."""
    if len(elements) <= MAX_ALIKE:
        return False
    # The loop stops at the first hash that is too many. Python 3.12 and later keep the hashes of
    # fractions in a dict, so hashing 20,000 fractions of one hash takes quadratic time.
    alike: dict[int, int] = {}
    for number in map(hash, elements):
        alike[number] = alike.get(number, 0) + 1
        if alike[number] > MAX_ALIKE:
            return True
    return False

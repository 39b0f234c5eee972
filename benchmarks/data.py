"""Samples: distinct strings like SMILES, and a score that costs little."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

LENGTH = 40
"""Letters in a sample."""

_HEADS = ("CC", "CN", "CO", "CS", "NC", "OC", "cc", "cn")
_TAILS = ("(C)", "(N)", "(O)", "(F)", "1C1", "=CC", "#CN", "2O2")
_FRAGMENTS = np.array([head + tail for head, tail in itertools.product(_HEADS, _TAILS)], dtype="S5")
_SCRAMBLE = np.uint64(0x9E3779B97F4B)
_CHUNK = 100_000


def texts(start: int, n: int) -> list[str]:
    """Return the samples `start` to `start + n`; samples of different numbers differ."""
    firsts = range(0, n, _CHUNK)
    return [text for i in firsts for text in _texts(start + i, min(_CHUNK, n - i))]


def shuffled(samples: list[str]) -> list[str]:
    """Return samples in another order, always the same."""
    return [samples[i] for i in np.random.default_rng(0).permutation(len(samples)).tolist()]


def _texts(start: int, n: int) -> list[str]:
    # An odd factor permutes the numbers below 2**48: eight digits of six bits, each a fragment of
    # five letters.
    numbers = np.arange(start, start + n, dtype=np.uint64) * _SCRAMBLE
    digits = (numbers[:, None] >> (np.arange(8, dtype=np.uint64) * np.uint64(6))) & np.uint64(63)
    found: list[str] = _FRAGMENTS[digits].view(f"S{LENGTH}").ravel().astype(str).tolist()
    return found


def scores(samples: list[str], version: int = 0) -> NDArray[np.float64]:
    """Return (n,) float64 in [0, 1), spread evenly: a predictor whose own cost does not count.

    Args:
        samples: n of `LENGTH` letters.
        version: Another version gives other scores, as a retrained predictor does.
    """
    letters = np.frombuffer("".join(samples).encode(), dtype=np.uint8).reshape(len(samples), LENGTH)
    parts: NDArray[np.float64] = letters @ np.random.default_rng(version).random(LENGTH)
    return parts % 1.0

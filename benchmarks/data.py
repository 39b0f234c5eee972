"""Samples: distinct strings like SMILES, their hashes, and a score that costs little."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from numpy.typing import NDArray

from sqlbuffer.hashing import digests

LENGTH = 40
"""Letters in a sample."""

_HEADS = ("CC", "CN", "CO", "CS", "NC", "OC", "cc", "cn")
_TAILS = ("(C)", "(N)", "(O)", "(F)", "1C1", "=CC", "#CN", "2O2")
_FRAGMENTS = np.array([head + tail for head, tail in itertools.product(_HEADS, _TAILS)], dtype="S5")
_SCRAMBLE = np.uint64(0x9E3779B97F4B)
_CHUNK = 100_000


@dataclasses.dataclass(frozen=True)
class Items:
    """n samples on their way into a buffer, and their hashes, which cost the raw floor nothing."""

    texts: list[str]
    hashes: list[bytes]

    @classmethod
    def make(cls, start: int, n: int) -> Items:
        """Return the samples `start` to `start + n`; samples of different numbers differ."""
        firsts = range(0, n, _CHUNK)
        texts = [text for i in firsts for text in _texts(start + i, min(_CHUNK, n - i))]
        return cls(texts, list(digests(texts)))

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, end: int) -> Items:
        """Return a range of them."""
        return Items(self.texts[start:end], self.hashes[start:end])

    def shuffled(self) -> Items:
        """Return them in another order, always the same."""
        order = np.random.default_rng(0).permutation(len(self)).tolist()
        return Items([self.texts[i] for i in order], [self.hashes[i] for i in order])


def _texts(start: int, n: int) -> list[str]:
    # An odd factor permutes the numbers below 2**48: eight digits of six bits, each a fragment of
    # five letters.
    numbers = np.arange(start, start + n, dtype=np.uint64) * _SCRAMBLE
    digits = (numbers[:, None] >> (np.arange(8, dtype=np.uint64) * np.uint64(6))) & np.uint64(63)
    texts: list[str] = _FRAGMENTS[digits].view(f"S{LENGTH}").ravel().astype(str).tolist()
    return texts


def scores(texts: list[str], version: int = 0) -> NDArray[np.float64]:
    """Return (n,) float64 in [0, 1), spread evenly: a predictor whose own cost does not count.

    Args:
        texts: n samples of `LENGTH` letters.
        version: Another version gives other scores, as a retrained predictor does.
    """
    letters = np.frombuffer("".join(texts).encode(), dtype=np.uint8).reshape(len(texts), LENGTH)
    parts: NDArray[np.float64] = letters @ np.random.default_rng(version).random(LENGTH)
    return parts % 1.0

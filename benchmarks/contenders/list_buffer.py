"""A buffer in memory as generative-model loops usually have it: parallel lists, rebuilt for every batch.

Adding appends; repeats are dropped by a walk over the whole buffer; a draw normalises all weights, chooses among all
positions, and takes the chosen out by rebuilding the lists. Nothing survives the process.
"""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import Contender
from benchmarks.data import Items, scores

if TYPE_CHECKING:
    from benchmarks.workshop import Workshop


class ListBuffer(Contender):
    """Lists and an array of weights, NaN for what has no score."""

    name: ClassVar[str] = "list"
    family: ClassVar[str] = "memory"
    abilities = frozenset(
        ("add", "add-duplicates", "add-more", "score", "draw", "draw-argmax", "iteration", "refresh", "len", "memory")
    )
    remark: ClassVar[str] = "parallel lists in memory: lost when the process ends, one process only"
    bytes_each: ClassVar[int] = 600

    buffer: list[str]
    sources: list[str]
    weights: NDArray[np.float64]
    _drawn: list[str]

    def start(self, workshop: Workshop | None = None, n: int = 0) -> None:
        self.buffer, self.sources, self.weights, self._drawn = [], [], np.empty(0), []

    def close(self) -> None:
        self.start()

    def add(self, items: Items) -> None:
        self._append(items.texts)
        self._drop_repeats()

    def _append(self, texts: list[str]) -> None:
        self.buffer += texts
        self.sources += ["benchmark"] * len(texts)
        self.weights = np.concatenate([self.weights, np.full(len(texts), np.nan)])

    def _drop_repeats(self) -> None:
        seen: set[str] = set()
        is_first = np.zeros(len(self.buffer), dtype=bool)
        for i, text in enumerate(self.buffer):
            if text not in seen:
                seen.add(text)
                is_first[i] = True
        self._keep(is_first)

    def _keep(self, stays: NDArray[np.bool_]) -> None:
        flags = stays.tolist()
        self.buffer = [text for text, stay in zip(self.buffer, flags, strict=True) if stay]
        self.sources = [source for source, stay in zip(self.sources, flags, strict=True) if stay]
        self.weights = self.weights[stays]

    def score(self) -> None:
        unscored = np.flatnonzero(np.isnan(self.weights))
        if len(unscored):
            self.weights[unscored] = scores([self.buffer[i] for i in unscored.tolist()])

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        n_heaviest = min(round(k * pct_argmax), len(self.buffer))
        heaviest: list[str] = []
        if n_heaviest:
            heaviest = self._take(np.argsort(self.weights)[-n_heaviest:])
        shifted = self.weights - self.weights.min() + 1e-8
        n_random = min(k - n_heaviest, len(shifted))
        chosen = np.random.choice(len(shifted), size=n_random, replace=False, p=shifted / shifted.sum())
        self._drawn = heaviest + self._take(chosen)
        return self._drawn

    def _take(self, positions: NDArray[np.int64]) -> list[str]:
        taken = [self.buffer[i] for i in positions.tolist()]
        stays = np.ones(len(self.buffer), dtype=bool)
        stays[positions] = False
        self._keep(stays)
        return taken

    def give_back(self) -> None:
        self._append(self._drawn)
        self._drop_repeats()
        self.score()

    def iterate(self, items: Items, k: int) -> None:
        self.add(items)
        self.score()
        self.draw(k)

    def refresh(self, version: int) -> None:
        self.weights = scores(self.buffer, version)

    def count(self) -> int:
        return len(self.buffer)

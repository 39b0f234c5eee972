"""MRL's own weighted buffer, where the package can be imported."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.base import Contender
from benchmarks.data import Items, scores

if TYPE_CHECKING:
    from benchmarks.workshop import Workshop


class Mrl(Contender):
    """`mrl.train.buffer.WeightedBuffer`."""

    name: ClassVar[str] = "mrl"
    family: ClassVar[str] = "memory"
    abilities = frozenset(
        ("add", "add-duplicates", "add-more", "score", "draw", "draw-argmax", "iteration", "len", "memory")
    )
    remark: ClassVar[str] = "MRL's WeightedBuffer, in memory: lost when the process ends, one process only"
    bytes_each: ClassVar[int] = 600

    _buffer: Any
    _drawn: list[str]

    @classmethod
    def missing(cls) -> str | None:
        try:
            importlib.import_module("mrl.train.buffer")
        except Exception as exc:  # whatever an old package trips over in new dependencies
            return f"import mrl.train.buffer: {exc!r}"
        return None

    def start(self, workshop: Workshop, n: int) -> None:
        buffer = importlib.import_module("mrl.train.buffer").WeightedBuffer(1.0, 1)
        buffer.compute_weights = scores
        self._buffer = buffer

    def close(self) -> None:
        self._buffer = None

    def add(self, items: Items) -> None:
        self._buffer.add(items.texts, name="benchmark")
        self._buffer.filter_buffer()

    def score(self) -> None:
        self._buffer.before_batch()

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        self._buffer.pct_argmax = pct_argmax
        self._drawn, _, _ = self._buffer.sample(k)
        return self._drawn

    def give_back(self) -> None:
        self._buffer.add(list(self._drawn), name="benchmark")
        self._buffer.filter_buffer()
        self._buffer.before_batch()

    def iterate(self, items: Items, k: int) -> None:
        self.add(items)
        self.score()
        self.draw(k)

    def count(self) -> int:
        return len(self._buffer)

"""cpprb's prioritised replay buffer: a sum tree in C++, in the memory of one process."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import Contender
from benchmarks.data import LENGTH, Items, scores

if TYPE_CHECKING:
    from benchmarks.workshop import Workshop


def letters(texts: list[str]) -> NDArray[np.uint8]:
    """Return strings as (n, LENGTH) uint8, for buffers that hold numbers only."""
    return np.frombuffer("".join(texts).encode(), dtype=np.uint8).reshape(len(texts), LENGTH)


class Cpprb(Contender):
    """`cpprb.PrioritizedReplayBuffer` of arrays of letters."""

    name: ClassVar[str] = "cpprb"
    family: ClassVar[str] = "memory"
    libraries: ClassVar[tuple[str, ...]] = ("cpprb",)
    abilities = frozenset(("add", "draw", "replay", "len", "memory"))
    remark: ClassVar[str] = (
        "a sum tree in C++, in memory; draws with replacement, nothing leaves the buffer; arrays of 40 bytes"
    )
    bytes_each: ClassVar[int] = 400

    _buffer: Any
    _drawn: dict[str, Any]

    def start(self, workshop: Workshop, n: int) -> None:
        from cpprb import PrioritizedReplayBuffer

        self._buffer = PrioritizedReplayBuffer(n, {"sample": {"shape": LENGTH, "dtype": np.uint8}}, alpha=1.0)

    def furnish(self, workshop: Workshop, n: int, mode: str = "consume") -> None:
        self._replays = mode == "replay"
        super().furnish(workshop, n, mode)

    def close(self) -> None:
        self._buffer = None

    def add(self, items: Items) -> None:
        self._buffer.add(sample=letters(items.texts), priorities=scores(items.texts) + 1e-8)

    def score(self) -> None:
        """Do nothing: priorities came with the samples."""

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        self._drawn = self._buffer.sample(k)
        if self._replays:
            self._buffer.update_priorities(self._drawn["indexes"], self._drawn["weights"])
        return []

    def give_back(self) -> None:
        """Do nothing: what was drawn is still there."""

    def count(self) -> int:
        return int(self._buffer.get_stored_size())

"""TorchRL's prioritised replay buffer, of strings in a list and of tensors, in the memory of one process."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.base import Contender
from benchmarks.contenders.cpprb_ import letters
from benchmarks.data import Items, scores

if TYPE_CHECKING:
    from benchmarks.workshop import Workshop


class TorchrlStrings(Contender):
    """`torchrl.data.PrioritizedReplayBuffer` with a `ListStorage` of strings."""

    name: ClassVar[str] = "torchrl-strings"
    family: ClassVar[str] = "memory"
    libraries: ClassVar[tuple[str, ...]] = ("torchrl",)
    abilities = frozenset(("add", "draw", "replay", "len", "memory"))
    remark: ClassVar[str] = "PrioritizedReplayBuffer, in memory; draws with replacement, nothing leaves the buffer"
    bytes_each: ClassVar[int] = 400

    _buffer: Any
    _replays = False

    @classmethod
    def missing(cls) -> str | None:
        if (absent := super().missing()) is not None:
            return absent
        try:
            importlib.import_module("torch")
            importlib.import_module("torchrl._torchrl")
        except ImportError:  # an undefined symbol, where it was built for another torch
            return "its compiled part does not load with this build of torch"
        return None

    def start(self, workshop: Workshop, n: int) -> None:
        from torchrl.data import ListStorage

        self._begin(ListStorage(n), collate_fn=list)

    def _begin(self, storage: Any, **options: Any) -> None:
        from torchrl.data import PrioritizedReplayBuffer

        self._buffer = PrioritizedReplayBuffer(alpha=1.0, beta=1.0, storage=storage, **options)

    def furnish(self, workshop: Workshop, n: int, mode: str = "consume") -> None:
        self._replays = mode == "replay"
        super().furnish(workshop, n, mode)

    def close(self) -> None:
        self._buffer = None

    def add(self, items: Items) -> None:
        self._extend(items.texts, items.texts)

    def _extend(self, content: Any, texts: list[str]) -> None:
        import torch

        indices = self._buffer.extend(content)
        self._buffer.update_priority(indices, torch.from_numpy(scores(texts) + 1e-8).float())

    def score(self) -> None:
        """Do nothing: priorities came with the samples."""

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        drawn, info = self._buffer.sample(k, return_info=True)
        if self._replays:
            self._buffer.update_priority(info["index"], info["priority_weight"])
        return drawn if isinstance(drawn, list) else []

    def give_back(self) -> None:
        """Do nothing: what was drawn is still there."""

    def count(self) -> int:
        return len(self._buffer)


class TorchrlTensors(TorchrlStrings):
    """`torchrl.data.PrioritizedReplayBuffer` with a `LazyTensorStorage` of letters."""

    name: ClassVar[str] = "torchrl-tensors"
    remark: ClassVar[str] = "the same with tensors of 40 bytes"

    def start(self, workshop: Workshop, n: int) -> None:
        from torchrl.data import LazyTensorStorage

        self._begin(LazyTensorStorage(n))

    def add(self, items: Items) -> None:
        import torch

        self._extend(torch.from_numpy(letters(items.texts).copy()), items.texts)

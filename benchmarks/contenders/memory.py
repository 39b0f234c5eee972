"""Buffers in the memory of one process, and Reverb's in that of a server: none outlives it."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import Contender
from benchmarks.data import LENGTH, scores

if TYPE_CHECKING:
    from benchmarks.stage import Workshop

_ABILITIES = frozenset(
    "add add-duplicates add-more score draw draw-argmax iteration len memory".split()
)


class ListBuffer(Contender):
    """Parallel lists, rebuilt for every batch, as loops of generative models usually have them.

    Adding appends; repeats are dropped by a walk over the whole buffer; a draw normalises all
    weights, chooses among all positions, and takes the chosen out by rebuilding the lists. The
    weight of a sample without a score is NaN.
    """

    name = "list"
    abilities = _ABILITIES | {"refresh"}
    remark = "parallel lists in memory: lost when the process ends, one process only"
    bytes_each = 600

    def start(self, workshop: Workshop | None = None, n: int = 0) -> None:
        self.buffer: list[str] = []
        self.sources: list[str] = []
        self.weights: NDArray[np.float64] = np.empty(0)

    def close(self) -> None:
        self.start()

    def add(self, items: list[str]) -> None:
        self._append(items)

    def _append(self, texts: list[str]) -> None:
        self.buffer += texts
        self.sources += ["benchmark"] * len(texts)
        self.weights = np.concatenate([self.weights, np.full(len(texts), np.nan)])
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
        self.sources = [name for name, stay in zip(self.sources, flags, strict=True) if stay]
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
        p = shifted / shifted.sum()
        chosen = np.random.choice(len(shifted), size=n_random, replace=False, p=p)
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
        self.score()

    def refresh(self, version: int) -> None:
        self.weights = scores(self.buffer, version)

    def count(self) -> int:
        return len(self.buffer)


class Mrl(Contender):
    """`mrl.train.buffer.WeightedBuffer`."""

    name = "mrl"
    abilities = _ABILITIES
    remark = "MRL's WeightedBuffer, in memory: lost when the process ends, one process only"
    bytes_each = 600

    @classmethod
    def missing(cls) -> str | None:
        try:
            importlib.import_module("mrl.train.buffer")
        except Exception as exc:  # an old package fails in many ways under new dependencies
            return f"import mrl.train.buffer: {exc!r}"
        return None

    def start(self, workshop: Workshop, n: int) -> None:
        self._buffer = importlib.import_module("mrl.train.buffer").WeightedBuffer(1.0, 1)
        self._buffer.compute_weights = scores

    def close(self) -> None:
        self._buffer = None

    def add(self, items: list[str]) -> None:
        self._append(items)

    def _append(self, texts: list[str]) -> None:
        self._buffer.add(texts, name="benchmark")
        self._buffer.filter_buffer()

    def score(self) -> None:
        self._buffer.before_batch()

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        self._buffer.pct_argmax = pct_argmax
        drawn: list[str]
        self._drawn = drawn = self._buffer.sample(k)[0]
        return drawn

    def give_back(self) -> None:
        self._append(list(self._drawn))
        self.score()

    def count(self) -> int:
        return len(self._buffer)


class _Prioritised(Contender):
    """A buffer that draws with replacement: samples come with priorities, and never leave."""

    abilities = frozenset(("add", "draw", "replay", "len", "memory"))
    bytes_each = 400
    _buffer: Any

    def close(self) -> None:
        self._buffer = None

    def score(self) -> None:
        """Do nothing: priorities came with the samples."""

    def give_back(self) -> None:
        """Do nothing: the samples are still there."""

    def count(self) -> int:
        return len(self._buffer)


class Cpprb(_Prioritised):
    """`cpprb.PrioritizedReplayBuffer` of arrays of letters: a sum tree in C++."""

    name = "cpprb"
    libraries = ("cpprb",)
    remark = (
        "a sum tree in C++, in memory; draws with replacement, nothing leaves the buffer; "
        "arrays of 40 bytes"
    )

    def start(self, workshop: Workshop, n: int) -> None:
        from cpprb import PrioritizedReplayBuffer

        row = {"sample": {"shape": LENGTH, "dtype": np.uint8}}
        self._buffer = PrioritizedReplayBuffer(n, row, alpha=1.0)

    def add(self, items: list[str]) -> None:
        self._buffer.add(sample=_letters(items), priorities=scores(items) + 1e-8)

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        self._drawn = self._buffer.sample(k)
        if self.mode == "replay":
            self._buffer.update_priorities(self._drawn["indexes"], self._drawn["weights"])
        return []

    def count(self) -> int:
        return int(self._buffer.get_stored_size())


class TorchrlStrings(_Prioritised):
    """`torchrl.data.PrioritizedReplayBuffer` with a `ListStorage` of strings."""

    name = "torchrl-strings"
    libraries = ("torchrl",)
    remark = "PrioritizedReplayBuffer, in memory; draws with replacement, nothing leaves the buffer"

    @classmethod
    def missing(cls) -> str | None:
        if (absent := super().missing()) is not None:
            return absent
        try:
            importlib.import_module("torch")
            importlib.import_module("torchrl._torchrl")
        except ImportError:  # an undefined symbol, if it was built for another torch
            return "its compiled part does not load with this build of torch"
        return None

    def start(self, workshop: Workshop, n: int) -> None:
        from torchrl.data import ListStorage

        self._begin(ListStorage(n), collate_fn=list)

    def _begin(self, storage: Any, **options: Any) -> None:
        from torchrl.data import PrioritizedReplayBuffer

        self._buffer = PrioritizedReplayBuffer(alpha=1.0, beta=1.0, storage=storage, **options)

    def add(self, items: list[str]) -> None:
        self._extend(items, items)

    def _extend(self, content: Any, texts: list[str]) -> None:
        import torch

        indices = self._buffer.extend(content)
        self._buffer.update_priority(indices, torch.from_numpy(scores(texts) + 1e-8).float())

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        drawn, info = self._buffer.sample(k, return_info=True)
        if self.mode == "replay":
            self._buffer.update_priority(info["index"], info["priority_weight"])
        return drawn if isinstance(drawn, list) else []


class TorchrlTensors(TorchrlStrings):
    """`torchrl.data.PrioritizedReplayBuffer` with a `LazyTensorStorage` of letters."""

    name = "torchrl-tensors"
    remark = "the same with tensors of 40 bytes"

    def start(self, workshop: Workshop, n: int) -> None:
        from torchrl.data import LazyTensorStorage

        self._begin(LazyTensorStorage(n))

    def add(self, items: list[str]) -> None:
        import torch

        self._extend(torch.from_numpy(_letters(items).copy()), items)


class Reverb(_Prioritised):
    """A prioritised table of a `reverb.Server`, whose clients speak gRPC."""

    name = "reverb"
    libraries = ("reverb", "tensorflow")
    abilities = frozenset(("add", "draw", "len"))
    remark = (
        "a prioritised table in a server's memory; draws with replacement, nothing leaves "
        "the buffer"
    )
    largest = 1_000_000
    bytes_each = 2_000

    def start(self, workshop: Workshop, n: int) -> None:
        import reverb

        table = reverb.Table(
            name="benchmark",
            sampler=reverb.selectors.Prioritized(1.0),
            remover=reverb.selectors.Fifo(),
            max_size=n,
            rate_limiter=reverb.rate_limiters.MinSize(1),
        )
        self._server = reverb.Server(tables=[table])
        self._buffer = reverb.Client(f"localhost:{self._server.port}")

    def close(self) -> None:
        self._server.stop()

    def add(self, items: list[str]) -> None:
        weights = (scores(items) + 1e-8).tolist()
        with self._buffer.trajectory_writer(num_keep_alive_refs=1) as writer:
            for i, (row, weight) in enumerate(zip(_letters(items), weights, strict=True)):
                writer.append({"sample": row})
                writer.create_item("benchmark", weight, {"sample": writer.history["sample"][-1:]})
                if i % 1000 == 0:
                    writer.flush(block_until_num_items=1000)

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        drawn = list(self._buffer.sample("benchmark", num_samples=k))
        return [bytes(sample[0].data[0].ravel()).decode() for sample in drawn]

    def count(self) -> int:
        return int(self._buffer.server_info()["benchmark"].current_size)


def _letters(texts: list[str]) -> NDArray[np.uint8]:
    """Return strings as (n, LENGTH) uint8, for buffers that hold numbers only."""
    return np.frombuffer("".join(texts).encode(), dtype=np.uint8).reshape(len(texts), LENGTH)

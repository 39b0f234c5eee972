"""Samplers: callbacks that bring samples to the buffer, or straight to the batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sqlbuffer.errors import InvalidArgument, shown
from sqlbuffer.training.callback import Callback


class Sampler(Callback):
    """Base of the samplers: override `_build_buffer`, `_sample_batch`, or both.

    Args:
        name: The source of its samples.
        buffer_size: Samples to add each time the buffer is built, 0 for none.
        p_batch: Share of each batch that comes from this sampler directly, in [0, 1].
        seed: Seed of `rng`.
    """

    def __init__(self, name: str, buffer_size: int = 0, p_batch: float = 0.0, *, seed: int = 0) -> None:
        super().__init__(name=name)
        if not 0.0 <= p_batch <= 1.0:
            raise InvalidArgument(f"p_batch of sampler {name!r} must be in [0, 1], got {p_batch!r}.")
        if buffer_size < 0:
            raise InvalidArgument(f"buffer_size of sampler {name!r} must be 0 or more, got {buffer_size!r}.")
        self.buffer_size = buffer_size
        self.p_batch = p_batch
        self.seed = seed

    def rng(self, event: str) -> np.random.Generator:
        """Return a generator that depends on seed, name, event and iteration alone: a resumed run repeats its draws."""
        key = zlib.crc32(f"{self.name}/{event}".encode())
        return np.random.default_rng([self.seed % 2**64, key, self.environment.log.iterations])

    def build_buffer(self) -> None:
        """Add new samples to the buffer."""
        if samples := self._build_buffer():
            self.environment.buffer.add(samples, self.name)

    def sample_batch(self) -> None:
        """Add new samples to the batch."""
        if samples := self._sample_batch():
            state = self.environment.batch_state
            state.samples += samples
            state.sources += [self.name] * len(samples)

    def _build_buffer(self) -> list[Any]:
        return self._draw(self.buffer_size, "build_buffer")

    def _sample_batch(self) -> list[Any]:
        return self._draw(round(max(self.environment.bs, 0) * self.p_batch), "sample_batch")

    def _draw(self, n: int, event: str) -> list[Any]:
        samples = self._generate(n, self.rng(event)) if n > 0 else []
        if isinstance(samples, (str, bytes, Mapping)) or not isinstance(samples, Iterable):
            raise InvalidArgument(f"sampler {self.name!r} must give a list of samples, got {shown(samples)}.")
        return list(samples)

    def _generate(self, n: int, rng: np.random.Generator) -> Iterable[Any]:
        """Return up to n samples."""
        return []


class DatasetSampler(Sampler):
    """Draws from a fixed collection, without repeats within a draw.

    Args:
        data: The samples to draw from.
        name: The source of its samples.
        buffer_size: Samples to add each time the buffer is built, 0 for none.
        p_batch: Share of each batch that comes from this sampler directly, in [0, 1].
        seed: Seed of the draws.
    """

    def __init__(
        self, data: Sequence[Any], name: str = "dataset", buffer_size: int = 0, p_batch: float = 0.0, *, seed: int = 0
    ) -> None:
        super().__init__(name, buffer_size, p_batch, seed=seed)
        self.data = data

    def _generate(self, n: int, rng: np.random.Generator) -> Iterable[Any]:
        chosen = rng.choice(len(self.data), size=min(n, len(self.data)), replace=False)
        return [self.data[i] for i in chosen]


class FunctionSampler(Sampler):
    """Calls a function for new samples.

    Args:
        function: `function(n, rng)` returns up to n samples; `rng` is a numpy Generator. Samples that depend on `rng`
            and on the buffer alone are made again by a resumed run.
        name: The source of its samples.
        buffer_size: Samples to ask for each time the buffer is built, 0 for none.
        p_batch: Share of each batch that comes from this sampler directly, in [0, 1].
        seed: Seed of `rng`.
    """

    def __init__(
        self,
        function: Callable[[int, np.random.Generator], Iterable[Any]],
        name: str,
        buffer_size: int = 0,
        p_batch: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(name, buffer_size, p_batch, seed=seed)
        self.function = function

    def _generate(self, n: int, rng: np.random.Generator) -> Iterable[Any]:
        return self.function(n, rng)

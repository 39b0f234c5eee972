"""Samplers: callbacks that add samples to the buffer, or directly to the batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from sqlbuffer._messages import shown
from sqlbuffer._validation import (
    as_list,
    is_share,
    require_count,
    require_function,
    require_int,
    require_list,
    require_real,
)
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.training.callback import Callback


class Sampler(Callback):
    """Base class of samplers: override `_build_buffer`, `_sample_batch`, or both.

    Args:
        name: The source of its samples.
        buffer_size: Samples to add each time the buffer is built, 0 for none.
        p_batch: Share of each batch that comes from this sampler directly, in [0, 1].
        seed: Seed of `rng`.

    Examples:
        >>> from sqlbuffer import Sampler
        >>> class Chains(Sampler):
        ...     def _generate(self, n, rng):
        ...         return ["C" * length for length in rng.integers(1, 100, n)]
        >>> Chains("chains", buffer_size=50)
        Chains(name='chains', order=10)
    """

    def __init__(
        self, name: str, buffer_size: int = 0, p_batch: float = 0.0, *, seed: int = 0
    ) -> None:
        super().__init__(name=name)
        self.buffer_size = require_count(
            buffer_size, f"buffer_size of sampler {self.name!r} must be 0 or more"
        )
        self.p_batch = require_real(
            p_batch, f"p_batch of sampler {self.name!r} must be in [0, 1]", is_share
        )
        self.seed = require_int(
            seed, f"seed of sampler {self.name!r} must be an integer", most=None
        )

    def rng(self, event: str) -> np.random.Generator:
        """Return a generator seeded by seed, name, event and iteration: resumed runs repeat it.

        Args:
            event: "build_buffer" or "sample_batch"; each has numbers of its own.
        """
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
        try:
            return as_list(samples, f"the samples of sampler {self.name!r}")
        except InvalidArgument as exc:
            words = (
                f"sampler {self.name!r} must give a list of samples, got {shown(samples)}: {exc}"
            )
            raise InvalidArgument(words) from exc

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

    Examples:
        >>> from sqlbuffer import Buffer, DatasetSampler, Environment
        >>> sampler = DatasetSampler(molecules, "library", buffer_size=6)
        >>> buffer = Buffer(1.0, url="sqlite:///new.db")
        >>> Environment(samplers=[sampler], buffer=buffer).fit(bs=2, iters=2, report=None)
        >>> len(buffer)
        2
    """

    def __init__(
        self,
        data: Sequence[Any],
        name: str = "dataset",
        buffer_size: int = 0,
        p_batch: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(name, buffer_size, p_batch, seed=seed)
        require_list(data, f"the data of sampler {self.name!r}")
        # A pandas Series is indexed by its labels, a list by positions.
        self.data = as_list(data) if hasattr(data, "iloc") else data

    def _generate(self, n: int, rng: np.random.Generator) -> Iterable[Any]:
        chosen = rng.choice(len(self.data), size=min(n, len(self.data)), replace=False)
        return [self.data[i] for i in chosen]


class FunctionSampler(Sampler):
    """Calls a function for new samples.

    Args:
        function: `function(n, rng)` returns up to n samples; `rng` is a numpy Generator. A resumed
            run makes the same samples if they depend on `rng` and the buffer alone.
        name: The source of its samples.
        buffer_size: Samples to ask for each time the buffer is built, 0 for none.
        p_batch: Share of each batch that comes from this sampler directly, in [0, 1].
        seed: Seed of `rng`.

    Examples:
        >>> from sqlbuffer import Buffer, Environment, FunctionSampler
        >>> sampler = FunctionSampler(lambda n, rng: rng.uniform(size=n).tolist(), "uniform", 20)
        >>> buffer = Buffer(1.0, url="sqlite:///new.db")
        >>> Environment(samplers=[sampler], buffer=buffer).fit(bs=5, iters=2, report=None)
        >>> len(buffer)
        10
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
        self.function = require_function(
            function, f"the function of sampler {self.name!r} must take (n, rng)", takes=2
        )

    def _generate(self, n: int, rng: np.random.Generator) -> Iterable[Any]:
        return self.function(n, rng)

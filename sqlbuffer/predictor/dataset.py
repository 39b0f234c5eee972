"""Samples and rewards as tensors, made from some thousand rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sqlbuffer._messages import shown
from sqlbuffer._validation import as_floats, as_list, require_function
from sqlbuffer.errors import InvalidArgument

CHUNK = 4096
"""Samples that are read and featurized at a time."""

CACHE_BYTES = 2**28
"""Features up to this size are made once for all epochs; larger ones again in each epoch."""


class PredictiveDataset:
    """Samples with their rewards, made into tensors by a function.

    Args:
        featurize: `featurize(list of n samples)` returns a Tensor (n, ...). A row depends on its
            sample alone.
        samples: n samples. `LabelledRows`, and objects with their `take` and `places`, are read in
            parts.
        rewards: (n,) floats; by default zeros.

    Attributes:
        places: (n,) floats in [0, 1) by which rows are held out; None if rows are held out at
            random.
    """

    def __init__(
        self,
        featurize: Callable[[list[Any]], Tensor],
        samples: Sequence[Any] = (),
        rewards: ArrayLike | None = None,
    ) -> None:
        self.featurize = require_function(
            featurize, "featurize must take a list of samples and return a Tensor", takes=1
        )
        self.places = getattr(samples, "places", None)
        self.samples: Any = as_list(samples) if self.places is None else samples
        try:
            self.rewards = (
                np.zeros(len(self.samples)) if rewards is None else as_floats(rewards).copy()
            )
        except (TypeError, ValueError, OverflowError) as exc:
            raise InvalidArgument(
                f"rewards must be a number for each sample; got {shown(rewards)}."
            ) from exc
        if self.rewards.shape != (len(self.samples),):
            raise InvalidArgument(
                f"{len(self.samples)} samples came with rewards of shape {self.rewards.shape}: "
                "give one for each."
            )
        self._cached: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def new(self, samples: Sequence[Any], rewards: ArrayLike | None = None) -> PredictiveDataset:
        """Return a dataset of other samples with the same featurize function."""
        return PredictiveDataset(self.featurize, samples, rewards)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return features (n, ...) and rewards (n,) float32; n must be 1 or more."""
        parts = torch.split(torch.arange(len(self)), CHUNK)
        return torch.cat([self._features(self._take(rows)) for rows in parts]), torch.from_numpy(
            self.rewards
        ).float()

    def batches(self, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features (m, ...) and rewards (m,) float32 of each part (m,) int64 of the rows.

        If all features would take more than `CACHE_BYTES`, they are made some thousand rows at a
        time.
        """
        rewards = torch.from_numpy(self.rewards).float()
        if self._cached is None and self._fits():
            self._cached = self.tensors()[0]
        for group in _grouped(parts, CHUNK):
            if self._cached is not None:
                yield from ((self._cached[rows], rewards[rows]) for rows in group)
                continue
            features = torch.split(
                self._features(self._take(torch.cat(group))), [len(rows) for rows in group]
            )
            yield from zip(features, (rewards[rows] for rows in group), strict=True)

    def _fits(self) -> bool:
        first = self._features(self._take(torch.arange(min(len(self), CHUNK))))
        return first.nbytes / len(first) * len(self) <= CACHE_BYTES

    def _take(self, rows: Tensor) -> list[Any]:
        if self.places is None:
            return [self.samples[i] for i in rows.tolist()]
        taken: list[Any] = self.samples.take(rows.numpy())
        return taken

    def _features(self, samples: list[Any]) -> Tensor:
        rows = self.featurize(samples)
        if not isinstance(rows, Tensor) or rows.shape[:1] != (len(samples),):
            got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InvalidArgument(
                f"featurize must return a Tensor ({len(samples)}, ...), one row each, got {got}."
            )
        return rows


def _grouped(parts: Iterable[Tensor], n: int) -> Iterator[list[Tensor]]:
    """Yield groups of consecutive parts with about n rows together."""
    group: list[Tensor] = []
    for part in parts:
        group.append(part)
        if sum(len(rows) for rows in group) >= n:
            yield group
            group = []
    if group:
        yield group

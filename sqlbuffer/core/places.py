"""The keys at which this process has last seen samples in the pool: they are found by them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sqlbuffer._typing import Floats, Ints

MOST_BATCHES = 1_000
"""Batches whose samples are remembered."""

MOST_SAMPLES = 500_000
"""Samples of these batches that are remembered at most: 16 MB as arrays."""


class Places:
    """Keys of samples in the pool, by id: a cache, of which each use finds out what is wrong.

    Threads share it without a lock, which a fork could leave locked for good: an operation of a
    deque or a dict is one step, and a key that is lost or outdated costs a scan. Sent to another
    process it is empty.
    """

    def __init__(self) -> None:
        self._new: deque[tuple[Ints, Floats]] = deque(maxlen=MOST_BATCHES)
        self._old: deque[tuple[int, Ints]] = deque()
        self._keys: dict[int, tuple[float, int]] = {}
        self._n_batches = 0
        self.epoch: int | None = None
        """The epoch of the race when the keys were last used."""

    def __reduce__(self) -> Any:
        return Places, ()

    def note(self, ids: Ints, keys: Floats) -> None:
        """Remember the keys, (n,), of the n samples of a batch."""
        if len(ids) > MOST_SAMPLES:
            return
        self._new.append((ids, keys))  # a process that only draws pays for no dict
        while len(self._new) * len(ids) > MOST_SAMPLES:
            self._new.popleft()

    def find(self, ids: Sequence[int]) -> dict[int, float]:
        """Return the keys of those of the samples that are remembered."""
        while self._new:
            self._learn(*self._new.popleft())
        return {i: self._keys[i][0] for i in ids if i in self._keys}

    def all_ids(self) -> list[int]:
        """Return the ids of all remembered samples."""
        return list(self._keys)

    def correct(self, keys: Mapping[int, float]) -> None:
        """Replace the keys of those of the samples that are remembered."""
        for number, key in keys.items():
            if number in self._keys:
                self._keys[number] = key, self._keys[number][1]

    def _learn(self, ids: Ints, keys: Floats) -> None:
        self._n_batches += 1
        for number, key in zip(ids.tolist(), keys.tolist(), strict=True):
            self._keys[number] = key, self._n_batches
        self._old.append((self._n_batches, ids))
        while len(self._old) > MOST_BATCHES or len(self._keys) > MOST_SAMPLES:
            self._forget(*self._old.popleft())

    def _forget(self, batch: int, ids: Ints) -> None:
        """Forget the samples of a batch that were not drawn again since."""
        for number in ids.tolist():
            if self._keys.get(number, (0.0, batch + 1))[1] == batch:
                del self._keys[number]

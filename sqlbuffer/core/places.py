"""The keys at which this process has last seen samples in the pool: they are found by them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer._typing import Bools, Floats, Ints

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


class AllPlaces(Places):
    """The keys and weights of a pool of limited size, in arrays by id: 24 bytes a sample.

    Keys that other processes have moved are found out by each use; weights that they have changed
    are not.
    """

    def __init__(self, most: int) -> None:
        """Remember up to `most` samples."""
        super().__init__()
        self._most = most
        self._ids: Ints = np.empty(0, dtype=np.int64)
        self._all_keys: Floats = np.empty(0)
        self._weights: Floats = np.empty(0)
        self._n = 0  # the arrays have room for more
        self.is_whole = False
        """True once the whole pool was read."""

    def __reduce__(self) -> Any:
        return AllPlaces, (self._most,)

    def learn(self, ids: Ints, keys: Floats, weights: Floats, *, epoch: int) -> None:
        """Remember the whole pool."""
        order = np.argsort(ids)
        self._ids, self._all_keys, self._weights = ids[order], keys[order], weights[order]
        self._n, self.is_whole, self.epoch = len(ids), True, epoch

    def note(self, ids: Ints, keys: Floats) -> None:
        """Remember the keys, (n,), of n samples."""
        at, is_known = self._look_up(ids)
        self._all_keys[at] = keys[is_known]
        if not is_known.all():
            self._insert(ids[~is_known], keys[~is_known])

    def weigh(self, ids: Ints, weights: Floats) -> float:
        """Remember the weights of known samples; return the lowest one that they had."""
        at, is_known = self._look_up(ids)
        before = float(np.min(self._weights[at], initial=math.inf))
        self._weights[at] = weights[is_known]
        return before

    def weights(self) -> Floats:
        """Return the weights of all samples that can be drawn."""
        known = self._weights[: self._n]
        return known[known > 0]

    def find(self, ids: Sequence[int]) -> dict[int, float]:
        """Return the keys of those of the samples that are remembered."""
        numbers = np.array(ids, dtype=np.int64)
        at, is_known = self._look_up(numbers)
        return dict(zip(numbers[is_known].tolist(), self._all_keys[at].tolist(), strict=True))

    def all_ids(self) -> list[int]:
        """Return the ids of all remembered samples."""
        ids: list[int] = self._ids[: self._n].tolist()
        return ids

    def correct(self, keys: Mapping[int, float]) -> None:
        """Replace the keys of those of the samples that are remembered."""
        ids = np.fromiter(keys, dtype=np.int64, count=len(keys))
        at, is_known = self._look_up(ids)
        values = np.fromiter(keys.values(), dtype=np.float64, count=len(keys))
        self._all_keys[at] = values[is_known]

    def _look_up(self, ids: Ints) -> tuple[Ints, Bools]:
        """Return the places of known samples, and which of the samples these are."""
        known = self._ids[: self._n]
        at = np.searchsorted(known, ids)
        is_known: Bools = np.zeros(len(ids), dtype=np.bool_)
        inside = at < len(known)
        is_known[inside] = known[at[inside]] == ids[inside]
        return at[is_known], is_known

    def _insert(self, ids: Ints, keys: Floats) -> None:
        first, n = self._n, self._n + len(ids)
        if n > self._most:  # rows of another state of the database
            self._n, self.is_whole = 0, False
            return
        if n > len(self._ids):
            room = min(max(n, 2 * len(self._ids)), self._most)
            self._ids = np.resize(self._ids, room)
            self._all_keys = np.resize(self._all_keys, room)
            self._weights = np.resize(self._weights, room)
        self._ids[first:n], self._all_keys[first:n], self._weights[first:n] = ids, keys, math.nan
        if not (np.diff(self._ids[max(first - 1, 0) : n]) > 0).all():
            order = np.argsort(self._ids[:n], kind="stable")
            for each in (self._ids, self._all_keys, self._weights):
                each[:n] = each[order]
        self._n = n

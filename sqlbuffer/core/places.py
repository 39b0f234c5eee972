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
    """The keys, weights and slots of a pool of limited size, in arrays by id: 32 bytes a sample.

    Keys that other processes have moved are found out by each use; weights that they have changed
    are not. The slot of a row never changes.
    """

    def __init__(self, most: int) -> None:
        """Remember up to `most` samples."""
        super().__init__()
        self._most = most
        self._rows = _no_rows(0)
        self._n = 0  # the array has room for more
        self.is_whole = False
        """True once the whole pool was read."""

    def __reduce__(self) -> Any:
        return AllPlaces, (self._most,)

    def learn(self, ids: Ints, keys: Floats, weights: Floats, *, epoch: int) -> None:
        """Remember the whole pool."""
        rows = _no_rows(len(ids))
        rows["id"], rows["key"], rows["weight"] = ids, keys, weights
        rows.sort(order="id")
        rows["slot"] = self.slots(rows["id"])
        self._rows, self._n, self.is_whole, self.epoch = rows, len(rows), True, epoch

    def note(self, ids: Ints, keys: Floats) -> None:
        """Remember the keys, (n,), of n samples."""
        at, is_known = self._look_up(ids)
        self._rows["key"][at] = keys[is_known]
        if not is_known.all():
            self._insert(ids[~is_known], keys[~is_known])

    def weigh(self, ids: Ints, weights: Floats) -> float:
        """Remember the weights of known samples; return the lowest one that they had."""
        at, is_known = self._look_up(ids)
        before = float(np.min(self._rows["weight"][at], initial=math.inf))
        self._rows["weight"][at] = weights[is_known]
        return before

    def weights(self) -> Floats:
        """Return the weights of all samples that can be drawn."""
        known: Floats = self._rows["weight"][: self._n]
        return known[known > 0]

    def number(self, ids: Ints, slots: Ints) -> None:
        """Remember the slots of known samples."""
        at, is_known = self._look_up(ids)
        self._rows["slot"][at] = slots[is_known]

    def slots(self, ids: Ints) -> Ints:
        """Return the slots, (n,), of n samples; -1 for one that is not known."""
        at, is_known = self._look_up(ids)
        found: Ints = np.full(len(ids), -1)
        found[is_known] = self._rows["slot"][at]
        return found

    def find(self, ids: Sequence[int]) -> dict[int, float]:
        """Return the keys of those of the samples that are remembered."""
        numbers = np.array(ids, dtype=np.int64)
        at, is_known = self._look_up(numbers)
        return dict(zip(numbers[is_known].tolist(), self._rows["key"][at].tolist(), strict=True))

    def all_ids(self) -> list[int]:
        """Return the ids of all remembered samples."""
        ids: list[int] = self._rows["id"][: self._n].tolist()
        return ids

    def correct(self, keys: Mapping[int, float]) -> None:
        """Replace the keys of those of the samples that are remembered."""
        ids = np.fromiter(keys, dtype=np.int64, count=len(keys))
        at, is_known = self._look_up(ids)
        values = np.fromiter(keys.values(), dtype=np.float64, count=len(keys))
        self._rows["key"][at] = values[is_known]

    def _look_up(self, ids: Ints) -> tuple[Ints, Bools]:
        """Return the places of known samples, and which of the samples these are."""
        known = self._rows["id"][: self._n]
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
        if n > len(self._rows):
            room = min(max(n, 2 * len(self._rows)), self._most)
            self._rows = np.concatenate([self._rows[:first], _no_rows(room - first)])
        new = self._rows[first:n]
        new["id"], new["key"], new["weight"], new["slot"] = ids, keys, math.nan, -1
        if not (np.diff(self._rows["id"][max(first - 1, 0) : n]) > 0).all():
            self._rows[:n] = self._rows[:n][np.argsort(self._rows["id"][:n], kind="stable")]
        self._n = n


def _no_rows(room: int) -> Any:
    columns = [("id", np.int64), ("key", np.float64), ("weight", np.float64), ("slot", np.int64)]
    return np.empty(room, dtype=columns)

"""The part of the race that a draw goes through, and the keys around it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats
from sqlbuffer.core import pool, race
from sqlbuffer.core.claim import Drawn


class Stretch(NamedTuple):
    """The part of the race, from one clock to another, that a draw goes through."""

    keys: Floats
    """Keys of the arrivals, in ascending order."""
    clock: float
    """Clock of the race before the draw."""
    threshold: float
    """Key of the first sample that was not drawn; infinity if there is none."""
    is_interleaved: bool = False
    """True if other open draws have claimed samples among the arrivals."""

    @property
    def ends_in_a_tie(self) -> bool:
        """True if the last arrival has the same key as the first sample that was not drawn."""
        return bool(len(self.keys) and self.keys[-1] == self.threshold < math.inf)

    @property
    def end(self) -> float:
        """Clock of the race after the draw."""
        arriving = self.keys[: int(self.keys.searchsorted(math.inf))]
        return max(self.clock, float(arriving[-1])) if len(arriving) else self.clock

    @property
    def begin(self) -> float:
        """Clock after a release of the draw: its end if other draws went as far."""
        return self.end if self.is_interleaved else self.clock

    def probability(self, weights: Floats) -> Floats:
        """Return (n,) probabilities of the arrivals to be in this draw, NaN if not known."""
        if self.is_interleaved and self.threshold < math.inf:
            return np.full_like(weights, math.nan)
        return race.arrival_probability(weights, self.keys, self.clock, self.threshold)


class _Around(NamedTuple):
    """Columns behind those of `Drawn`: the keys around a claim that others may overlap."""

    clock: float
    key_before: float | None
    n_between: int
    n_at_last: int
    key_after: float | None


def seen(arrivals: list[Any], keys: Floats, clock: float) -> Stretch:
    """Return the part of the race of claimed arrivals, from the keys around them.

    These keys include samples that other open draws have claimed.
    """
    arriving = keys[keys < math.inf]
    if not len(arriving):
        return Stretch(keys, clock, math.inf)
    row, last = _Around(*arrivals[0][len(Drawn._fields) :]), arriving[-1]
    around = pool.as_floats([row.clock, row.key_before, row.key_after])
    before, n_at_last = (arriving > arriving[0]) & (arriving < last), int((arriving == last).sum())
    after = last if row.n_at_last > n_at_last else around[2]
    return Stretch(
        keys,
        clock=float(np.fmax(around[0], around[1])),  # other draws reached it, committed or open
        threshold=math.inf if math.isnan(after) else float(after),
        is_interleaved=row.n_between > int(before.sum()),
    )

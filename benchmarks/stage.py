"""One size of a benchmark: who stands ready, and what was measured."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.data import Items
from benchmarks.measure import Clock
from benchmarks.workshop import Workshop

BATCH = 512


@dataclasses.dataclass
class Record:
    """What was measured of one contender in one case at one size; `size` 0 where there is none.

    Attributes:
        case: Name of the case.
        contender: Name of the contender.
        size: Samples in the buffer.
        values: Every measurement, in the unit of the case.
        facts: What else is worth knowing.
    """

    case: str
    contender: str
    size: int
    values: list[float]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


class Stage:
    """The contenders at one size.

    Args:
        workshop: Samples and databases.
        n: Samples in each buffer.
        contenders: Who takes part.
        cases: Names of the cases whose measurements are kept.
        repeats: Calls of each contender in a case of short calls.
        clock: What calls are timed by.
        tick: Called after each call.
    """

    def __init__(
        self,
        workshop: Workshop,
        n: int,
        contenders: Sequence[type[Contender]],
        *,
        cases: Sequence[str],
        repeats: int,
        clock: Clock,
        tick: Callable[[], object],
    ) -> None:
        self.workshop = workshop
        self.n = n
        self.batch = min(BATCH, n * 6 // 10)
        self.repeats = repeats
        self.clock = clock
        self.tick = tick
        self.records: list[Record] = []
        self.left_out = {kind.name: why for kind in contenders if (why := kind.refusal(n)) is not None}
        self._contenders = [kind for kind in contenders if kind.name not in self.left_out]
        self._cases = cases
        self._standing: dict[str, Contender] = {}
        self._new = {kind.name: itertools.count(2 * n, BATCH) for kind in contenders}

    @property
    def whole_repeats(self) -> int:
        """Calls of each contender in a case that works on the whole buffer."""
        return min(self.repeats, 10 if self.n <= 10_000 else 3 if self.n <= 100_000 else 1)

    @property
    def rare_repeats(self) -> int:
        """Runs of each contender in a case that starts processes."""
        return max(1, min(3, self.repeats // 10)) if self.n <= 1_000_000 else 1

    @property
    def runs_low(self) -> bool:
        """True where the draws of a run would empty the buffer: what is drawn is given back, outside of the timing."""
        return self.n < 4 * BATCH * (self.repeats + 3)

    def able(self, *cases: str) -> list[type[Contender]]:
        """Return the contenders that can run one of these cases, if any of them is wanted."""
        wanted = [case for case in cases if case in self._cases]
        return [kind for kind in self._contenders if any(case in kind.abilities for case in wanted)]

    def standing(self, kind: type[Contender]) -> Contender:
        """Return the contender with its buffer of n scored samples, the same for all cases."""
        if kind.name not in self._standing:
            contender = kind()
            contender.furnish(self.workshop, self.n)
            self._standing[kind.name] = contender
        return self._standing[kind.name]

    def new_items(self, kind: type[Contender]) -> Items:
        """Return samples that this contender has never seen."""
        return Items.make(next(self._new[kind.name]), self.batch)

    def record(self, case: str, contender: str, values: list[float], **facts: Any) -> None:
        """Keep what was measured, if the case is wanted."""
        if case in self._cases:
            self.records.append(Record(case, contender, self.n, values, facts))

    def close(self) -> None:
        """Let everybody go, and drop their databases."""
        for contender in self._standing.values():
            contender.discard(self.workshop)
        self._standing.clear()

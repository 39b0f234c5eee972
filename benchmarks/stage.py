"""One size of a benchmark: samples, databases that are built once, contenders, measurements."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.contenders.ours import SqlbufferPostgresql, SqlbufferSqlite
from benchmarks.data import texts
from benchmarks.databases import Databases
from benchmarks.measure import WARM_UPS, Clock, Task, alternate

BATCH = 512
_BUILDERS = {kind.family: kind for kind in (SqlbufferSqlite, SqlbufferPostgresql)}


class Workshop:
    """Hands out samples and databases.

    Args:
        databases: The source of databases, by family.
    """

    def __init__(self, databases: dict[str, Databases]) -> None:
        self.databases = databases
        self._built: dict[tuple[str, int], str] = {}

    @functools.lru_cache(maxsize=1)  # noqa: B019 - there is one workshop, and one size at a time
    def items(self, n: int) -> list[str]:
        """Return the samples 0 to n."""
        return texts(0, n)

    def keep(self, family: str, n: int, url: str) -> None:
        """Take a database that is filled and closed as the one of its size."""
        self.databases[family].tidy(url)
        self._built[family, n] = url

    def copy(self, family: str, n: int, mode: str) -> str:
        """Return a copy of the database of n scored samples; build it first if there is none."""
        if (family, n) not in self._built:
            builder = _BUILDERS[family]()
            builder.start(self, n)
            builder.add(self.items(n))
            builder.score()
            builder.close()
            self.keep(family, n, builder.url)
        databases, source = self.databases[family], self._built[family, n]
        return databases.copy(source) if mode == "consume" else databases.replaying(source)

    def clear(self) -> None:
        """Drop the databases of the sizes that are done."""
        for (family, _), url in self._built.items():
            self.databases[family].drop(url)
        self._built.clear()


@dataclasses.dataclass
class Record:
    """The measurements of one contender in one case.

    Attributes:
        case: Name of the case.
        contender: Name of the contender.
        size: Samples in the buffer, 0 if the case has none.
        values: Every measurement, in the unit of the case.
        facts: Conditions of the measurement.
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
        contenders: All that were chosen.
        cases: Names of the cases whose measurements are kept.
        repeats: Calls of each contender in a case of short calls.
        clock: The clock that calls are timed by.
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
        self.workshop, self.n, self.repeats, self.clock, self.tick = (
            workshop,
            n,
            repeats,
            clock,
            tick,
        )
        self.batch = min(BATCH, n * 6 // 10)
        self.records: list[Record] = []
        self.left_out = {
            kind.name: why for kind in contenders if (why := kind.refusal(n)) is not None
        }
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
        """True if draws would empty the buffer: they are given back, outside of the timing."""
        return self.n < 4 * BATCH * (self.repeats + 3)

    def able(self, *cases: str) -> list[type[Contender]]:
        """Return the contenders that can run one of these cases, if one of them is wanted."""
        wanted = {case for case in cases if case in self._cases}
        return [kind for kind in self._contenders if wanted & kind.abilities]

    def standing(self, kind: type[Contender]) -> Contender:
        """Return the contender with its buffer of n scored samples, the same for all cases."""
        if kind.name not in self._standing:
            self._standing[kind.name] = contender = kind()
            contender.furnish(self.workshop, self.n)
        return self._standing[kind.name]

    def new_items(self, kind: type[Contender]) -> list[str]:
        """Return samples that this contender has never seen."""
        return texts(next(self._new[kind.name]), self.batch)

    def record(self, case: str, contender: str, values: list[float], **facts: Any) -> None:
        """Keep measurements, if the case is wanted."""
        if case in self._cases:
            self.records.append(Record(case, contender, self.n, values, facts))

    def alternate(
        self, case: str, tasks: list[Task], *, is_whole: bool = False, **facts: Any
    ) -> None:
        """Time tasks in turns and keep the seconds."""
        repeats, warm_ups = (self.whole_repeats, 0) if is_whole else (self.repeats, WARM_UPS)
        found = alternate(
            tasks, repeats=repeats, warm_ups=warm_ups, clock=self.clock, tick=self.tick
        )
        for name, seconds in found.items():
            self.record(case, name, seconds, **facts)

    def close(self) -> None:
        """Close all contenders, and drop their databases."""
        for contender in self._standing.values():
            contender.discard(self.workshop)
        self._standing.clear()

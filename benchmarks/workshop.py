"""What the contenders of one run share: samples, and databases that are built once for each size."""

from __future__ import annotations

import functools

from benchmarks.contenders.sqlbuffer_ import SqlbufferPostgresql, SqlbufferSqlite
from benchmarks.data import Items
from benchmarks.databases import Databases

_BUILDERS = {kind.family: kind for kind in (SqlbufferSqlite, SqlbufferPostgresql)}


class Workshop:
    """Hands out samples and databases.

    Args:
        databases: Where databases come from, by family.
    """

    def __init__(self, databases: dict[str, Databases]) -> None:
        self.databases = databases
        self._built: dict[tuple[str, int], str] = {}

    @functools.lru_cache(maxsize=1)  # noqa: B019 - there is one workshop, and one size at a time
    def items(self, n: int) -> Items:
        """Return the samples 0 to n."""
        return Items.make(0, n)

    def keep(self, family: str, n: int, url: str) -> None:
        """Take a database that somebody has built, and closed, as the one of its size."""
        self.databases[family].tidy(url)
        self._built[family, n] = url

    def copy(self, family: str, n: int, mode: str) -> str:
        """Return a copy of the database of n scored samples, which is built where it is not there."""
        if (family, n) not in self._built:
            builder = _BUILDERS[family]()
            builder.start(self, n)
            builder.add(self.items(n))
            builder.score()
            builder.close()
            self.keep(family, n, builder.url)
        source = self._built[family, n]
        return self.databases[family].copy(source) if mode == "consume" else self.databases[family].replaying(source)

    def clear(self) -> None:
        """Drop the databases of the sizes that are done."""
        for (family, _), url in self._built.items():
            self.databases[family].drop(url)
        self._built.clear()

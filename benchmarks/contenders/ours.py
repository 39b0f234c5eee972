"""The library itself, through its public interface alone."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

from benchmarks.contenders.base import DatabaseContender
from benchmarks.data import scores
from benchmarks.databases import BUFFER
from sqlbuffer import Batch, SampleStore, Stats, open_store

if TYPE_CHECKING:
    from benchmarks.stage import Workshop

_ABILITIES = frozenset(
    "add add-duplicates add-more score draw draw-argmax replay iteration refresh len stats open "
    "memory processes-1 processes-2 processes-4 disk".split()
)


class SqlbufferSqlite(DatabaseContender):
    """sqlbuffer on an SQLite file."""

    name = "sqlbuffer-sqlite"
    family = "sqlite"
    remark = "this library, through its public interface, on an SQLite file"
    abilities = _ABILITIES | {"import"}

    _store: SampleStore
    _batch: Batch

    def start(self, workshop: Workshop, n: int) -> None:
        self.open(workshop.databases[self.family].empty())

    def furnish(self, workshop: Workshop, n: int, mode: str = "consume") -> None:
        self.mode = mode
        self.open(workshop.copy(self.family, n, mode))

    def open(self, url: str) -> None:
        self.url = url
        self._store = open_store(url, name=BUFFER, mode=self.mode)
        self._claimed: list[Batch] = []  # a batch that is dropped would be released in a later draw

    def close(self) -> None:
        for batch in self._claimed:
            batch.settle()
        self._claimed.clear()
        self._store.close()

    def add(self, items: list[str]) -> None:
        self._store.add(items, source=BUFFER)

    def score(self) -> None:
        self._store.score(scores)

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        self._batch = self._store.sample(k, pct_argmax)
        self._claimed.append(self._batch)
        return cast("list[str]", self._batch.samples)

    def give_back(self) -> None:
        self._claimed.pop().settle()
        self._store.add(self._batch.samples, source=BUFFER, requeue=True)
        self.score()

    def iterate(self, items: list[str], k: int) -> None:
        self.add(items)
        self.score()
        rewards = scores(self.draw(k), version=1)
        self._claimed.pop().settle(rewards, checkpoint={"state": bytes(1024)})

    def refresh(self, version: int) -> None:
        self._store.score(functools.partial(scores, version=version), only="all")

    def count(self) -> int:
        return len(self._store)

    def stats(self) -> Stats:
        return self._store.stats()


class SqlbufferPostgresql(SqlbufferSqlite):
    """sqlbuffer on a PostgreSQL server."""

    name = "sqlbuffer-postgresql"
    family = "postgresql"
    remark = "the same on a PostgreSQL server"
    libraries = ("psycopg",)
    abilities = _ABILITIES

"""The library itself, through its public interface alone."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar, cast

from benchmarks.contenders.base import CHECKPOINT, SchemaContender, rewards_of
from benchmarks.data import Items, scores
from benchmarks.databases import BUFFER
from sqlbuffer import Batch, SampleStore, Stats, open_store

if TYPE_CHECKING:
    from benchmarks.workshop import Workshop

_ABILITIES = frozenset(
    "add add-duplicates add-more score draw draw-argmax replay iteration refresh len stats open memory disk "
    "processes-1 processes-2 processes-4".split()
)


class SqlbufferSqlite(SchemaContender):
    """sqlbuffer on an SQLite file."""

    name: ClassVar[str] = "sqlbuffer-sqlite"
    family: ClassVar[str] = "sqlite"
    remark: ClassVar[str] = "this library, through its public interface, on an SQLite file"
    abilities = _ABILITIES | {"import"}

    _store: SampleStore
    _batch: Batch

    def open(self, url: str) -> None:
        self.url = url
        self._store = open_store(url, name=BUFFER, mode=self.mode)

    mode = "consume"

    def furnish(self, workshop: Workshop, n: int, mode: str = "consume") -> None:
        self.mode = mode
        super().furnish(workshop, n, mode)

    def close(self) -> None:
        self._store.close()

    def add(self, items: Items) -> None:
        self._store.add(items.texts, source=BUFFER)

    def score(self) -> None:
        self._store.score(scores)

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        self._batch = self._store.sample(k, pct_argmax)
        return cast("list[str]", self._batch.samples)

    def give_back(self) -> None:
        self._batch.settle()
        self._store.add(self._batch.samples, source=BUFFER)
        self._store.score(scores)

    def iterate(self, items: Items, k: int) -> None:
        self._store.add(items.texts, source=BUFFER)
        self._store.score(scores)
        batch = self._store.sample(k)
        batch.settle(rewards_of(cast("list[str]", batch.samples)), checkpoint={"state": CHECKPOINT})

    def refresh(self, version: int) -> None:
        self._store.score(functools.partial(scores, version=version), only="all")

    def count(self) -> int:
        return len(self._store)

    def stats(self) -> Stats:
        return self._store.stats()


class SqlbufferPostgresql(SqlbufferSqlite):
    """sqlbuffer on a PostgreSQL server."""

    name: ClassVar[str] = "sqlbuffer-postgresql"
    family: ClassVar[str] = "postgresql"
    remark: ClassVar[str] = "the same on a PostgreSQL server"
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)
    abilities = _ABILITIES

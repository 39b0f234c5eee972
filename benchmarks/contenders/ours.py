"""The library itself, through its public interface alone."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import functools
from typing import cast

from benchmarks.contenders.base import CHECKPOINT, SchemaContender, rewards_of
from benchmarks.contenders.raw import ABILITIES
from benchmarks.data import Items, scores
from benchmarks.databases import BUFFER
from sqlbuffer import Batch, SampleStore, Stats, open_store


class SqlbufferSqlite(SchemaContender):
    """sqlbuffer on an SQLite file."""

    name = "sqlbuffer-sqlite"
    family = "sqlite"
    remark = "this library, through its public interface, on an SQLite file"
    abilities = ABILITIES | {"disk", "import"}

    _store: SampleStore
    _batch: Batch

    def open(self, url: str) -> None:
        self.url = url
        self._store = open_store(url, name=BUFFER, mode=self.mode)

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
        self.score()

    def iterate(self, items: Items, k: int) -> None:
        self.add(items)
        self.score()
        rewards = rewards_of(self.draw(k))
        self._batch.settle(rewards, checkpoint={"state": CHECKPOINT})

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
    abilities = ABILITIES | {"disk"}

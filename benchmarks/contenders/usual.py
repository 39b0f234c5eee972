"""Batches as SQL usually has them: the whole table ordered by `-ln(random()) / weight` for each."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.base import DatabaseContender
from benchmarks.data import scores
from benchmarks.databases import SqliteFiles

if TYPE_CHECKING:
    from benchmarks.stage import Workshop


class UsualSqlite(DatabaseContender):
    """One table in an SQLite file."""

    name = "usual-sqlite"
    family = "sqlite"
    abilities = frozenset("add draw draw-argmax replay len open disk".split())
    remark = (
        "one table, ORDER BY -ln(random()) / weight; repeats are not looked for, "
        "scores come with the samples"
    )

    _create = (
        "CREATE TABLE samples (id INTEGER PRIMARY KEY, text TEXT NOT NULL, weight REAL NOT NULL)"
    )
    _uniform = "(random() / 18446744073709551616.0 + 0.5)"
    _mark = "?"
    _connection: Any

    def start(self, workshop: Workshop, n: int) -> None:
        self.open(workshop.databases[self.family].blank())
        self._connection.execute(self._create)
        self._connection.commit()

    def open(self, url: str) -> None:
        self.url = url
        self._connection = sqlite3.connect(SqliteFiles.file(url))
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -65536"):
            self._connection.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        self._connection.close()

    def add(self, items: list[str]) -> None:
        self._insert(list(zip(items, (scores(items) + 1e-8).tolist(), strict=True)))
        self._connection.commit()

    def _insert(self, rows: list[tuple[str, float]]) -> None:
        self._connection.executemany("INSERT INTO samples (text, weight) VALUES (?, ?)", rows)

    def score(self) -> None:
        """Do nothing: the weights came with the samples."""

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        n_heaviest = round(k * pct_argmax)
        self._drawn = self._take("weight DESC", n_heaviest) if n_heaviest else []
        self._drawn += self._take(f"-ln({self._uniform}) / weight", k - n_heaviest)
        self._connection.commit()
        return [text for _, text, _ in self._drawn]

    def _take(self, order: str, k: int) -> list[tuple[int, str, float]]:
        query = f"SELECT id, text, weight FROM samples ORDER BY {order} LIMIT {self._mark}"
        rows: list[tuple[int, str, float]] = self._connection.execute(query, (k,)).fetchall()
        if self.mode == "consume":
            self._delete([row[0] for row in rows])
        return rows

    def _delete(self, ids: list[int]) -> None:
        self._connection.executemany("DELETE FROM samples WHERE id = ?", [(i,) for i in ids])

    def give_back(self) -> None:
        if self.mode == "consume":
            self._insert([(text, weight) for _, text, weight in self._drawn])
            self._connection.commit()

    def count(self) -> int:
        count: int = self._connection.execute("SELECT count(*) FROM samples").fetchone()[0]
        self._connection.rollback()
        return count


class UsualPostgresql(UsualSqlite):
    """One table on a PostgreSQL server."""

    name = "usual-postgresql"
    family = "postgresql"
    libraries = ("psycopg",)
    largest = 1_000_000

    _create = (
        "CREATE TABLE samples "
        "(id bigserial PRIMARY KEY, text text NOT NULL, weight double precision NOT NULL)"
    )
    _uniform = "(1.0 - random())"
    _mark = "%s"

    def open(self, url: str) -> None:
        import psycopg

        self.url = url
        self._connection = psycopg.connect(url)

    def _insert(self, rows: list[tuple[str, float]]) -> None:
        copying = "COPY samples (text, weight) FROM STDIN"
        with self._connection.cursor() as cursor, cursor.copy(copying) as copy:
            for row in rows:
                copy.write_row(row)

    def _delete(self, ids: list[int]) -> None:
        self._connection.execute("DELETE FROM samples WHERE id = ANY(%s)", (ids,))

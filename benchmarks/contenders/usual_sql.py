"""Weighted batches as SQL usually has them: the whole table ordered by `-ln(random()) / weight` for each."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.base import DatabaseContender
from benchmarks.data import Items, scores
from benchmarks.databases import SqliteFiles

if TYPE_CHECKING:
    from benchmarks.workshop import Workshop


class UsualSqlite(DatabaseContender):
    """One table in an SQLite file."""

    name: ClassVar[str] = "usual-sqlite"
    family: ClassVar[str] = "sqlite"
    abilities = frozenset(("add", "draw", "draw-argmax", "replay", "len", "open", "disk"))
    remark: ClassVar[str] = (
        "one table, ORDER BY -ln(random()) / weight; repeats are not looked for, scores come with the samples"
    )

    _CREATE: ClassVar[str] = "CREATE TABLE samples (id INTEGER PRIMARY KEY, text TEXT NOT NULL, weight REAL NOT NULL)"
    _UNIFORM: ClassVar[str] = "(random() / 18446744073709551616.0 + 0.5)"
    _MARK: ClassVar[str] = "?"

    _connection: Any
    _drawn: list[tuple[int, str, float]]
    _consumes = True

    def start(self, workshop: Workshop, n: int) -> None:
        self.open(workshop.databases[self.family].blank())
        with self._connection:
            self._connection.execute(self._CREATE)

    def furnish(self, workshop: Workshop, n: int, mode: str = "consume") -> None:
        self._consumes = mode == "consume"
        super().furnish(workshop, n, mode)

    def open(self, url: str) -> None:
        self.url = url
        self._connection = sqlite3.connect(SqliteFiles.file(url))
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA cache_size = -65536")

    def close(self) -> None:
        self._connection.close()

    def add(self, items: Items) -> None:
        rows = list(zip(items.texts, (scores(items.texts) + 1e-8).tolist(), strict=True))
        with self._connection:
            self._insert(rows)

    def _insert(self, rows: list[tuple[str, float]]) -> None:
        self._connection.executemany("INSERT INTO samples (text, weight) VALUES (?, ?)", rows)

    def score(self) -> None:
        """Do nothing: the weights came with the samples."""

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        n_heaviest = round(k * pct_argmax)
        with self._connection:
            self._drawn = self._take("weight DESC", n_heaviest) if n_heaviest else []
            self._drawn += self._take(f"-ln({self._UNIFORM}) / weight", k - n_heaviest)
        return [text for _, text, _ in self._drawn]

    def _take(self, order: str, k: int) -> list[tuple[int, str, float]]:
        mark = self._MARK
        query = f"SELECT id, text, weight FROM samples ORDER BY {order} LIMIT {mark}"
        rows: list[tuple[int, str, float]] = self._connection.execute(query, (k,)).fetchall()
        if self._consumes:
            self._delete([row[0] for row in rows])
        return rows

    def _delete(self, ids: list[int]) -> None:
        self._connection.executemany("DELETE FROM samples WHERE id = ?", [(i,) for i in ids])

    def give_back(self) -> None:
        if self._consumes:
            with self._connection:
                self._insert([(text, weight) for _, text, weight in self._drawn])

    def count(self) -> int:
        count: int = self._connection.execute("SELECT count(*) FROM samples").fetchone()[0]
        self._connection.rollback()
        return count


class UsualPostgresql(UsualSqlite):
    """One table on a PostgreSQL server."""

    name: ClassVar[str] = "usual-postgresql"
    family: ClassVar[str] = "postgresql"
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)
    largest: ClassVar[int] = 1_000_000

    _CREATE: ClassVar[str] = (
        "CREATE TABLE samples (id bigserial PRIMARY KEY, text text NOT NULL, weight double precision NOT NULL)"
    )
    _UNIFORM: ClassVar[str] = "(1.0 - random())"
    _MARK: ClassVar[str] = "%s"

    def open(self, url: str) -> None:
        import psycopg

        self.url = url
        self._connection = _Session(psycopg.connect(url))

    def _insert(self, rows: list[tuple[str, float]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy("COPY samples (text, weight) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def _delete(self, ids: list[int]) -> None:
        self._connection.execute("DELETE FROM samples WHERE id = ANY(%s)", (ids,))


class _Session:
    """A psycopg connection whose `with` ends a transaction, as that of sqlite3 does, and not the connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __enter__(self) -> None: ...

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self._connection.commit()
        else:
            self._connection.rollback()

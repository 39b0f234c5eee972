"""The floor on SQLite: through `sqlite3` alone."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from typing import Any

from benchmarks.contenders import raw
from benchmarks.contenders.raw import RACE_KEY, SAMPLE_ID, Floats, Race, RawContender, Row
from benchmarks.databases import SqliteFiles

PRAGMAS = (
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -65536",
    "mmap_size = 2147418112",
    "wal_autocheckpoint = 8000",
    "journal_size_limit = 67108864",
    "journal_mode = WAL",
    "synchronous = NORMAL",
)
"""Those of the library; a test compares them."""

_NOW = "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"
_LEAVE_HEAD = "DELETE FROM pool WHERE buffer_id = ? AND (race_key, sample_id) <= (?, ?)"
_LEAVE = "DELETE FROM pool WHERE buffer_id = ? AND race_key = ? AND sample_id = ?"
_ADD = f"""
    INSERT INTO samples (
        buffer_id, hash, text, codec, source, queued, requeues, created_at, created_iteration
    )
    VALUES (?, ?, ?, 'text', 'benchmark', 1, 0, {_NOW}, ?)
    ON CONFLICT (buffer_id, hash) DO NOTHING
"""
_WAIT = """
    INSERT INTO pool (buffer_id, race_key, sample_id, weight, top, tie)
    SELECT buffer_id, 9e999, id, NULL, 0, substr(hash, 9) FROM samples WHERE id > ?
"""


class RawSqlite(RawContender):
    """Hand-written SQL through `sqlite3`."""

    name = "raw-sqlite"
    family = "sqlite"
    remark = "the floor: the same transactions by hand, through sqlite3 alone, hashes for nothing"
    now = _NOW
    greatest = "max"
    infinity = "9e999"

    head = f"""
        SELECT {raw.DRAWN}
        FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
        WHERE p.buffer_id = ? AND p.race_key < 9e999
        ORDER BY p.race_key, p.sample_id LIMIT ?
    """
    enter = """
        INSERT INTO pool (buffer_id, race_key, sample_id, weight, score, top, tie)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, (SELECT substr(hash, 9) FROM samples WHERE id = ?3))
    """
    mark = """
        UPDATE pool SET top = score >= ?2
        WHERE buffer_id = ?1 AND weight > 0 AND top != (score >= ?2)
    """
    unscored = """
        SELECT p.sample_id, s.text
        FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
        WHERE p.buffer_id = ? AND p.weight IS NULL AND p.sample_id > ?
        ORDER BY p.sample_id LIMIT ?
    """
    store_score = (
        f"UPDATE samples SET score = ?3, score_version = ?1, scored_at = {_NOW} WHERE id = ?2"
    )
    page = """
        SELECT p.sample_id, p.race_key, p.weight, s.text
        FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
        WHERE p.buffer_id = ? AND (p.race_key, p.sample_id) > (?, ?)
        ORDER BY p.race_key, p.sample_id LIMIT ?
    """
    heaviest = f"""
        SELECT {raw.DRAWN}
        FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
        WHERE p.buffer_id = ? AND p.top = 1
        ORDER BY p.buffer_id DESC, p.score DESC, p.tie DESC, p.sample_id DESC LIMIT ?
    """
    move = """
        UPDATE pool SET race_key = ?3, weight = ?4, score = ?5, top = ?6
        WHERE buffer_id = ?7 AND race_key = ?2 AND sample_id = ?1
    """
    store_draws = (
        "INSERT INTO draws (batch_id, position, sample_id, race_key, weight) VALUES (?, ?, ?, ?, ?)"
    )
    store_reward = f"UPDATE samples SET reward = ?2, rewarded_at = {_NOW}, queued = 0 WHERE id = ?1"

    def _connect(self, url: str) -> None:
        file = SqliteFiles.file(url)
        self._connection = sqlite3.connect(file, timeout=60.0, isolation_level=None)
        for pragma in PRAGMAS:
            self._run(f"PRAGMA {pragma}")

    def _run(self, sql: str, parameters: Row = ()) -> Any:
        return self._connection.execute(sql, parameters)

    def _each(self, sql: str, first: Row, columns: Sequence[Row], last: Row = ()) -> None:
        rows = zip(
            *map(itertools.repeat, first), *columns, *map(itertools.repeat, last), strict=False
        )
        self._connection.executemany(sql, rows)

    def _lock(self) -> None:
        self._run("BEGIN IMMEDIATE")

    _write = _lock

    def _snapshot(self) -> None:
        self._run("BEGIN")

    def _commit(self) -> None:
        if self._connection.in_transaction:
            self._run("COMMIT")

    def _insert(self, rows: list[tuple[bytes, str]], iteration: int) -> int:
        newest = self._run("SELECT max(id) FROM samples").fetchone()[0] or 0
        values = [(self._buffer, digest, text, iteration) for digest, text in rows]
        self._connection.executemany(_ADD, values)
        added: int = self._run(_WAIT, (newest,)).rowcount
        return added

    def _join(self, race: Race, ids: Row, weights: Floats, predicted: Floats) -> None:
        self._run(
            "DELETE FROM pool WHERE buffer_id = ? AND race_key = 9e999 AND sample_id <= ?",
            (self._buffer, ids[-1]),
        )
        self._enter(race, ids, weights, predicted)

    def _leave(self, rows: list[Row]) -> None:
        places = [(self._buffer, row[RACE_KEY], row[SAMPLE_ID]) for row in rows]
        self._connection.executemany(_LEAVE, places)

    def _leave_head(self, rows: list[Row]) -> None:
        if rows:
            self._run(_LEAVE_HEAD, (self._buffer, rows[-1][RACE_KEY], rows[-1][SAMPLE_ID]))

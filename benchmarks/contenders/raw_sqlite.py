"""The floor on SQLite: the library's transactions by hand, through `sqlite3` alone, on the library's tables.

It does what the statements of the library do, and nothing for generality: samples are strings, hashes come
precomputed, no sample comes back while it waits, no counter is read that is not needed.
"""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import functools
import math
import sqlite3
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders import raw
from benchmarks.contenders.base import CHECKPOINT, SchemaContender, rewards_of
from benchmarks.contenders.raw import RACE_KEY, RANKED, REWARD, SAMPLE_ID, TEXT, WEIGHT, Race
from benchmarks.data import Items, scores
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
_RACE = raw.race_sql("", "?")
_SHIFTED = raw.shift_sql(":base")
_HEAD = f"""
    SELECT {raw.DRAWN}
    FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
    WHERE p.buffer_id = ? AND p.race_key < 9e999
    ORDER BY p.race_key, p.sample_id LIMIT ?
"""
_HEAVIEST = f"""
    SELECT {raw.DRAWN}
    FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
    WHERE p.buffer_id = ? AND p.top = 1
    ORDER BY p.buffer_id DESC, p.score DESC, p.tie DESC, p.sample_id DESC LIMIT ?
"""
_LEAVE_HEAD = "DELETE FROM pool WHERE buffer_id = ? AND (race_key, sample_id) <= (?, ?)"
_LEAVE = "DELETE FROM pool WHERE buffer_id = ? AND race_key = ? AND sample_id = ?"
_ENTER = """
    INSERT INTO pool (buffer_id, race_key, sample_id, weight, score, top, tie)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, CASE WHEN ?6 THEN (SELECT substr(hash, 9) FROM samples WHERE id = ?3) END)
"""
MOVE = """
    UPDATE pool SET race_key = ?1, weight = ?2, score = ?3, top = ?4,
        tie = CASE WHEN ?4 THEN (SELECT substr(hash, 9) FROM samples WHERE id = ?7) END
    WHERE buffer_id = ?5 AND race_key = ?6 AND sample_id = ?7
"""
_BATCH = f"""
    INSERT INTO batches (buffer_id, worker_id, iteration, size, clock_before, clock, drawn_at)
    VALUES (?, ?, ?, ?, ?, ?, {_NOW})
"""
_DRAWS = "INSERT INTO draws (batch_id, position, sample_id, race_key, weight) VALUES (?, ?, ?, ?, ?)"
_ADD = f"""
    INSERT INTO samples (
        buffer_id, hash, text, codec, source, queued, requeues, created_at, created_iteration
    )
    VALUES (?, ?, ?, 'text', 'benchmark', 1, 0, {_NOW}, ?)
    ON CONFLICT (buffer_id, hash) DO NOTHING
"""
_WAIT = """
    INSERT INTO pool (buffer_id, race_key, sample_id, weight, top)
    SELECT buffer_id, 9e999, id, NULL, 0 FROM samples WHERE id > ?
"""
_UNSCORED = """
    SELECT p.sample_id, s.text
    FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
    WHERE p.buffer_id = ? AND p.weight IS NULL
    ORDER BY p.sample_id LIMIT ?
"""
_PAGE = """
    SELECT p.sample_id, p.race_key, p.weight, s.text
    FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
    WHERE p.buffer_id = ? AND (p.race_key, p.sample_id) > (?, ?)
    ORDER BY p.race_key, p.sample_id LIMIT ?
"""
SCORE = f"UPDATE samples SET score = ?, score_version = ?, scored_at = {_NOW} WHERE id = ?"
_REWARD = f"UPDATE samples SET reward = ?, rewarded_at = {_NOW}, queued = 0 WHERE id = ?"
_SHIFT = f"""
    UPDATE pool
    SET weight = {_SHIFTED},
        race_key = CASE WHEN race_key > :clock
                   THEN :clock + (race_key - :clock) * (weight / ({_SHIFTED})) ELSE race_key END
    WHERE buffer_id = :buffer AND race_key < 9e999
"""
_TOTALS = f"""
    SELECT max(clock), {", ".join(f"sum({name})" for name in raw.COUNTERS)} FROM workers WHERE buffer_id = ?
"""
_BEST = """
    SELECT reward FROM samples WHERE buffer_id = ? AND reward IS NOT NULL ORDER BY reward DESC LIMIT 1
"""


class RawSqlite(SchemaContender):
    """Hand-written SQL through `sqlite3`."""

    name: ClassVar[str] = "raw-sqlite"
    family: ClassVar[str] = "sqlite"
    remark: ClassVar[str] = "the floor: the same transactions by hand, through sqlite3 alone, hashes for nothing"
    abilities = raw.ABILITIES

    _buffer: int
    _consumes: bool
    _drawn: Sequence[tuple[Any, ...]]

    def open(self, url: str) -> None:
        self.url = url
        self._connection = sqlite3.connect(SqliteFiles.file(url), timeout=60.0, isolation_level=None)
        for pragma in PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}")
        self._buffer, mode = self._connection.execute("SELECT id, mode FROM buffers").fetchone()
        self._consumes = mode == "consume"

    @functools.cached_property
    def _worker(self) -> str:
        row = raw.worker_row() | {"buffer_id": self._buffer}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self._connection.execute(
            f"INSERT INTO workers ({names}, created_at, heartbeat_at) VALUES ({marks}, {_NOW}, {_NOW})",
            tuple(row.values()),
        )
        worker: str = row["id"]
        return worker

    def close(self) -> None:
        self._connection.close()
        self.__dict__.pop("_worker", None)

    def _race(self) -> Race:
        return Race(*self._connection.execute(_RACE, (self._buffer,)).fetchone())

    def _count(self, *, clock: float = 0.0, **deltas: int) -> None:
        sets = ", ".join(f"{name} = {name} + :{name}" for name in deltas)
        self._connection.execute(
            f"UPDATE workers SET clock = max(clock, :clock), heartbeat_at = {_NOW}, {sets} "
            "WHERE buffer_id = :buffer AND id = :worker",
            {**deltas, "clock": clock, "buffer": self._buffer, "worker": self._worker},
        )

    def add(self, items: Items) -> None:
        for start in range(0, len(items), raw.ADD_CHUNK):
            part = items.part(start, start + raw.ADD_CHUNK)
            rows = sorted(dict(zip(part.hashes, part.texts, strict=True)).items())
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            iteration = self._race().iteration
            newest = run("SELECT max(id) FROM samples").fetchone()[0] or 0
            self._connection.executemany(_ADD, [(self._buffer, digest, text, iteration) for digest, text in rows])
            added = run(_WAIT, (newest,)).rowcount
            self._count(added=added, unscored=added)
            run("COMMIT")

    def score(self) -> None:
        while rows := self._connection.execute(_UNSCORED, (self._buffer, raw.SCORE_CHUNK)).fetchall():
            ids = [row[0] for row in rows]
            predicted = scores([row[1] for row in rows])
            self._connection.execute("BEGIN IMMEDIATE")
            race = self._at_base(self._race(), float(predicted.min()))
            weights = raw.shifted(predicted, race.base)
            self._connection.execute(
                "DELETE FROM pool WHERE buffer_id = ? AND race_key = 9e999 AND sample_id <= ?", (self._buffer, ids[-1])
            )
            self._enter(race, ids, weights, predicted)
            self._connection.executemany(SCORE, zip(predicted.tolist(), [race.version] * len(ids), ids, strict=True))
            self._count(unscored=-len(ids))
            self._connection.execute("COMMIT")

    def _at_base(self, race: Race, lowest: float) -> Race:
        """Count weights from a lowest score that is new."""
        if race.base is not None and race.base <= lowest:
            return race
        if race.base is not None:
            self._connection.execute(_SHIFT, {"base": lowest, "clock": race.clock, "buffer": self._buffer})
        self._connection.execute("UPDATE buffers SET base_score = ? WHERE id = ?", (lowest, self._buffer))
        return race._replace(base=lowest)

    def _enter(self, race: Race, ids: Sequence[int], weights: NDArray[np.float64], ranked: NDArray[np.float64]) -> None:
        keys = raw.arrivals(race.clock, weights).tolist()
        rows = sorted(zip(keys, ids, weights.tolist(), ranked.tolist(), raw.top_flags(race, ranked), strict=True))
        self._connection.executemany(_ENTER, [(self._buffer, *row) for row in rows])

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        n_heaviest = round(k * pct_argmax)
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        race = self._race()
        heaviest: list[tuple[Any, ...]] = []
        if n_heaviest:
            heaviest = run(_HEAVIEST, (self._buffer, n_heaviest)).fetchall()
            if len(heaviest) < n_heaviest and race.top_score != -math.inf:
                race = self._mark_top(race, n_heaviest)
                heaviest = run(_HEAVIEST, (self._buffer, n_heaviest)).fetchall()
            places = [(self._buffer, row[RACE_KEY], row[SAMPLE_ID]) for row in heaviest]
            self._connection.executemany(_LEAVE, places)
        arrived = run(_HEAD, (self._buffer, k - len(heaviest))).fetchall()
        clock = race.clock
        if arrived:
            last = arrived[-1]
            run(_LEAVE_HEAD, (self._buffer, last[RACE_KEY], last[SAMPLE_ID]))
            clock = max(clock, last[RACE_KEY])
        self._drawn = rows = heaviest + arrived
        batch = run(_BATCH, (self._buffer, self._worker, race.iteration, len(rows), race.clock, clock)).lastrowid
        self._batch = batch
        self._connection.executemany(_DRAWS, [(batch, i, *row[:3]) for i, row in enumerate(rows)])
        if not self._consumes:
            weights, ranked = (np.array([row[column] for row in rows]) for column in (WEIGHT, RANKED))
            self._enter(race._replace(clock=clock), [row[SAMPLE_ID] for row in rows], weights, ranked)
        self._count(clock=clock, batches=1, drawn=len(rows))
        run("COMMIT")
        return [row[TEXT] for row in rows]

    def _mark_top(self, race: Race, n: int) -> Race:
        """Mark enough of the heaviest that an argmax share finds them in their index."""
        rank = raw.top_rank(self.count(), n)
        found = self._connection.execute(
            "SELECT score FROM pool WHERE buffer_id = ? AND weight > 0 ORDER BY score DESC LIMIT 1 OFFSET ?",
            (self._buffer, rank),
        ).fetchone()
        least = found[0] if found else -math.inf
        self._connection.execute(
            "UPDATE pool SET top = score >= ?1, "
            "tie = CASE WHEN score >= ?1 THEN (SELECT substr(hash, 9) FROM samples WHERE id = pool.sample_id) END "
            "WHERE buffer_id = ?2 AND weight > 0 AND top != (score >= ?1)",
            (least, self._buffer),
        )
        self._connection.execute("UPDATE buffers SET top_score = ? WHERE id = ?", (least, self._buffer))
        return race._replace(top_score=least)

    def give_back(self) -> None:
        if not self._consumes:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._settle_batch()
        weights, ranked = (np.array([row[column] for row in self._drawn]) for column in (WEIGHT, RANKED))
        self._enter(self._race(), [row[SAMPLE_ID] for row in self._drawn], weights, ranked)
        self._count(settled=len(self._drawn), requeued=len(self._drawn))
        self._connection.execute("COMMIT")

    def _settle_batch(self) -> None:
        self._connection.execute(f"UPDATE batches SET settled_at = {_NOW} WHERE id = ?", (self._batch,))

    def iterate(self, items: Items, k: int) -> None:
        self.add(items)
        self.score()
        rewards = rewards_of(self.draw(k))
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        rows = sorted((row[SAMPLE_ID], reward) for row, reward in zip(self._drawn, rewards, strict=True))
        self._connection.executemany(_REWARD, [(reward, i) for i, reward in rows])
        self._settle_batch()
        measured = sum(row[REWARD] is None for row in self._drawn)
        self._count(settled=len(rows), measured=measured, iterations=1)
        run("DELETE FROM checkpoints WHERE buffer_id = ? AND name = 'state'", (self._buffer,))
        run(
            "INSERT INTO checkpoints (buffer_id, name, iteration, data, created_at) "
            f"SELECT buffer_id, 'state', sum(iterations), ?, {_NOW} FROM workers WHERE buffer_id = ?",
            (CHECKPOINT, self._buffer),
        )
        run("COMMIT")

    def refresh(self, version: int) -> None:
        run = self._connection.execute
        run("UPDATE buffers SET score_version = score_version + 1 WHERE id = ?", (self._buffer,))
        race = self._race()
        pages, after = [], (-math.inf, 0)
        while rows := run(_PAGE, (self._buffer, *after, raw.SCORE_CHUNK)).fetchall():
            ids, keys, weights, texts = zip(*rows, strict=True)
            predicted = scores(list(texts), version)
            run("BEGIN IMMEDIATE")
            changes = sorted(zip(ids, predicted.tolist(), strict=True))
            self._connection.executemany(SCORE, [(score, race.version, i) for i, score in changes])
            run("COMMIT")
            pages.append((np.array(ids), np.array(keys), np.array(weights), predicted))
            after = (keys[-1], ids[-1])
        self._swap(race, *(np.concatenate(column) for column in zip(*pages, strict=True)))

    def _swap(
        self,
        race: Race,
        ids: NDArray[np.int64],
        keys: NDArray[np.float64],
        old: NDArray[np.float64],
        predicted: NDArray[np.float64],
    ) -> None:
        """Bring all weights to what the new scores say."""
        lowest = float(predicted.min())
        new = raw.shifted(predicted, lowest)
        moved = raw.rescaled(keys, race.clock, old, new)
        run = self._connection.execute
        for start in range(0, len(ids), raw.SWAP_CHUNK):
            part = slice(start, start + raw.SWAP_CHUNK)
            columns = [column[part].tolist() for column in (moved, new, predicted, keys, ids)]
            run("BEGIN IMMEDIATE")
            rows = [(to, w, score, 0, self._buffer, at, i) for to, w, score, at, i in zip(*columns, strict=True)]
            self._connection.executemany(MOVE, rows)
            if start == 0:
                run(
                    "UPDATE buffers SET base_score = ?, top_score = NULL, refresh_version = score_version, "
                    "refreshed_version = score_version WHERE id = ?",
                    (lowest, self._buffer),
                )
            run("COMMIT")

    def _totals(self) -> dict[str, int]:
        found = self._connection.execute(_TOTALS, (self._buffer,)).fetchone()
        return dict(zip(raw.COUNTERS, found[1:], strict=True))

    def count(self) -> int:
        return raw.waiting(self._totals(), consumes=self._consumes)

    def stats(self) -> object:
        run = self._connection.execute
        run("BEGIN")
        found = (
            self._totals(),
            run("SELECT * FROM buffers WHERE id = ?", (self._buffer,)).fetchone(),
            run(_BEST, (self._buffer,)).fetchone(),
        )
        run("COMMIT")
        return found

"""The raw floors of both databases: transactions by hand on the library's tables.

A floor does what the statements of the library do, and nothing for generality: samples are strings,
hashes come precomputed, no sample comes back while it waits, no counter is read without need.
"""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import abc
import functools
import math
import os
import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.base import CHECKPOINT, SchemaContender, rewards_of
from benchmarks.data import Items, scores

Row: TypeAlias = Sequence[Any]
Floats: TypeAlias = NDArray[np.float64]

ABILITIES = frozenset(
    "add add-duplicates add-more score draw draw-argmax replay iteration refresh len stats open "
    "memory processes-1 processes-2 processes-4".split()
)

ADD_CHUNK, SCORE_CHUNK, SWAP_CHUNK = 20_000, 10_000, 5_000
"""Samples in one transaction, as in the library."""

FLOOR = 1e-8
LEAST_TOP = 10_000

COUNTERS = (
    *("batches", "iterations", "added", "recorded", "requeued", "drawn", "settled", "released"),
    *("removed", "refused", "unscored", "unscorable", "measured", "failed"),
)

DRAWN = (
    "p.sample_id, p.race_key, p.weight, s.source, p.score, s.reward, s.hash, s.requeues, s.text, "
    "s.payload, s.codec"
)
SAMPLE_ID, RACE_KEY, WEIGHT, RANKED, REWARD, TEXT = 0, 1, 2, 4, 5, 8
"""Where some of these columns stand."""


class Race(NamedTuple):
    """Where the race stands."""

    clock: float
    turn: int
    base: float | None
    top_score: float | None
    version: int
    iteration: int


_RACE = """
    SELECT max(w.clock), sum(w.batches), b.base_score, b.top_score, b.score_version,
        sum(w.iterations)
    FROM buffers AS b JOIN workers AS w ON w.buffer_id = b.id
    WHERE b.id = ?
    GROUP BY b.id
"""
"""The query whose row is a `Race`."""

_SHIFTED = f"CASE WHEN score > ? THEN score - ? + {FLOOR} ELSE {FLOOR} END"
"""The SQL of `shifted`, for one row of the pool."""

_SHIFT = f"""
    UPDATE pool
    SET weight = {_SHIFTED},
        race_key = CASE WHEN race_key > ?
                   THEN ? + (race_key - ?) * (weight / ({_SHIFTED})) ELSE race_key END
    WHERE buffer_id = ? AND race_key < %s
"""
_BATCH = """
    INSERT INTO batches (buffer_id, worker_id, iteration, size, clock_before, clock, drawn_at)
    VALUES (?, ?, ?, ?, ?, ?, %s)
    RETURNING id
"""
_TOTALS = f"""
    SELECT max(clock), {", ".join(f"sum({name})" for name in COUNTERS)}
    FROM workers WHERE buffer_id = ?
"""
_BEST = """
    SELECT reward FROM samples WHERE buffer_id = ? AND reward IS NOT NULL
    ORDER BY reward DESC LIMIT 1
"""


def worker_row() -> dict[str, Any]:
    """Return the row of this process as a worker; it is never stale: its host does not exist."""
    row: dict[str, Any] = {
        "id": f"raw-{os.getpid()}-{secrets.token_hex(4)}",
        "host": "raw",
        "pid": os.getpid(),
    }
    return row | {"process_started_at": time.time(), "clock": 0.0} | dict.fromkeys(COUNTERS, 0)


def shifted(scores: Floats, base: float | None) -> Floats:
    """Return weights, which count from the lowest score."""
    weights: Floats = np.maximum(scores - (0.0 if base is None else base), 0.0) + FLOOR
    return weights


def arrivals(clock: float, weights: Floats) -> Floats:
    """Return the keys of samples that join the race now."""
    keys: Floats = clock + np.random.default_rng().standard_exponential(len(weights)) / weights
    return keys


def rescaled(keys: Floats, clock: float, old: Floats, new: Floats) -> Floats:
    """Return the keys after a change of weights."""
    return np.where(keys > clock, clock + (keys - clock) * (old / new), keys)


def top_flags(race: Race, scores: Floats) -> list[bool]:
    """Tell which samples belong to those marked as top."""
    least = np.inf if race.top_score is None else race.top_score
    flags: list[bool] = (scores >= least).tolist()
    return flags


def top_rank(waiting: int, n: int) -> int:
    """Return how many samples are to be marked as top where n are wanted."""
    return min(max(LEAST_TOP, 20 * n, waiting // 50) - 1, waiting)


class RawContender(SchemaContender):
    """The flow of each transaction; a subclass has the statements of its database.

    Statements that both databases share mark their parameters by `?`. On SQLite `head` and
    `heaviest` only read; `_leave` and `_leave_head` take the rows out of the pool.
    """

    abilities = ABILITIES
    now: str
    greatest: str
    infinity: str
    unscored: str  # read samples without a score
    page: str  # read samples in the order of the race
    head: str
    heaviest: str
    mark: str  # mark the samples of at least a score as top, and no other ones
    enter: str
    move: str
    store_draws: str
    store_score: str
    store_reward: str
    _connection: Any
    _buffer: int
    _batch: int

    @abc.abstractmethod
    def _run(self, sql: str, parameters: Row = ()) -> Any: ...

    @abc.abstractmethod
    def _each(self, sql: str, first: Row, columns: Sequence[Row], last: Row = ()) -> None:
        """Run a statement for rows; values that all rows share come before and behind the row."""

    @abc.abstractmethod
    def _lock(self) -> None:
        """Begin a transaction that joins, leaves or moves in the race."""

    @abc.abstractmethod
    def _commit(self) -> None: ...

    @abc.abstractmethod
    def _insert(self, rows: list[tuple[bytes, str]], iteration: int) -> int:
        """Insert hashes and texts; return how many are new."""

    @abc.abstractmethod
    def _join(self, race: Race, ids: Row, weights: Floats, predicted: Floats) -> None:
        """Give samples that had no score a key."""

    def _alone(self, race: Race) -> Race:
        """Have the race alone, and return where it stands."""
        return race

    def _share(self) -> None: ...

    def _write(self) -> None: ...

    def _snapshot(self) -> None: ...

    def _leave(self, rows: list[Row]) -> None: ...

    def _leave_head(self, rows: list[Row]) -> None: ...

    def open(self, url: str) -> None:
        self.url = url
        self._connect(url)
        self._buffer, self.mode = self._run("SELECT id, mode FROM buffers").fetchone()
        self._commit()

    @abc.abstractmethod
    def _connect(self, url: str) -> None: ...

    def close(self) -> None:
        self._connection.close()
        self.__dict__.pop("_worker", None)

    @functools.cached_property
    def _worker(self) -> str:
        row = worker_row() | {"buffer_id": self._buffer}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self._run(
            f"INSERT INTO workers ({names}, created_at, heartbeat_at) "
            f"VALUES ({marks}, {self.now}, {self.now})",
            tuple(row.values()),
        )
        worker: str = row["id"]
        return worker

    def _race(self) -> Race:
        clock, turn, *others = self._run(_RACE, (self._buffer,)).fetchone()
        return Race(clock, int(turn), *others)

    def _begin(self) -> Race:
        self._lock()
        return self._race()

    def _count(self, *, clock: float = 0.0, **deltas: int) -> None:
        sets = ", ".join(f"{name} = {name} + ?" for name in deltas)
        worker = self._worker
        self._run(
            f"UPDATE workers SET clock = {self.greatest}(clock, ?), heartbeat_at = {self.now}, "
            f"{sets} WHERE buffer_id = ? AND id = ?",
            (clock, *deltas.values(), self._buffer, worker),
        )

    def add(self, items: Items) -> None:
        for start in range(0, len(items), ADD_CHUNK):
            part = items.part(start, start + ADD_CHUNK)
            rows = sorted(dict(zip(part.hashes, part.texts, strict=True)).items())
            added = self._insert(rows, self._begin().iteration)
            self._count(added=added, unscored=added)
            self._commit()

    def score(self) -> None:
        after = 0
        while rows := self._run(self.unscored, (self._buffer, after, SCORE_CHUNK)).fetchall():
            self._commit()
            ids = [row[0] for row in rows]
            predicted = scores([row[1] for row in rows])
            race = self._begin()
            if race.base is None or predicted.min() < race.base:
                race = self._at_base(self._alone(race), float(predicted.min()))
            self._join(race, ids, shifted(predicted, race.base), predicted)
            self._each(self.store_score, (race.version,), (ids, predicted.tolist()))
            self._count(unscored=-len(ids))
            self._commit()
            after = ids[-1]
        self._commit()

    def _at_base(self, race: Race, lowest: float) -> Race:
        """Count weights from a lowest score that is new."""
        if race.base is not None:
            clock, base = (race.clock,), (lowest, lowest)
            values = (*base, *clock * 3, *base, self._buffer)
            self._run(_SHIFT % self.infinity, values)
        self._run("UPDATE buffers SET base_score = ? WHERE id = ?", (lowest, self._buffer))
        return race._replace(base=lowest)

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        n_heaviest = round(k * pct_argmax)
        race = self._begin()
        heaviest: list[Row] = []
        if n_heaviest:
            heaviest = self._run(self.heaviest, (self._buffer, n_heaviest)).fetchall()
            if len(heaviest) < n_heaviest and race.top_score != -math.inf:
                race = self._mark_top(self._alone(race), n_heaviest)
                heaviest = self._run(self.heaviest, (self._buffer, n_heaviest)).fetchall()
            self._leave(heaviest)
        arrived = self._run(self.head, (self._buffer, k - len(heaviest))).fetchall()
        arrived.sort(key=lambda row: (row[RACE_KEY], row[SAMPLE_ID]))
        self._leave_head(arrived)
        clock = max(race.clock, arrived[-1][RACE_KEY]) if arrived else race.clock
        self._drawn = rows = heaviest + arrived
        values = (self._buffer, self._worker, race.iteration, len(rows), race.clock, clock)
        self._batch = self._run(_BATCH % self.now, values).fetchall()[0][0]
        ids, keys, weights = map(list, zip(*(row[:3] for row in rows), strict=True))
        columns = (list(range(len(rows))), ids, keys, weights)
        self._each(self.store_draws, (self._batch,), columns)
        if self.mode != "consume":
            self._enter_again(race._replace(clock=clock))
        self._count(clock=clock, batches=1, drawn=len(rows))
        self._commit()
        return [row[TEXT] for row in rows]

    def _enter_again(self, race: Race) -> None:
        rows = self._drawn
        weights, ranked = (np.array([row[column] for row in rows]) for column in (WEIGHT, RANKED))
        self._enter(race, [row[SAMPLE_ID] for row in rows], weights, ranked)

    def _enter(self, race: Race, ids: Row, weights: Floats, ranked: Floats) -> None:
        keys, flags = arrivals(race.clock, weights).tolist(), top_flags(race, ranked)
        rows = sorted(zip(keys, ids, weights.tolist(), ranked.tolist(), flags, strict=True))
        self._each(self.enter, (self._buffer,), list(map(list, zip(*rows, strict=True))))

    def _mark_top(self, race: Race, n: int) -> Race:
        """Mark enough of the heaviest that an argmax share finds them in their index."""
        found = self._run(
            "SELECT score FROM pool WHERE buffer_id = ? AND weight > 0 "
            "ORDER BY score DESC LIMIT 1 OFFSET ?",
            (self._buffer, top_rank(self._waiting(), n)),
        ).fetchone()
        least = found[0] if found else -math.inf
        self._run(self.mark, (self._buffer, least))
        self._run("UPDATE buffers SET top_score = ? WHERE id = ?", (least, self._buffer))
        self._share()
        return race._replace(top_score=least)

    def give_back(self) -> None:
        if self.mode != "consume":
            return
        race = self._begin()
        self._settle_batch()
        self._enter_again(race)
        self._count(settled=len(self._drawn), requeued=len(self._drawn))
        self._commit()

    def _settle_batch(self) -> None:
        self._run(f"UPDATE batches SET settled_at = {self.now} WHERE id = ?", (self._batch,))

    def iterate(self, items: Items, k: int) -> None:
        self.add(items)
        self.score()
        rewards = rewards_of(self.draw(k))
        self._write()
        ids = [row[SAMPLE_ID] for row in self._drawn]
        rows = sorted(zip(ids, rewards, strict=True))
        self._each(self.store_reward, (), list(map(list, zip(*rows, strict=True))))
        self._settle_batch()
        measured = sum(row[REWARD] is None for row in self._drawn)
        self._count(settled=len(ids), measured=measured, iterations=1)
        self._run("DELETE FROM checkpoints WHERE buffer_id = ? AND name = 'state'", (self._buffer,))
        self._run(
            "INSERT INTO checkpoints (buffer_id, name, iteration, data, created_at) "
            f"SELECT buffer_id, 'state', sum(iterations), ?, {self.now} FROM workers "
            "WHERE buffer_id = ? GROUP BY buffer_id",
            (CHECKPOINT, self._buffer),
        )
        self._commit()

    def refresh(self, version: int) -> None:
        begun = "UPDATE buffers SET score_version = score_version + 1 WHERE id = ?"
        self._run(begun, (self._buffer,))
        race = self._race()
        self._commit()
        pages, after = [], (-math.inf, 0)
        while rows := self._run(self.page, (self._buffer, *after, SCORE_CHUNK)).fetchall():
            ids, keys, weights, texts = zip(*rows, strict=True)
            predicted = scores(list(texts), version)
            order = np.argsort(ids)
            columns = (np.array(ids)[order].tolist(), predicted[order].tolist())
            self._write()
            self._each(self.store_score, (race.version,), columns)
            self._commit()
            pages.append((np.array(ids), np.array(keys), np.array(weights), predicted))
            after = (keys[-1], ids[-1])
        self._commit()
        self._swap(race, *(np.concatenate(column) for column in zip(*pages, strict=True)))

    def _swap(
        self, race: Race, ids: NDArray[np.int64], keys: Floats, old: Floats, predicted: Floats
    ) -> None:
        """Bring all weights to what the new scores say."""
        lowest = float(predicted.min())
        new = shifted(predicted, lowest)
        moved = rescaled(keys, race.clock, old, new)
        for start in range(0, len(ids), SWAP_CHUNK):
            part = slice(start, start + SWAP_CHUNK)
            self._lock()
            columns = [column[part].tolist() for column in (ids, keys, moved, new, predicted)]
            flags = [False] * len(columns[0])
            self._each(self.move, (), [*columns, flags], (self._buffer,))
            if start == 0:
                self._run(
                    "UPDATE buffers SET base_score = ?, top_score = NULL, "
                    "refresh_version = score_version, refreshed_version = score_version "
                    "WHERE id = ?",
                    (lowest, self._buffer),
                )
            self._commit()

    def _totals(self) -> dict[str, int]:
        found = self._run(_TOTALS, (self._buffer,)).fetchone()
        return {name: int(value) for name, value in zip(COUNTERS, found[1:], strict=True)}

    def _waiting(self) -> int:
        """Return the size of the pool, from the sums of the counters."""
        totals = self._totals()
        size = totals["added"] + totals["requeued"] - totals["removed"]
        return size - (totals["drawn"] - totals["released"]) if self.mode == "consume" else size

    def count(self) -> int:
        size = self._waiting()
        self._commit()
        return size

    def stats(self) -> object:
        self._snapshot()
        found = (
            self._totals(),
            self._run("SELECT * FROM buffers WHERE id = ?", (self._buffer,)).fetchone(),
            self._run(_BEST, (self._buffer,)).fetchone(),
        )
        self._commit()
        return found

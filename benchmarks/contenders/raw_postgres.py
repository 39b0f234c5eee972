"""The floor on PostgreSQL: the library's transactions by hand, through `psycopg` alone, on the library's tables.

Claims pass over each other's rows (SKIP LOCKED), and what must not meet a claim is kept apart by the library's
advisory lock. Rows travel as arrays, which `unnest` turns into a relation.
"""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders import raw
from benchmarks.contenders.base import CHECKPOINT, SchemaContender, rewards_of
from benchmarks.contenders.raw import RACE_KEY, RANKED, REWARD, SAMPLE_ID, TEXT, WEIGHT, Race
from benchmarks.data import Items, scores

_ADVISORY_CLASS = 0x5B0F

_LOCK = f"SELECT pg_advisory_xact_lock_shared({_ADVISORY_CLASS}, %s)"
_LOCK_ALONE = f"SELECT pg_advisory_xact_lock({_ADVISORY_CLASS}, %s)"
_RACE = raw.race_sql("", "%s")
_SHIFTED = raw.shift_sql("%(base)s")


def _claim(condition: str, order: str) -> str:
    """Take rows out of the pool and look up what the samples are, in one statement."""
    return f"""
        WITH head AS MATERIALIZED (
            SELECT ctid, sample_id, race_key, weight, score
            FROM pool
            WHERE buffer_id = %s AND {condition}
            ORDER BY {order}
            LIMIT %s
            FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM pool USING head WHERE pool.ctid = head.ctid
        )
        SELECT {raw.DRAWN}
        FROM head AS p JOIN samples AS s ON s.id = p.sample_id
    """


_HEAD = _claim("race_key < 'Infinity'", "race_key, sample_id")
_HEAVIEST = _claim("top", "buffer_id DESC, score DESC, tie DESC, sample_id DESC")
_BATCH = """
    INSERT INTO batches (buffer_id, worker_id, iteration, size, clock_before, clock, drawn_at)
    VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp())
    RETURNING id
"""
_DRAWS = """
    INSERT INTO draws (batch_id, position, sample_id, race_key, weight)
    SELECT %s, position - 1, sample_id, race_key, weight
    FROM unnest(%b::bigint[], %b::float8[], %b::float8[]) WITH ORDINALITY AS d (sample_id, race_key, weight, position)
"""
_ENTER = """
    INSERT INTO pool (buffer_id, race_key, sample_id, weight, score, top, tie)
    SELECT %s, e.race_key, e.sample_id, e.weight, e.score, e.top,
        CASE WHEN e.top THEN (SELECT substr(hash, 9) FROM samples WHERE id = e.sample_id) END
    FROM unnest(%b::float8[], %b::bigint[], %b::float8[], %b::float8[], %b::bool[])
        AS e (race_key, sample_id, weight, score, top)
    ORDER BY race_key, sample_id
"""
_ADD = """
    WITH added AS (
        INSERT INTO samples (
            buffer_id, hash, text, codec, source, queued, requeues, created_at, created_iteration
        )
        SELECT %s, hash, text, 'text', 'benchmark', true, 0, clock_timestamp(), %s
        FROM unnest(%b::bytea[], %s::text[]) AS i (hash, text)
        ON CONFLICT (buffer_id, hash) DO NOTHING
        RETURNING id, buffer_id
    )
    INSERT INTO pool (buffer_id, race_key, sample_id, weight, top)
    SELECT buffer_id, 'Infinity', id, NULL, false FROM added
"""
_UNSCORED = """
    SELECT p.sample_id, s.text
    FROM (
        SELECT sample_id FROM pool WHERE buffer_id = %s AND weight IS NULL AND sample_id > %s
        ORDER BY buffer_id, sample_id LIMIT %s
    ) AS p JOIN samples AS s ON s.id = p.sample_id
    ORDER BY p.sample_id
"""
_PAGE = """
    SELECT p.sample_id, p.race_key, p.weight, s.text
    FROM (
        SELECT sample_id, race_key, weight FROM pool
        WHERE buffer_id = %s AND (race_key, sample_id) > (%s, %s)
        ORDER BY buffer_id, race_key, sample_id LIMIT %s
    ) AS p JOIN samples AS s ON s.id = p.sample_id
    ORDER BY p.race_key, p.sample_id
"""
_MOVE = """
    UPDATE pool SET race_key = m.to_key, weight = m.weight, score = m.score, top = m.top,
        tie = CASE WHEN m.top THEN (SELECT substr(hash, 9) FROM samples WHERE id = m.sample_id) END
    FROM unnest(%b::bigint[], %b::float8[], %b::float8[], %b::float8[], %b::float8[], %b::bool[])
        AS m (sample_id, at_key, to_key, weight, score, top)
    WHERE pool.buffer_id = %s AND pool.race_key = m.at_key AND pool.sample_id = m.sample_id
"""
_SCORE = """
    UPDATE samples SET score = c.score, score_version = %s, scored_at = clock_timestamp()
    FROM unnest(%b::bigint[], %b::float8[]) AS c (sample_id, score)
    WHERE samples.id = c.sample_id
"""
_REWARD = """
    UPDATE samples SET reward = c.reward, rewarded_at = clock_timestamp(), queued = false
    FROM unnest(%b::bigint[], %b::float8[]) AS c (sample_id, reward)
    WHERE samples.id = c.sample_id
"""
_SHIFT = f"""
    UPDATE pool
    SET weight = {_SHIFTED},
        race_key = CASE WHEN race_key > %(clock)s
                   THEN %(clock)s + (race_key - %(clock)s) * (weight / ({_SHIFTED})) ELSE race_key END
    WHERE buffer_id = %(buffer)s AND race_key < 'Infinity'
"""
_TOTALS = f"""
    SELECT max(clock), {", ".join(f"sum({name})" for name in raw.COUNTERS)} FROM workers WHERE buffer_id = %s
"""
_BEST = """
    SELECT reward FROM samples WHERE buffer_id = %s AND reward IS NOT NULL ORDER BY reward DESC LIMIT 1
"""


class RawPostgresql(SchemaContender):
    """Hand-written SQL through `psycopg`."""

    name: ClassVar[str] = "raw-postgresql"
    family: ClassVar[str] = "postgresql"
    remark: ClassVar[str] = "the floor: the same transactions by hand, through psycopg alone, hashes for nothing"
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)
    abilities = raw.ABILITIES

    _buffer: int
    _consumes: bool
    _drawn: Sequence[tuple[Any, ...]]

    def open(self, url: str) -> None:
        import psycopg

        self.url = url
        self._connection = psycopg.connect(url)
        self._run("SET search_path TO sqlbuffer")
        self._run("SET random_page_cost = 1")
        self._buffer, mode = self._run("SELECT id, mode FROM buffers").fetchone()
        self._consumes = mode == "consume"
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()
        self.__dict__.pop("_worker", None)

    def _run(self, sql: str, parameters: Any = ()) -> Any:
        return self._connection.execute(sql, parameters or None)

    @functools.cached_property
    def _worker(self) -> str:
        row = raw.worker_row() | {"buffer_id": self._buffer}
        names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
        self._run(
            f"INSERT INTO workers ({names}, created_at, heartbeat_at) VALUES ({marks}, now(), now())",
            tuple(row.values()),
        )
        worker: str = row["id"]
        return worker

    def _race(self, lock: str = _LOCK) -> Race:
        self._run(lock, (self._buffer,))
        clock, turn, *others = self._run(_RACE, (self._buffer,)).fetchone()
        return Race(clock, int(turn), *others)

    def _count(self, *, clock: float = 0.0, **deltas: int) -> None:
        sets = ", ".join(f"{name} = {name} + %({name})s" for name in deltas)
        self._run(
            f"UPDATE workers SET clock = greatest(clock, %(clock)s), heartbeat_at = clock_timestamp(), {sets} "
            "WHERE buffer_id = %(buffer)s AND id = %(worker)s",
            {**deltas, "clock": clock, "buffer": self._buffer, "worker": self._worker},
        )

    def add(self, items: Items) -> None:
        for start in range(0, len(items), raw.ADD_CHUNK):
            part = items.part(start, start + raw.ADD_CHUNK)
            hashes, texts = zip(*sorted(dict(zip(part.hashes, part.texts, strict=True)).items()), strict=True)
            iteration = self._race().iteration
            added = self._run(_ADD, (self._buffer, iteration, list(hashes), list(texts))).rowcount
            self._count(added=added, unscored=added)
            self._connection.commit()

    def score(self) -> None:
        after = 0
        while rows := self._run(_UNSCORED, (self._buffer, after, raw.SCORE_CHUNK)).fetchall():
            self._connection.commit()
            ids = [row[0] for row in rows]
            predicted = scores([row[1] for row in rows])
            race = self._race()
            if race.base is None or predicted.min() < race.base:
                self._connection.rollback()
                race = self._at_base(self._race(_LOCK_ALONE), float(predicted.min()))
            weights = raw.shifted(predicted, race.base)
            keys = raw.arrivals(race.clock, weights)
            never = [math.inf] * len(ids)
            columns = [column.tolist() for column in (keys, weights, predicted)]
            self._run(_MOVE, (ids, never, *columns, raw.top_flags(race, predicted), self._buffer))
            self._run(_SCORE, (race.version, ids, predicted.tolist()))
            self._count(unscored=-len(ids))
            self._connection.commit()
            after = ids[-1]
        self._connection.commit()

    def _at_base(self, race: Race, lowest: float) -> Race:
        """Count weights from a lowest score that is new."""
        if race.base is not None:
            self._run(_SHIFT, {"base": lowest, "clock": race.clock, "buffer": self._buffer})
        self._run("UPDATE buffers SET base_score = %s WHERE id = %s", (lowest, self._buffer))
        return race._replace(base=lowest)

    def _enter(self, race: Race, rows: Sequence[Sequence[Any]]) -> None:
        """Let drawn samples join the race again."""
        ids = [row[SAMPLE_ID] for row in rows]
        weights, ranked = (np.array([row[column] for row in rows]) for column in (WEIGHT, RANKED))
        keys = raw.arrivals(race.clock, weights).tolist()
        flags = raw.top_flags(race, ranked)
        self._run(_ENTER, (self._buffer, keys, ids, weights.tolist(), ranked.tolist(), flags))

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        n_heaviest = round(k * pct_argmax)
        race = self._race()
        heaviest: list[tuple[Any, ...]] = []
        if n_heaviest:
            heaviest = self._run(_HEAVIEST, (self._buffer, n_heaviest)).fetchall()
            if len(heaviest) < n_heaviest and race.top_score != -math.inf:
                self._connection.rollback()
                race = self._mark_top(n_heaviest)
                heaviest = self._run(_HEAVIEST, (self._buffer, n_heaviest)).fetchall()
        arrived = self._run(_HEAD, (self._buffer, k - len(heaviest))).fetchall()
        arrived.sort(key=lambda row: (row[RACE_KEY], row[SAMPLE_ID]))
        clock = max(race.clock, arrived[-1][RACE_KEY]) if arrived else race.clock
        self._drawn = rows = heaviest + arrived
        values = (self._buffer, self._worker, race.iteration, len(rows), race.clock, clock)
        self._batch = self._run(_BATCH, values).fetchone()[0]
        ids, keys, weights = map(list, zip(*(row[:3] for row in rows), strict=True))
        self._run(_DRAWS, (self._batch, ids, keys, weights))
        if not self._consumes:
            self._enter(race._replace(clock=clock), rows)
        self._count(clock=clock, batches=1, drawn=len(rows))
        self._connection.commit()
        return [row[TEXT] for row in rows]

    def _mark_top(self, n: int) -> Race:
        """Mark enough of the heaviest that an argmax share finds them in their index."""
        rank = raw.top_rank(self.count(), n)
        race = self._race(_LOCK_ALONE)
        found = self._run(
            "SELECT score FROM pool WHERE buffer_id = %s AND weight > 0 ORDER BY score DESC LIMIT 1 OFFSET %s",
            (self._buffer, rank),
        ).fetchone()
        least = found[0] if found else -math.inf
        self._run(
            "UPDATE pool SET top = NOT top, "
            "tie = CASE WHEN NOT top THEN (SELECT substr(hash, 9) FROM samples WHERE id = pool.sample_id) END "
            "WHERE buffer_id = %s AND weight > 0 AND top != (score >= %s)",
            (self._buffer, least),
        )
        self._run("UPDATE buffers SET top_score = %s WHERE id = %s", (least, self._buffer))
        self._connection.commit()
        self._run(_LOCK, (self._buffer,))
        return race._replace(top_score=least)

    def give_back(self) -> None:
        if not self._consumes:
            return
        race = self._race()
        self._settle_batch()
        self._enter(race, self._drawn)
        self._count(settled=len(self._drawn), requeued=len(self._drawn))
        self._connection.commit()

    def _settle_batch(self) -> None:
        self._run("UPDATE batches SET settled_at = clock_timestamp() WHERE id = %s", (self._batch,))

    def iterate(self, items: Items, k: int) -> None:
        self.add(items)
        self.score()
        rewards = rewards_of(self.draw(k))
        rows = sorted((row[SAMPLE_ID], reward) for row, reward in zip(self._drawn, rewards, strict=True))
        self._run(_REWARD, ([i for i, _ in rows], [reward for _, reward in rows]))
        self._settle_batch()
        measured = sum(row[REWARD] is None for row in self._drawn)
        self._count(settled=len(rows), measured=measured, iterations=1)
        self._run("DELETE FROM checkpoints WHERE buffer_id = %s AND name = 'state'", (self._buffer,))
        self._run(
            "INSERT INTO checkpoints (buffer_id, name, iteration, data, created_at) "
            "SELECT buffer_id, 'state', sum(iterations), %b, clock_timestamp() FROM workers "
            "WHERE buffer_id = %s GROUP BY buffer_id",
            (CHECKPOINT, self._buffer),
        )
        self._connection.commit()

    def refresh(self, version: int) -> None:
        self._run("UPDATE buffers SET score_version = score_version + 1 WHERE id = %s", (self._buffer,))
        race = self._race()
        self._connection.commit()
        pages, after = [], (-math.inf, 0)
        while rows := self._run(_PAGE, (self._buffer, *after, raw.SCORE_CHUNK)).fetchall():
            ids, keys, weights, texts = zip(*rows, strict=True)
            predicted = scores(list(texts), version)
            order = np.argsort(ids)
            self._run(_SCORE, (race.version, np.array(ids)[order].tolist(), predicted[order].tolist()))
            self._connection.commit()
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
        for start in range(0, len(ids), raw.SWAP_CHUNK):
            part = slice(start, start + raw.SWAP_CHUNK)
            columns = [column[part].tolist() for column in (ids, keys, moved, new, predicted)]
            self._run(_LOCK, (self._buffer,))
            self._run(_MOVE, (*columns, [False] * len(columns[0]), self._buffer))
            if start == 0:
                self._run(
                    "UPDATE buffers SET base_score = %s, top_score = NULL, refresh_version = score_version, "
                    "refreshed_version = score_version WHERE id = %s",
                    (lowest, self._buffer),
                )
            self._connection.commit()

    def _totals(self) -> dict[str, int]:
        found = self._run(_TOTALS, (self._buffer,)).fetchone()
        return {name: int(value) for name, value in zip(raw.COUNTERS, found[1:], strict=True)}

    def count(self) -> int:
        totals = self._totals()
        self._connection.commit()
        return raw.waiting(totals, consumes=self._consumes)

    def stats(self) -> object:
        found = (
            self._totals(),
            self._run("SELECT * FROM buffers WHERE id = %s", (self._buffer,)).fetchone(),
            self._run(_BEST, (self._buffer,)).fetchone(),
        )
        self._connection.commit()
        return found

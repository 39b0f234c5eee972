"""The floor on PostgreSQL: through `psycopg` alone.

Claims pass over each other's rows (SKIP LOCKED); the library's advisory lock keeps out of their way
all that must not meet a claim. Rows travel as arrays, which `unnest` turns into a relation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.contenders import raw
from benchmarks.contenders.raw import Floats, Race, RawContender, Row

_ADVISORY_CLASS = 0x5B0F

_LOCK = f"SELECT pg_advisory_xact_lock_shared({_ADVISORY_CLASS}, %s)"
_LOCK_ALONE = f"SELECT pg_advisory_xact_lock({_ADVISORY_CLASS}, %s)"


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


_ADD = """
    WITH added AS (
        INSERT INTO samples (
            buffer_id, hash, text, codec, source, queued, requeues, created_at, created_iteration
        )
        SELECT %s, hash, text, 'text', 'benchmark', true, 0, clock_timestamp(), %s
        FROM unnest(%b::bytea[], %s::text[]) AS i (hash, text)
        ON CONFLICT (buffer_id, hash) DO NOTHING
        RETURNING id, buffer_id, hash
    )
    INSERT INTO pool (buffer_id, race_key, sample_id, weight, top, tie)
    SELECT buffer_id, 'Infinity', id, NULL, false, substr(hash, 9) FROM added
"""


class RawPostgresql(RawContender):
    """Hand-written SQL through `psycopg`."""

    name = "raw-postgresql"
    family = "postgresql"
    remark = "the floor: the same transactions by hand, through psycopg alone, hashes for nothing"
    libraries = ("psycopg",)
    now = "clock_timestamp()"
    greatest = "greatest"
    infinity = "'Infinity'"

    head = _claim("race_key < 'Infinity'", "race_key, sample_id")
    store_draws = """
        INSERT INTO draws (batch_id, position, sample_id, race_key, weight)
        SELECT %s, d.*
        FROM unnest(%b::bigint[], %b::bigint[], %b::float8[], %b::float8[]) AS d
    """
    enter = """
        INSERT INTO pool (buffer_id, race_key, sample_id, weight, score, top, tie)
        SELECT %s, e.race_key, e.sample_id, e.weight, e.score, e.top, substr(s.hash, 9)
        FROM unnest(%b::float8[], %b::bigint[], %b::float8[], %b::float8[], %b::bool[])
            AS e (race_key, sample_id, weight, score, top)
        JOIN samples AS s ON s.id = e.sample_id
        ORDER BY race_key, sample_id
    """
    unscored = """
        SELECT p.sample_id, s.text
        FROM (
            SELECT sample_id FROM pool WHERE buffer_id = %s AND weight IS NULL AND sample_id > %s
            ORDER BY buffer_id, sample_id LIMIT %s
        ) AS p JOIN samples AS s ON s.id = p.sample_id
        ORDER BY p.sample_id
    """
    move = """
        UPDATE pool SET race_key = m.to_key, weight = m.weight, score = m.score, top = m.top
        FROM unnest(
            %b::bigint[], %b::float8[], %b::float8[], %b::float8[], %b::float8[], %b::bool[]
        ) AS m (sample_id, at_key, to_key, weight, score, top)
        WHERE pool.buffer_id = %s AND pool.race_key = m.at_key AND pool.sample_id = m.sample_id
    """
    mark = """
        UPDATE pool SET top = NOT top WHERE buffer_id = %s AND weight > 0 AND top != (score >= %s)
    """
    store_reward = """
        UPDATE samples SET reward = c.reward, rewarded_at = clock_timestamp(), queued = false
        FROM unnest(%b::bigint[], %b::float8[]) AS c (sample_id, reward)
        WHERE samples.id = c.sample_id
    """
    page = """
        SELECT p.sample_id, p.race_key, p.weight, s.text
        FROM (
            SELECT sample_id, race_key, weight FROM pool
            WHERE buffer_id = %s AND (race_key, sample_id) > (%s, %s)
            ORDER BY buffer_id, race_key, sample_id LIMIT %s
        ) AS p JOIN samples AS s ON s.id = p.sample_id
        ORDER BY p.race_key, p.sample_id
    """
    heaviest = _claim("top", "buffer_id DESC, score DESC, tie DESC, sample_id DESC")
    store_score = """
        UPDATE samples SET score = c.score, score_version = %s, scored_at = clock_timestamp()
        FROM unnest(%b::bigint[], %b::float8[]) AS c (sample_id, score)
        WHERE samples.id = c.sample_id
    """

    def _connect(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url)
        self._run("SET search_path TO sqlbuffer")
        self._run("SET random_page_cost = 1")

    def _run(self, sql: str, parameters: Row = ()) -> Any:
        return self._connection.execute(sql.replace("?", "%s"), parameters or None)

    def _each(self, sql: str, first: Row, columns: Sequence[Row], last: Row = ()) -> None:
        self._run(sql, (*first, *map(list, columns), *last))

    def _lock(self) -> None:
        self._run(_LOCK, (self._buffer,))

    def _commit(self) -> None:
        self._connection.commit()

    def _alone(self, race: Race) -> Race:
        self._connection.rollback()
        self._run(_LOCK_ALONE, (self._buffer,))
        return self._race()

    def _share(self) -> None:
        self._commit()
        self._lock()

    def _insert(self, rows: list[tuple[bytes, str]], iteration: int) -> int:
        hashes, texts = map(list, zip(*rows, strict=True))
        added: int = self._run(_ADD, (self._buffer, iteration, hashes, texts)).rowcount
        return added

    def _join(self, race: Race, ids: Row, weights: Floats, predicted: Floats) -> None:
        keys, never = raw.arrivals(race.clock, weights), [math.inf] * len(ids)
        columns = [column.tolist() for column in (keys, weights, predicted)]
        flags = raw.top_flags(race, predicted)
        self._each(self.move, (), (ids, never, *columns, flags), (self._buffer,))

"""The SQL of the statements that matter most, as a person would read it in a log, on both
databases.
"""

import inspect
import itertools
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg

from sqlbuffer.db import queries
from sqlbuffer.db.backends import Dialect, PostgreSQL, SQLite, hot

DIALECTS: dict[str, tuple[Dialect, Any]] = {
    "sqlite": (SQLite(), sqlite.dialect()),  # type: ignore[no-untyped-call]
    "postgresql": (PostgreSQL(), psycopg.dialect()),  # type: ignore[no-untyped-call]
}
BUILDERS = {
    name: builder
    for module in queries.__all__
    for name, builder in vars(vars(queries)[module]).items()
    if hasattr(builder, "cache_info")
}


def build(name: str, kind: str) -> list[Any]:
    """What a builder builds for a database, with every argument that it takes."""
    arguments: dict[str, list[Any]] = {
        "dialect": [DIALECTS[kind][0]],
        "column": ["settled_at", "released_at"],
        "requeue": [True, False],
        "evicted": [True, False],
        "pruned": [True, False],
        "keyed": [False, True],
        "direction": ["maximize", "minimize"],
        "table": list(queries.transfer.ORDERS),
    }
    names = list(inspect.signature(BUILDERS[name]).parameters)
    built = [
        BUILDERS[name](**dict(zip(names, given, strict=True)))
        for given in itertools.product(*(arguments[each] for each in names))
    ]
    return [statement for one in built for statement in (one if isinstance(one, tuple) else (one,))]


def compiled(statement: Any, kind: str) -> str:
    """The SQL in one line, without the types that PostgreSQL's driver notes at each parameter."""
    sql = " ".join(str(statement.compile(dialect=DIALECTS[kind][1])).split())
    return re.sub(r"::(TIMESTAMP WITH TIME ZONE|DOUBLE PRECISION|[A-Z]+)(\[\])?", "", sql).replace(
        " OFFSET ?", ""
    )


def every_sql() -> Iterator[tuple[str, str, str]]:
    """Builder, database and SQL of every statement."""
    for name, kind in EVERY:
        for statement in build(name, kind):
            yield name, kind, compiled(statement, kind)


def lines(text: str) -> str:
    return " ".join(text.split())


HEAD = """
    SELECT pool.sample_id, pool.race_key, pool.weight, pool.entries,
           samples.source, coalesce(pool.score, samples.score) AS score, samples.reward, samples.hash, samples.requeues,
           samples.text, samples.payload, samples.codec
    FROM pool
    JOIN samples ON samples.id = pool.sample_id
"""

GOLDEN = {
    ("first_in_race", "sqlite"): f"""{HEAD}
        WHERE pool.race_key < ? AND pool.buffer_id = ?
        ORDER BY pool.buffer_id, pool.race_key, pool.sample_id
        LIMIT ?
    """,
    ("first_in_race", "postgresql"): """
        WITH head AS (SELECT pool.sample_id AS sample_id, pool.race_key AS race_key, pool.weight AS weight,
           pool.score AS score, pool.entries AS entries, pool.buffer_id AS buffer_id
        FROM pool
        WHERE pool.race_key < %(param_1)s AND pool.buffer_id = %(buffer)s
        ORDER BY pool.buffer_id, pool.race_key, pool.sample_id
        LIMIT %(limit)s
        FOR UPDATE OF pool SKIP LOCKED), claimed AS (DELETE
        FROM pool
        USING head
        WHERE pool.buffer_id = head.buffer_id AND pool.race_key = head.race_key AND pool.sample_id = head.sample_id
        RETURNING pool.sample_id, pool.race_key, pool.weight, pool.score, pool.entries), span AS MATERIALIZED
        (SELECT min(claimed.race_key) FILTER (WHERE claimed.race_key < %(param_1)s) AS first,
           max(claimed.race_key) FILTER (WHERE claimed.race_key < %(param_1)s) AS last,
           (SELECT max(workers.clock) AS max_1 FROM workers WHERE workers.buffer_id = %(buffer)s) AS clock
        FROM claimed), around AS MATERIALIZED
        (SELECT span.clock AS clock,
           (SELECT pool.race_key FROM pool WHERE pool.buffer_id = %(buffer)s AND pool.race_key > span.clock
            AND pool.race_key < span.first ORDER BY pool.race_key DESC LIMIT %(param_2)s) AS key_before,
           (SELECT count(*) AS count_1 FROM pool WHERE pool.buffer_id = %(buffer)s AND pool.race_key > span.first
            AND pool.race_key < span.last) AS n_between,
           (SELECT count(*) AS count_2 FROM pool WHERE pool.buffer_id = %(buffer)s
            AND pool.race_key = span.last) AS n_at_last,
           (SELECT pool.race_key FROM pool WHERE pool.buffer_id = %(buffer)s AND pool.race_key > span.last
            AND pool.race_key < %(param_1)s ORDER BY pool.race_key LIMIT %(param_3)s) AS key_after
        FROM span)
        SELECT claimed.sample_id, claimed.race_key, claimed.weight, claimed.entries, samples.source,
           coalesce(claimed.score, samples.score) AS score,
           samples.reward, samples.hash, samples.requeues, samples.text, samples.payload, samples.codec,
           around.clock, around.key_before, around.n_between, around.n_at_last, around.key_after
        FROM claimed
        JOIN samples ON samples.id = claimed.sample_id
        JOIN around ON true
    """,
    ("dequeue_part", "sqlite"): """
        UPDATE samples SET queued=?
        WHERE samples.id IN (SELECT draws.sample_id FROM draws
            WHERE draws.batch_id = ? AND draws.position >= ? AND draws.position < ?)
    """,
    ("dequeue_part", "postgresql"): """
        UPDATE samples SET queued=%(queued)s
        WHERE samples.id IN (SELECT draws.sample_id FROM draws
            WHERE draws.batch_id = %(batch)s AND draws.position >= %(first)s AND draws.position < %(end)s)
    """,
    ("put_slots", "sqlite"): """
        INSERT INTO samples (buffer_id, hash, text, payload, codec, source, queued, requeues, score, score_version, scored_at,
        created_at, created_iteration, created_tick, scored_tick, "key")
        VALUES (?, ?, ?, ?, ?, ?, 1, 0, ?, ?, utc_now(), utc_now(), ?, ?, ?, ?)
        ON CONFLICT (buffer_id, hash) DO UPDATE SET text = excluded.text, payload = excluded.payload,
        codec = excluded.codec, queued = excluded.queued, requeues = (samples.requeues + 1),
        score = excluded.score, score_version = excluded.score_version, scored_at = excluded.scored_at,
        created_at = excluded.created_at, created_iteration = excluded.created_iteration,
        created_tick = excluded.created_tick, scored_tick = excluded.scored_tick, evicted = 0
    """,
    ("put_slots", "postgresql"): """
        INSERT INTO samples (buffer_id, hash, source, requeues, key, text, payload, codec, score, score_version, scored_at,
        scored_tick, queued, created_at, created_tick, created_iteration)
        SELECT %(buffer)s AS buffer_id, incoming_slots.hash AS hash, %(param_1)s AS source, 0 AS requeues,
        incoming_slots.key AS key, incoming_slots.text AS text, incoming_slots.payload AS payload,
        incoming_slots.codec AS codec, incoming_slots.score AS score, %(version)s AS score_version,
        clock_timestamp() AS scored_at, %(tick)s AS scored_tick, true AS queued, clock_timestamp() AS created_at,
        %(tick)s AS created_tick, %(iteration)s AS created_iteration
        FROM unnest(CAST(%(incoming_slots_hash)s AS BYTEA[]), CAST(%(incoming_slots_text)s AS TEXT[]),
        CAST(%(incoming_slots_payload)s AS BYTEA[]), CAST(%(incoming_slots_codec)s AS TEXT[]),
        CAST(%(incoming_slots_key)s AS TEXT[]), CAST(%(incoming_slots_score)s AS DOUBLE PRECISION[]))
        AS incoming_slots(hash, text, payload, codec, key, score)
        ON CONFLICT (buffer_id, hash) DO UPDATE SET text = excluded.text, payload = excluded.payload,
        codec = excluded.codec, queued = excluded.queued, requeues = (samples.requeues + 1),
        score = excluded.score, score_version = excluded.score_version, scored_at = excluded.scored_at,
        created_at = excluded.created_at, created_iteration = excluded.created_iteration,
        created_tick = excluded.created_tick, scored_tick = excluded.scored_tick, evicted = false
    """,
    ("at_places", "sqlite"): """
        SELECT samples.id AS sample_id, pool.race_key, pool.weight, pool.entries, samples.hash
        FROM incoming_places JOIN samples ON samples.id = incoming_places.sample_id
        LEFT OUTER JOIN pool ON pool.buffer_id = ? AND pool.race_key = incoming_places.race_key
        AND pool.sample_id = incoming_places.sample_id
    """,
    ("first_by_score", "sqlite"): f"""{HEAD}
        WHERE pool.top = 1 AND pool.buffer_id = ?
        ORDER BY pool.buffer_id DESC, pool.score DESC, pool.tie DESC, pool.sample_id DESC
        LIMIT ?
    """,
    ("first_by_score", "postgresql"): """
        WITH head AS (SELECT pool.sample_id AS sample_id, pool.race_key AS race_key, pool.weight AS weight,
           pool.score AS score, pool.entries AS entries, pool.buffer_id AS buffer_id
        FROM pool
        WHERE pool.top AND pool.buffer_id = %(buffer)s
        ORDER BY pool.buffer_id DESC, pool.score DESC, pool.tie DESC, pool.sample_id DESC
        LIMIT %(limit)s
        FOR UPDATE OF pool SKIP LOCKED), claimed AS (DELETE
        FROM pool
        USING head
        WHERE pool.buffer_id = head.buffer_id AND pool.race_key = head.race_key AND pool.sample_id = head.sample_id
        RETURNING pool.sample_id, pool.race_key, pool.weight, pool.score, pool.entries)
        SELECT claimed.sample_id, claimed.race_key, claimed.weight, claimed.entries, samples.source,
           coalesce(claimed.score, samples.score) AS score, samples.reward,
           samples.hash, samples.requeues, samples.text, samples.payload, samples.codec
        FROM claimed
        JOIN samples ON samples.id = claimed.sample_id
    """,
    ("leave_pool", "sqlite"): """
        DELETE
        FROM pool
        WHERE pool.buffer_id = ? AND pool.race_key = ? AND pool.sample_id = ?
    """,
    ("leave_pool", "postgresql"): """
        DELETE
        FROM pool
        USING unnest(CAST(%(incoming_places_sample_id)s AS BIGINT[]),
           CAST(%(incoming_places_race_key)s AS DOUBLE PRECISION[])) AS incoming_places(sample_id, race_key)
        WHERE pool.buffer_id = %(buffer)s AND pool.race_key = incoming_places.race_key
              AND pool.sample_id = incoming_places.sample_id
    """,
    ("move_keys", "sqlite"): """
        UPDATE pool
        SET race_key=?, weight=?, top=?,
           tie=CASE WHEN ? THEN (SELECT substr(samples.hash, ?) AS tie FROM samples WHERE samples.id = ?) END,
           entries=coalesce(note(?), ?), score=?
        WHERE pool.buffer_id = ? AND pool.race_key = ? AND pool.sample_id = ? AND pool.weight IS ?
    """,
    ("close_batch", "sqlite"): """
        UPDATE batches
        SET settled_at=utc_now(),
           closed_tick=(SELECT coalesce(max(workers.tick), ?) + ? AS tick FROM workers WHERE workers.buffer_id = ?)
        WHERE batches.id = ? AND batches.settled_at IS NULL AND batches.released_at IS NULL
        RETURNING size, clock_before, clock, closed_tick
    """,
    ("close_batch", "postgresql"): """
        UPDATE batches
        SET settled_at=clock_timestamp(),
           closed_tick=(SELECT coalesce(max(workers.tick), %(coalesce_1)s) + %(coalesce_2)s AS tick
        FROM workers
        WHERE workers.buffer_id = %(buffer)s)
        WHERE batches.id = %(batch)s AND batches.settled_at IS NULL AND batches.released_at IS NULL
        RETURNING batches.size, batches.clock_before, batches.clock, batches.closed_tick
    """,
    ("unscored", "sqlite"): """
        SELECT page.sample_id, samples.hash, samples.requeues, page.entries, samples.text, samples.payload,
           samples.codec, (SELECT buffers.score_version FROM buffers WHERE buffers.id = ?) AS version
        FROM (SELECT pool.sample_id AS sample_id, pool.race_key AS race_key, pool.weight AS weight,
              pool.score AS score, pool.entries AS entries
        FROM pool
        WHERE pool.buffer_id = ? AND pool.weight IS NULL AND pool.sample_id > ?
        ORDER BY pool.buffer_id, pool.sample_id
        LIMIT ?) AS page
        JOIN samples ON samples.id = page.sample_id
        WHERE samples.id > ?
        ORDER BY page.sample_id
    """,
    ("store_rewards", "sqlite"): """
        UPDATE samples
        SET queued=(samples.queued = 1 AND ? = 1), reward=coalesce(?, samples.reward),
           rewarded_at=CASE WHEN (? IS NULL AND samples.reward IS NOT NULL) THEN samples.rewarded_at ELSE utc_now() END,
           rewarded_tick=CASE WHEN (? IS NULL AND samples.reward IS NOT NULL) THEN samples.rewarded_tick ELSE ? END,
           error=CASE WHEN (NOT (? IS NULL AND samples.reward IS NOT NULL)) THEN ? END, evicted=0
        WHERE samples.id = ? AND samples.hash = ?
    """,
    ("add_unscored", "postgresql"): """
        WITH stored AS (INSERT INTO samples (buffer_id, hash, text, payload, codec, source, meta, queued, requeues,
           created_at, created_tick, created_iteration)
        SELECT %(buffer)s AS buffer_id, incoming_samples.hash AS hash, incoming_samples.text AS text,
           incoming_samples.payload AS payload, incoming_samples.codec AS codec,
           incoming_samples.source AS source, CAST(incoming_samples.meta AS JSONB) AS meta,
           %(param_5)s AS queued, 0 AS requeues, clock_timestamp() AS created_at,
           %(tick)s AS created_tick, %(iteration)s AS created_iteration
        FROM unnest(CAST(%(incoming_samples_hash)s AS BYTEA[]), CAST(%(incoming_samples_text)s AS TEXT[]),
           CAST(%(incoming_samples_payload)s AS BYTEA[]), CAST(%(incoming_samples_codec)s AS TEXT[]),
           CAST(%(incoming_samples_source)s AS TEXT[]),
           CAST(%(incoming_samples_meta)s AS TEXT[])) AS incoming_samples(hash, text, payload, codec, source,
           meta)
        ORDER BY incoming_samples.hash
        ON CONFLICT (buffer_id, hash) DO UPDATE
        SET queued = true, requeues = (samples.requeues + 1), score = NULL, score_version = NULL,
           scored_at = NULL, scored_tick = NULL, attempts = 0, evicted = false
        WHERE NOT samples.queued
        RETURNING samples.id, samples.hash, samples.requeues), entered AS (INSERT INTO pool (buffer_id,
           race_key, sample_id, weight, top, entries)
        SELECT %(buffer)s AS buffer_id, %(param_1)s AS race_key, stored.id AS id, %(param_2)s AS weight,
           %(param_3)s AS top, %(param_4)s AS entries
        FROM stored)
        SELECT count(*) AS stored, count(*) FILTER (WHERE stored.requeues > %(param_6)s) AS requeued,
           %(param_6)s AS known
        FROM stored
    """,
    ("put_samples", "sqlite"): """
        INSERT INTO samples (buffer_id, hash, text, payload, codec, source, meta, queued, requeues, created_at,
           created_iteration, created_tick)
        VALUES (?, ?, ?, ?, ?, ?, ?, 1, 0, utc_now(), ?, ?)
        ON CONFLICT (buffer_id, hash) DO UPDATE
        SET queued = 1, requeues = (samples.requeues + 1), score = NULL, score_version = ?, scored_at = NULL,
           scored_tick = NULL, attempts = 0, evicted = 0
        WHERE samples.queued = 0
    """,
    ("insert_arrivals", "sqlite"): """
        INSERT INTO draws (batch_id, position, sample_id, race_key, weight, reported)
        SELECT ? AS batch_id, ? + next_place() AS position, pool.sample_id AS sample_id,
           pool.race_key AS race_key, pool.weight AS weight, 0 AS reported
        FROM pool
        WHERE pool.buffer_id = ? AND (pool.race_key, pool.sample_id) <= (?, ?)
        ORDER BY pool.buffer_id, pool.race_key, pool.sample_id
    """,
    ("leave_up_to", "sqlite"): """
        DELETE
        FROM pool
        WHERE pool.buffer_id = ? AND (pool.race_key, pool.sample_id) <= (?, ?)
    """,
}


EVERY = [(name, kind) for name in BUILDERS for kind in DIALECTS]


@pytest.mark.parametrize(("name", "kind"), GOLDEN)
def test_golden_sql(name: str, kind: str) -> None:
    assert compiled(build(name, kind)[0], kind) == lines(GOLDEN[name, kind]).replace(
        "unnest( ", "unnest("
    )


class TestEveryStatement:
    """Every statement is built once, binds its values, and names its columns; a failure names
    builder and database.
    """

    def test_is_built_once(self) -> None:
        for name, kind in EVERY:
            assert all(a is b for a, b in zip(build(name, kind), build(name, kind), strict=True)), (
                name,
                kind,
            )

    def test_says_what_it_is_for(self) -> None:
        silent = [name for name, builder in BUILDERS.items() if not (builder.__doc__ or "").strip()]
        assert not silent

    @pytest.mark.slow
    def test_binds_its_values_and_names_its_columns(self) -> None:
        time = r"strftime\('%Y-%m-%dT%H:%M:%f\+00:00', 'now'(, \? \|\| ' seconds')?\)"
        for name, kind, sql in every_sql():
            assert "*" not in re.sub(r" \* \(|\) \*|count\(\*\)", "", sql), (name, kind, sql)
            assert not re.findall(r"'[^']*'", re.sub(time, "", sql)), (name, kind, sql)
            assert "anon_" not in sql, (name, kind, sql)
            constants = r"(=|<|>) -?\d+\.?\d*(?! = 1)\b"
            assert not re.search(constants, re.sub(r"(\w+|[?)]) = [01]\b", "", sql)), (
                name,
                kind,
                sql,
            )

    def test_computed_columns_have_names(self) -> None:
        for name, kind in EVERY:
            for statement in build(name, kind):
                columns = getattr(statement, "selected_columns", None) or getattr(
                    statement, "_returning", ()
                )
                keys = [str(column.key) for column in columns]
                assert all(re.fullmatch(r"[a-z_]+2?", key) for key in keys), (name, kind, keys)

    @pytest.mark.slow
    def test_belongs_to_one_buffer_or_to_rows_that_are_known(self) -> None:
        for name, kind, sql in every_sql():
            known = re.search(
                r"incoming_|batches.id =|batch_id[ ,]|samples.id [=>]|max\(samples.id|ORDER BY samples.id DESC|"
                r"INTO \w+ \(buffer_id|buffer_id \+ |buffers.name|INTO buffers|lineage.id|INTO lineage|"
                r"receipts.written_at",
                sql,
            )
            assert known or "buffer_id =" in sql or "buffers.id =" in sql, (name, kind, sql)


def test_every_builder_has_a_name_of_its_own() -> None:
    """Every module of the package is exported, and no two modules build a statement of one name."""
    modules = [vars(queries)[found.name] for found in pkgutil.iter_modules(queries.__path__)]
    built = [
        pair
        for module in modules
        for pair in vars(module).items()
        if hasattr(pair[1], "cache_info")
    ]
    assert len(built) == len(BUILDERS) > 25
    assert dict(built) == BUILDERS
    assert {name for name, _ in GOLDEN} <= set(BUILDERS)


@pytest.mark.parametrize("kind", DIALECTS)
def test_a_hot_statement_has_one_text(kind: str) -> None:
    """A list would be expanded at each execution."""
    statements = [each for name in BUILDERS for each in build(name, kind) if hot.is_hot(each)]
    assert len(statements) > 10
    for statement in statements:
        compiled = statement.compile(dialect=DIALECTS[kind][1])
        assert not compiled.post_compile_params | compiled.literal_execute_params, str(compiled)

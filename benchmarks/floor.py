"""Draws against two floors: the same transaction by hand, and the leanest claim.

    python -m benchmarks.floor --sizes 10000,100000,1000000 --repeats 60

The first floor writes the same columns and counters as the library, as text through the driver's
cursor, BEGIN and COMMIT included, on a connection with the settings of the library. The second has
tables of its own that are as narrow as a claim allows: no counters, no marks, no hashes; draws are
kept. All take turns, call by call, and what a draw has taken waits again at a later key before the
next. The time is that of the processor; on PostgreSQL with that of the server's process for the
connection, and without it in brackets.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import operator
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.data import scores, texts
from benchmarks.databases import BUFFER, Databases, SqliteFiles, place, postgres_server
from benchmarks.measure import WARM_UPS, interval, markdown
from sqlbuffer import SampleStore, open_store
from sqlbuffer.core import pool
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries

BATCH = 512
rng = np.random.default_rng(0)

_COUNTERS = ", ".join(f"{name} = {name} + ?" for name in queries.buffers.COUNTERS)
_CONTENT = (
    "s.source, coalesce(p.score, s.score), s.reward, s.hash, s.requeues, s.text, s.payload, s.codec"
)
_RACE = """
SELECT max(w.clock), max(w.touched), sum(w.batches), sum(w.iterations), b.base_score, b.top_score,
       b.score_version, b.epoch, b.max_size, b.objective, b.budget, b.evict, b.created_at,
       max(w.tick) + 1
FROM {0}buffers AS b JOIN {0}workers AS w ON w.buffer_id = b.id
WHERE b.id = ?
GROUP BY b.id
"""
_BATCH = """
INSERT INTO {0}batches (
    buffer_id, worker_id, iteration, size, clock_before, clock, n_argmax, counts_attempts,
    drawn_at, drawn_tick, lease_until
)
VALUES (?, ?, ?, ?, ?, ?, 0, {no}, {now},
        (SELECT max(tick) + 1 FROM {0}workers WHERE buffer_id = ?), NULL)
RETURNING id, drawn_at, drawn_tick
"""
_COUNT = f"""
UPDATE {{0}}workers
SET {_COUNTERS}, clock = {{larger}}(clock, ?), tick = {{larger}}(tick, ?),
    touched = CASE WHEN ? > touched THEN ? ELSE touched END,
    heartbeat_at = {{now}}, finished_at = NULL
WHERE buffer_id = ? AND id = ?
"""


def pid_of(store: SampleStore, kind: str = "writer") -> int | None:
    """Return the process of the server that serves a store; None on SQLite."""
    pooled = store._buffer.database._engine(kind).raw_connection()
    connection: Any = pooled.driver_connection
    pooled.close()
    return connection.info.backend_pid if hasattr(connection, "info") else None


class Contender(abc.ABC):
    """A way to draw."""

    pid: int | None
    """Process of the server that draws; None on SQLite."""

    def before(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Prepare a draw."""

    @abc.abstractmethod
    def draw(self) -> object:
        """Draw a batch."""

    @abc.abstractmethod
    def after(self) -> None:
        """Let the drawn samples wait again."""


class Library(Contender):
    """`store.sample`."""

    def __init__(self, store: SampleStore) -> None:
        self.store: Any = store
        self.pid = pid_of(store)
        self.batch: Any = None

    def draw(self) -> object:
        """Draw a batch."""
        self.batch = self.store.sample(BATCH)
        return self.batch

    def after(self) -> None:
        """Let the samples wait again."""
        self.store._buffer.write(_put_back, self.batch.id, self.batch.ids, self.batch.weights)
        self.batch._dropped.detach()


def _put_back(tx: Transaction, batch: int, ids: Any, weights: Any) -> None:
    """Let drawn samples join the race again, and settle their batch."""
    state = tx.lock_race(exclusive=True)
    keys = state.clock + rng.exponential(1.0, len(ids)) / weights
    tx.execute(queries.batches.close_batch("settled_at"), batch=batch)
    pool.enter(tx, state, ids, keys, weights, weights, [0] * len(ids))
    tx.count(settled=len(ids), requeued=len(ids))


class Floor(Contender):
    """The same transaction by hand."""

    prefix, larger, no, now = "", "max", "0", "strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')"
    head: str

    def __init__(self, store: SampleStore) -> None:
        self.store: Any = store
        self.pid = pid_of(store)
        self.buffer = self.store._buffer.buffer_id
        self.drawn: tuple[Any, ...] = ()
        self.race, self.batch, self.count = map(self.text, (_RACE, _BATCH, _COUNT))

    def text(self, sql: str) -> str:
        """Return a statement in the words of the database."""
        return sql.format(self.prefix, larger=self.larger, no=self.no, now=self.now)

    def before(self) -> None:
        """Take the connection out of the pool of the library."""
        database = self.store._buffer.database
        self.pooled = database._engine("writer").raw_connection()
        self.connection = self.pooled.driver_connection

    def claim(self, run: Any) -> None:
        """Do all between BEGIN and COMMIT."""
        race = run(self.race, (self.buffer,)).fetchone()
        rows = self.arrivals(run)
        clock = rows[-1][1]
        values = (self.buffer, worker_id(), int(race[3]), len(rows), race[0], clock, self.buffer)
        number, _, tick = run(self.batch, values).fetchone()
        self.write(run, number, rows)
        deltas = [0] * len(queries.buffers.COUNTERS)
        deltas[0], deltas[5] = 1, len(rows)
        run(self.count, (*deltas, clock, tick, None, None, self.buffer, worker_id()))
        self.drawn = number, rows

    @abc.abstractmethod
    def arrivals(self, run: Any) -> Any:
        """Claim samples."""

    @abc.abstractmethod
    def write(self, run: Any, number: int, rows: Any) -> None:
        """Store their draws."""

    def after(self) -> None:
        """Let the samples wait again."""
        self.pooled.close()
        number, rows = self.drawn
        ids, weights = (np.array([row[i] for row in rows]) for i in (0, 2))
        self.store._buffer.write(_put_back, number, ids, weights)


class SqliteFloor(Floor):
    """By hand through sqlite3."""

    head = f"""
SELECT p.sample_id, p.race_key, p.weight, p.entries, {_CONTENT}
FROM pool AS p CROSS JOIN samples AS s ON s.id = p.sample_id
WHERE p.buffer_id = ? AND p.race_key < 9e999
ORDER BY p.race_key, p.sample_id
LIMIT ?
"""
    draws = """
INSERT INTO draws (batch_id, position, sample_id, race_key, weight, reported)
SELECT ?, row_number() OVER (ORDER BY race_key, sample_id) - 1, sample_id, race_key, weight, 0
FROM pool
WHERE buffer_id = ? AND (race_key, sample_id) <= (?, ?)
"""
    leave = "DELETE FROM pool WHERE buffer_id = ? AND (race_key, sample_id) <= (?, ?)"

    def draw(self) -> object:
        """Draw a batch."""
        run = self.connection.execute
        run("BEGIN IMMEDIATE")
        self.claim(run)
        run("COMMIT")
        return [row[9] for row in self.drawn[1]]

    def arrivals(self, run: Any) -> Any:
        """Claim samples."""
        return run(self.head, (self.buffer, BATCH + 1)).fetchall()[:BATCH]

    def write(self, run: Any, number: int, rows: Any) -> None:
        """Store their draws."""
        last = rows[-1][1], rows[-1][0]
        run(self.draws, (number, self.buffer, *last))
        run(self.leave, (self.buffer, *last))


class PostgresqlFloor(Floor):
    """By hand through psycopg; arrays of numbers travel in binary, as in the library."""

    prefix, larger, no, now = "sqlbuffer.", "greatest", "false", "clock_timestamp()"
    head = f"""
WITH head AS (
    SELECT sample_id, race_key, weight, entries, score, buffer_id
    FROM sqlbuffer.pool
    WHERE buffer_id = %s AND race_key < 'Infinity'
    ORDER BY race_key, sample_id
    LIMIT %s
    FOR UPDATE SKIP LOCKED
), claimed AS (
    DELETE FROM sqlbuffer.pool AS p USING head AS h
    WHERE p.buffer_id = h.buffer_id AND p.race_key = h.race_key AND p.sample_id = h.sample_id
    RETURNING h.sample_id, h.race_key, h.weight, h.entries, h.score
)
SELECT p.sample_id, p.race_key, p.weight, p.entries, {_CONTENT}
FROM claimed AS p JOIN sqlbuffer.samples AS s ON s.id = p.sample_id
"""
    draws = """
INSERT INTO sqlbuffer.draws (batch_id, position, sample_id, race_key, weight)
SELECT %s, position - 1, sample_id, race_key, weight
FROM unnest(%b::bigint[], %b::float8[], %b::float8[])
     WITH ORDINALITY AS d (sample_id, race_key, weight, position)
"""
    begin = """
BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL random_page_cost = 1;
INSERT INTO sqlbuffer.receipts (connection, number, written_at) VALUES ('floor', 1, now())
ON CONFLICT (connection) DO UPDATE SET number = excluded.number, written_at = excluded.written_at;
SELECT pg_advisory_xact_lock_shared(1, 1), pg_advisory_xact_lock_shared(2, 1)
"""

    def text(self, sql: str) -> str:
        """Return a statement in the words of the database."""
        return super().text(sql).replace("?", "%s")

    def draw(self) -> object:
        """Draw a batch."""
        cursor = self.connection.cursor()
        cursor.execute(self.begin)
        self.claim(cursor.execute)
        cursor.execute("COMMIT")
        return [row[9] for row in self.drawn[1]]

    def arrivals(self, run: Any) -> Any:
        """Claim samples."""
        found = run(self.head, (self.buffer, BATCH)).fetchall()
        found.sort(key=operator.itemgetter(1, 0))
        return found

    def write(self, run: Any, number: int, rows: Any) -> None:
        """Store their draws."""
        ids, keys, weights = zip(*(row[:3] for row in rows), strict=True)
        array = self.store._buffer.database.dialect.load
        kinds = queries.params.INCOMING_DRAWS
        columns = {"position": range(len(ids)), "sample_id": ids}
        sent = array(None, kinds, {**columns, "race_key": keys, "weight": weights})
        run(self.draws, (number, *(sent[kinds.parameter(name)] for name, _ in kinds.columns[1:])))


class Leanest(Contender):
    """A claim with tables of its own."""

    mark = "?"
    made = """
CREATE TABLE lean_samples (id BIGINT PRIMARY KEY, text TEXT);
CREATE TABLE lean_pool (race_key DOUBLE PRECISION, id BIGINT, PRIMARY KEY (race_key, id)) {0};
CREATE TABLE lean_draws (batch INTEGER, id BIGINT, PRIMARY KEY (batch, id)) {0}
"""
    options = "WITHOUT ROWID"

    def __init__(self, store: SampleStore, n: int) -> None:
        database = store._buffer.database
        self.pid = pid_of(store, "copier")
        self.connection = database._engine("copier").raw_connection().driver_connection
        self.numbers, self.clock, self.rows = itertools.count(1), 0.0, []
        for sql in self.made.format(self.options).split(";"):
            self.connection.execute(sql)
        samples = zip(range(n), texts(0, n), strict=True)
        waiting = zip(rng.exponential(1.0, n).tolist(), range(n), strict=True)
        self.many("lean_samples", list(samples))
        self.many("lean_pool", self.in_order(waiting))

    def in_order(self, waiting: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
        """Return rows of the pool as they are inserted."""
        return sorted(waiting)

    def many(self, table: str, rows: Any) -> None:
        """Insert pairs."""
        self.connection.execute("BEGIN")
        self.connection.cursor().executemany(
            f"INSERT INTO {table} VALUES ({self.mark}, {self.mark})", rows
        )
        self.connection.execute("COMMIT")

    def after(self) -> None:
        """Let the samples wait again."""
        keys = self.clock + rng.exponential(1.0, len(self.rows))
        waiting = zip(keys.tolist(), (row[1] for row in self.rows), strict=True)
        self.many("lean_pool", self.in_order(waiting))


class LeanestSqlite(Leanest):
    """The leanest claim on SQLite."""

    def draw(self) -> object:
        """Draw a batch."""
        run = self.connection.execute
        run("BEGIN IMMEDIATE")
        rows = run(
            "SELECT p.race_key, p.id, s.text FROM lean_pool AS p "
            "CROSS JOIN lean_samples AS s ON s.id = p.id ORDER BY p.race_key, p.id LIMIT ?",
            (BATCH,),
        ).fetchall()
        last = rows[-1][:2]
        run(
            "INSERT INTO lean_draws SELECT ?, id FROM lean_pool WHERE (race_key, id) <= (?, ?)",
            (next(self.numbers), *last),
        )
        run("DELETE FROM lean_pool WHERE (race_key, id) <= (?, ?)", last)
        run("COMMIT")
        self.rows, self.clock = rows, last[0]
        return [row[2] for row in rows]


class LeanestPostgresql(Leanest):
    """The leanest claim on PostgreSQL."""

    mark, options = "%s", ""

    def __init__(self, store: SampleStore, n: int) -> None:
        super().__init__(store, n)
        self.connection.execute("VACUUM ANALYZE lean_samples, lean_pool")
        self.connection.execute("SET random_page_cost = 1")  # as the library has it

    def in_order(self, waiting: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
        """Return rows of the pool as they are inserted: in the order of their samples, whose keys
        are random. Sorted rows would lie side by side in the table, as those of no race do.
        """
        return list(waiting)

    def draw(self) -> object:
        """Draw a batch."""
        cursor = self.connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute(
            """
WITH head AS (
    SELECT race_key, id FROM lean_pool ORDER BY race_key, id LIMIT %s FOR UPDATE SKIP LOCKED
), claimed AS (
    DELETE FROM lean_pool AS p USING head AS h WHERE p.race_key = h.race_key AND p.id = h.id
    RETURNING h.race_key, h.id
), drawn AS (
    INSERT INTO lean_draws SELECT %s, id FROM claimed
)
SELECT p.race_key, p.id, s.text FROM claimed AS p JOIN lean_samples AS s ON s.id = p.id
""",
            (BATCH, next(self.numbers)),
        )
        self.rows = cursor.fetchall()
        cursor.execute("COMMIT")
        self.clock = max(row[0] for row in self.rows)
        return [row[2] for row in self.rows]


def backend_s(pid: int | None) -> float:
    """Return the processor time of a process of the server so far; 0 without a server."""
    if pid is None:
        return 0.0
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measured(contenders: dict[str, Contender], repeats: int) -> Any:
    """Return the seconds of this process and of the server, (repeats, contenders, 2)."""
    found = np.zeros((repeats, len(contenders), 2))
    for turn in range(-WARM_UPS, repeats):
        for i, contender in rng.permutation(list(enumerate(contenders.values()))):
            contender.before()
            began = backend_s(contender.pid), time.process_time()
            contender.draw()
            ended = time.process_time(), backend_s(contender.pid)
            contender.after()
            if turn >= 0:
                found[turn, i] = ended[0] - began[1], ended[1] - began[0]
    return found


@contextlib.contextmanager
def contenders(databases: Databases, n: int) -> Iterator[dict[str, Contender]]:
    """Make all contenders, each with a database of its own."""
    is_file = isinstance(databases, SqliteFiles)
    filled = databases.empty()
    with open_store(filled, name=BUFFER) as store:
        store.add(texts(0, n))
        store.score(scores)
    databases.tidy(filled)
    with contextlib.ExitStack() as stack:

        def opened() -> SampleStore:
            store = stack.enter_context(open_store(databases.copy(filled), name=BUFFER))
            store.sample(1).settle()  # registers its worker
            return store

        yield {
            "sqlbuffer": Library(opened()),
            "floor": (SqliteFloor if is_file else PostgresqlFloor)(opened()),
            "leanest": (LeanestSqlite if is_file else LeanestPostgresql)(opened(), n),
        }


def ratio(seconds: Any) -> str:
    """Return the median ratio of (n, 2) seconds, and its interval."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*interval(seconds[:, 0] / seconds[:, 1]))


def rows(title: str, n: int, seconds: Any, names: list[str], *, has_server: bool) -> list[Any]:
    """Return the rows of a database and a size."""
    total = seconds.sum(axis=2)
    found = []
    for i, name in enumerate(names):
        ms, own = np.median(total[:, i]) * 1e3, np.median(seconds[:, i, 0]) * 1e3
        over = "" if i == 0 else ratio(total[:, (0, i)])
        alone = "" if i == 0 else ratio(seconds[:, (0, i), 0])
        times = f"{ms:.2f} ({own:.2f})" if has_server else f"{ms:.2f}"
        found.append([title, f"{n:,}", name, times, over, alone if has_server else ""])
    return found


def run(
    sizes: Annotated[str, typer.Option(help="Numbers of samples.")] = "10000,100000,1000000",
    repeats: Annotated[int, typer.Option(help="Draws of each.")] = 60,
    databases: Annotated[str, typer.Option(help="SQLite, PostgreSQL.")] = "SQLite,PostgreSQL",
) -> None:
    """Print a Markdown table."""
    table: list[Any] = []
    with place() as folder, contextlib.ExitStack() as stack:
        for title in databases.split(","):
            is_file = title == "SQLite"
            kind: Databases = (
                SqliteFiles(folder)
                if is_file
                else stack.enter_context(postgres_server(None, folder))
            )
            for n in map(int, sizes.split(",")):
                with contenders(kind, n) as made:
                    seconds = measured(made, repeats)
                table += rows(title, n, seconds, list(made), has_server=not is_file)
    heads = ("database", "samples", "draw of 512", "ms", "sqlbuffer over it", "this process alone")
    typer.echo(markdown(heads, table))


if __name__ == "__main__":
    typer.run(run)

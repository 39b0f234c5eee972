"""What becomes of the tables when samples come and go for long, under other storage parameters, and with a reader that
holds a snapshot all the while.

    python -m benchmarks.churn --rows 100000 --iterations 400

Every iteration draws 512, settles them, and adds and scores 512 more, in each database in turn. All claims are counted
in pages too: these do not depend on what else the machine does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import sqlalchemy as sa
import typer

from benchmarks.databases import BUFFER, Databases, PostgresServer, SqliteFiles, postgres_server
from sqlbuffer import SampleStore, open_store
from sqlbuffer.dialect import parse_url

BATCH = 512
NAPTIME_S = 5
"""Seconds between two rounds of autovacuum: 60 where nobody says otherwise, which is too long for a short run."""

_CLAIM = """
    EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
    SELECT race_key, sample_id FROM sqlbuffer.pool
    WHERE buffer_id = 1 AND race_key < 'Infinity' ORDER BY buffer_id, race_key, sample_id LIMIT 512
    FOR UPDATE SKIP LOCKED
"""
_RESET = (
    "ALTER TABLE sqlbuffer.pool RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_cost_delay)",
    "ALTER TABLE sqlbuffer.samples RESET (fillfactor)",
)
_VACUUM = "ALTER TABLE sqlbuffer.pool SET (autovacuum_vacuum_scale_factor = {}, autovacuum_vacuum_cost_delay = 0)"
_FILL = "ALTER TABLE sqlbuffer.{0} SET (fillfactor = {1}); VACUUM FULL sqlbuffer.{0}; VACUUM ANALYZE sqlbuffer.{0}"


@dataclasses.dataclass
class Subject:
    """A database that is churned, and what was seen of it."""

    name: str
    databases: Databases
    url: str
    is_held: bool = False
    draws: list[float] = dataclasses.field(default_factory=list)
    refreshes: list[float] = dataclasses.field(default_factory=list)


def scores_of(samples: list[str]) -> np.ndarray[Any, Any]:
    """Return (n,) scores that change with time, so that a refresh changes weights."""
    return np.array([(int(sample) * 7919) % 1000 for sample in samples]) + time.monotonic() % 1


@contextlib.contextmanager
def snapshot(url: str) -> Iterator[None]:
    """Hold what a reader sees: what is deleted meanwhile cannot be cleaned up."""
    location, dialect = parse_url(url)
    engine = dialect.reader(location)
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT count(*) FROM sqlbuffer.pool" if dialect.schema else "SELECT * FROM pool"))
        yield
    engine.dispose()


def iterate(subject: Subject, store: SampleStore, number: int, rows: int) -> None:
    """Draw, settle, and add and score as many again."""
    first = rows + number * BATCH
    start = time.perf_counter()
    batch = store.sample(BATCH)
    subject.draws.append(time.perf_counter() - start)
    batch.settle(np.ones(BATCH))
    store.add([str(i) for i in range(first, first + BATCH)])
    store.score(scores_of)


def refresh(subject: Subject, store: SampleStore) -> None:
    """Give all that waits a new score, and a new weight."""
    start = time.perf_counter()
    store.score(scores_of, only="all", chunk=20_000)
    subject.refreshes.append(time.perf_counter() - start)


def subjects(files: SqliteFiles, server: PostgresServer, rows: int) -> list[Subject]:
    """Build databases of the same content, with the storage parameters that are compared."""
    built: dict[str, str] = {}
    for kind, databases in (("sqlite", files), ("postgresql", server)):
        built[kind] = databases.blank()
        with open_store(built[kind], name=BUFFER) as store:
            store.add([str(i) for i in range(rows)])
            store.score(scores_of)
        databases.tidy(built[kind])

    def varied(name: str, *sql: str, is_held: bool = False) -> Subject:
        subject = Subject(name, server, server.copy(built["postgresql"]), is_held)
        for statement in itertools.chain(_RESET, *(each.split("; ") for each in sql)):
            server.execute(subject.url, statement)
        return subject

    return [
        varied("PostgreSQL, no parameters"),
        varied("pool: fillfactor 70", _FILL.format("pool", 70)),
        varied("pool: vacuum at 1 %", _VACUUM.format(0.01)),
        varied("samples: fillfactor 85", _FILL.format("samples", 85)),
        varied("no parameters, snapshot held", is_held=True),
        varied("pool: vacuum at 1 %, snapshot held", _VACUUM.format(0.01), is_held=True),
        Subject("SQLite", files, files.copy(built["sqlite"])),
        Subject("SQLite, snapshot held", files, files.copy(built["sqlite"]), is_held=True),
    ]


def row(subject: Subject) -> list[str]:
    """Return what became of a database, as cells of a table."""
    draws = [seconds * 1000 for seconds in subject.draws]
    third = len(draws) // 3
    first, last = statistics.median(draws[:third]), statistics.median(draws[-third:])
    refreshes = ", ".join(f"{seconds:.1f}" for seconds in subject.refreshes)
    return [subject.name, f"{first:.1f}", f"{last:.1f}", refreshes, *_sizes(subject)]


def _sizes(subject: Subject) -> list[str]:
    if isinstance(subject.databases, SqliteFiles):
        file = subject.databases.file(subject.url)
        log = os.path.getsize(f"{file}-wal") if os.path.exists(f"{file}-wal") else 0
        return ["", f"{os.path.getsize(file) / 1e6:.1f}", f"log {log / 1e6:.1f}", "", ""]
    ask = subject.databases._run  # type: ignore[attr-defined]
    plan = ask(subject.url, _CLAIM)[0]["Plan"]
    pool, samples = (
        ask(subject.url, f"SELECT pg_total_relation_size('sqlbuffer.{name}')") / 1e6 for name in ("pool", "samples")
    )
    hot = ask(
        subject.url,
        "SELECT round(100.0 * n_tup_hot_upd / n_tup_upd) FROM pg_stat_user_tables WHERE relname = 'samples'",
    )
    vacuums = ask(subject.url, "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'pool'")
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return [str(pages), f"{pool:.1f}", f"{samples:.1f}", str(hot), str(vacuums)]


def run(
    rows: Annotated[int, typer.Option(help="Samples that wait.")] = 100_000,
    iterations: Annotated[int, typer.Option(help="Iterations of each database.")] = 400,
    refresh_every: Annotated[int, typer.Option(help="Iterations between two refreshes.")] = 150,
) -> None:
    """Print a Markdown table of databases after many draws."""
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="sb", ignore_cleanup_errors=True) as place,
        postgres_server(None, pathlib.Path(place)) as server,
        contextlib.ExitStack() as stack,
    ):
        home = server.blank()
        server.execute(home, f"ALTER SYSTEM SET autovacuum_naptime = '{NAPTIME_S}s'")
        server.execute(home, "ALTER SYSTEM SET fsync = off")  # pages are what is compared
        server.execute(home, "SELECT pg_reload_conf()")
        files = SqliteFiles(pathlib.Path(place))
        each = [
            (subject, stack.enter_context(open_store(subject.url, name=BUFFER)))
            for subject in subjects(files, server, rows)
        ]
        for subject, _ in each:
            if subject.is_held:
                stack.enter_context(snapshot(subject.url))
        for number, (subject, store) in itertools.product(range(iterations), each):
            iterate(subject, store, number, rows)
            if number % refresh_every == refresh_every - 1:
                refresh(subject, store)
        held_s = time.monotonic() - start
        table = [row(subject) for subject, _ in each]
    print(f"{held_s:.0f} s\n")
    print(
        "| | draw at first, ms | draw at last, ms | refreshes, s | pages read by a claim | pool, MB | samples, MB "
        "| HOT updates of samples, % | autovacuums of pool |"
    )
    print("|---" * 9 + "|")
    for cells in table:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(run)

"""What dead rows at the head of the pool cost a claim on PostgreSQL, until a vacuum has taken them away.

    python -m benchmarks.dead_rows --rows 300000

Claims of 512 follow one another with autovacuum switched off: plainly, with space left free in the pages, and while a
reader holds a snapshot.
"""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import tempfile
import time
from typing import Annotated, Any

import typer

from benchmarks.databases import postgres_server

BATCH = 512
CLAIMS_A_ROW = 40
"""Claims between two rows of the table."""

_TABLE = """
    CREATE TABLE pool (
        buffer_id int, race_key float8, sample_id bigint, weight float8, top boolean,
        PRIMARY KEY (buffer_id, race_key, sample_id)
    ) WITH (autovacuum_enabled = off, fillfactor = {fillfactor});
    INSERT INTO pool SELECT 1, i, i, 1, false FROM generate_series(1, {rows}) AS i;
    VACUUM ANALYZE pool;
"""
_CLAIM = """
    WITH head AS (
        SELECT buffer_id, race_key, sample_id FROM pool
        WHERE buffer_id = 1 AND race_key < 'Infinity' ORDER BY buffer_id, race_key, sample_id LIMIT 512
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM pool USING head
    WHERE pool.buffer_id = head.buffer_id AND pool.race_key = head.race_key AND pool.sample_id = head.sample_id
"""
_PLAN = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_CLAIM}"


def claim(connection: Any) -> tuple[float, int]:
    """Claim a batch; return the milliseconds it took, and the pages it touched."""
    plan = connection.execute(_PLAN).fetchone()[0][0]
    return plan["Execution Time"], plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]


def run(rows: Annotated[int, typer.Option(help="Rows of the pool.")] = 300_000) -> None:
    """Print a Markdown table of claims that leave more and more dead rows behind."""
    import psycopg

    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="sb", ignore_cleanup_errors=True) as place,
        postgres_server(None, pathlib.Path(place)) as server,
        contextlib.ExitStack() as stack,
    ):
        urls = [server.blank() for _ in range(3)]
        connections = [stack.enter_context(psycopg.connect(url, autocommit=True)) for url in urls]
        for connection, fillfactor in zip(connections, (100, 70, 100), strict=True):
            for statement in _TABLE.format(rows=rows, fillfactor=fillfactor).split(";")[:-1]:
                connection.execute(statement)
        reader = stack.enter_context(psycopg.connect(urls[-1]))
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM pool")
        print("| dead rows | " + " | ".join(["plain", "fillfactor 70", "snapshot held"]) + " |")
        print("|---" * 4 + "|")
        for _ in range(rows // (BATCH * CLAIMS_A_ROW) - 1):
            print(f"| {_dead(connections[0], rows):,} | " + " | ".join(map(_row, connections)) + " |", flush=True)
        reader.rollback()
        for connection in connections:
            connection.execute("VACUUM pool")
        print(f"| vacuumed | {' | '.join(map(_row, connections))} |\n\n{time.monotonic() - start:.0f} s")


def _row(connection: Any) -> str:
    seen = [claim(connection) for _ in range(CLAIMS_A_ROW)]
    ms, pages = (statistics.median(column) for column in list(zip(*seen, strict=True)))
    return f"{ms:.1f} ms, {pages:.0f} pages"


def _dead(connection: Any, rows: int) -> int:
    return rows - int(connection.execute("SELECT count(*) FROM pool").fetchone()[0])


if __name__ == "__main__":
    typer.run(run)

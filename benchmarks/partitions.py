"""Would hash partitions pay on PostgreSQL? Claims of 512 from one table, and from 4 and 16 partitions, side by side.

    python -m benchmarks.partitions --rows 1000000

The race merges exactly: the k smallest keys of all are among the k smallest of each partition, which PostgreSQL
merges itself. `pool` is partitioned by sample, `samples` by hash: a unique constraint must hold the column that it is
split by.
"""

from __future__ import annotations

import itertools
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated

import typer

from benchmarks.databases import postgres_server

BATCH = 512
WARM_UPS = 5

_TABLES = """
    CREATE TABLE samples (
        id bigint NOT NULL, hash bytea NOT NULL, text text NOT NULL, source text NOT NULL, score float8,
        {key}
    ) {by_hash};
    CREATE TABLE pool (
        buffer_id int NOT NULL, race_key float8 NOT NULL, sample_id bigint NOT NULL, weight float8,
        PRIMARY KEY (buffer_id, race_key, sample_id)
    ) {by_sample};
    CREATE TABLE draws (batch_id bigint, position bigint, sample_id bigint, race_key float8, weight float8);
"""
_FILL = """
    INSERT INTO samples
    SELECT i, decode(md5(i::text), 'hex'), 'CCOc1ccc(cc1)N' || i || 'C(=O)c1ccccc1', 'zinc', random()
    FROM generate_series(1, {rows}) AS i ORDER BY md5(i::text);
    INSERT INTO pool SELECT 1, -ln(1 - random()) / (score + 1e-8), id, score FROM samples ORDER BY 2;
"""
_CLAIM = """
    WITH head AS (
        SELECT buffer_id, race_key, sample_id, weight FROM pool
        WHERE buffer_id = 1 AND race_key < 'Infinity'
        ORDER BY buffer_id, race_key, sample_id LIMIT 512
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        DELETE FROM pool USING head
        WHERE pool.buffer_id = head.buffer_id AND pool.race_key = head.race_key AND pool.sample_id = head.sample_id
        RETURNING pool.sample_id, pool.race_key, pool.weight
    ), drawn AS (
        INSERT INTO draws SELECT 1, row_number() OVER (), sample_id, race_key, weight FROM claimed
    )
    SELECT samples.id, samples.text, samples.source, samples.score, claimed.race_key
    FROM claimed JOIN samples ON samples.id = claimed.sample_id
"""


def build(url: str, partitions: int, rows: int) -> None:
    """Create and fill the tables."""
    import psycopg

    is_split = partitions > 1
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            _TABLES.format(
                key="PRIMARY KEY (id, hash), UNIQUE (hash)" if is_split else "PRIMARY KEY (id), UNIQUE (hash)",
                by_hash="PARTITION BY HASH (hash)" if is_split else "",
                by_sample="PARTITION BY HASH (sample_id)" if is_split else "",
            )
        )
        for table, part in itertools.product(("samples", "pool"), range(partitions) if is_split else ()):
            values = f"FOR VALUES WITH (MODULUS {partitions}, REMAINDER {part})"
            connection.execute(f"CREATE TABLE {table}_{part} PARTITION OF {table} {values}")
        connection.execute(_FILL.format(rows=rows))
        connection.execute("VACUUM ANALYZE")


def claim(url: str, draws: int) -> list[float]:
    """Claim batches, and return the seconds that each took."""
    import psycopg

    seconds = []
    with psycopg.connect(url) as connection:
        connection.execute("SET random_page_cost = 1")
        for _ in range(draws + WARM_UPS):
            start = time.perf_counter()
            claimed = connection.execute(_CLAIM).fetchall()
            connection.commit()
            seconds.append(time.perf_counter() - start)
            if len(claimed) != BATCH:
                raise RuntimeError(f"{len(claimed)} samples came instead of {BATCH}.")
    return seconds[WARM_UPS:]


def rate(url: str, processes: int, draws: int) -> float:
    """Let processes claim at the same time, and return the claims per second of all."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        each = [future.result() for future in [pool.submit(claim, url, draws) for _ in range(processes)]]
    return sum(len(seconds) / sum(seconds) for seconds in each)


def run(
    rows: Annotated[int, typer.Option(help="Samples in the tables.")] = 1_000_000,
    partitions: Annotated[str, typer.Option(help="Numbers of partitions, separated by commas.")] = "1,4,16",
    draws: Annotated[int, typer.Option(help="Claims of each process.")] = 60,
    rounds: Annotated[int, typer.Option(help="Rounds, in each of which everybody takes a turn.")] = 3,
    url: Annotated[str | None, typer.Option(help="A PostgreSQL server; by default one is started.")] = None,
) -> None:
    """Print a Markdown table of claims on tables with more and more partitions."""
    crowds = (1, 2, 4)
    with (
        tempfile.TemporaryDirectory(prefix="sb", ignore_cleanup_errors=True) as place,
        postgres_server(url, pathlib.Path(place)) as server,
    ):
        urls = {number: server.blank() for number in map(int, partitions.split(","))}
        for number, database in urls.items():
            build(database, number, rows)
        latency: dict[int, list[float]] = {number: [] for number in urls}
        rates: dict[tuple[int, int], list[float]] = {pair: [] for pair in itertools.product(urls, crowds)}
        for _, (number, database) in itertools.product(range(rounds), urls.items()):
            latency[number] += claim(database, draws)
            for crowd in crowds:
                rates[number, crowd].append(rate(database, crowd, draws))
    print("| partitions | claim of 512, median ms | " + " | ".join(f"claims/s, {n} at once" for n in crowds) + " |")
    print("|---|---|" + "---|" * len(crowds))
    for number in urls:
        cells = [f"{statistics.median(rates[number, crowd]):.0f}" for crowd in crowds]
        print(f"| {number} | {statistics.median(latency[number]) * 1000:.1f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(run)

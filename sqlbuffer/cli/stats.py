"""`sqlbuffer stats`: buffers in numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Annotated, Any

import sqlalchemy as sa
import typer

from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import AnyBuffer, Url, handles, open_existing
from sqlbuffer.core import counts
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.backends import Dialect
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.db.queries.audit import n_rows
from sqlbuffer.db.schema import metadata

_OVERVIEW = (
    *("name", "iteration", "waiting", "claimed", "stored", "measured", "failed", "direction"),
    "best_reward",
)
_STALENESS = ("name", "score_version", "waiting", "oldest")


@reading(
    "sqlbuffer stats",
    "sqlbuffer stats --name qed",
    "sqlbuffer stats --stale",
    "sqlbuffer stats --sizes",
    "sqlbuffer stats --json",
    "sqlbuffer stats --name qed --watch",
)
def stats(
    url: Url = DEFAULT_URL,
    name: AnyBuffer = None,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale",
            help="Count waiting samples by the version of their score; reads the whole pool.",
        ),
    ] = False,
    sizes: Annotated[
        bool,
        typer.Option(
            "--sizes",
            help="Show rows and bytes of each table of the database instead; reads every page.",
        ),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the screen of `sqlbuffer watch` instead.")
    ] = False,
) -> Answer:
    """Show buffers in numbers.

    Without --name there is one line for each buffer, with --name all counters of one.

    - iteration: batches settled so far.
    - waiting: samples in the pool.
    - claimed: samples drawn, and neither settled nor released yet.
    - stored: distinct samples ever stored.
    - measured: distinct samples with a reward.
    - direction: maximize or minimize.
    - best_reward: the highest reward, or the lowest in a buffer that minimizes.

    With --name the settings objective, budget and max_attempts are there, too: an empty budget is
    any number of samples, and `sqlbuffer budget` sets it.

    If refreshed_version (with --name or --json) is not score_version, some waiting samples may have
    scores of an older predictor: --stale counts them. All other counters cost the same at any size
    of the buffer.

    --sizes shows which tables are large, with their indexes: `sqlbuffer prune` drops old rows.
    """
    if watch:
        from sqlbuffer.cli.watch import watch_buffers  # imports numpy

        watch_buffers(url, name)
        raise typer.Exit
    if sizes:
        if name is not None or stale:
            raise typer.BadParameter("--sizes is of the whole database: leave out --name, --stale.")
        return _show_sizes(url)
    with contextlib.closing(open_existing(url)) as database:
        found = [_numbers(buffer, stale=stale) for buffer in handles(database, name)]
    return Answer(
        _OVERVIEW if name is None else [field for field in found[0] if field != "staleness"],
        found,
        is_one=name is not None,
        part="staleness" if stale else None,
        part_columns=_STALENESS,
    )


def _show_sizes(url: str) -> Answer:
    with contextlib.closing(open_existing(url)) as database:
        rows, about = database.read(functools.partial(_sizes, dialect=database.dialect))
    output.line(about, stderr=True)
    return Answer(["table", "rows", "mb"], rows)


def _mb(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else round(size_bytes / 1e6, 1)


def _sizes(connection: sa.Connection, *, dialect: Dialect) -> tuple[list[dict[str, Any]], str]:
    """Return rows and bytes of each table, the largest first, and the size of the database."""
    size_of = dialect.table_bytes(connection)
    rows = [
        {
            "table": table.name,
            "rows": connection.execute(n_rows(table)).scalar_one(),
            "size_bytes": size_of.get(table.name),
            "mb": _mb(size_of.get(table.name)),
        }
        for table in metadata.sorted_tables
    ]
    rows.sort(key=lambda row: (row["size_bytes"] or 0, row["rows"]), reverse=True)
    return rows, dialect.about_size(connection)


def _numbers(buffer: BufferHandle, *, stale: bool) -> dict[str, Any]:
    numbers = dataclasses.asdict(buffer.read(counts.stats))
    if stale:
        numbers["staleness"] = [
            {"name": buffer.name, **dataclasses.asdict(row)}
            for row in buffer.read(counts.staleness)
        ]
    return numbers

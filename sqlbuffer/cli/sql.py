"""`sqlbuffer sql`: any SELECT that a person types."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from sqlbuffer._messages import n_of
from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import Url, open_existing
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.sql import ask

TABLE_ROWS = 1000
"""Rows in a table if no limit is given."""


@reading(
    'sqlbuffer sql "SELECT * FROM buffer_overview"',
    'sqlbuffer sql "SELECT source, max(reward) FROM samples GROUP BY source"',
    'sqlbuffer sql --csv "SELECT * FROM draw_overview WHERE iteration = 812"',
    context_settings={"ignore_unknown_options": True},  # SQL may begin with a comment: -- text
)
def sql(
    statement: Annotated[
        str, typer.Argument(metavar="SELECT", help="One SELECT, which is run unchanged.")
    ],
    url: Url = DEFAULT_URL,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=f"{TABLE_ROWS:,} in a table, else all",
            help="Largest number of rows.",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="R",
            help="PostgreSQL role that runs the SQL, such as the reader of `sqlbuffer db grants`.",
        ),
    ] = None,
) -> Answer:
    """Run a SELECT on the tables and views of the database.

    Views to begin with: buffer_overview, sample_overview, batch_overview, draw_overview,
    measurement_overview, failure_overview, predictor_overview, worker_overview.

    Tables: buffers, samples, pool, batches, draws, measurements, workers, predictors, jobs,
    checkpoints, metrics, receipts, lineage.

    docs/schema.md describes their columns and answers frequent questions; "SELECT * FROM
    sample_overview" --limit 1 shows the columns of a view.

    The SQL cannot write. A superuser of PostgreSQL, and roles that may reach files and programs of
    the server, are refused unless --role names a role that only reads.
    """
    with contextlib.ExitStack() as opened:
        opened.enter_context(contextlib.closing(open_existing(url)))
        found = opened.enter_context(ask(url, statement, role=role))
        rows = found.rows if limit is None else _first(found.rows, min(limit, LARGEST_INT))
        return Answer(
            found.columns,
            (dict(zip(found.columns, row, strict=True)) for row in rows),
            most=TABLE_ROWS if limit is None else None,
            opened=opened.pop_all(),
        )


def _first(rows: Iterator[Any], n: int) -> Iterator[Any]:
    """Return the first n rows, and say on stderr that there are more."""
    yield from itertools.islice(rows, n)
    if next(rows, None) is not None:
        output.line(f"the first {n_of(n, 'row')}: a larger --limit shows more.", stderr=True)

"""`sqlbuffer sql`: any SELECT that a person types."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import sqlalchemy as sa
import typer

from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import Url, open_existing
from sqlbuffer.db.backends import first_line, parse_url
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument

TABLE_ROWS = 1000
"""Rows in a table if no limit is given."""

_RULE = "give one SELECT, which cannot write"


@dataclasses.dataclass(frozen=True)
class Found:
    """The rows of a SELECT.

    Attributes:
        columns: Names of the columns, each different.
        rows: The rows; each is read from the database when the iterator reaches it.
    """

    columns: list[str]
    rows: Iterator[Sequence[Any]]


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
            metavar="R", help="PostgreSQL role that runs the SQL, such as pg_read_all_data."
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
        rows = itertools.islice(found.rows, limit and min(limit, LARGEST_INT))
        return Answer(
            found.columns,
            (dict(zip(found.columns, row, strict=True)) for row in rows),
            most=TABLE_ROWS if limit is None else None,
            opened=opened.pop_all(),
        )


@contextlib.contextmanager
def ask(url: str, sql: str, *, role: str | None = None) -> Iterator[Found]:
    """Run one SELECT, unchanged, on a connection that can only read.

    Args:
        url: URL of the database.
        sql: One SELECT.
        role: PostgreSQL role that runs it; None for the role that logs in.

    Raises:
        InvalidArgument: If the database refuses the SQL, or if the role may do more than read. The
            message is one line.
    """
    _require_text(sql)
    location, dialect = parse_url(url)
    engine = dialect.inspector(location)
    try:
        with (
            engine.connect() as connection,
            dialect.guarded(connection, sql, role=role),
            connection.exec_driver_sql(sql) as result,
        ):
            if not (columns := _unique(result.keys()) if result.returns_rows else []):
                raise InvalidArgument(f"this SQL returns no columns: {_RULE}.")
            yield Found(columns, iter(result))
    except sa.exc.DBAPIError as exc:
        if unknown := dialect.unknown_name(exc):
            from sqlbuffer.cli import near_matches  # only errors need it

            raise InvalidArgument(near_matches.explain(*unknown, sql)) from exc
        raise InvalidArgument(f"{first_line(str(exc.orig)).rstrip('.')}: {_RULE}.") from exc
    finally:
        engine.dispose()


def _require_text(sql: str) -> None:
    """Refuse characters at which a driver would cut the SQL off, or which it cannot encode."""
    if "\0" in sql or sql.encode(errors="replace").decode() != sql:
        raise InvalidArgument(f"this SQL has characters that are not text: {_RULE}.")


def _unique(columns: Iterable[str]) -> list[str]:
    """Return the names with repeats numbered: `n`, `n:1`, `n:2`."""
    names: list[str] = []
    for column in columns:
        again = sum(name == column or name.startswith(f"{column}:") for name in names)
        names.append(f"{column}:{again}" if again else column)
    return names

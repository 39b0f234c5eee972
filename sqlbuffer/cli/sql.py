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
from sqlbuffer.cli import output
from sqlbuffer.cli.common import AsCsv, AsJson, Url, open_existing
from sqlbuffer.db.backends import first_line, parse_url
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument

TABLE_ROWS = 1000
"""Rows in a table if no limit is given."""

_RULE = "give one SELECT, which cannot write"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The rows of a SELECT.

    Attributes:
        columns: Names of the columns, each different.
        rows: The rows; each is read from the database when the iterator reaches it.
    """

    columns: list[str]
    rows: Iterator[Sequence[Any]]


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
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Run a SELECT on the tables and views of the database.

    Views to begin with: buffer_overview, sample_overview, batch_overview, draw_overview,
    measurement_overview.

    The SQL cannot write. A superuser of PostgreSQL, and roles that may reach files and programs of
    the server, are refused unless --role names a role that only reads.
    """
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both.")
    limit = limit and min(limit, LARGEST_INT)
    with contextlib.closing(open_existing(url)), ask(url, statement, role=role) as answer:
        if as_json or as_csv:
            write = output.write_json_rows if as_json else output.write_csv
            write(answer.columns, itertools.islice(answer.rows, limit))
            return
        output.table(
            answer.columns, itertools.islice(answer.rows, TABLE_ROWS if limit is None else limit)
        )
        if limit is None and next(answer.rows, None) is not None:
            output.line(
                f"the first {TABLE_ROWS:,} rows: --limit, --json or --csv show more.", stderr=True
            )


@contextlib.contextmanager
def ask(url: str, sql: str, *, role: str | None = None) -> Iterator[Answer]:
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
            yield Answer(columns, iter(result))
    except sa.exc.DBAPIError as exc:
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

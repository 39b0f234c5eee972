"""Shared by the commands: options, opening a database, and tables of rows."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sqlbuffer.cli import output
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.backends import parse_url
from sqlbuffer.db.database import URL_VARIABLE, Database
from sqlbuffer.db.queries.buffers import buffer_names
from sqlbuffer.errors import DatabaseUnavailable

LOOK = "Look at buffers"
"""Heading in `sqlbuffer --help` of the commands that only read."""

PROCESSES = "Workers, jobs and claims"
"""Heading of the commands about the processes that use a buffer."""

CHANGE = "Make and maintain"
"""Heading of the commands about copies and databases."""

Url = Annotated[
    str,
    typer.Option(
        envvar=URL_VARIABLE,
        help="Database: sqlite:///FILE or postgresql://USER@HOST/DATABASE. Keep the password in "
        "~/.pgpass or PGPASSWORD: other users of this host can see the arguments of a "
        "command.",
    ),
]
OneBuffer = Annotated[str, typer.Option("--name", help="Name of the buffer.")]
AnyBuffer = Annotated[
    str | None, typer.Option("--name", help="Name of one buffer; all buffers if not given.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, floats to the last bit, times in UTC.")
]
AsCsv = Annotated[
    bool, typer.Option("--csv", help="Print CSV, floats to the last bit, times in UTC.")
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace",
        min=0.0,
        help="Seconds of silence after which a worker of another host counts as dead.",
    ),
]


class Group(TyperGroup):
    """A group of commands whose help texts are their docstrings, wrapped to the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for command in (self, *self.commands.values()):
            command.help = unwrapped(command.help or "")


def unwrapped(text: str) -> str:
    """Return a text with each paragraph and list item on one line, for a terminal to wrap.

    Typer keeps the line breaks of a docstring. Lines that are indented by four spaces are code and
    stay as they are.
    """
    lines: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        begins = not lines or not lines[-1] or not line or line.startswith(("- ", "    "))
        if begins:
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
    return "\n".join(lines)


def examples(*commands: str) -> str:
    """Return the last lines of a help page."""
    return "\n\n".join(["Examples:", *commands])


def open_existing(url: str, *, any_revision: bool = False) -> Database:
    """Open a database that exists; create nothing.

    Args:
        url: URL of the database.
        any_revision: Accept a database without tables, and one of another release.

    Raises:
        DatabaseUnavailable: If the database does not exist or cannot be read.
        SchemaMismatch: If its schema is of another release, or the database has other tables.
    """
    location, dialect = parse_url(url)
    if not dialect.exists(location):
        shown = location.render_as_string(hide_password=True)
        raise DatabaseUnavailable(
            f"there is no {shown}: check the path, or create it with "
            f"`sqlbuffer db upgrade --url {shown}`."
        )
    return Database(location, create=False, any_revision=any_revision)


def handles(database: Database, name: str | None, **options: Any) -> list[BufferHandle]:
    """Return handles on one buffer or on all, without registering this process as a worker.

    Args:
        database: The database.
        name: Name of the buffer; None for all buffers.
        **options: Keywords of `attach_existing`.

    Raises:
        BufferNotFound: If no buffer has the name.
    """
    if name is not None:
        return [attach_existing(database, name, **options)]
    names = database.read(lambda connection: connection.scalars(buffer_names()).all())
    return [attach_existing(database, each, **options) for each in names]


def show_rows(
    find: Callable[..., list[dict[str, Any]]],
    columns: Sequence[str],
    *,
    url: str,
    name: str | None,
    grace: float,
    as_json: bool,
) -> None:
    """Print the rows that `find` returns for one buffer or for all.

    Args:
        find: A function of a transaction that returns rows.
        columns: The columns of the table; JSON shows all that a row has.
        url: URL of the database.
        name: Name of the buffer; None for all buffers.
        grace: Seconds of silence after which a worker of another host counts as dead.
        as_json: Print JSON instead of a table.
    """
    with contextlib.closing(open_existing(url)) as database:
        buffers = handles(database, name, grace_s=grace)
        rows = [row for each in buffers for row in each.read(find)]
    if as_json:
        output.write_json(rows)
    else:
        output.table(columns, [[row[column] for column in columns] for row in rows])

"""Shared by the commands: options, opening a database, and tables of rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from sqlbuffer._messages import printable
from sqlbuffer.cli.commands import examples
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.backends import parse_url
from sqlbuffer.db.database import URL_VARIABLE, Database
from sqlbuffer.db.queries.buffers import buffer_names
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

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
Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Only these rows of samples, such as \"source = 'data'\".",
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace",
        min=0.0,
        help="Seconds of silence after which a worker of another host counts as dead.",
    ),
]


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


def rows_of(
    find: Callable[..., list[dict[str, Any]]], *, url: str, name: str | None, grace: float
) -> list[dict[str, Any]]:
    """Return the rows that `find` returns for one buffer or for all.

    Args:
        find: A function of a transaction that returns rows.
        url: URL of the database.
        name: Name of the buffer; None for all buffers.
        grace: Seconds of silence after which a worker of another host counts as dead.
    """
    with contextlib.closing(open_existing(url)) as database:
        return [row for each in handles(database, name, grace_s=grace) for row in each.read(find)]


def explained(do: Callable[[], T]) -> T:
    """Call a function, and report a wrong argument as a wrong option."""
    try:
        return do()
    except InvalidArgument as exc:
        raise typer.BadParameter(printable(str(exc))) from exc


def command(*commands: str, **settings: Any) -> Callable[[F], F]:
    """Return a decorator for the function of a command.

    Args:
        *commands: Examples, for the last lines of its help.
        **settings: Keywords of `typer.Typer.command`.
    """

    def decorate(function: F) -> F:
        function.settings = {"epilog": examples(*commands), **settings}  # type: ignore[attr-defined]
        return function

    return decorate

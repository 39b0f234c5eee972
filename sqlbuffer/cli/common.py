"""Shared by the commands: options, opening a database, and tables of rows."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from sqlbuffer._messages import printable
from sqlbuffer.cli.commands import examples
from sqlbuffer.db.database import URL_VARIABLE
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.looks.opening import handles as handles
from sqlbuffer.looks.opening import open_existing as open_existing

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
        help="Only these samples, such as \"state = 'failed'\" or 'meta.mw > 600': the columns of "
        "sample_overview, and meta.NAME for a value of the metas.",
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read pickled samples; trusts every user who can write to the database.",
    ),
]


class Durabilities(str, enum.Enum):
    """What a power cut may take."""

    normal = "normal"
    full = "full"


Durability = Annotated[
    Durabilities,
    typer.Option(
        help="normal: a power cut may lose the last commits; full: it loses none, and each commit "
        "waits for the disk.",
    ),
]
OwnGrace = Annotated[
    float,
    typer.Option(
        "--grace",
        min=1.0,
        help="Seconds of silence after which another worker of this buffer counts as dead.",
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

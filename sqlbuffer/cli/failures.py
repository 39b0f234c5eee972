"""`sqlbuffer failed`, `retry` and `budget`: failures of measurements, and how many there may be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from sqlbuffer._messages import printable
from sqlbuffer.cli import output
from sqlbuffer.cli.common import AsJson, OneBuffer, Url, handles, open_existing
from sqlbuffer.cli.workers import unregister
from sqlbuffer.core import attempts
from sqlbuffer.core.budget import as_budget, set_budget
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db import queries
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument

T = TypeVar("T")

Where = Annotated[
    str | None,
    typer.Option(
        metavar="SQL",
        help="Only these rows of samples, such as \"error LIKE 'timed out%'\".",
    ),
]
_COLUMNS = ("id", "error", "attempts", "seconds", "source", "failed_at", "sample")


def failed(
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 20,
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Show the samples whose measurement failed, the newest failure first.

    "error" is the reason. "attempts" counts the workers that died while they measured the sample.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        rows = _explained(lambda: attempts.failed(buffer, n, where, as_text=True))
    if as_json:
        output.write_json(rows)
    else:
        output.table(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows])


def retry(
    ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="ID...", help="Numbers of samples, as `sqlbuffer failed` shows."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every sample whose measurement failed.")
    ] = False,
    where: Where = None,
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
) -> None:
    """Let failed samples wait for another measurement, first in line.

    Give the numbers of samples, --where, or --all. Earlier measurements stay stored.
    """
    if bool(ids) + everything + (where is not None) != 1:
        raise typer.BadParameter("give the numbers of samples, --where, or --all.")
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        n = _explained(lambda: attempts.retry(buffer, ids or None, where))
        buffer.write(unregister)
    output.line(f"{n} samples wait again")


def budget(
    samples: Annotated[
        str | None,
        typer.Argument(
            metavar="N|none", help="The new budget; none for any number. Not given: show it."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
) -> None:
    """Show how many samples may be measured, or set it.

    Distinct samples that are measured, failed or claimed count, in all processes together.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        if samples is not None:
            most = _explained(lambda: _budget(samples))
            _explained(lambda: buffer.write(set_budget, most))
        _show_budget(buffer)


def _budget(text: str) -> int | None:
    if text == "none":
        return None
    return as_budget(int(text) if text.isdecimal() else text)


def _show_budget(buffer: BufferHandle) -> None:
    row = buffer.read(lambda tx: tx.own_row(queries.budget.used()))
    most = "no budget" if row.budget is None else f"a budget of {row.budget} samples"
    output.line(f"{buffer.name} has {most}; {row.used} are measured, failed or claimed")


def _explained(do: Callable[[], T]) -> T:
    """Call a function, and report a wrong argument as a wrong option."""
    try:
        return do()
    except InvalidArgument as exc:
        raise typer.BadParameter(printable(str(exc))) from exc

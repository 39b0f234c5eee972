"""`sqlbuffer failed`, `retry` and `budget`: failures of measurements, and how many there may be."""

from __future__ import annotations

import contextlib
import functools
from typing import Annotated

import typer

from sqlbuffer._messages import n_of
from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading, tell_of_more
from sqlbuffer.cli.common import OneBuffer, Url, Where, command, explained, handles, open_existing
from sqlbuffer.cli.missing import tell_missing_metas
from sqlbuffer.cli.workers import unregister
from sqlbuffer.core import attempts
from sqlbuffer.core.budget import as_budget, set_budget
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.where import as_where
from sqlbuffer.db import queries
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.words import rounded

_COLUMNS = ("id", "error", "tries", "seconds", "source", "failed_at", "sample")


@reading(
    "sqlbuffer failed -n 5",
    "sqlbuffer failed --name qed --where \"error LIKE 'timed out%'\"",
)
def failed(
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 20,
    where: Where = None,
) -> Answer:
    """Show the samples whose measurement failed, the newest failure first.

    "error" is the reason. "tries" counts the measurements that were begun since the sample was last
    retried: each has failed, or its worker died. "seconds" are those of the last one. --json also
    has "attempts" of the table `samples`: deaths of workers, and failures under --on-error retry.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        found = explained(lambda: attempts.failed(buffer, n, where, as_text=True))
        if not found:
            tell_missing_metas(buffer, as_where(where))
        count = functools.partial(attempts.count_failed, buffer, where)
        tell_of_more(len(found), n, count, "failed samples")
    columns = (*_COLUMNS, *(["key"] if buffer.keep_key else []))
    return Answer(columns, found, shown={"seconds": lambda row: rounded(row["seconds"])})


@command(
    "sqlbuffer retry 17 23",
    "sqlbuffer retry --all --name qed",
    "sqlbuffer retry --where \"error LIKE 'timed out%'\"",
)
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
        explained(lambda: attempts.require_failed(buffer, ids or []))
        n = explained(lambda: attempts.retry(buffer, ids or None, where))
        buffer.write(unregister)
    output.line(n_of(n, "sample waits again", "samples wait again"))


@command("sqlbuffer budget", "sqlbuffer budget 1500 --name qed")
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
            most = explained(lambda: _budget(samples))
            explained(lambda: buffer.write(set_budget, most))
        _show_budget(buffer)


def _budget(text: str) -> int | None:
    if text == "none":
        return None
    return as_budget(int(text) if text.isdecimal() else text)


def _show_budget(buffer: BufferHandle) -> None:
    row = buffer.read(lambda tx: tx.own_row(queries.budget.used()))
    most = "no budget" if row.budget is None else f"a budget of {n_of(row.budget, 'sample')}"
    used = n_of(row.used, "is", "are")
    output.line(f"{buffer.name} has {most}; {used} measured, failed or claimed")

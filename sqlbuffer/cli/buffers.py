"""`sqlbuffer rename` and `sqlbuffer rm`: give a buffer another name, or delete it."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from sqlbuffer._messages import n_of, printable
from sqlbuffer.cli import output
from sqlbuffer.cli.common import Grace, Url, command, handles, open_existing
from sqlbuffer.core import deletion
from sqlbuffer.core.attach import require_name
from sqlbuffer.core.counts import stats
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import DEFAULT_URL


@command("sqlbuffer rename default first-try")
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name of the buffer.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Give a buffer another name.

    Processes that have opened the buffer go on working with it.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, old)
        buffer.write(deletion.rename, require_name(new))
    output.line(f"{old} was renamed to {new}")


@command("sqlbuffer rm qed --yes", "sqlbuffer rm default --force --yes")
def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the buffer.")],
    force: Annotated[
        bool, typer.Option("--force", help="Delete the buffer even if workers use it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    grace: Grace = GRACE_S,
) -> None:
    """Delete a buffer with all that it holds: samples, rewards, predictors, checkpoints.

    The command asks on a terminal, and elsewhere needs --yes. It refuses to delete a buffer that a
    living worker uses, or of which a claim is leased, unless --force is given. The worker then gets
    `BufferNotFound` at its next write.

    One transaction deletes all or nothing.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name, grace_s=grace, may_be_unfinished=True)
        if not yes:
            confirm(_question(buffer), "delete the buffer")
        buffer.write_alone(deletion.delete, force=force)
    output.line(f"{name} was deleted")


def _question(buffer: BufferHandle) -> str:
    found = buffer.read(stats)
    measured = n_of(found.measured, "is", "are")
    return (
        f"Delete {buffer.name} with {n_of(found.stored, 'sample')}, of which {measured} measured?"
    )


def confirm(question: str, what: str) -> None:
    """Ask whether to do what cannot be undone; end the command if the answer is no."""
    if not _is_terminal():
        raise typer.BadParameter(f"there is no terminal to ask on: give --yes to {what}.")
    typer.confirm(printable(question), abort=True)


def _is_terminal() -> bool:
    return sys.stdin.isatty()

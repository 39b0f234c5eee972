"""`sqlbuffer remeasure`: begin another reward function."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from sqlbuffer._messages import n_of, shown
from sqlbuffer.cli import buffers, output
from sqlbuffer.cli.common import OneBuffer, Url, Where, command, explained, handles, open_existing
from sqlbuffer.cli.workers import unregister
from sqlbuffer.core import objective as objectives
from sqlbuffer.core.counts import stats
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.database import DEFAULT_URL


@command(
    "sqlbuffer remeasure affinity --yes",
    "sqlbuffer remeasure affinity-2 --name qed --where 'reward > 0.5' --yes",
)
def remeasure(
    objective: Annotated[
        str, typer.Argument(metavar="OBJECTIVE", help="A new name for what is measured from now.")
    ],
    where: Where = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
) -> None:
    """Begin to measure the samples by another reward function.

    Every sample loses its reward or failure, and the measured samples wait again; with --where only
    these. Earlier measurements stay stored: `sqlbuffer top --objective NAME` shows their rewards.
    With the name of the current objective nothing changes.

    The command asks on a terminal, and elsewhere needs --yes. It is refused while a batch is
    claimed.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        if not yes:
            buffers.confirm(_question(buffer, objective), "begin another objective")
        n = explained(lambda: objectives.remeasure(buffer, objective, where))
        buffer.write(unregister)
    output.line(n_of(n, "sample waits again", "samples wait again"))


def _question(buffer: BufferHandle, objective: str) -> str:
    found = buffer.read(stats)
    n = found.measured + found.failed
    measured = n_of(n, "sample is measured", "samples are measured")
    return f"Begin objective {shown(objective)} in {buffer.name}, where {measured}?"

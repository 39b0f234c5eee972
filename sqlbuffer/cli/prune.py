"""`sqlbuffer prune`: drop old draws, metrics, checkpoints and states of predictors."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from sqlbuffer._messages import n_of
from sqlbuffer._validation import as_duration_s
from sqlbuffer.cli import output
from sqlbuffer.cli.common import OneBuffer, Url, command, handles, open_existing
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.maintenance import prune as maintenance_prune


@command("sqlbuffer prune --keep-draws 100000", "sqlbuffer prune --name qed --older-than 30d")
def prune(
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    keep_draws: Annotated[
        int | None, typer.Option(min=0, help="Number of the newest draws to keep, at least.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Drop what is older, such as 12h or 30d."),
    ] = None,
) -> None:
    """Drop old draws, metrics, checkpoints and states of predictors of a buffer.

    Samples, rewards, measurements, batches, and the measures of predictors stay, and so do claimed
    batches, the newest checkpoints and states, and states whose scores are in use. `copy
    --at-iteration` is then refused for earlier iterations.

    Workers may go on: each transaction drops some thousand rows. An interrupted command leaves a
    sound buffer, and the next one goes on.
    """
    if (keep_draws is None) == (older_than is None):
        raise typer.BadParameter("give --keep-draws or --older-than.")
    try:
        older_than_s = None if older_than is None else as_duration_s(older_than, "--older-than")
    except InvalidArgument as exc:
        raise typer.BadParameter(str(exc)) from exc
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        dropped = maintenance_prune.prune(
            buffer,
            keep_draws=keep_draws,
            older_than_s=older_than_s,
            silent=not output.console(stderr=True).is_terminal,
        )
        space = database.dialect.about_free_space
    output.line(
        f"{name}: dropped {n_of(dropped.draws, 'draw')}, {n_of(dropped.metrics, 'metric')}, "
        f"{n_of(dropped.checkpoints, 'checkpoint')} and "
        f"{n_of(dropped.predictors, 'state of a predictor', 'states of predictors')}, "
        f"{dropped.size_bytes / 1e6:,.1f} MB; {space}"
    )

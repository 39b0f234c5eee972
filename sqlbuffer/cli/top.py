"""`sqlbuffer top`: the best samples of a buffer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sqlbuffer._messages import n_of
from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading, tell_of_more
from sqlbuffer.cli.common import OneBuffer, Url, Where, explained, handles, open_existing
from sqlbuffer.cli.missing import tell_missing_metas
from sqlbuffer.core import counts
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.order import ORDERS, require_order
from sqlbuffer.core.where import as_where
from sqlbuffer.core.where import explained as where_explained
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.top import count_best, find_best

_COLUMNS = ("reward", "score", "source", "created_iteration", "sample")


@reading(
    "sqlbuffer top -n 5",
    "sqlbuffer top --by score --name qed",
    "sqlbuffer top --where \"source = 'first'\" --json",
    "sqlbuffer top --objective reward",
)
def top(
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 20,
    by: Annotated[
        str,
        typer.Option(
            metavar="[" + "|".join(ORDERS) + "]",
            autocompletion=lambda: list(ORDERS),
            help="Order by measured reward, or by predicted score.",
        ),
    ] = "reward",
    where: Where = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="An earlier objective, whose rewards are shown instead."),
    ] = None,
) -> Answer:
    """Show the best samples of a buffer, the best first.

    By reward the highest are the best, in a buffer that minimizes the lowest. By score the highest
    are the best in every buffer: of those that wait, they are drawn first. Samples that were drawn
    keep their scores, and --where "state = 'waiting'" leaves them out. Uncertainty is not stored,
    because only the model tells it; an acquisition function adds it to the scores.

    "source" is the generator that added the sample, "created_iteration" the iteration. The sample
    is shown as the text that the database stores for people, and its key if the buffer keeps keys.
    --json also prints its id, metadata and times.
    """
    by = explained(lambda: require_order(by))
    if objective is not None and by != "reward":
        raise typer.BadParameter("give --objective or --by score.")
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        condition = explained(lambda: as_where(where))
        given: Any = {"by": by, "where": condition, "objective": objective}

        def read(find: Callable[..., Any], *n: int) -> Any:
            return where_explained(buffer, condition, lambda: buffer.read(find, *n, **given))

        rows = explained(lambda: read(find_best, n))
        if not rows:
            tell_missing_metas(buffer, condition)
        tell_of_more(len(rows), n, lambda: int(read(count_best)), f"samples with a {by}")
        if not rows and where is None and objective is None:
            output.line(_reason(buffer, by), stderr=True)
    columns = (*_COLUMNS, *(["key"] if buffer.keep_key else []))
    return Answer(columns, rows)


def _reason(buffer: BufferHandle, by: str) -> str:
    """Return why there is no best sample, and what there is instead."""
    waiting = buffer.look(counts.stats).waiting
    has_scores = by == "reward" and buffer.read(find_best, 1, by="score")
    lists = f"`sqlbuffer export - --format csv --name {buffer.name}` lists them"
    way_out = "--by score shows the best of them" if has_scores else lists
    waits = n_of(waiting, "sample waits", "samples wait")
    return f"no sample of buffer {buffer.name!r} has a {by}; {waits}" + (
        f": {way_out}." if waiting else "."
    )

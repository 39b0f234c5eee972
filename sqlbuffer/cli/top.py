"""`sqlbuffer top`: the best samples of a buffer."""

from __future__ import annotations

import contextlib
import shlex
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

_COLUMNS = ("reward", "score", "state", "source", "created_iteration", "sample")


@reading(
    "sqlbuffer top -n 5",
    "sqlbuffer top --by score --where \"state = 'waiting'\" --name qed",
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
    are the best in every buffer. Samples that have left the pool keep their scores: in mode consume
    "state" says which ones wait, and --where "state = 'waiting'" shows these alone. Uncertainty is
    not stored, because only the model tells it; an acquisition function adds it to the scores.

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

        def read(find: Callable[..., Any], *n: int, **more: Any) -> Any:
            return where_explained(
                buffer, condition, lambda: buffer.read(find, *n, **given, **more)
            )

        rows = explained(lambda: read(find_best, n, has_state=True))
        tell_of_more(len(rows), n, lambda: int(read(count_best)), f"samples with a {by}")
        if not rows:
            tell_missing_metas(buffer, condition)
            whose = f"a {by}" if objective is None else f"a reward by objective {objective!r}"
            told = _why_none(buffer, by) if where is objective is None else ""
            meets = "" if where is None else " and meets the condition"
            output.line(
                f"no sample of buffer {buffer.name!r} has {whose}{meets}{told}", stderr=True
            )
    columns = (*_COLUMNS, *(["key"] if buffer.keep_key else []))
    return Answer(columns, rows)


def _why_none(buffer: BufferHandle, by: str) -> str:
    """Return what is there instead of samples with a reward or a score, and what to do."""
    found, weighting = buffer.look(counts.stats), buffer.settings.weighting
    name = "" if buffer.name == "default" else f" --name {shlex.quote(buffer.name)}"
    if not found.stored:
        return f": it is empty, and `sqlbuffer import FILE{name}` or `store.add` stores samples"
    if not found.waiting:
        failed = f", {found.failed:,} failed, as `sqlbuffer failed{name}` shows"
        return f": no sample waits{failed if found.failed else ''}"
    waiting = n_of(found.waiting, "sample waits", "samples wait")
    listing = (
        "`sqlbuffer export - --format csv --columns sample --where \"state = 'waiting'\""
        f"{name}` lists what waits"
    )
    if by == "score":
        goal = (
            " for `store.score` or `sqlbuffer worker`"
            if weighting.needs_score
            else f", and the weighting {weighting.name!r} needs no scores"
        )
        return f": {waiting}{goal}; {listing}"
    scored = buffer.read(count_best, by="score", where=None, objective=None)
    shows = f"--by score shows {n_of(scored, 'sample')} with a score" if scored else listing
    return f": {waiting} for `sqlbuffer measure{name}` or a loop; {shows}"

"""`sqlbuffer stats`: buffers in numbers."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Annotated, Any

import typer

from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import AnyBuffer, Url, handles, open_existing
from sqlbuffer.core import counts
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.database import DEFAULT_URL

_OVERVIEW = (
    *("name", "iteration", "waiting", "claimed", "stored", "measured", "failed", "best_reward"),
)
_STALENESS = ("name", "score_version", "waiting", "oldest")


@reading(
    "sqlbuffer stats",
    "sqlbuffer stats --name qed",
    "sqlbuffer stats --stale",
    "sqlbuffer stats --json",
    "sqlbuffer stats --name qed --watch",
)
def stats(
    url: Url = DEFAULT_URL,
    name: AnyBuffer = None,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale",
            help="Count waiting samples by the version of their score; reads the whole pool.",
        ),
    ] = False,
    watch: Annotated[  # `reading` calls the function again
        bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")
    ] = False,
) -> Answer:
    """Show buffers in numbers.

    Without --name there is one line for each buffer, with --name all counters of one.

    - iteration: batches settled so far.
    - waiting: samples in the pool.
    - claimed: samples drawn, and neither settled nor released yet.
    - stored: distinct samples ever stored.
    - measured: distinct samples with a reward.
    - best_reward: the highest reward, or the lowest in a buffer that minimizes.

    If refreshed_version (with --name or --json) is not score_version, some waiting samples may have
    scores of an older predictor: --stale counts them. All other counters cost the same at any size
    of the buffer.
    """
    with contextlib.closing(open_existing(url)) as database:
        found = [_numbers(buffer, stale=stale) for buffer in handles(database, name)]
    return Answer(
        _OVERVIEW if name is None else [field for field in found[0] if field != "staleness"],
        found,
        is_one=name is not None,
        part="staleness" if stale else None,
        part_columns=_STALENESS,
    )


def _numbers(buffer: BufferHandle, *, stale: bool) -> dict[str, Any]:
    numbers = dataclasses.asdict(buffer.read(counts.stats))
    if stale:
        numbers["staleness"] = [
            {"name": buffer.name, **dataclasses.asdict(row)}
            for row in buffer.read(counts.staleness)
        ]
    return numbers

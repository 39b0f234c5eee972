"""`sqlbuffer stats`: buffers in numbers."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Annotated, Any

import typer

from sqlbuffer.cli import output
from sqlbuffer.cli.common import AnyBuffer, AsJson, Url, handles, open_existing
from sqlbuffer.core import read
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.database import DEFAULT_URL

_OVERVIEW = (
    *("name", "iteration", "waiting", "claimed", "stored", "measured", "failed", "best_reward"),
)
_STALENESS = ("name", "score_version", "waiting", "oldest")


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
    as_json: AsJson = False,
) -> None:
    """Show buffers in numbers: one line for each buffer, or all counters of one with --name.

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
    if as_json:
        output.write_json(found if name is None else found[0])
        return
    waiting = [
        {"name": numbers["name"], **row}
        for numbers in found
        for row in numbers.pop("staleness", [])
    ]
    if name is None:
        output.table(_OVERVIEW, [[numbers[column] for column in _OVERVIEW] for numbers in found])
    else:
        values = found[0].items()
        rows = [[field, output.cell(None if value == "" else value)] for field, value in values]
        output.table(["field", "value"], rows)
    if stale:
        output.line("")
        output.table(_STALENESS, [[row[column] for column in _STALENESS] for row in waiting])


def _numbers(buffer: BufferHandle, *, stale: bool) -> dict[str, Any]:
    numbers = dataclasses.asdict(buffer.read(read.stats))
    if stale:
        numbers["staleness"] = [dataclasses.asdict(row) for row in buffer.read(read.staleness)]
    return numbers

"""Times: how long samples wait, are claimed, and are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.kinds.common import objective_of, side_by_side
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Data, Mark, Panel, Picture, Points, Spans

EVENTS = {
    "waiting": "in the pool",
    "claimed": "claimed batch",
    "measured": "measurement",
    "failed": "failure",
}
"""The events, and how they are named: a sample waits until it is drawn, a batch is claimed until it
is settled."""

SHORTEST_S = 1e-4
"""A shorter time is drawn as this one: the axis is logarithmic, and times have few digits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Times(Data):
    """Seconds that events took, from the newest of each.

    Attributes:
        name: The buffer.
        events: (n,) keys of `EVENTS`, those of which times are known.
        n: (n,) events that were read.
        low: (n,) first quartile of the seconds.
        median: (n,) median.
        high: (n,) third quartile.
        longest: (n,) the longest.
        is_part: True if there are more events than were read.
    """

    name: str
    events: list[str]
    n: Ints
    low: Floats
    median: Floats
    high: Floats
    longest: Floats
    is_part: bool


def read(tx: Transaction, *, objective: str | None = None, most: int = MOST_ROWS) -> Times:
    """Read the seconds of the newest `most / 3` draws, batches and measurements."""
    objective = objective_of(tx, objective)
    limit = most // 3
    waits = tx.rows(queries.pictures.newest_waits(), limit=limit)
    claims = tx.rows(queries.pictures.newest_claims(), limit=limit)
    measured = tx.rows(queries.pictures.newest_seconds(), objective=objective, limit=limit)
    found = {
        "waiting": _between(waits, "created_at", "drawn_at"),
        "claimed": _between(claims, "drawn_at", "settled_at"),
        "measured": np.array([row.seconds for row in measured if not row.failed]),
        "failed": np.array([row.seconds for row in measured if row.failed]),
    }
    found = {event: seconds for event, seconds in found.items() if len(seconds)}
    quartiles = np.array([np.quantile(each, [0.25, 0.5, 0.75, 1]) for each in found.values()])
    low, median, high, longest = quartiles.reshape(-1, 4).T
    return Times(
        name=tx.buffer.name,
        events=list(found),
        n=np.array([len(seconds) for seconds in found.values()], dtype=np.int64),
        low=low,
        median=median,
        high=high,
        longest=longest,
        is_part=limit in (len(waits), len(claims), len(measured)),
    )


def _between(rows: Sequence[Any], start: str, end: str) -> Floats:
    """Return the seconds between two times; 0 if a clock was set back in between."""
    seconds = [(getattr(row, end) - getattr(row, start)).total_seconds() for row in rows]
    return np.maximum(np.array(seconds, dtype=np.float64), 0.0)


def picture(found: Sequence[Times]) -> Picture:
    """Return the picture of one or several buffers."""
    return side_by_side(found, _picture)


def _picture(data: Times) -> Picture:
    places = np.arange(len(data.events))[::-1]
    marks: list[Mark] = []
    if data.events:
        low, median, high, longest = (
            np.maximum(values, SHORTEST_S)
            for values in (data.low, data.median, data.high, data.longest)
        )
        marks = [
            Spans("middle half", "older", places, low, high),
            Points("median", "text", median, places, "line"),
            Points("longest", "drawn", longest, places),
        ]
    names = [
        f"{EVENTS[event]} ({n:,})" for event, n in zip(data.events, data.n.tolist(), strict=True)
    ]
    panel = Panel(
        Axis("seconds", "log"),
        Axis("", "names", names[::-1]),
        marks,
        empty="No times are known: nothing was drawn yet, and no measurement tells its seconds.",
    )
    note = "from the newest of each" if data.is_part else ""
    return Picture("times", "Time per event", [panel], note)

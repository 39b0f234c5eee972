"""Flow: samples stored, drawn, measured and failed by time."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

import numpy as np

from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.kinds.common import choice, objective_of, side_by_side, step_of
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Data, Line, Mark, Panel, Picture


@dataclasses.dataclass(frozen=True, eq=False)
class Flow(Data):
    """How many samples had come and gone by each time; times are UTC.

    Attributes:
        name: The buffer.
        stored_at: (n,) times.
        stored: (n,) distinct samples stored by then; estimated if `is_part`.
        drawn_at: (m,) times.
        drawn: (m,) draws by then, without those of released batches.
        measured_at: (p,) times.
        measured: (p,) measurements with a reward by then, under the objective.
        failed: (p,) failed measurements by then.
        read: Samples whose time of storing was read.
        total: All stored samples.
    """

    name: str
    stored_at: list[dt.datetime]
    stored: Floats
    drawn_at: list[dt.datetime]
    drawn: Ints
    measured_at: list[dt.datetime]
    measured: Ints
    failed: Ints
    read: int
    total: int


def read(tx: Transaction, *, objective: str | None = None, most: int = MOST_ROWS) -> Flow:
    """Read the flow of a buffer; of more than half of `most` samples, from an even choice."""
    objective = objective_of(tx, objective)
    places = most // 4
    chosen = choice(tx, most=most // 2)
    stored_at = [
        row.created_at
        for row in tx.rows(queries.pictures.times_chosen(), bound=chosen.bound, limit=most // 2)
    ]
    n_batches = tx.execute(queries.pictures.number_of_batches()).scalar_one()
    draws = tx.rows(queries.pictures.draws_so_far(), n=n_batches, step=-(-n_batches // places) or 1)
    total = tx.execute(queries.pictures.numbers_of_measurements(), objective=objective).one()
    n_measurements = total.measured + total.failed
    step = step_of(n_measurements, places)
    parts = tx.rows(queries.pictures.parts(), objective=objective, step=step)
    measurements = np.minimum(1 + step * np.arange(len(parts)), n_measurements)
    measured = np.cumsum([part.measured for part in parts], dtype=np.int64)
    n = len(stored_at)
    return Flow(
        name=tx.buffer.name,
        stored_at=stored_at,
        stored=np.linspace(0.0, chosen.stats.stored, n + 1)[1:],
        drawn_at=[row.happened_at for row in draws],
        drawn=np.array([row.drawn for row in draws], dtype=np.int64),
        measured_at=[part.happened_at for part in parts],
        measured=measured,
        failed=measurements - measured,
        read=n,
        total=chosen.stats.stored,
    )


def picture(found: Sequence[Flow]) -> Picture:
    """Return the picture of one or several buffers."""
    return side_by_side(found, _picture)


def _picture(data: Flow) -> Picture:
    time, number = Axis("time (UTC)", "time"), Axis("samples", "count")
    stored: list[Mark] = []
    if data.stored_at:
        stored.append(Line("stored", "waiting", data.stored_at, data.stored, is_step=True))
    gone: list[Mark] = []
    for name, role, times, values in (
        ("drawn", "drawn", data.drawn_at, data.drawn),
        ("measured", "measured", data.measured_at, data.measured),
        ("failed", "failed", data.measured_at, data.failed),
    ):
        if len(values) and values[-1]:
            gone.append(Line(name, role, times, values, is_step=True, is_wide=role == "drawn"))
    panels = [
        Panel(time, number, stored, "Inflow", "Nothing is stored yet."),
        Panel(time, number, gone, "Outflow", "Nothing was drawn or measured yet."),
    ]
    is_part = data.read < data.total
    note = f"inflow from {data.read:,} of {data.total:,} samples" if is_part else ""
    return Picture("flow", "Inflow and outflow", panels, note)

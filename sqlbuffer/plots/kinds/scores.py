"""Scores: how those of waiting samples are distributed, and those of drawn samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from sqlbuffer._typing import Floats
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.kinds.common import choice, floats, side_by_side
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Bars, Data, Mark, Panel, Picture, within

BINS = 40


@dataclasses.dataclass(frozen=True, eq=False)
class Scores(Data):
    """Histograms of scores: shares of the waiting and of the drawn samples in each bin.

    Attributes:
        name: The buffer.
        edges: (n + 1,) ends of the bins; scores beyond them are counted in the outer bins.
        waiting: (n,) share of the waiting samples with a score.
        drawn: (n,) share of the drawn samples with a score.
        n_waiting: Waiting samples that were read.
        n_drawn: Draws that were read, the newest.
        total_waiting: All waiting samples.
        total_drawn: All draws.
        is_clipped: True if scores are beyond the edges.
    """

    name: str
    edges: Floats
    waiting: Floats
    drawn: Floats
    n_waiting: int
    n_drawn: int
    total_waiting: int
    total_drawn: int
    is_clipped: bool


def read(tx: Transaction, *, most: int = MOST_ROWS, bins: int = BINS) -> Scores:
    """Read the scores of about `most / 2` waiting samples, and of the newest draws."""
    most //= 2
    chosen = choice(tx, most=most, of="waiting")
    if chosen.is_part:
        rows = tx.rows(queries.pictures.scores_chosen(), bound=chosen.bound, limit=most)
    else:
        rows = tx.rows(queries.pictures.scores_waiting())
    waiting = floats(rows, "score")
    drawn = floats(tx.rows(queries.pictures.scores_drawn(), limit=most), "score")
    edges, is_clipped = _edges(np.concatenate([waiting, drawn]), bins)
    return Scores(
        name=tx.buffer.name,
        edges=edges,
        waiting=_shares(waiting, edges),
        drawn=_shares(drawn, edges),
        n_waiting=len(waiting),
        n_drawn=len(drawn),
        total_waiting=chosen.stats.waiting,
        total_drawn=chosen.stats.drawn,
        is_clipped=is_clipped,
    )


def _edges(scores: Floats, bins: int) -> tuple[Floats, bool]:
    """Return the ends of bins, and whether a few scores are far beyond them."""
    if not len(scores):
        return np.empty(0), False
    scores = within(scores)
    low, high = scores.min(), scores.max()
    q1, q3 = np.quantile(scores, [0.25, 0.75])
    reach = 10 * (q3 - q1)  # a bin would otherwise hold all scores but one
    clipped_low, clipped_high = max(low, q1 - reach), min(high, q3 + reach)
    if clipped_low < clipped_high:
        is_clipped = bool(clipped_low > low or clipped_high < high)
        return np.linspace(clipped_low, clipped_high, bins + 1), is_clipped
    margin = max(abs(low), 1.0) * 0.5
    return (
        np.linspace(low - margin, low + margin, bins + 1)
        if low == high
        else np.linspace(low, high, bins + 1)
    ), False


def _shares(scores: Floats, edges: Floats) -> Floats:
    if not len(edges):
        return np.empty(0)
    found, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return found / max(len(scores), 1)


def picture(found: Sequence[Scores]) -> Picture:
    """Return the picture of one or several buffers."""
    return side_by_side(found, _picture)


def _picture(data: Scores) -> Picture:
    marks: list[Mark] = []
    if len(data.edges):
        middles, width = (data.edges[1:] + data.edges[:-1]) / 2, data.edges[1] - data.edges[0]
        for role, share, n in (
            ("waiting", data.waiting, data.n_waiting),
            ("drawn", data.drawn, data.n_drawn),
        ):
            if n:
                percent = [float(each) * 100 for each in share]
                marks.append(Bars(f"{role} ({n:,})", role, middles, percent, float(width)))
    panel = Panel(
        Axis("score"),
        Axis("% of the samples", "count"),
        marks,
        empty="No sample that waits or was drawn has a score.",
    )
    notes = []
    if data.n_waiting and data.n_waiting < data.total_waiting > MOST_ROWS // 2:
        notes.append(f"{data.n_waiting:,} of {data.total_waiting:,} waiting samples")
    if data.n_drawn and data.n_drawn < data.total_drawn > MOST_ROWS // 2:
        notes.append(f"the newest {data.n_drawn:,} of {data.total_drawn:,} draws")
    note = f"from {' and '.join(notes)}" if notes else ""
    if data.is_clipped:
        note = "; ".join(filter(None, [note, "the outer bars hold scores beyond them"]))
    return Picture("scores", "Scores of waiting and drawn samples", [panel], note)

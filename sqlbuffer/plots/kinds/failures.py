"""Failures: how many measurements failed, by reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from sqlbuffer._messages import n_of
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.kinds.common import cut, objective_of, side_by_side, why_no_reward
from sqlbuffer.plots.picture import Axis, Bars, Data, Mark, Panel, Picture

MOST_REASONS = 1000
MOST_SHOWN = 10
MOST_ERRORS = 5
"""Most reasons whose commonest error stands below the picture."""


@dataclasses.dataclass(frozen=True, eq=False)
class Failures(Data):
    """Failed measurements by reason, the most frequent first.

    Attributes:
        name: The buffer.
        reasons: (n,) the errors up to their first colon.
        failures: (n,) measurements.
        seconds: (n,) seconds that they took; 0 if it is not known.
        examples: (n,) the commonest error of each reason.
        total: All reasons.
        failed: All failed measurements under the objective.
        measured: All measurements with a reward.
    """

    name: str
    reasons: list[str]
    failures: Ints
    seconds: Floats
    examples: list[str]
    total: int
    failed: int
    measured: int


def read(tx: Transaction, *, objective: str | None = None, most: int = MOST_REASONS) -> Failures:
    """Read the failures for up to `most` reasons, the most frequent ones."""
    objective = objective_of(tx, objective)
    total = tx.execute(queries.pictures.numbers_of_measurements(), objective=objective).one()
    rows = tx.rows(queries.attempts.failures_by_reason(), objective=objective, limit=most)
    return Failures(
        name=tx.buffer.name,
        reasons=[row.reason for row in rows],
        failures=np.array([int(row.failures) for row in rows], dtype=np.int64),
        seconds=np.array([row.seconds or 0.0 for row in rows], dtype=np.float64),
        examples=[row.example for row in rows],
        total=rows[0].reasons if rows else 0,
        failed=total.failed,
        measured=total.measured,
    )


def picture(found: Sequence[Failures]) -> Picture:
    """Return the picture of one or several buffers."""
    return side_by_side(found, _picture)


def _why_empty(measured: int) -> str:
    if not measured:
        return why_no_reward(failed=0)
    return f"Nothing has failed in {n_of(measured, 'measurement')}."


def _picture(data: Failures) -> Picture:
    n = min(len(data.reasons), MOST_SHOWN)
    names = [cut(reason, 36) for reason in data.reasons[:n]][::-1]
    marks: list[Mark] = []
    if n:
        texts = [cut(error, 120) for error in data.examples[:n]][::-1]
        marks.append(
            Bars("failed", "failed", np.arange(n), data.failures[:n][::-1], 0.7, texts=texts)
        )
    panel = Panel(
        Axis("failed measurements", "count"),
        Axis("", "names", names),
        marks,
        empty=_why_empty(data.measured),
    )
    tried = f"{data.failed + data.measured:,} tries"  # a sample may be tried several times
    notes = [f"{data.failed:,} of {tried} of a measurement failed"] if data.failed else []
    if data.total > n:
        notes.append(f"the {n} most frequent of {data.total:,} reasons")
    errors = [cut(error, 80) for error in data.examples[:MOST_ERRORS] if error not in data.reasons]
    if errors:
        notes.append("the commonest error of each reason:")
    return Picture(
        "failures", "Failures by reason", [panel], "\n".join(["; ".join(notes), *errors])
    )

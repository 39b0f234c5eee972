"""Staleness: how many predictors are newer than the scores of the waiting samples."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from sqlbuffer._typing import Ints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.kinds.common import choice, side_by_side
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Bars, Data, Mark, Panel, Picture

MOST_BARS = 12
UNSCORED = -1
"""`Staleness.behind` of samples without a score."""


@dataclasses.dataclass(frozen=True, eq=False)
class Staleness(Data):
    """Waiting samples by the number of versions that are newer than their score.

    Attributes:
        name: The buffer.
        behind: (n,) newer versions, ascending; -1 for samples without a score.
        waiting: (n,) samples among those that were read.
        read: Samples that were read.
        total: All waiting samples.
        stale: Share of the scored samples that were read whose score is not of the newest version.
    """

    name: str
    behind: Ints
    waiting: Ints
    read: int
    total: int
    stale: float


def read(tx: Transaction, *, most: int = MOST_ROWS) -> Staleness:
    """Count waiting samples by the age of their score, from about `most` of them."""
    chosen = choice(tx, most=most, of="waiting")
    if chosen.is_part:
        rows = tx.rows(queries.pictures.versions_chosen(), bound=chosen.bound)
    else:
        rows = tx.rows(queries.scores.staleness())
    trained = np.array(
        [row.version for row in tx.rows(queries.pictures.correlations(), limit=most // 2)],
        dtype=np.int64,
    )
    found: Counter[int] = Counter()
    for row in rows:
        found[_behind(row.score_version, trained, chosen.stats.score_version)] += row.waiting
    behind = sorted(found)
    scored = sum(n for each, n in found.items() if each >= 0)
    return Staleness(
        name=tx.buffer.name,
        behind=np.array(behind, dtype=np.int64),
        waiting=np.array([found[each] for each in behind], dtype=np.int64),
        read=sum(found.values()),
        total=chosen.stats.waiting,
        stale=1 - found[0] / scored if scored else 0.0,
    )


def _behind(version: int | None, trained: Ints, newest: int) -> int:
    """Return how many predictors are newer than a score; without predictors, how many versions."""
    if version is None:
        return UNSCORED
    return int((trained > version).sum()) if len(trained) else max(newest - version, 0)


def picture(found: Sequence[Staleness]) -> Picture:
    """Return the picture of one or several buffers."""
    return side_by_side(found, _picture)


def _picture(data: Staleness) -> Picture:
    names, shares, roles = [], [], []
    late = 0
    for behind, n in zip(data.behind.tolist(), data.waiting.tolist(), strict=True):
        share = 100 * n / max(data.read, 1)
        if behind >= MOST_BARS - 2:
            late += share
            continue
        names.append(_name(behind))
        shares.append(share)
        roles.append("out" if behind == UNSCORED else "waiting" if behind == 0 else "failed")
    if late:
        names.append(f"{MOST_BARS - 2} or more")
        shares.append(late)
        roles.append("failed")
    labels = {"out": "no score", "waiting": "newest score", "failed": "stale score"}
    marks: list[Mark] = []
    for role, label in labels.items():
        own = [place for place, each in enumerate(roles) if each == role]
        if own:
            marks.append(Bars(label, role, own, [shares[place] for place in own]))
    panel = Panel(
        Axis("newer versions than the score", "names", names),
        Axis("% of the waiting samples", "count"),
        marks,
        empty="No sample waits.",
    )
    part = f"from {data.read:,} of {data.total:,} waiting samples" if data.read < data.total else ""
    stale = f"{data.stale:.0%} of the scores are stale" if data.read else ""
    return Picture("staleness", "Staleness", [panel], "; ".join(filter(None, [stale, part])))


def _name(behind: int) -> str:
    return "no score" if behind == UNSCORED else "none" if behind == 0 else str(behind)

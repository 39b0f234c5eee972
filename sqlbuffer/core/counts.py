"""Counts of a buffer: its size, its statistics, and how old its scores are."""

from __future__ import annotations

import logging
from typing import Any

from sqlbuffer._integrity import numbers_of
from sqlbuffer._messages import n_of, shown
from sqlbuffer.core import pool
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.records import Staleness, Stats

log = logging.getLogger(__name__)


def size(tx: Transaction) -> int:
    """Return the number of samples in the pool."""
    row = tx.own_row(queries.buffers.own_totals())
    tx.require_same(row.created_at)
    return pool.size(tx.buffer, row)


def stats(tx: Transaction) -> Stats:
    """Return the statistics of the buffer."""
    row = tx.own_row(queries.buffers.stats(tx.buffer.direction))
    tx.require_same(row.created_at)
    with numbers_of(f"buffer {row.name!r}"):
        return Stats(
            name=row.name,
            kind=row.kind,
            mode=row.mode,
            iteration=int(row.iterations),
            waiting=pool.size(tx.buffer, row),
            unscored=int(row.unscored),
            unscorable=int(row.unscorable),
            stored=int(row.added + row.recorded),
            claimed=int(row.drawn - row.released - row.settled),
            drawn=int(row.drawn - row.released),
            requeued=int(row.requeued),
            removed=int(row.removed),
            measured=int(row.measured),
            failed=int(row.failed),
            refused=int(row.refused),
            best_reward=row.best_reward,
            score_version=int(row.score_version),
            refreshed_version=int(row.refreshed_version),
            created_at=row.created_at,
            key=row.key,
            max_size=None if row.max_size is None else int(row.max_size),
            direction=row.direction,
            evict=row.evict,
            budget=None if row.budget is None else int(row.budget),
            objective=row.objective,
            max_attempts=None if row.max_attempts is None else int(row.max_attempts),
        )


def why_undrawn(buffer: BufferHandle) -> list[str]:
    """Return why samples that wait are not drawn, with the way out; empty if they can be."""
    found, name = buffer.look(stats), shown(buffer.name)
    reasons = []
    if found.unscored:
        n = n_of(found.unscored, "sample")
        waits = "waits" if found.unscored == 1 else "wait"
        reasons.append(
            f"{n} of buffer {name} {waits} without a score: call `score`, or take a buffer that "
            "draws without scores, such as a copy: `sqlbuffer copy NAME NEW --weighting uniform`"
        )
    if found.unscorable:
        n = n_of(found.unscorable, "sample")
        waits = "waits" if found.unscorable == 1 else "wait"
        reasons.append(
            f"{n} of buffer {name} {waits} with weight 0, that of a score that is not finite and "
            'of priority 0: give other scores by `score(score_fn, only="all")`, or other '
            "priorities, or take a copy as `sqlbuffer copy NAME NEW --weighting uniform` makes it"
        )
    return reasons


def tell_why_undrawn(buffer: BufferHandle) -> bool:
    """Say why samples that wait were not drawn; False if there are none."""
    reasons = why_undrawn(buffer)
    for reason in reasons:
        log.warning("nothing was drawn: %s", reason)
    return bool(reasons)


def changes(tx: Transaction) -> tuple[Any, ...]:
    """Return numbers, one of which changes if a transaction changes the waiting samples."""
    return tuple(tx.execute(queries.buffers.changes()).one())


def staleness(tx: Transaction) -> list[Staleness]:
    """Return how many samples wait with a score of each version, first those without a score."""
    rows = tx.execute(queries.scores.staleness()).all()
    with numbers_of(f"the version of a score of buffer {tx.buffer.name!r}"):
        return sorted(
            (Staleness(*row) for row in rows),
            key=lambda it: int(-1 if it.score_version is None else it.score_version),
        )

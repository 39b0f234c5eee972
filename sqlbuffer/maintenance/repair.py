"""Repair of the faults that the audit finds, from the tables that record events."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from sqlbuffer._integrity import numbers_of, tampered
from sqlbuffer.core import pool
from sqlbuffer.core.release import put_back, release
from sqlbuffer.core.transaction import LARGEST_TICK, Transaction
from sqlbuffer.core.workers import LEDGER, register, worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Lock
from sqlbuffer.db.schema import (
    batches,
    checkpoints,
    draws,
    measurements,
    metrics,
    predictors,
    samples,
    workers,
)
from sqlbuffer.db.schema import pool as pool_table
from sqlbuffer.maintenance import audit

END_OF_TIME = dt.datetime(9999, 12, 31, tzinfo=dt.timezone.utc)
END_OF_TICKS = 2**63 - 1


def repair(tx: Transaction) -> list[str]:
    """Repair a buffer as far as possible; return what was done, a sentence each.

    Events are believed: draws, batches, measurements, and the mark that a sample is queued. What
    follows from them is corrected: the rows of the pool, weights, rewards, and the counters.
    `audit.check` returns the faults that are left.
    """
    dialect = tx.backend
    dialect.lock(tx.connection, tx.buffer.buffer_id, {Lock.RACE: True})
    tables = [samples, pool_table, batches, draws, measurements, workers]
    dialect.lock_tables(tx.connection, tables)
    done: list[str] = []
    for step in (
        _rewrite_integers,
        _add_ledger,
        _advance_tick,
        _remove_from_pool,
        _release_orphans,
        _mend_measurements,
        _mark_queued,
        _unmark_evicted,
        _put_into_pool,
        _unmark_top,
        recount,
    ):
        done += step(tx)
    return done


def _rewrite_integers(tx: Transaction) -> list[str]:
    """Rewrite integers of numpy, which older releases stored as bytes in SQLite files."""
    mend = tx.backend.mend_integers
    columns = (
        metrics.c.iteration,
        checkpoints.c.iteration,
        predictors.c.rows_trained,
        predictors.c.rows_held_out,
    )
    n = sum(
        mend(tx.connection, column, queries.audit.rows_of_buffer(column.table, tx.buffer.buffer_id))
        for column in columns
    )
    return _said(n, "integers that were stored as bytes were written as integers")


def _add_ledger(tx: Transaction) -> list[str]:
    if audit.has_ledger(tx):
        return []
    register(tx.connection, tx.backend, tx.buffer.buffer_id, worker=LEDGER)
    return ["the ledger of the counters of stale workers was written again."]


def _advance_tick(tx: Transaction) -> list[str]:
    """Advance the logical time beyond all stored ones, so that ticks give the order of events."""
    newest, counted = audit.newest_tick(tx), audit.counted_tick(tx)
    if newest <= counted:
        return []
    if newest > LARGEST_TICK:
        raise tampered(
            f"a row of buffer {tx.buffer.name!r} has the logical time {newest}, beyond any that "
            "was counted"
        )
    tx.execute(queries.workers.set_ledger({"tick": newest}))
    return [f"the logical time was set from {counted} to {newest}."]


def _remove_from_pool(tx: Transaction) -> list[str]:
    """Remove wrong rows of the pool; `_put_into_pool` puts samples that belong there back."""
    rows = tx.rows(queries.audit.pool_rows())
    seen = set(audit.members(tx).claimed)
    off = audit.off_weights(tx, rows)
    wrong = []
    for row, is_off in zip(rows, off, strict=True):
        with numbers_of("the weight of a waiting sample"):
            is_misplaced = _is_misplaced(row)
        if row.sample_id in seen or row.hash is None or is_off or row.is_mistied or is_misplaced:
            wrong.append(row)
        seen.add(row.sample_id)
    pool.leave(tx, [row.sample_id for row in wrong], [row.race_key for row in wrong])
    return _said(len(wrong), "rows of the pool were removed")


def _is_misplaced(row: Any) -> bool:
    return (row.weight or 0.0) < 0.0 or (row.race_key == math.inf) == bool(row.weight)


def _release_orphans(tx: Transaction) -> list[str]:
    orphans = audit.orphaned_batches(tx)
    for batch in orphans:
        release(tx, batch=batch)
    return _said(len(orphans), "batches of workers that do not exist were released")


_WORDS = (
    "measurements of samples that do not exist were removed",
    "errors of measurements that have a reward were removed",
    "measurements without a reward and an error were given a reason",
    "samples were given the reward of their newest measurement",
    "failed samples were given a reason",
    "reasons were taken from samples that have not failed",
    "rewards and failures that no measurement had were given one",
    "negative numbers of attempts were set to 0",
)


def _mend_measurements(tx: Transaction) -> list[str]:
    """Let samples and measurements agree; a reward that only one of them has is kept."""
    mends = queries.measurements
    objective = tx.own_row(queries.buffers.objective()).objective
    parameters = {
        "of_objective": objective,
        "cutoff": END_OF_TIME,
        "cutoff_tick": END_OF_TICKS,
        "worker": worker_id(),
    }
    statements = (
        mends.delete_orphans(),
        *mends.decide(),
        mends.follow_newest(),
        *mends.explain_failures(),
        mends.keep_unkept(),
        mends.mend_attempts(),
    )
    done: list[str] = []
    for statement, words in zip(statements, _WORDS, strict=True):
        result = tx.execute(statement, **parameters)
        done += _said(len(result.all()) if result.returns_rows else result.rowcount, words)
    return done


def _mark_queued(tx: Transaction) -> list[str]:
    waiting, claimed, queued = audit.members(tx)
    unmarked = (set(waiting) | claimed) - queued
    _with_ids(tx, queries.samples.enqueue(tx.backend), unmarked)
    return _said(len(unmarked), "samples that wait or are claimed were marked as such")


def _unmark_evicted(tx: Transaction) -> list[str]:
    n = tx.execute(queries.samples.unmark_evicted()).rowcount
    return _said(n, "marks of an eviction were removed from samples that wait or are claimed")


def _put_into_pool(tx: Transaction) -> list[str]:
    waiting, claimed, queued = audit.members(tx)
    lost = sorted(queued - set(waiting) - claimed)
    if lost:
        find = queries.batches.samples_to_put_back(tx.backend)
        rows = tx.execute_with(find, queries.params.INCOMING_IDS, {"sample_id": lost}).all()
        state = tx.lock_race(exclusive=True)
        # The number of times that these samples have entered the race is lost with their rows. A
        # sample enters at most once in a transaction, so the logical time is a number not used yet.
        put_back(tx, state, rows, entries=state.tick)
    return _said(len(lost), "samples were put into the pool")


def _unmark_top(tx: Transaction) -> list[str]:
    """Drop the marks of the top if one is wrong; the next argmax share sets them again."""
    if n := audit.wrong_marks(tx):
        pool.set_top_score(tx, None)
    return _said(n, "wrong marks of the top were removed")


def _with_ids(tx: Transaction, statement: Any, ids: set[int]) -> None:
    if ids:
        tx.execute_each(statement, queries.params.INCOMING_IDS, {"sample_id": sorted(ids)})


def recount(tx: Transaction) -> list[str]:
    """Correct the counters, in the row of the ledger.

    Each number is a sum of counters. It is corrected by a counter that no other number contains.
    """
    tallies = audit.tallies(tx)
    missing = {name: found - counted for name, (counted, found) in tallies.items()}
    deltas = {
        "requeued": max(missing["waiting"], 0),
        "removed": max(-missing["waiting"], 0),
        "recorded": missing["stored"],
        "settled": -missing["claimed"],
        "batches": missing["batches drawn"],
        **{name: missing[name] for name in ("unscored", "unscorable", "measured", "failed")},
    }
    if any(missing.values()):
        added = {f"d_{name}": deltas.get(name, 0) for name in queries.buffers.COUNTERS}
        clocks: dict[str, Any] = dict.fromkeys(("d_clock", "d_touched", "d_tick"))
        tx.execute(queries.workers.add_to_ledger(), **added, **clocks)
    return [
        f"the counter of samples {name} was set from {counted} to {found}."
        for name, (counted, found) in tallies.items()
        if counted != found
    ]


def _said(n: int, what: str) -> list[str]:
    return [f"{n} {what}."] if n else []

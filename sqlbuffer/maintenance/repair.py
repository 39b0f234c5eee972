"""Repair: what the audit finds wrong is mended from the tables that say what has happened."""

from __future__ import annotations

import math
from typing import Any

import sqlalchemy as sa

from sqlbuffer._integrity import numbers_of, tampered
from sqlbuffer.core import pool
from sqlbuffer.core.batch import put_back, release
from sqlbuffer.core.transaction import LARGEST_TICK, Transaction
from sqlbuffer.core.workers import LEDGER, register
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Lock
from sqlbuffer.db.schema import batches, checkpoints, draws, metrics, predictors, samples, workers
from sqlbuffer.db.schema import pool as pool_table
from sqlbuffer.maintenance import audit


def repair(tx: Transaction) -> list[str]:
    """Mend what can be mended, and return what was done, one sentence each.

    What has happened is believed: draws, batches, rewards, and the mark that a sample is queued. What follows from
    it is set right: who waits, at which weight, and the counters. `audit.check` tells what is left.
    """
    dialect = tx.backend
    dialect.lock(tx.connection, tx.buffer.buffer_id, {Lock.RACE: True})
    dialect.lock_tables(tx.connection, [samples, pool_table, batches, draws, workers])
    done: list[str] = []
    for mend in (
        _mend_integers,
        _open_ledger,
        _catch_up,
        _take_out,
        _release_orphans,
        _mark,
        _put_in,
        _unmark,
        recount,
    ):
        done += mend(tx)
    return done


def _mend_integers(tx: Transaction) -> list[str]:
    """Bring back the integers of numpy that older releases have stored as bytes in SQLite files."""
    mend = tx.backend.mend_integers
    columns = (
        metrics.c.iteration,
        checkpoints.c.iteration,
        predictors.c.rows_trained,
        predictors.c.rows_held_out,
    )
    n = sum(
        mend(tx.connection, column, audit.of_buffer(tx.buffer, column.table)) for column in columns
    )
    return _said(n, "integers that were stored as bytes were written as integers")


def _open_ledger(tx: Transaction) -> list[str]:
    if audit.has_ledger(tx):
        return []
    register(tx.connection, tx.backend, tx.buffer.buffer_id, worker=LEDGER)
    return ["the ledger of the counters of dead workers was written again."]


def _catch_up(tx: Transaction) -> list[str]:
    """Let what comes next be later than all that is stored, or the order of events would not be that of the ticks."""
    newest, counted = audit.newest_tick(tx), audit.counted_tick(tx)
    if newest <= counted:
        return []
    if newest > LARGEST_TICK:
        raise tampered(
            f"a row of buffer {tx.buffer.name!r} has the logical time {newest}, which none comes to"
        )
    ledger = sa.update(workers).where(
        workers.c.buffer_id == tx.buffer.buffer_id, workers.c.id == LEDGER
    )
    tx.connection.execute(ledger.values(tick=newest))
    return [f"the logical time was set from {counted} to {newest}."]


def _take_out(tx: Transaction) -> list[str]:
    """Take out of the pool what does not belong there, or not as it stands; `_put_in` puts back what does."""
    rows = tx.connection.execute(
        sa.select(
            pool_table.c.sample_id,
            pool_table.c.race_key,
            pool_table.c.weight,
            samples.c.score,
            pool_table.c.score.label("ranked"),
            samples.c.hash,
            audit.is_mistied().label("is_mistied"),
        )
        .outerjoin_from(pool_table, samples, samples.c.id == pool_table.c.sample_id)
        .where(pool_table.c.buffer_id == tx.buffer.buffer_id)
        .order_by(pool_table.c.race_key, pool_table.c.sample_id)
    ).all()
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
    orphans = tx.connection.scalars(audit.orphans(tx.buffer)).all()
    for batch in orphans:
        release(tx, batch=batch)
    return _said(len(orphans), "batches of workers that do not exist were released")


def _mark(tx: Transaction) -> list[str]:
    waiting, claimed, queued = audit.members(tx)
    unmarked = (set(waiting) | claimed) - queued
    _with_ids(tx, queries.enqueue(tx.backend), unmarked)
    return _said(len(unmarked), "samples that wait or are claimed were marked as such")


def _put_in(tx: Transaction) -> list[str]:
    waiting, claimed, queued = audit.members(tx)
    lost = sorted(queued - set(waiting) - claimed)
    if lost:
        find = queries.samples_to_put_back(tx.backend)
        rows = tx.execute_with(find, queries.INCOMING_IDS, {"sample_id": lost}).all()
        state = tx.lock_race(exclusive=True)
        # How often they had entered the race is lost with their rows: a transaction lets a sample enter once at the
        # most, so its logical time is a number that no entry has had.
        put_back(tx, state, rows, entries=state.tick)
    return _said(len(lost), "samples were put into the pool")


def _unmark(tx: Transaction) -> list[str]:
    """Forget what is marked as top where that is wrong: the next argmax share marks again."""
    if n := audit.mismarked(tx):
        pool.set_top_score(tx, None)
    return _said(n, "wrong marks of the top were removed")


def _with_ids(tx: Transaction, statement: Any, ids: set[int]) -> None:
    if ids:
        tx.execute_each(statement, queries.INCOMING_IDS, {"sample_id": sorted(ids)})


def recount(tx: Transaction) -> list[str]:
    """Set the counters right, in the row of the ledger: by those of which only one sum depends, before `waiting`."""
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
    ledger = sa.update(workers).where(
        workers.c.buffer_id == tx.buffer.buffer_id, workers.c.id == LEDGER
    )
    corrected = ledger.values({name: workers.c[name] + delta for name, delta in deltas.items()})
    if any(missing.values()):
        tx.connection.execute(corrected)
    return [
        f"the counter of samples {name} was set from {counted} to {found}."
        for name, (counted, found) in tallies.items()
        if counted != found
    ]


def _said(n: int, what: str) -> list[str]:
    return [f"{n} {what}."] if n else []

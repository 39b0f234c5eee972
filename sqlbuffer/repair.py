"""Repair: what the audit finds wrong is mended from the tables that say what has happened."""

from __future__ import annotations

import math
from typing import Any

import sqlalchemy as sa

from sqlbuffer import audit, pool, statements
from sqlbuffer.attachment import LARGEST_TICK, Attachment
from sqlbuffer.batches import put_back, release
from sqlbuffer.dialect import Lock
from sqlbuffer.errors import numbers_of, tampered
from sqlbuffer.schema import batches, checkpoints, draws, metrics, predictors, samples, workers
from sqlbuffer.schema import pool as pool_table
from sqlbuffer.workers import LEDGER, register


def repair(connection: sa.Connection, *, attachment: Attachment) -> list[str]:
    """Mend what can be mended, and return what was done, one sentence each.

    What has happened is believed: draws, batches, rewards, and the mark that a sample is queued. What follows from
    it is set right: who waits, at which weight, and the counters. `audit.check` tells what is left.
    """
    dialect = attachment.database.dialect
    dialect.lock(connection, attachment.buffer_id, {Lock.RACE: True})
    dialect.lock_tables(connection, [samples, pool_table, batches, draws, workers])
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
        done += mend(connection, attachment)
    return done


def _mend_integers(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Bring back the integers of numpy that older releases have stored as bytes in SQLite files."""
    mend = attachment.database.dialect.mend_integers
    columns = (metrics.c.iteration, checkpoints.c.iteration, predictors.c.rows_trained, predictors.c.rows_held_out)
    n = sum(mend(connection, column, audit.of_buffer(attachment, column.table)) for column in columns)
    return _said(n, "integers that were stored as bytes were written as integers")


def _open_ledger(connection: sa.Connection, attachment: Attachment) -> list[str]:
    if audit.has_ledger(connection, attachment):
        return []
    register(connection, attachment.database.dialect, attachment.buffer_id, worker=LEDGER)
    return ["the row of the counters of the dead was written anew."]


def _catch_up(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Let what comes next be later than all that is stored, or the order of events would not be that of the ticks."""
    newest, counted = audit.newest_tick(connection, attachment), audit.counted_tick(connection, attachment)
    if newest <= counted:
        return []
    if newest > LARGEST_TICK:
        raise tampered(f"a row of buffer {attachment.name!r} has the logical time {newest}, which none comes to")
    ledger = sa.update(workers).where(workers.c.buffer_id == attachment.buffer_id, workers.c.id == LEDGER)
    connection.execute(ledger.values(tick=newest))
    return [f"the logical time was set from {counted} to {newest}."]


def _take_out(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Take out of the pool what does not belong there, or not as it stands; `_put_in` puts back what does."""
    rows = connection.execute(
        sa.select(
            pool_table.c.sample_id,
            pool_table.c.race_key,
            pool_table.c.weight,
            samples.c.score,
            pool_table.c.score.label("ranked"),
            samples.c.hash,
            (pool_table.c.tie != statements.TIE).label("is_mistied"),
        )
        .outerjoin_from(pool_table, samples, samples.c.id == pool_table.c.sample_id)
        .where(pool_table.c.buffer_id == attachment.buffer_id)
        .order_by(pool_table.c.race_key, pool_table.c.sample_id)
    ).all()
    seen = set(audit.members(connection, attachment).claimed)
    off = audit.off_weights(connection, attachment, rows)
    wrong = []
    for row, is_off in zip(rows, off, strict=True):
        with numbers_of("the weight of a waiting sample"):
            is_misplaced = _is_misplaced(row)
        if row.sample_id in seen or row.hash is None or is_off or row.is_mistied or is_misplaced:
            wrong.append(row)
        seen.add(row.sample_id)
    pool.leave(connection, attachment, [row.sample_id for row in wrong], [row.race_key for row in wrong])
    return _said(len(wrong), "places in the pool were taken back")


def _is_misplaced(row: Any) -> bool:
    return (row.weight or 0.0) < 0.0 or (row.race_key == math.inf) == bool(row.weight)


def _release_orphans(connection: sa.Connection, attachment: Attachment) -> list[str]:
    orphans = connection.scalars(audit.orphans(attachment)).all()
    for batch in orphans:
        release(connection, attachment=attachment, batch=batch)
    return _said(len(orphans), "batches of workers that are not there were released")


def _mark(connection: sa.Connection, attachment: Attachment) -> list[str]:
    waiting, claimed, queued = audit.members(connection, attachment)
    unmarked = (set(waiting) | claimed) - queued
    _with_ids(connection, attachment, statements.enqueue(attachment.database.dialect), unmarked)
    return _said(len(unmarked), "samples that wait or are claimed were marked as such")


def _put_in(connection: sa.Connection, attachment: Attachment) -> list[str]:
    waiting, claimed, queued = audit.members(connection, attachment)
    lost = sorted(queued - set(waiting) - claimed)
    if lost:
        find = statements.samples_to_put_back(attachment.database.dialect)
        rows = attachment.run_with(connection, find, statements.INCOMING_IDS, {"sample_id": lost}).all()
        state = attachment.race(connection, exclusive=True)
        # How often they had entered the race is lost with their rows: a transaction lets a sample enter once at the
        # most, so its logical time is a number that no entry has had.
        put_back(connection, attachment, state, rows, entries=state.tick)
    return _said(len(lost), "samples were put into the pool")


def _unmark(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Forget what is marked as top where that is wrong: the next argmax share marks again."""
    if n := audit.mismarked(connection, attachment):
        pool.set_top_score(connection, attachment, None)
    return _said(n, "wrong marks of the top were forgotten")


def _with_ids(connection: sa.Connection, attachment: Attachment, statement: Any, ids: set[int]) -> None:
    if ids:
        attachment.run_each(connection, statement, statements.INCOMING_IDS, {"sample_id": sorted(ids)})


def recount(connection: sa.Connection, attachment: Attachment) -> list[str]:
    """Set the counters right, in the row of the ledger: by those of which only one sum depends, before `waiting`."""
    tallies = audit.tallies(connection, attachment)
    missing = {name: found - counted for name, (counted, found) in tallies.items()}
    deltas = {
        "requeued": max(missing["waiting"], 0),
        "removed": max(-missing["waiting"], 0),
        "recorded": missing["stored"],
        "settled": -missing["claimed"],
        "batches": missing["batches drawn"],
        **{name: missing[name] for name in ("unscored", "unscorable", "measured", "failed")},
    }
    ledger = sa.update(workers).where(workers.c.buffer_id == attachment.buffer_id, workers.c.id == LEDGER)
    corrected = ledger.values({name: workers.c[name] + delta for name, delta in deltas.items()})
    if any(missing.values()):
        connection.execute(corrected)
    return [
        f"the counter of samples {name} was set from {counted} to {found}."
        for name, (counted, found) in tallies.items()
        if counted != found
    ]


def _said(n: int, what: str) -> list[str]:
    return [f"{n} {what}."] if n else []

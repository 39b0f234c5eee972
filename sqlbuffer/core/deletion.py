"""Rename a buffer, delete it, or forget samples of it."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer._messages import listed, n_of, printable, shown
from sqlbuffer.core import lineage, pool
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import other_workers
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.records import ForgetResult

log = logging.getLogger(__name__)


def rename(tx: Transaction, new: str) -> None:
    """Give the buffer another name.

    Raises:
        InvalidArgument: If another buffer has the name.
    """
    tx.race_state()  # raises if the buffer is gone
    try:
        tx.execute(queries.deletion.rename_buffer(), new=new)
    except sa.exc.IntegrityError as exc:
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} cannot be renamed, because {tx.buffer.database.url} "
            f"already has a buffer {new!r}: give another name."
        ) from exc


def delete(tx: Transaction, *, force: bool) -> None:
    """Delete all rows of the buffer; no other transaction on it is under way.

    Args:
        tx: A transaction of `BufferHandle.write_alone`.
        force: Delete it even if other workers use it.

    Raises:
        InvalidArgument: If another living worker is registered, or if the lease of a claimed batch
            is not over, and `force` is False.
    """
    tx.race_state()  # raises if the buffer is gone
    if not force and (others := other_workers(tx)):
        n = "another worker uses it" if len(others) == 1 else f"{len(others)} workers use it"
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} is not deleted, because {n} ({listed(others)}): end the "
            "process, or give force=True (`sqlbuffer rm --force`)."
        )
    leased = tx.execute(queries.deletion.leased_batches()).scalars().all()
    if leased and not force:
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} is not deleted, because batch {leased[0]} is claimed, and "
            "its lease is not over: settle or release the batch, or give force=True (`sqlbuffer rm "
            "--force`)."
        )
    lineage.note_deleted(tx, tx.execute(queries.deletion.highest_id()).scalar())
    for statement in queries.deletion.delete_buffer():
        tx.execute(statement)


def forget(tx: Transaction, ids: Sequence[int]) -> ForgetResult:
    """Delete samples and all that belongs to them; no other transaction is under way.

    Args:
        tx: A transaction of `BufferHandle.write_alone`.
        ids: Ids of samples; unknown ones are skipped.

    Raises:
        InvalidArgument: If one of the samples is claimed. Nothing is deleted.
        StaleIds: If the ids may belong to other samples by now.
    """
    tx.lock_race(exclusive=True)
    tx.require_ids(ids)
    dialect, shape = tx.backend, queries.params.INCOMING_IDS
    given = {"sample_id": sorted(set(ids))}
    claim = tx.execute_with(queries.deletion.claims_of(dialect), shape, given).first()
    if claim is not None:
        raise InvalidArgument(
            f"sample {claim.sample} cannot be forgotten, because worker {claim.worker_id} has "
            f"claimed it in batch {claim.id}: settle or release the batch first."
        )
    pool.take_out(tx, pool.standing(tx, ids))
    rows = tx.execute_with(queries.deletion.samples_of(dialect), shape, given).all()
    if not rows:
        return ForgetResult()
    drawn = tx.execute_with(queries.deletion.draws_of(dialect), shape, given).all()
    dropped = tx.execute_with(queries.deletion.dropped_draws_of(dialect), shape, given).all()
    found = _trained_with(tx, given)
    deltas = _shares(rows, drawn, dropped, consumes=tx.buffer.consumes)
    _correct_removals(tx, deltas)
    deltas["batches"] = -int(tx.execute(queries.audit.drawn_batches()).scalar_one())
    _delete(tx, [row.id for row in rows], {row.batch_id for row in drawn})
    deltas["batches"] += int(tx.execute(queries.audit.drawn_batches()).scalar_one())
    tx.count(**deltas)
    return ForgetResult(len(rows), found)


def tell(name: str, result: ForgetResult) -> None:
    """Log which predictors may remember forgotten samples."""
    if result.predictors:
        log.warning(
            "buffer %s has forgotten %s, but predictor versions %s were trained after the first of "
            "their rewards: train a new one, and drop these states",
            shown(name),
            n_of(result.forgotten, "sample"),
            printable(listed(map(str, result.predictors))),
        )


def _trained_with(tx: Transaction, given: dict[str, Any]) -> tuple[int, ...]:
    """Return the versions of the predictors that were stored after the first reward."""
    statement = queries.deletion.first_reward_of(tx.backend)
    first = tx.execute_with(statement, queries.params.INCOMING_IDS, given).one_or_none()
    if first is None:
        return ()
    moment = {"tick": first.measured_tick, "time": first.measured_at}
    return tuple(tx.execute(queries.deletion.trained_since(), **moment).scalars())


def _shares(
    rows: Sequence[Any], drawn: Sequence[Any], dropped: Sequence[Any], *, consumes: bool
) -> Counter[str]:
    """Return what samples that do not wait have added to the counters, negated.

    A sample has come in as often as it has gone out: it was added or recorded, and requeued; it was
    settled or removed. How often it was removed is not stored, and follows from the others.

    Args:
        rows: The samples.
        drawn: Their draws.
        dropped: Their settled draws that `prune` has dropped.
        consumes: True if a drawn sample leaves the pool.
    """
    settled = Counter(draw.sample_id for draw in drawn if draw.is_settled)
    settled.update(draw.sample_id for draw in dropped)
    n_drawn = len(drawn) + len(dropped)
    deltas = Counter(drawn=-n_drawn, settled=-settled.total(), released=settled.total() - n_drawn)
    for row in rows:
        was_added = not row.was_recorded
        left = settled[row.id] if consumes else 0
        requeued = max(row.requeues, left - was_added)
        deltas["added" if was_added else "recorded"] -= 1
        deltas["requeued"] -= requeued
        deltas["removed"] -= was_added + requeued - left
        if row.rewarded_at is not None:
            deltas["failed" if row.reward is None else "measured"] -= 1
    return deltas


def _correct_removals(tx: Transaction, deltas: Counter[str]) -> None:
    """Correct the changes of the counters if they have more removals than there were.

    Some of the samples were never added, but stored before they were measured. If there are fewer
    of these too, the others were settled without a measurement in draws that `prune` has dropped.
    """
    totals = tx.execute(queries.buffers.totals()).one()
    excess = max(-deltas["removed"] - int(totals.removed), 0)
    recorded = min(excess, max(int(totals.recorded) + deltas["recorded"], 0))
    deltas.update(removed=excess, added=recorded, recorded=-recorded)
    unmeasured = excess - recorded
    deltas.update(drawn=-unmeasured, settled=-unmeasured)


def _delete(tx: Transaction, ids: Sequence[int], batches: set[int]) -> None:
    """Delete samples that do not wait, their draws and measurements; correct the batches' sizes."""
    dialect, shape = tx.backend, queries.params.INCOMING_IDS
    lineage.note_deleted(tx, max(ids))
    if dialect.gives_ids_again:
        outdated, empty = queries.deletion.keep_id()
        tx.execute(outdated)
        tx.execute(empty, number=max(ids), hash=secrets.token_bytes(16))
    for statement in queries.deletion.delete_samples(dialect):
        tx.execute_with(statement, shape, {"sample_id": list(ids)})
    if batches:
        resize = queries.deletion.resize_batches(dialect)
        tx.execute_with(resize, shape, {"sample_id": sorted(batches)})

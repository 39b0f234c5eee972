"""SQL that copies a buffer: `source` is the buffer's id, `buffer` that of the copy.

Copied samples have new ids, in the same order, and are matched by hash; batches are matched by
their order.
"""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, now
from sqlbuffer.db.queries.moments import (
    IS_LATE,
    ITERATION,
    MEASURED_THEN,
    SETTLED_THEN,
    attempts_then,
    before_cutoff,
    had_left,
    kept_then,
)
from sqlbuffer.db.queries.params import BUFFER, IS_OPEN, KEYLESS
from sqlbuffer.db.queries.prune import measured_in_dropped_draws, pruned_batch_of
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    draws,
    measurements,
    metrics,
    pool,
    predictors,
    samples,
)

_SOURCE: sa.BindParameter[int] = bindparam("source", type_=sa.Integer)
_CONSUMES: sa.BindParameter[bool] = bindparam("consumes", type_=sa.Boolean)
_IS_WHOLE: sa.BindParameter[bool] = bindparam("is_whole", type_=sa.Boolean)

_KEPT_BATCH = sa.or_(_IS_WHOLE, SETTLED_THEN)


def _in_a_range_of_ids(table: Any, buffer: Any) -> Any:
    """Rows of a buffer in a range of ids. `+ zero` keeps SQLite from reading the whole buffer."""
    after, last = bindparam("after", type_=BigId), bindparam("last", type_=BigId)
    zero: sa.BindParameter[int] = bindparam("zero", 0, type_=sa.Integer)
    return sa.and_(table.c.id > after, table.c.id <= last, table.c.buffer_id + zero == buffer)


def _insert(table: sa.Table, source: Any, **changed: Any) -> Any:
    """Insert rows of a table for the copy, some columns changed; the database assigns new ids."""
    values = {column.name: column for column in table.columns} | {"buffer_id": BUFFER} | changed
    if "buffer_id" not in table.primary_key.columns:
        del values["id"]
    columns = [
        sa.type_coerce(value, table.c[name].type).label(name) for name, value in values.items()
    ]
    return sa.insert(table).from_select(
        list(values), source(select(*columns)), include_defaults=False
    )


@functools.cache
def id_range() -> sa.Select[Any]:
    """The lowest and the highest id of the samples of a buffer."""
    numbers = (
        sa.func.min(samples.c.id).label("lowest"),
        sa.func.max(samples.c.id).label("highest"),
    )
    return select(*numbers).where(samples.c.buffer_id == BUFFER)


@functools.cache
def next_id() -> sa.Select[Any]:
    """The lowest id after another one of the samples of a buffer."""
    beyond = select(samples.c.id).where(
        samples.c.buffer_id == BUFFER, samples.c.id > bindparam("after", type_=BigId)
    )
    return beyond.order_by(samples.c.id).limit(1)


@functools.cache
def copy_samples() -> Any:
    """Copy a range of samples as they are."""
    return _insert(
        samples,
        lambda rows: rows.where(_in_a_range_of_ids(samples, _SOURCE)).order_by(samples.c.id),
    )


@functools.cache
def copy_samples_then(pruned: bool) -> Any:
    """Copy a range of samples as they were before the cutoff.

    Samples that had been created, with the reward or failure that their measurements had given
    them, and the score if it has a version of that time. A sample waits if it was claimed then, or
    if it had not been settled and either still waits or was drawn later. One that is evicted now
    stays so unless it was settled.

    If draws were dropped (`pruned`), all of them were settled then: measurements tell the samples.
    """
    kept = measurements.alias("kept")
    drawn = select(draws.c.sample_id).join(batches, batches.c.id == draws.c.batch_id)
    drawn = drawn.where(batches.c.buffer_id == _SOURCE)
    ended_at = sa.func.coalesce(batches.c.settled_at, batches.c.released_at)
    ended_then = sa.and_(ended_at.is_not(None), before_cutoff(batches.c.closed_tick, ended_at))
    drawn_then = before_cutoff(batches.c.drawn_tick, batches.c.drawn_at)
    claimed = drawn.where(drawn_then, ~ended_then, ~draws.c.reported)
    drawn_later = drawn.where(~drawn_then)
    dropped = [measured_in_dropped_draws(_SOURCE)] if pruned else []
    was_out = had_left(kept, drawn, *dropped)
    had_waited = sa.and_(sa.or_(samples.c.queued, samples.c.id.in_(drawn_later)), ~was_out)
    consumed = sa.or_(samples.c.id.in_(claimed), had_waited)
    waited = sa.case((_CONSUMES, consumed), else_=samples.c.queued)
    was_evicted = sa.and_(samples.c.evicted, ~waited, ~sa.and_(_CONSUMES, was_out))
    had_score = samples.c.score_version <= bindparam("newest", type_=sa.Integer)
    changed = {
        "queued": waited,
        "evicted": was_evicted,
        "reward": kept.c.reward,
        "error": kept.c.error,
        "rewarded_at": kept.c.measured_at,
        "rewarded_tick": kept.c.measured_tick,
        "attempts": attempts_then(),
        **{
            name: sa.case((had_score, samples.c[name]))
            for name in ("score", "score_version", "scored_at", "scored_tick")
        },
    }

    def then(rows: sa.Select[Any]) -> sa.Select[Any]:
        was_there = before_cutoff(samples.c.created_tick, samples.c.created_at)
        found = rows.outerjoin_from(samples, kept, kept.c.id == kept_then())
        return found.where(_in_a_range_of_ids(samples, _SOURCE), was_there).order_by(samples.c.id)

    return _insert(samples, then, **changed)


_COPIED = samples.alias("copied")


def _with_copied(rows: Any, number: Any) -> Any:
    """Join the sample of an id, and its copy."""
    same = sa.and_(_COPIED.c.buffer_id == BUFFER, _COPIED.c.hash == samples.c.hash)
    return rows.join(samples, samples.c.id == number).join(_COPIED, same)


@functools.cache
def copy_pool() -> Any:
    """Copy the rows of the pool, for the copied samples."""

    def waiting(rows: sa.Select[Any]) -> sa.Select[Any]:
        found: sa.Select[Any] = _with_copied(rows.select_from(pool), pool.c.sample_id)
        return found.where(pool.c.buffer_id == _SOURCE).order_by(pool.c.race_key, _COPIED.c.id)

    return _insert(pool, waiting, sample_id=_COPIED.c.id)


@functools.cache
def copy_batches() -> Any:
    """Copy all batches, or those settled before the cutoff, without tokens and leases."""
    return _insert(
        batches,
        lambda rows: (
            rows.where(batches.c.buffer_id == _SOURCE).where(_KEPT_BATCH).order_by(batches.c.id)
        ),
        token=sa.null(),
        lease_until=sa.null(),
    )


def _numbered_batches() -> tuple[sa.Subquery, sa.Subquery]:
    """The batches that were copied, and their copies: `id, number`, matched by the number."""
    number = sa.func.row_number().over(order_by=batches.c.id).label("number")
    numbered = select(batches.c.id, number)
    old = numbered.where(batches.c.buffer_id == _SOURCE).where(_KEPT_BATCH)
    return old.subquery("old"), numbered.where(batches.c.buffer_id == BUFFER).subquery("new")


@functools.cache
def copy_draws() -> Any:
    """Copy the draws of the batches that were copied."""
    old, new = _numbered_batches()
    columns = (
        new.c.id,
        draws.c.position,
        _COPIED.c.id,
        draws.c.race_key,
        draws.c.weight,
        draws.c.reported,
        draws.c.started_at,
    )
    names = ["batch_id", "position", "sample_id", "race_key", "weight", "reported", "started_at"]
    labelled = [column.label(name) for name, column in zip(names, columns, strict=True)]
    rows = (
        select(*labelled)
        .join_from(old, new, new.c.number == old.c.number)
        .join(draws, draws.c.batch_id == old.c.id)
    )
    found = _with_copied(rows, draws.c.sample_id).order_by(new.c.id, draws.c.position)
    return sa.insert(draws).from_select(names, found, include_defaults=False)


@functools.cache
def copy_pruned() -> sa.Update:
    """Note in the copy which batches have no draws, because these were dropped in the original."""
    old, new = _numbered_batches()
    newest = (
        select((sa.func.max(new.c.id) + 1).label("bound"))
        .join_from(new, old, old.c.number == new.c.number)
        .where(old.c.id < pruned_batch_of(_SOURCE))
    )
    return (
        sa.update(buffers)
        .where(buffers.c.id == BUFFER)
        .values(pruned_batch=newest.scalar_subquery())
    )


@functools.cache
def copy_measurements() -> Any:
    """Copy the measurements that were stored before the cutoff, for copied samples and batches.

    Without late ones that changed nothing: of a batch that is not copied they would not seem late.
    """
    old, new = _numbered_batches()

    def stored_then(rows: sa.Select[Any]) -> sa.Select[Any]:
        found: sa.Select[Any] = _with_copied(
            rows.select_from(measurements), measurements.c.sample_id
        )
        found = found.outerjoin(old, old.c.id == measurements.c.batch_id)
        found = found.outerjoin(new, new.c.number == old.c.number)
        has_counted = sa.or_(~IS_LATE, measurements.c.id == kept_then())
        was_stored = sa.or_(_IS_WHOLE, sa.and_(MEASURED_THEN, has_counted))
        return found.where(measurements.c.buffer_id == _SOURCE, was_stored).order_by(
            measurements.c.id
        )

    return _insert(measurements, stored_then, sample_id=_COPIED.c.id, batch_id=new.c.id)


def _up_to(table: sa.Table, condition: Any) -> Any:
    return _insert(table, lambda rows: rows.where(table.c.buffer_id == _SOURCE).where(condition))


@functools.cache
def copy_predictors() -> Any:
    """Copy the predictors that were stored before an iteration began."""
    return _up_to(predictors, predictors.c.iteration <= ITERATION)


@functools.cache
def copy_metrics() -> Any:
    """Copy the metrics of the iterations before one."""
    return _up_to(metrics, metrics.c.iteration < ITERATION)


@functools.cache
def copy_checkpoints() -> Any:
    """Copy the checkpoints that were stored before an iteration began."""
    return _up_to(checkpoints, checkpoints.c.iteration <= ITERATION)


@functools.cache
def open_batches() -> sa.Select[Any]:
    """The ids of open batches, the last first."""
    return (
        select(batches.c.id)
        .where(batches.c.buffer_id == BUFFER)
        .where(IS_OPEN)
        .order_by(batches.c.id.desc())
    )


@functools.cache
def lowest_queued() -> sa.Select[Any]:
    """The lowest score of samples marked as waiting."""
    lowest = sa.func.min(samples.c.score).label("lowest")
    return select(lowest).where(samples.c.buffer_id == BUFFER, samples.c.queued)


@functools.cache
def queued_samples() -> sa.Select[Any]:
    """A range of samples marked as waiting, without keys, in the columns of `draws_of_batch`."""
    return (
        select(*KEYLESS)
        .where(_in_a_range_of_ids(samples, BUFFER), samples.c.queued)
        .order_by(samples.c.id)
    )


@functools.cache
def history_counts() -> sa.Select[Any]:
    """The numbers of a copy's batches, draws, samples, and samples recorded without a draw."""
    ours = batches.c.buffer_id == BUFFER
    drawn = select(draws.c.sample_id).join(batches, batches.c.id == draws.c.batch_id).where(ours)
    stored = select(sa.func.count()).select_from(samples).where(samples.c.buffer_id == BUFFER)
    recorded = stored.where(
        ~samples.c.queued,
        samples.c.rewarded_at.is_not(None),
        samples.c.id.not_in(drawn),
        samples.c.id.not_in(measured_in_dropped_draws(BUFFER)),
    )
    counts = {
        "batches": select(sa.func.count()).select_from(batches).where(ours),
        "drawn": select(sa.func.coalesce(sa.func.sum(batches.c.size), 0)).where(ours),
        "stored": stored,
        "recorded": recorded,
    }
    return select(*(count.scalar_subquery().label(name) for name, count in counts.items()))


@functools.cache
def copy_buffer(dialect: Dialect) -> Any:
    """Insert the row of a copy; return its id, or no row if the name is taken."""
    given = (
        *("name", "kind", "mode", "seed", "base_score", "top_score", "max_size", "settings", "key"),
        *("score_version", "refresh_version", "refreshed_version"),
        *("direction", "objective", "max_attempts", "evict", "keep_key"),
    )
    columns = {name: bindparam(name, type_=buffers.c[name].type) for name in given}
    insert = dialect.upsert(buffers).values(**columns, created_at=now())
    return insert.on_conflict_do_nothing(index_elements=["name"]).returning(buffers.c.id)


@functools.cache
def restart_race() -> sa.Update:
    """Begin the race of a copy: no sample is marked as top, and no refresh is under way."""
    base: sa.BindParameter[float] = bindparam("base", type_=sa.Double)
    return (
        sa.update(buffers)
        .where(buffers.c.id == BUFFER)
        .values(base_score=base, top_score=None, refresh_version=buffers.c.refreshed_version)
    )

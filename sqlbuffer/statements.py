"""Builds every statement of the hot paths and executes none. Each is built once for each dialect.

Bound parameters: `buffer` is the buffer's id everywhere. Rows that travel with a statement are relations named
`incoming_*` (`dialect.Rows`).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.dialect import BigId, Dialect, Rows, now
from sqlbuffer.schema import batches, buffers, draws, pool, samples, workers

NEVER = sa.literal(math.inf, sa.Double)
"""The race key of what has no weight: it never arrives."""

INCOMING_SAMPLES = Rows(
    "incoming_samples",
    (
        ("hash", sa.LargeBinary()),
        ("text", sa.Text()),
        ("payload", sa.LargeBinary()),
        ("codec", sa.Text()),
        ("source", sa.Text()),
        ("meta", sa.Text()),
    ),
)
INCOMING_HASHES = Rows("incoming_hashes", (("hash", sa.LargeBinary()),))
INCOMING_IDS = Rows("incoming_ids", (("sample_id", BigId),))
INCOMING_SCORES = Rows("incoming_scores", (("sample_id", BigId), ("score", sa.Double())))
INCOMING_REWARDS = Rows("incoming_rewards", (("id", BigId), ("reward", sa.Double())))
INCOMING_ENTRIES = Rows(
    "incoming_entries",
    (("sample_id", BigId), ("race_key", sa.Double()), ("weight", sa.Double()), ("top", sa.Boolean())),
)
INCOMING_PLACES = Rows("incoming_places", (("sample_id", BigId), ("race_key", sa.Double())))
INCOMING_KEYS = Rows(
    "incoming_keys",
    (
        ("sample_id", BigId),
        ("old_key", sa.Double()),
        ("race_key", sa.Double()),
        ("weight", sa.Double()),
        ("top", sa.Boolean()),
    ),
)
INCOMING_DRAWS = Rows(
    "incoming_draws",
    (("position", sa.Integer()), ("sample_id", BigId), ("race_key", sa.Double()), ("weight", sa.Double())),
)

COUNTERS = (
    *("batches", "iterations", "added", "recorded", "requeued", "drawn", "settled", "released"),
    *("removed", "refused", "unscored", "unscorable", "measured", "failed"),
)
"""The columns of `workers` that are summed up."""

_BUFFER: sa.BindParameter[int] = bindparam("buffer", type_=sa.Integer)
_ENTRY = ["buffer_id", "race_key", "sample_id", "weight", "top"]
_NO_WEIGHT = sa.literal(None, sa.Double).label("weight")
_NOT_TOP = sa.literal(False, sa.Boolean).label("top")
_CONTENT = (samples.c.text, samples.c.payload, samples.c.codec)


# -- the buffer -------------------------------------------------------------------------------------------------------


@functools.cache
def totals() -> sa.Select[Any]:
    """The clock of the race, and every counter summed over the workers."""
    sums = (sa.func.sum(workers.c[name]).label(name) for name in COUNTERS)
    return select(sa.func.max(workers.c.clock).label("clock"), *sums).where(workers.c.buffer_id == _BUFFER)


@functools.cache
def race_state() -> sa.Select[Any]:
    """What a change of the race needs to know of the buffer, in one round trip."""
    return (
        select(
            sa.func.max(workers.c.clock).label("clock"),
            sa.func.sum(workers.c.batches).label("turn"),
            sa.func.sum(workers.c.iterations).label("iteration"),
            buffers.c.base_score,
            buffers.c.top_weight,
            buffers.c.score_version,
        )
        .join_from(buffers, workers, workers.c.buffer_id == buffers.c.id)
        .where(buffers.c.id == _BUFFER)
        .group_by(buffers.c.id)
    )


@functools.cache
def count() -> sa.Update:
    """Add to the counters of a worker, say that it is alive, and move its clock forward."""
    added = {name: workers.c[name] + bindparam(f"d_{name}", type_=sa.BigInteger) for name in COUNTERS}
    clock: sa.BindParameter[float] = bindparam("new_clock", type_=sa.Double)
    return (
        sa.update(workers)
        .where(workers.c.buffer_id == _BUFFER)
        .where(workers.c.id == bindparam("worker", type_=sa.Text))
        .values(
            **added,
            clock=sa.case((clock > workers.c.clock, clock), else_=workers.c.clock),
            heartbeat_at=now(),
        )
    )


# -- samples ----------------------------------------------------------------------------------------------------------


def _new_samples(incoming: Any, dialect: Dialect, *, queued: Any) -> dict[str, Any]:
    return {
        "buffer_id": _BUFFER,
        "hash": incoming.hash,
        "text": incoming.text,
        "payload": incoming.payload,
        "codec": incoming.codec,
        "source": incoming.source,
        "meta": dialect.json(incoming.meta),
        "queued": queued,
        "requeues": sa.literal_column("0", sa.Integer),
        "created_at": now(),
        "created_iteration": bindparam("iteration", type_=sa.Integer),
    }


_HASH = [samples.c.buffer_id, samples.c.hash]
_WAIT_AGAIN = {
    "queued": True,
    "requeues": samples.c.requeues + 1,
    "score": None,
    "score_version": None,
    "scored_at": None,
}


_MARK = sa.literal(-1, sa.Integer)
"""A score version that no score has; seen by no other transaction."""


@functools.cache
def add_samples(dialect: Dialect) -> Any:
    """Store new samples, requeue those that had left the pool; returns both, and nothing for what still waits."""
    incoming = dialect.relation(INCOMING_SAMPLES).c
    values = _new_samples(incoming, dialect, queued=sa.literal(True, sa.Boolean))
    # The order keeps writers from deadlocks, and ids from depending on the order of insertion within a batch.
    source = select(*(value.label(name) for name, value in values.items())).order_by(incoming.hash)
    return (
        dialect.upsert(samples)
        .from_select(list(values), source, include_defaults=False)
        .on_conflict_do_update(index_elements=_HASH, set_=_WAIT_AGAIN, where=~samples.c.queued)
        .returning(samples.c.id, samples.c.hash, samples.c.requeues)
    )


@functools.cache
def add_unscored(dialect: Dialect) -> sa.Select[int, int]:
    """`add_samples` and `enter_unscored` in one; returns how many samples are stored, and how many of these again."""
    stored = add_samples(dialect).cte("stored")
    columns = (_BUFFER.label("buffer_id"), NEVER.label("race_key"), stored.c.id, _NO_WEIGHT, _NOT_TOP)
    entered = sa.insert(pool).from_select(_ENTRY, select(*columns)).cte("entered")
    again = sa.func.count().filter(stored.c.requeues > sa.literal(0, sa.Integer))
    return select(sa.func.count().label("stored"), again.label("requeued")).select_from(stored).add_cte(entered)


@functools.cache
def enter_unscored() -> sa.Insert:
    """Put the samples stored after an id into the pool, beyond the race.

    For the one writer of a transaction, whose samples they are: given the buffer too, SQLite without statistics would
    read all of it.
    """
    columns = (samples.c.buffer_id, NEVER.label("race_key"), samples.c.id, _NO_WEIGHT, _NOT_TOP)
    new = select(*columns).where(samples.c.id > bindparam("after", type_=BigId))
    return sa.insert(pool).from_select(_ENTRY, new)


@functools.cache
def insert_samples(dialect: Dialect) -> Any:
    """Store samples that are new and do not wait."""
    values = _new_samples(dialect.each(INCOMING_SAMPLES), dialect, queued=sa.false())
    return dialect.insert_each(samples, values).on_conflict_do_nothing(index_elements=_HASH)


@functools.cache
def newest_sample() -> sa.Select[Any]:
    """The largest id of all."""
    return select(sa.func.coalesce(sa.func.max(samples.c.id), 0).label("id"))


@functools.cache
def samples_after() -> sa.Select[Any]:
    """Return `id, hash, requeues` of the samples stored after an id, as `enter_unscored` does."""
    return (
        select(samples.c.id, samples.c.hash, samples.c.requeues)
        .where(samples.c.id > bindparam("after", type_=BigId))
        .order_by(samples.c.id)
    )


@functools.cache
def put_samples(dialect: Dialect) -> Any:
    """Store new samples, requeue those that had left the pool, and mark these, where rows go one by one."""
    values = _new_samples(dialect.each(INCOMING_SAMPLES), dialect, queued=sa.true())
    marked = _WAIT_AGAIN | {"score_version": _MARK}
    return dialect.insert_each(samples, values).on_conflict_do_update(
        index_elements=_HASH, set_=marked, where=~samples.c.queued
    )


@functools.cache
def marked_samples(dialect: Dialect) -> sa.Select[Any]:
    """Return `id, hash, requeues` of the samples of these hashes that `put_samples` has marked."""
    incoming = dialect.relation(INCOMING_HASHES)
    return (
        select(samples.c.id, samples.c.hash, samples.c.requeues)
        .join_from(incoming, samples, samples.c.hash == incoming.c.hash)
        .where(samples.c.buffer_id == _BUFFER)
        .where(samples.c.score_version == _MARK)
    )


@functools.cache
def unmark(dialect: Dialect) -> sa.Update:
    """Take the mark of `put_samples` away."""
    incoming = dialect.each(INCOMING_IDS)
    return sa.update(samples).where(samples.c.id == incoming.sample_id).values(score_version=None)


@functools.cache
def samples_by_hash(dialect: Dialect) -> sa.Select[Any]:
    """Return `hash, id, reward, rewarded_at` of the samples with these hashes."""
    incoming = dialect.relation(INCOMING_HASHES)
    return (
        select(samples.c.hash, samples.c.id, samples.c.reward, samples.c.rewarded_at)
        .join_from(incoming, samples, samples.c.hash == incoming.c.hash)
        .where(samples.c.buffer_id == _BUFFER)
    )


@functools.cache
def store_scores(dialect: Dialect) -> sa.Update:
    """Write scores into the samples."""
    incoming = dialect.each(INCOMING_SCORES)
    return (
        sa.update(samples)
        .where(samples.c.id == incoming.sample_id)
        .values(score=incoming.score, score_version=bindparam("version", type_=sa.Integer), scored_at=now())
    )


@functools.cache
def measured_before(dialect: Dialect) -> sa.Select[Any]:
    """Return the rewards of measured samples that are about to get another one, and lock them."""
    incoming = dialect.relation(INCOMING_REWARDS)
    statement = (
        select(samples.c.reward).join_from(incoming, samples, samples.c.id == incoming.c.id).order_by(samples.c.id)
    )
    return dialect.lock_rows(statement, samples)


@functools.cache
def store_first_rewards(dialect: Dialect) -> sa.Update:
    """Write rewards into samples that were not measured before."""
    return store_rewards(dialect).where(samples.c.rewarded_at.is_(None))


@functools.cache
def store_rewards(dialect: Dialect) -> sa.Update:
    """Write rewards into the samples; a NULL is a measurement that failed. Settled samples are no longer queued."""
    incoming = dialect.each(INCOMING_REWARDS)
    return (
        sa.update(samples)
        .where(samples.c.id == incoming.id)
        .values(
            reward=incoming.reward,
            rewarded_at=now(),
            queued=sa.and_(samples.c.queued, bindparam("stay_queued", type_=sa.Boolean)),
        )
    )


@functools.cache
def dequeue(dialect: Dialect) -> sa.Update:
    """Mark samples as neither waiting nor claimed, so that adding them again requeues them."""
    incoming = dialect.each(INCOMING_IDS)
    return sa.update(samples).where(samples.c.id == incoming.sample_id).values(queued=False)


@functools.cache
def enqueue(dialect: Dialect) -> sa.Update:
    """Mark samples as waiting or claimed."""
    incoming = dialect.each(INCOMING_IDS)
    return sa.update(samples).where(samples.c.id == incoming.sample_id).values(queued=True)


# -- the pool ---------------------------------------------------------------------------------------------------------


@functools.cache
def enter_pool(dialect: Dialect) -> Any:
    """Put samples into the pool."""
    incoming = dialect.each(INCOMING_ENTRIES)
    columns = ("race_key", "sample_id", "weight", "top")
    return dialect.insert_each(pool, {"buffer_id": _BUFFER, **{name: getattr(incoming, name) for name in columns}})


@functools.cache
def move_keys(dialect: Dialect) -> Any:
    """Give waiting samples new keys and weights, where they still stand at their old key."""
    incoming = dialect.each(INCOMING_KEYS)
    return (
        sa.update(pool)
        .where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.race_key == incoming.old_key)
        .where(pool.c.sample_id == incoming.sample_id)
        .values(race_key=incoming.race_key, weight=incoming.weight, top=incoming.top)
    )


@functools.cache
def leave_pool(dialect: Dialect) -> sa.Delete:
    """Take samples out of the pool, found by the key at which they stand."""
    incoming = dialect.each(INCOMING_PLACES)
    return (
        sa.delete(pool)
        .where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.race_key == incoming.race_key)
        .where(pool.c.sample_id == incoming.sample_id)
    )


@functools.cache
def leave_up_to() -> sa.Delete:
    """Take out of the pool whatever stands up to a key and an id: a batch, where nobody else can be drawing."""
    place = sa.tuple_(pool.c.race_key, pool.c.sample_id)
    last = sa.tuple_(bindparam("last_key", type_=sa.Double), bindparam("last_id", type_=BigId))
    return sa.delete(pool).where(pool.c.buffer_id == _BUFFER).where(place <= last)


@functools.cache
def shift_weights() -> sa.Update:
    """Add `delta` to every weight and stretch what is left of each key accordingly: the lowest score has changed.

    A weight never falls below `floor`.
    """
    delta: sa.BindParameter[float] = bindparam("delta", type_=sa.Double)
    clock: sa.BindParameter[float] = bindparam("clock", type_=sa.Double)
    floor: sa.BindParameter[float] = bindparam("floor", type_=sa.Double)
    weight = sa.case((pool.c.weight + delta > floor, pool.c.weight + delta), else_=floor)
    stretched = clock + (pool.c.race_key - clock) * (pool.c.weight / weight)
    return (
        sa.update(pool)
        .where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.race_key < NEVER)
        .values(weight=weight, race_key=sa.case((pool.c.race_key > clock, stretched), else_=pool.c.race_key))
    )


@functools.cache
def turn_back_keys() -> sa.Update:
    """Subtract the clock from every key: the race goes on from zero."""
    return (
        sa.update(pool)
        .where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.race_key < NEVER)
        .values(race_key=pool.c.race_key - bindparam("clock", type_=sa.Double))
    )


@functools.cache
def turn_back_open() -> tuple[sa.Update, sa.Update]:
    """Subtract the clock from what open batches remember, so that they can be released to where they stood."""
    clock: sa.BindParameter[float] = bindparam("clock", type_=sa.Double)
    still_open = sa.and_(
        batches.c.buffer_id == _BUFFER, batches.c.settled_at.is_(None), batches.c.released_at.is_(None)
    )
    ids = select(batches.c.id).where(still_open)
    return (
        sa.update(draws)
        .where(draws.c.batch_id.in_(ids))
        .where(draws.c.race_key < NEVER)
        .values(race_key=draws.c.race_key - clock),
        sa.update(batches)
        .where(still_open)
        .values(clock=batches.c.clock - clock, clock_before=batches.c.clock_before - clock),
    )


# -- drawing ----------------------------------------------------------------------------------------------------------


def _head(dialect: Dialect, statement: sa.Select[Any]) -> sa.Select[Any]:
    """Claim the head of the pool, then look up what the samples are."""
    limited = statement.where(pool.c.buffer_id == _BUFFER).limit(bindparam("limit", type_=sa.Integer))
    head = dialect.claim(limited, pool)
    return select(
        head.c.sample_id,
        head.c.race_key,
        head.c.weight,
        samples.c.source,
        samples.c.score,
        samples.c.reward,
        samples.c.hash,
        samples.c.requeues,
        *_CONTENT,
    ).join_from(head, samples, samples.c.id == head.c.sample_id)


_STANDING = select(pool.c.sample_id, pool.c.race_key, pool.c.weight)


@functools.cache
def first_in_race(dialect: Dialect) -> sa.Select[Any]:
    """The next `limit` arrivals of the race: one range of the pool's own order.

    SELECT race_key, sample_id, weight FROM pool
    WHERE buffer_id = :buffer AND race_key < 'Infinity'
    ORDER BY race_key, sample_id LIMIT :limit
    """
    ordered = _STANDING.where(pool.c.race_key < NEVER).order_by(pool.c.buffer_id, pool.c.race_key, pool.c.sample_id)
    return _head(dialect, ordered)


@functools.cache
def first_by_weight(dialect: Dialect) -> sa.Select[Any]:
    """The `limit` heaviest of those marked as top, the newest first among equals: one range of their index.

    SELECT race_key, sample_id, weight FROM pool
    WHERE buffer_id = :buffer AND top
    ORDER BY weight DESC, sample_id DESC LIMIT :limit
    """
    ordered = _STANDING.where(pool.c.top).order_by(
        pool.c.buffer_id.desc(), pool.c.weight.desc(), pool.c.sample_id.desc()
    )
    return _head(dialect, ordered)


@functools.cache
def whole_pool(dialect: Dialect) -> sa.Select[Any]:
    """All that waits, also what has no weight."""
    return _head(dialect, _STANDING.order_by(pool.c.buffer_id, pool.c.race_key, pool.c.sample_id))


@functools.cache
def next_key() -> sa.Select[Any]:
    """The key of the next arrival; no row where nothing more will arrive."""
    return (
        select(pool.c.race_key)
        .where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.race_key < NEVER)
        .order_by(pool.c.race_key)
        .limit(1)
    )


@functools.cache
def insert_draws(dialect: Dialect) -> Any:
    """Append the draws of a batch."""
    incoming = dialect.each(INCOMING_DRAWS)
    columns = ("position", "sample_id", "race_key", "weight")
    batch: sa.BindParameter[int] = bindparam("batch", type_=BigId)
    return dialect.insert_each(draws, {"batch_id": batch, **{name: getattr(incoming, name) for name in columns}})


@functools.cache
def close_batch(column: str) -> sa.Update:
    """Settle or release a batch, if nobody has; returns what a release needs to know."""
    return (
        sa.update(batches)
        .where(batches.c.id == bindparam("batch", type_=BigId))
        .where(batches.c.settled_at.is_(None))
        .where(batches.c.released_at.is_(None))
        .values({column: now()})
        .returning(batches.c.size)
    )


@functools.cache
def draws_of_batch() -> sa.Select[Any]:
    """The draws of a batch that have no reward yet, with what decides a sample's weight."""
    return (
        select(
            draws.c.sample_id,
            draws.c.race_key,
            draws.c.weight,
            samples.c.score,
            samples.c.scored_at.is_not(None).label("scored"),
            samples.c.hash,
            samples.c.requeues,
        )
        .join_from(draws, samples, samples.c.id == draws.c.sample_id)
        .where(draws.c.batch_id == bindparam("batch", type_=BigId))
        .where(~draws.c.reported)
        .order_by(draws.c.position)
    )


@functools.cache
def samples_to_put_back(dialect: Dialect) -> sa.Select[Any]:
    """Samples that stand nowhere in the race, in the columns of `draws_of_batch`."""
    incoming = dialect.relation(INCOMING_IDS)
    return select(
        samples.c.id.label("sample_id"),
        NEVER.label("race_key"),
        samples.c.score,
        samples.c.scored_at.is_not(None).label("scored"),
        samples.c.hash,
        samples.c.requeues,
    ).join_from(incoming, samples, samples.c.id == incoming.c.sample_id)


@functools.cache
def open_batch(dialect: Dialect) -> sa.Select[Any]:
    """Return the id of a batch if it is still open, and keep it so until the transaction ends."""
    still_open = (
        select(batches.c.id)
        .where(batches.c.buffer_id == _BUFFER)
        .where(batches.c.id == bindparam("batch", type_=BigId))
        .where(batches.c.settled_at.is_(None))
        .where(batches.c.released_at.is_(None))
    )
    return dialect.lock_rows(still_open, batches)


@functools.cache
def report_draws(dialect: Dialect) -> Any:
    """Mark draws as reported; returns the ids of the samples for which that is new."""
    incoming = dialect.relation(INCOMING_IDS).c
    return (
        sa.update(draws)
        .where(draws.c.batch_id == bindparam("batch", type_=BigId))
        .where(draws.c.sample_id == incoming.sample_id)
        .where(~draws.c.reported)
        .values(reported=True)
        .returning(draws.c.sample_id)
    )


@functools.cache
def unreported() -> sa.Select[Any]:
    """The number of draws of a batch whose rewards are still to come."""
    return (
        select(sa.func.count(draws.c.sample_id).label("left"))
        .where(draws.c.batch_id == bindparam("batch", type_=BigId))
        .where(~draws.c.reported)
    )


# -- scoring and eviction ---------------------------------------------------------------------------------------------


@functools.cache
def unscored() -> sa.Select[Any]:
    """The next `limit` waiting samples without a score, from an id on: a range of an index over just these."""
    page = (
        _STANDING.where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.weight.is_(None))
        .where(pool.c.sample_id > bindparam("after", type_=BigId))
        .order_by(pool.c.buffer_id, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
        .subquery("page")
    )
    return (
        select(page.c.sample_id, samples.c.hash, samples.c.requeues, *_CONTENT)
        .join_from(page, samples, samples.c.id == page.c.sample_id)
        .order_by(page.c.sample_id)
    )


@functools.cache
def oldest_unscored() -> sa.Select[Any]:
    """Where the `limit` oldest samples without a score stand."""
    return (
        select(pool.c.sample_id, pool.c.race_key, pool.c.weight)
        .where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.weight.is_(None))
        .order_by(pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
    )


@functools.cache
def pool_page() -> sa.Select[Any]:
    """The next `limit` rows of the pool in its own order, after a key and an id."""
    standing = sa.tuple_(pool.c.race_key, pool.c.sample_id)
    after = sa.tuple_(bindparam("after_key", type_=sa.Double), bindparam("after_id", type_=BigId))
    page = (
        _STANDING.where(pool.c.buffer_id == _BUFFER)
        .where(standing > after)
        .order_by(pool.c.buffer_id, pool.c.race_key, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
        .subquery("page")
    )
    return (
        select(page.c.sample_id, page.c.race_key, page.c.weight, samples.c.score, samples.c.score_version)
        .join_from(page, samples, samples.c.id == page.c.sample_id)
        .order_by(page.c.race_key, page.c.sample_id)
    )


@functools.cache
def waiting_ids() -> sa.Select[Any]:
    """The ids of all that waits."""
    return select(pool.c.sample_id).where(pool.c.buffer_id == _BUFFER)


@functools.cache
def scored(dialect: Dialect) -> sa.Select[Any]:
    """Return the samples with these ids and their scores, in the order of the ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return (
        select(samples.c.id, samples.c.score, samples.c.score_version, *_CONTENT)
        .join_from(incoming, samples, samples.c.id == incoming.c.sample_id)
        .order_by(samples.c.id)
    )


@functools.cache
def samples_by_id(dialect: Dialect) -> sa.Select[Any]:
    """Return `id, hash, requeues` of the samples with these ids."""
    incoming = dialect.relation(INCOMING_IDS)
    return select(samples.c.id, samples.c.hash, samples.c.requeues).join_from(
        incoming, samples, samples.c.id == incoming.c.sample_id
    )


@functools.cache
def weight_at() -> sa.Select[Any]:
    """The weight of the sample with `rank` heavier ones: where the top is to begin. Reads the whole pool."""
    return (
        select(pool.c.weight)
        .where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.weight > 0.0)
        .order_by(pool.c.weight.desc())
        .offset(bindparam("rank", type_=sa.Integer))
        .limit(1)
    )


@functools.cache
def mark_top() -> sa.Update:
    """Mark what waits with at least a weight as top, and nothing else."""
    is_top = sa.and_(pool.c.weight > 0.0, pool.c.weight >= bindparam("least", type_=sa.Double))
    return sa.update(pool).where(pool.c.buffer_id == _BUFFER).where(pool.c.top != is_top).values(top=is_top)


@functools.cache
def lightest(dialect: Dialect) -> sa.Select[Any]:
    """The `limit` samples of the lowest weight, the oldest first among equals. Reads the whole pool."""
    statement = (
        _STANDING.where(pool.c.buffer_id == _BUFFER)
        .where(pool.c.weight >= 0.0)
        .order_by(pool.c.weight, pool.c.sample_id)
        .limit(bindparam("limit", type_=sa.Integer))
    )
    return dialect.skip_locked(statement, pool)


@functools.cache
def standing_at(dialect: Dialect) -> sa.Select[Any]:
    """Where the samples with these ids stand in the pool, and lock them."""
    incoming = dialect.relation(INCOMING_IDS)
    statement = (
        select(pool.c.sample_id, pool.c.race_key, pool.c.weight, samples.c.source, samples.c.hash)
        .join_from(pool, samples, samples.c.id == pool.c.sample_id)
        .join(incoming, incoming.c.sample_id == pool.c.sample_id)
        .where(pool.c.buffer_id == _BUFFER)
    )
    return dialect.lock_rows(statement, pool)

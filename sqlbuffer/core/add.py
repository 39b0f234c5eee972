"""Samples come in: added to the pool, or recorded with a reward without ever having waited."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._json import as_json
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_list, as_names, as_rewards
from sqlbuffer.core import pool
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Columns, Lock
from sqlbuffer.errors import InvalidArgument, InvalidReward, TooLarge, require_all, shown, tampered
from sqlbuffer.records import AddResult
from sqlbuffer.samples.codec import encode_all
from sqlbuffer.samples.hashing import digests

CHUNK = 20_000
"""Samples sent to the database at once."""

MOST_UNSCORED = 100_000
"""Samples that may wait for a score at the least, however small `max_size` is."""


@dataclasses.dataclass(frozen=True)
class Incoming:
    """Samples on their way into the database: without repeats, in the order of their hashes."""

    hashes: list[bytes]
    samples: list[Any]
    sources: list[str]
    metas: list[str | None]
    positions: list[int]
    """Where each sample stands in what the user gave."""
    refused: int
    duplicates: int
    start: int | None = 0
    """What makes a position the number of a sample in what the user gave; None where nothing does."""

    def columns(self, buffer: BufferHandle) -> dict[str, list[Any]]:
        """Return the columns that travel to the database."""
        numbers = (
            None if self.start is None else [self.start + position for position in self.positions]
        )
        encoded = encode_all(self.samples, allow_pickle=buffer.allow_pickle, numbers=numbers)
        return {
            "hash": self.hashes,
            "text": encoded.texts,
            "payload": encoded.payloads,
            "codec": encoded.codecs,
            "source": self.sources,
            "meta": self.metas,
        }


def incoming(
    buffer: BufferHandle,
    samples: Sequence[Any],
    names: Sequence[str],
    metas: Sequence[str | None] | None = None,
    *,
    start: int | None = 0,
    hashes: Sequence[bytes | None] | None = None,
) -> Incoming:
    """Hash samples, unless that is done; of equal ones the first stays, and those without a key are refused."""
    hashes = hashes_of(buffer, samples, start=start) if hashes is None else list(hashes)
    first = dict(zip(reversed(hashes), reversed(range(len(samples))), strict=True))
    refused = hashes.count(None)
    ordered = sorted(digest for digest in first if digest is not None)
    positions = [first[digest] for digest in ordered]
    return Incoming(
        hashes=ordered,
        samples=[samples[i] for i in positions],
        sources=[names[i] for i in positions],
        metas=[None] * len(positions) if metas is None else [metas[i] for i in positions],
        positions=positions,
        refused=refused,
        duplicates=len(samples) - refused - len(positions),
        start=start,
    )


def hashes_of(
    buffer: BufferHandle, samples: Sequence[Any], *, start: int | None = 0
) -> list[bytes | None]:
    """Return the hash of each sample, None where it has no key; an error names the sample by its number."""
    if buffer.key is None:
        return list(digests(samples, None if start is None else range(start, start + len(samples))))
    keys = [buffer.key(sample) for sample in samples]
    numbers = (
        None if start is None else [start + i for i, key in enumerate(keys) if key is not None]
    )
    found = iter(digests((key for key in keys if key is not None), numbers))
    return [None if key is None else next(found) for key in keys]


def add(
    buffer: BufferHandle, samples: Sequence[Any], sources: str | Sequence[str], meta: Any
) -> AddResult:
    """Put samples into the pool, in chunks of one transaction each."""
    names, metas = as_names(sources, len(samples), "source"), _metas(meta, len(samples))
    result = AddResult()
    for start in range(0, len(samples), CHUNK):
        end = start + CHUNK
        result += _add_chunk(
            buffer, samples[start:end], names[start:end], metas[start:end], start=start
        )
    return result


def _add_chunk(
    buffer: BufferHandle,
    samples: Sequence[Any],
    names: Sequence[str],
    metas: Sequence[str | None],
    *,
    start: int,
) -> AddResult:
    """Put samples into the pool in one transaction, or in several where they are too large for one."""
    chunk = incoming(buffer, samples, names, metas, start=start)
    try:
        return buffer.write(insert, chunk=chunk)
    except TooLarge as exc:
        if len(samples) == 1:
            largest = buffer.database.dialect.max_value_bytes / 1e6
            raise TooLarge(
                f"sample {start} is larger than {largest:,.0f} MB, the limit of this database "
                "for one value: store the sample in a file and add the path, or make the sample "
                "smaller."
            ) from exc
    half = len(samples) // 2
    parts = ((slice(half), start), (slice(half, None), start + half))
    first, second = (
        _add_chunk(buffer, samples[of], names[of], metas[of], start=at) for of, at in parts
    )
    return first + second


def insert(tx: Transaction, *, chunk: Incoming) -> AddResult:
    """Store samples that are new and requeue those that had left the pool; both wait from now on."""
    state = tx.lock_race()
    needs_score = tx.buffer.settings.weighting.needs_score
    enter = _enter_unscored if needs_score else _enter_race
    added, requeued, touched = enter(tx, chunk, state) if chunk.hashes else (0, 0, None)
    unscored = added + requeued if needs_score else 0
    evict(tx, state, scored=added + requeued - unscored, unscored=unscored)
    deltas = {"added": added, "requeued": requeued, "refused": chunk.refused, "unscored": unscored}
    tx.count(touched=touched, **deltas)
    duplicates = chunk.duplicates + len(chunk.hashes) - added - requeued
    return AddResult(added, requeued, duplicates, chunk.refused)


def _enter_unscored(tx: Transaction, chunk: Incoming, state: RaceState) -> tuple[int, int, None]:
    """Let samples wait for a score, beyond the race; return how many are new, and how many wait again."""
    dialect = tx.backend
    if dialect.supports_bulk_upsert:
        found = _in_bulk(tx, queries.add_unscored(dialect), chunk, state).one()
        return found.stored - found.requeued, found.requeued, None
    newest, stored = _put(tx, chunk, state)
    added = tx.execute(queries.enter_unscored(), after=newest).rowcount
    again = _requeued(tx, chunk, stored - added) if added < stored else []
    never = np.full(len(again), math.inf)
    ids = [row.id for row in again]
    none = np.full(len(again), math.nan)
    pool.enter(tx, state, ids, never, none, none, [0] * len(again))
    return added, len(again), None


def _enter_race(
    tx: Transaction, chunk: Incoming, state: RaceState
) -> tuple[int, int, float | None]:
    """Let samples join the race at once; return how many are new, how many wait again, and the clock at which."""
    dialect = tx.backend
    if dialect.supports_bulk_upsert:
        rows = _in_bulk(tx, queries.add_samples(dialect), chunk, state).all()
    else:
        newest, stored = _put(tx, chunk, state)
        rows = tx.execute(queries.samples_after(), after=newest).all()
        rows += _requeued(tx, chunk, stored - len(rows)) if len(rows) < stored else []
    if not rows:
        return 0, 0, None
    ids, hashes, requeues = zip(*rows, strict=True)
    state = tx.lock_race_to_join(state)  # only now: storing them takes most of the time
    weights, first = np.ones(len(rows)), [1] * len(rows)
    keys = pool.join_race(tx.buffer, state, hashes, requeues, first, weights)
    scores = np.full(len(rows), math.nan)
    pool.enter(tx, state, ids, keys, weights, scores, first)
    return requeues.count(0), len(requeues) - requeues.count(0), state.clock


def _in_bulk(tx: Transaction, statement: Any, chunk: Incoming, state: RaceState) -> Any:
    columns, shape = chunk.columns(tx.buffer), queries.INCOMING_SAMPLES
    return tx.execute_with(statement, shape, columns, iteration=state.iteration, tick=state.tick)


def _put(tx: Transaction, chunk: Incoming, state: RaceState) -> tuple[int, int]:
    """Store and requeue samples; return the newest id before, and how many are new or wait again."""
    newest = tx.connection.execute(queries.newest_sample()).scalar_one()
    statement, columns = queries.put_samples(tx.backend), chunk.columns(tx.buffer)
    moment = {"iteration": state.iteration, "tick": state.tick}
    return newest, tx.execute_each(statement, queries.INCOMING_SAMPLES, columns, **moment)


def _requeued(tx: Transaction, chunk: Incoming, n: int) -> list[Any]:
    """Return `id, hash, requeues` of the n samples that wait again.

    Raises:
        InconsistentDatabase: If they are fewer: a sample has the largest number that there is, so that SQLite gives
            numbers at random to those that are stored, and they are not found.
    """
    dialect = tx.backend
    statement, columns = queries.marked_samples(dialect), {"hash": chunk.hashes}
    marked = list(tx.execute_with(statement, queries.INCOMING_HASHES, columns).all())
    require_all(len(marked), n, "samples were added again")
    ids = {"sample_id": [row.id for row in marked]}
    tx.execute_each(queries.unmark(dialect), queries.INCOMING_IDS, ids)
    return marked


def evict(tx: Transaction, state: RaceState, *, scored: int = 0, unscored: int = 0) -> None:
    """Take out what is beyond the `max_size` of the buffer, when weights are known: the lightest, and a hundredth more.

    What has no score yet is not compared with what has one, or the heavy would go for the light. It waits beyond the
    limit, as many as the limit and at least `MOST_UNSCORED`; then the oldest of these go.

    To be called before the transaction counts by how many `scored` and `unscored` samples it has changed the pool. No
    other transaction adds, draws or evicts from then on until this one ends: what one counts the others take into
    account.
    """
    if state.max_size is None:
        return
    dialect = tx.backend
    dialect.lock(tx.connection, tx.buffer.buffer_id, {Lock.DRAWS: True})
    totals = tx.execute(queries.totals()).one()
    unscored += int(totals.unscored)
    scored += pool.size(tx.buffer, totals) - int(totals.unscored)
    going: list[Any] = []
    if (excess := scored - state.max_size) > 0:
        excess += state.max_size // 100  # finding the lightest reads the whole pool: make it rare
        going += _free(tx, queries.lightest(dialect), excess)
    if (excess := unscored - max(state.max_size, MOST_UNSCORED)) > 0:
        going += _free(tx, queries.oldest_unscored(dialect), excess)
    if going:
        pool.remove(tx, going, clock=tx.race_state().clock)


def _free(tx: Transaction, statement: Any, n: int) -> list[Any]:
    """Return the first n that are to go, and lock their samples, passing over those that others are writing.

    Another transaction may wait, with its samples locked, for the lock that this one holds.
    """
    dialect = tx.backend
    n_passed = 0
    while True:
        going = tx.execute(statement, limit=n + n_passed).all()
        if not dialect.has_concurrent_writers:
            return list(going)
        columns = {"sample_id": sorted(row.sample_id for row in going)}
        found = tx.execute_with(queries.free_samples(dialect), queries.INCOMING_IDS, columns)
        is_free = set(found.scalars())
        free = [row for row in going if row.sample_id in is_free]
        if len(free) >= n or len(going) < n + n_passed:
            return free[:n]
        n_passed = len(going) - len(free)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Samples with rewards that never waited."""

    chunk: Incoming
    rewards: Floats

    @classmethod
    def prepare(
        cls, buffer: BufferHandle, samples: Sequence[Any], rewards: Any, sources: Any = ""
    ) -> Recorded:
        """Check and hash them; of equal samples the first counts, and one that was measured before one that failed."""
        samples = as_list(samples)
        values = as_rewards(rewards, len(samples))
        if any(value is None for value in values):
            raise InvalidReward(
                "a sample cannot be recorded with the reward None: give a number, or NaN for a failed measurement."
            )
        names = as_names(sources, len(samples), "source")
        if any(value != value for value in values):  # NaN
            order = sorted(range(len(samples)), key=lambda i: values[i] != values[i])
            samples, values, names = (
                [samples[i] for i in order],
                [values[i] for i in order],
                [names[i] for i in order],
            )
        chunk = incoming(buffer, samples, names)
        return cls(chunk, np.array([values[i] for i in chunk.positions], dtype=np.float64))


def record(tx: Transaction, recorded: Recorded) -> AddResult:
    """Store rewards; samples that are not there yet are stored without waiting."""
    chunk = recorded.chunk
    if not chunk.hashes:
        return AddResult(refused=chunk.refused, duplicates=chunk.duplicates)
    deltas = store_by_hash(tx, chunk.columns(tx.buffer), recorded.rewards.tolist())
    tx.count(refused=chunk.refused, **deltas)
    added = deltas["recorded"]
    return AddResult(
        added=added, duplicates=chunk.duplicates + len(chunk.hashes) - added, refused=chunk.refused
    )


class Known(NamedTuple):
    """Samples as this process knows them, whatever their numbers mean by now: columns of n each."""

    ids: Ints
    hash: Sequence[bytes]
    text: Sequence[str]
    payload: Sequence[bytes | None]
    codec: Sequence[str]
    source: Sequence[str]


def store_measured(
    tx: Transaction,
    known: Known,
    places: Ints,
    rewards: Floats,
    *,
    stay_queued: bool = True,
    of_draws: bool = False,
) -> Counter[str]:
    """Write rewards of the samples at m places, found by number and hash; return what this changes of the counters.

    A number is another sample's where the database has gone back to an earlier state and others have added since: after
    a failover to a standby that lagged, or a restore. Then the sample is found by its hash, or stored again: it was
    measured.

    Args:
        tx: The transaction.
        known: The samples.
        places: (m,) which of them were measured.
        rewards: (m,) their rewards; NaN for a measurement that failed.
        stay_queued: Leave those that wait in the queue.
        of_draws: This transaction has found the batch that the samples were drawn in: they are there too.
    """
    is_whole = len(places) == len(known.hash)
    hashes = (
        known.hash
        if is_whole and bool((np.diff(places) > 0).all())
        else [known.hash[i] for i in places.tolist()]
    )
    deltas, is_there = store_rewards(
        tx, known.ids[places], hashes, rewards, stay_queued=stay_queued, of_draws=of_draws
    )
    if not is_there.all():
        lost = sorted(
            np.flatnonzero(~is_there).tolist(), key=hashes.__getitem__
        )  # as all who add lock samples
        columns = {
            name: [getattr(known, name)[i] for i in places[lost].tolist()]
            for name in ("hash", "text", "payload", "codec", "source")
        }
        deltas.update(
            store_by_hash(tx, {**columns, "meta": [None] * len(lost)}, rewards[lost].tolist())
        )
    return deltas


def store_by_hash(tx: Transaction, columns: Columns, rewards: Sequence[float]) -> Counter[str]:
    """Write rewards of samples found by their hash; those that are not there are stored, without waiting.

    Return what this changes of the counters.
    """
    dialect = tx.backend
    totals = tx.execute(queries.totals()).one()
    tx.reach(totals.tick)
    moment = {"iteration": totals.iterations, "tick": tx.tick()}
    insert = queries.insert_samples(dialect)
    inserted = tx.execute_each(insert, queries.INCOMING_SAMPLES, columns, **moment)
    found = tx.execute_with(
        queries.samples_by_hash(dialect), queries.INCOMING_HASHES, {"hash": columns["hash"]}
    )
    reward_of = dict(zip(columns["hash"], rewards, strict=True))
    rows = [(row.id, row.hash, reward_of[row.hash]) for row in found]
    if inserted < len(rows):
        tx.tick(again=True)  # others may have stored some of them a moment ago
    ids, hashes, values = zip(*rows, strict=True) if rows else ((), (), ())
    deltas, is_there = store_rewards(tx, np.array(ids, np.int64), hashes, np.array(values))
    if len(rows) != len(reward_of) or not is_there.all():
        raise tampered(
            "samples that were just stored are missing because a trigger or rule changes the written rows"
        )
    deltas["recorded"] = inserted
    return deltas


def store_rewards(
    tx: Transaction,
    ids: Ints,
    hashes: Sequence[bytes],
    rewards: Floats,
    *,
    stay_queued: bool = True,
    of_draws: bool = False,
) -> tuple[Counter[str], NDArray[np.bool_]]:
    """Write rewards, NaN for a measurement that failed, into samples found by number and hash.

    A reward that is stored is replaced by another one, and never by a failure. Return what this changes of the
    counters, and which of the samples, (n,) bool, were found.
    """
    is_there = np.ones(len(ids), dtype=np.bool_)
    if not len(ids):
        return Counter(), is_there
    order = np.argsort(ids)
    values = [None if math.isnan(reward) else reward for reward in rewards[order].tolist()]
    columns = {
        "id": ids[order].tolist(),
        "hash": [hashes[i] for i in order.tolist()],
        "reward": values,
    }
    shape, dialect = queries.INCOMING_REWARDS, tx.backend
    first = (queries.store_first_rewards_of_draws if of_draws else queries.store_first_rewards)(
        dialect
    )
    more: dict[str, Any] = {"stay_queued": stay_queued, "tick": tx.tick()}
    is_first = tx.changed_by_each(first, shape, columns, **more)
    if all(is_first):
        return _count_rewards(values), is_there
    again = {
        name: [value for value, is_new in zip(column, is_first, strict=True) if not is_new]
        for name, column in columns.items()
    }
    before = tx.execute_with(queries.measured_before(dialect), shape, again).all()
    tx.execute_each(queries.store_rewards(dialect), shape, again, **more)
    measured = {row.id for row in before}
    found = [new or i in measured for new, i in zip(is_first, columns["id"], strict=True)]
    deltas = _count_rewards(
        [value for value, is_new in zip(values, is_first, strict=True) if is_new]
    )
    deltas.update(_count_rewards([row.kept for row in before]))
    deltas.subtract(_count_rewards([row.reward for row in before]))
    is_there[order] = found
    return deltas, is_there


def _count_rewards(values: Sequence[float | None]) -> Counter[str]:
    n_failed = values.count(None)
    return Counter(measured=len(values) - n_failed, failed=n_failed)


def _metas(meta: Any, n: int) -> list[str | None]:
    if meta is None or isinstance(meta, Mapping):
        return [None if meta is None else as_json(meta, "meta")] * n
    if isinstance(meta, (str, bytes)) or not isinstance(meta, Iterable):
        raise InvalidArgument(
            f"meta must be a mapping, or a list of one for each sample; got {shown(meta)}."
        )
    metas = as_list(meta, "meta")
    if len(metas) != n:
        raise InvalidArgument(
            f"{n} samples came with {len(metas)} metas: give one mapping, or one for each sample."
        )
    return [None if one is None else as_json(one, "meta") for one in metas]

"""Add samples to the pool, and evict samples from a pool that has become too large."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sqlbuffer._integrity import require_all
from sqlbuffer._json import as_json
from sqlbuffer._messages import shown
from sqlbuffer._validation import as_list, as_names
from sqlbuffer.core import pool
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Lock
from sqlbuffer.errors import InvalidArgument, TooLarge
from sqlbuffer.records import AddResult
from sqlbuffer.samples.codec import encode_all
from sqlbuffer.samples.hashing import digests

CHUNK = 20_000
"""Number of samples that are sent to the database at once."""

MOST_UNSCORED = 100_000
"""Number of samples that may always wait for a score, even if `max_size` is smaller."""


@dataclasses.dataclass(frozen=True)
class Incoming:
    """Samples to be stored: without duplicates, in the order of their hashes."""

    hashes: list[bytes]
    samples: list[Any]
    sources: list[str]
    metas: list[str | None]
    positions: list[int]
    """Position of each sample in the user's list."""
    refused: int
    duplicates: int
    start: int | None = 0
    """Position of the chunk's first sample in the user's list, for errors; None if unknown."""

    def columns(self, buffer: BufferHandle) -> dict[str, list[Any]]:
        """Return the columns of `queries.params.INCOMING_SAMPLES`, with encoded samples."""
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
    """Hash samples, drop duplicates, and refuse samples without a key.

    Args:
        buffer: The buffer.
        samples: n samples; the first of equal samples stays.
        names: n names of generators.
        metas: n texts of JSON, None for samples without.
        start: Position of the first sample in the user's list, for errors; None if unknown.
        hashes: n hashes if they are known, None for a sample without a key.
    """
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
    """Return the hash of each sample, None if the key function returned None for it.

    Raises:
        UnsupportedType: If a sample has no hash; the error names its position from `start` on.
    """
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
    """Add samples to the pool, in chunks of one transaction each.

    Args:
        buffer: The buffer.
        samples: n samples.
        sources: Name of the generator, or one name for each sample.
        meta: A mapping that fits into JSON, or one for each sample, or None.

    Raises:
        InvalidArgument: If there is not one source or meta for each sample.
        TooLarge: If a sample is too large for the database.
        UnsupportedType: If a sample has no hash or no codec.
    """
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
    """Add samples in one transaction, or in several if they are too large for one."""
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
    """Store new samples and requeue samples that had left the pool; both wait afterwards."""
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
    """Add samples that wait for a score; return the number of new and of requeued samples."""
    dialect = tx.backend
    if dialect.supports_bulk_upsert:
        found = _in_bulk(tx, queries.samples.add_unscored(dialect), chunk, state).one()
        return found.stored - found.requeued, found.requeued, None
    newest, stored = _put(tx, chunk, state)
    added = tx.execute(queries.samples.enter_unscored(), after=newest).rowcount
    again = _requeued(tx, chunk, stored - added) if added < stored else []
    never = np.full(len(again), math.inf)
    ids = [row.id for row in again]
    none = np.full(len(again), math.nan)
    pool.enter(tx, state, ids, never, none, none, [0] * len(again))
    return added, len(again), None


def _enter_race(
    tx: Transaction, chunk: Incoming, state: RaceState
) -> tuple[int, int, float | None]:
    """Add samples that join the race at once.

    Returns:
        The number of new samples, the number of requeued samples, and the clock at which they
        joined; None if no sample did.
    """
    dialect = tx.backend
    if dialect.supports_bulk_upsert:
        rows = _in_bulk(tx, queries.samples.add_samples(dialect), chunk, state).all()
    else:
        newest, stored = _put(tx, chunk, state)
        rows = tx.execute(queries.samples.samples_after(), after=newest).all()
        rows += _requeued(tx, chunk, stored - len(rows)) if len(rows) < stored else []
    if not rows:
        return 0, 0, None
    ids, hashes, requeues = zip(*rows, strict=True)
    state = tx.lock_race_to_join(state)  # late, because storing takes most of the time
    weights, first = np.ones(len(rows)), [1] * len(rows)
    keys = pool.join_race(tx.buffer, state, hashes, requeues, first, weights)
    scores = np.full(len(rows), math.nan)
    pool.enter(tx, state, ids, keys, weights, scores, first)
    return requeues.count(0), len(requeues) - requeues.count(0), state.clock


def _in_bulk(tx: Transaction, statement: Any, chunk: Incoming, state: RaceState) -> Any:
    columns, shape = chunk.columns(tx.buffer), queries.params.INCOMING_SAMPLES
    return tx.execute_with(statement, shape, columns, iteration=state.iteration, tick=state.tick)


def _put(tx: Transaction, chunk: Incoming, state: RaceState) -> tuple[int, int]:
    """Store and requeue samples; return the newest id before, and their number."""
    newest = tx.connection.execute(queries.samples.newest_sample()).scalar_one()
    statement, columns = queries.samples.put_samples(tx.backend), chunk.columns(tx.buffer)
    moment = {"iteration": state.iteration, "tick": state.tick}
    return newest, tx.execute_each(statement, queries.params.INCOMING_SAMPLES, columns, **moment)


def _requeued(tx: Transaction, chunk: Incoming, n: int) -> list[Any]:
    """Return `id, hash, requeues` of the n samples that were requeued.

    Raises:
        InconsistentDatabase: If fewer are found. For instance a sample has the largest possible id,
            so that SQLite gives random ids to new samples.
    """
    dialect = tx.backend
    statement, columns = queries.samples.marked_samples(dialect), {"hash": chunk.hashes}
    marked = list(tx.execute_with(statement, queries.params.INCOMING_HASHES, columns).all())
    require_all(len(marked), n, "samples were added again")
    ids = {"sample_id": [row.id for row in marked]}
    tx.execute_each(queries.samples.unmark(dialect), queries.params.INCOMING_IDS, ids)
    return marked


def evict(tx: Transaction, state: RaceState, *, scored: int = 0, unscored: int = 0) -> None:
    """Remove the lightest samples beyond the buffer's `max_size`, and 1 % more.

    Samples without a score are not compared with scored samples. As many of them may wait as
    `max_size`, and at least `MOST_UNSCORED`; beyond that, the oldest of them are removed.

    It is called before the transaction counts its own changes, and locks draws: until the end of
    this transaction no other one adds, draws or evicts, so each sees the counts of those before.

    Args:
        tx: A writing transaction that has locked the race.
        state: The state of the race.
        scored: Number of scored samples that this transaction has added and not yet counted.
        unscored: Number of samples without a score that it has added and not yet counted.
    """
    if state.max_size is None:
        return
    dialect = tx.backend
    dialect.lock(tx.connection, tx.buffer.buffer_id, {Lock.DRAWS: True})
    totals = tx.execute(queries.buffers.totals()).one()
    unscored += int(totals.unscored)
    scored += pool.size(tx.buffer, totals) - int(totals.unscored)
    going: list[Any] = []
    if (excess := scored - state.max_size) > 0:
        excess += state.max_size // 100  # finding the lightest reads the whole pool: make it rare
        going += _free(tx, queries.scores.lightest(dialect), excess)
    if (excess := unscored - max(state.max_size, MOST_UNSCORED)) > 0:
        going += _free(tx, queries.scores.oldest_unscored(dialect), excess)
    if going:
        pool.remove(tx, going, clock=tx.race_state().clock)


def _free(tx: Transaction, statement: Any, n: int) -> list[Any]:
    """Return the first n samples of a statement that no other transaction writes; lock them.

    To wait for them could deadlock: a transaction that has locked samples may wait for this one.
    """
    dialect = tx.backend
    n_passed = 0
    while True:
        going = tx.execute(statement, limit=n + n_passed).all()
        if not dialect.has_concurrent_writers:
            return list(going)
        columns = {"sample_id": sorted(row.sample_id for row in going)}
        found = tx.execute_with(
            queries.samples.free_samples(dialect), queries.params.INCOMING_IDS, columns
        )
        is_free = set(found.scalars())
        free = [row for row in going if row.sample_id in is_free]
        if len(free) >= n or len(going) < n + n_passed:
            return free[:n]
        n_passed = len(going) - len(free)


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

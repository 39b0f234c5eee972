"""Add samples to the pool."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlbuffer._integrity import require_all
from sqlbuffer._json import as_metas
from sqlbuffer._numpy import np
from sqlbuffer._validation import as_names, require_flag
from sqlbuffer.core import pool
from sqlbuffer.core.clock import Blurred, resolved
from sqlbuffer.core.evict import evict
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.keys import hashes_of_keys, keys_of
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import TooLarge
from sqlbuffer.records import AddResult
from sqlbuffer.samples.codec import encode_all
from sqlbuffer.samples.encoded import Encoded, hash_and_encode
from sqlbuffer.samples.hashing import digests
from sqlbuffer.samples.preview import as_texts

CHUNK = 20_000
"""Number of samples that are sent to the database at once."""


@dataclasses.dataclass(frozen=True)
class Incoming:
    """Samples to be stored: without duplicates, in the order of their hashes."""

    hashes: list[bytes]
    samples: list[Any]
    sources: list[str]
    metas: list[str | None]
    keys: list[str | None] | None
    """Key of each sample as text, in a buffer that keeps keys."""
    positions: list[int]
    """Position of each sample in the user's list."""
    refused_at: tuple[int, ...]
    """Positions in the user's list, counted from `start`, of the samples without a key."""
    duplicates: int
    start: int | None = 0
    """Position of the chunk's first sample in the user's list, for errors; None if unknown."""
    encoded: Encoded | None = None
    """The samples as columns, if they were encoded when they were hashed."""

    def columns(self, buffer: BufferHandle) -> dict[str, list[Any]]:
        """Return the columns of `queries.samples.incoming_samples`, with encoded samples."""
        numbers = (
            None if self.start is None else [self.start + position for position in self.positions]
        )
        encoded = self.encoded
        if encoded is None:
            encoded = encode_all(self.samples, allow_pickle=buffer.allow_pickle, numbers=numbers)
        return {
            "hash": self.hashes,
            "text": encoded.texts,
            "payload": encoded.payloads,
            "codec": encoded.codecs,
            "source": self.sources,
            "meta": self.metas,
            **({} if self.keys is None else {"key": self.keys}),
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

    Raises:
        InvalidArgument: If the buffer keeps keys, and was opened without a key function.
    """
    keys = None
    if buffer.keep_key:
        keys = keys_of(buffer, samples)
        hashes = hashes_of_keys(keys, start=start) if hashes is None else hashes
    hashed = None if hashes is not None or buffer.key is not None else hash_and_encode(samples)
    if hashed is not None:
        hashes = hashed.digests
    hashes = hashes_of(buffer, samples, start=start) if hashes is None else list(hashes)
    first = dict(zip(reversed(hashes), reversed(range(len(samples))), strict=True))
    refused = [i for i, digest in enumerate(hashes) if digest is None] if None in first else []
    ordered = sorted(digest for digest in first if digest is not None)
    positions = [first[digest] for digest in ordered]
    return Incoming(
        hashes=ordered,
        samples=[samples[i] for i in positions],
        sources=[names[i] for i in positions],
        metas=[None] * len(positions) if metas is None else [metas[i] for i in positions],
        keys=None if keys is None else as_texts([keys[i] for i in positions]),
        positions=positions,
        refused_at=tuple(position + (start or 0) for position in refused),
        duplicates=len(samples) - len(refused) - len(positions),
        start=start,
        encoded=None if hashed is None else hashed.encoded.at(positions),
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
    return hashes_of_keys([buffer.key(sample) for sample in samples], start=start)


def add(
    buffer: BufferHandle,
    samples: Sequence[Any],
    sources: str | Sequence[str],
    meta: Any,
    *,
    requeue: bool,
    start: int = 0,
) -> AddResult:
    """Add samples to the pool, in chunks of one transaction each.

    Args:
        buffer: The buffer.
        samples: n samples.
        sources: Name of the generator, or one name for each sample.
        meta: A mapping that fits into JSON, or one for each sample, or None.
        requeue: Let samples that were measured, settled or removed wait again.
        start: Position of the first sample in the user's list.

    Raises:
        InvalidArgument: If there is not one source or meta for each sample.
        TooLarge: If a sample is too large for the database.
        UnsupportedType: If a sample has no hash or no codec.
    """
    names, metas = as_names(sources, len(samples), "source"), as_metas(meta, len(samples), start)
    requeue = require_flag(requeue, "requeue")
    result = AddResult()
    for first in range(0, len(samples), CHUNK):
        end = first + CHUNK
        part = samples[first:end], names[first:end], metas[first:end]
        result += add_chunk(buffer, *part, start=start + first, requeue=requeue)
    return result


def add_chunk(
    buffer: BufferHandle,
    samples: Sequence[Any],
    names: Sequence[str],
    metas: Sequence[str | None],
    *,
    start: int,
    requeue: bool,
    hashes: Sequence[bytes | None] | None = None,
) -> AddResult:
    """Add samples in one transaction, or in several if they are too large for one.

    Args:
        buffer: The buffer.
        samples: n samples.
        names: n names of generators.
        metas: n texts of JSON, None for samples without.
        start: Position of the first sample in the user's list.
        requeue: See `add`.
        hashes: See `incoming`.
    """
    chunk = incoming(buffer, samples, names, metas, start=start, hashes=hashes)
    try:
        try:
            return buffer.write(insert, chunk=chunk, requeue=requeue)
        except Blurred:
            return buffer.write(insert, chunk=chunk, requeue=requeue, exclusive=True)
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
        add_chunk(buffer, samples[of], names[of], metas[of], start=at, requeue=requeue)
        for of, at in parts
    )
    return first + second


class _Entered(NamedTuple):
    """What became of the distinct samples of a chunk; the others wait or are claimed."""

    added: int = 0
    requeued: int = 0
    known: int = 0
    """Samples that neither wait nor are claimed, and stay out."""
    touched: float | None = None
    """Clock at which samples joined the race; None if no sample did."""


def insert(
    tx: Transaction, *, chunk: Incoming, requeue: bool, exclusive: bool = False
) -> AddResult:
    """Store new samples and requeue evicted ones, or all that had left; they wait afterwards.

    Raises:
        Blurred: If `exclusive` must be true.
    """
    state = tx.lock_race(exclusive=exclusive)
    needs_score = tx.buffer.settings.weighting.needs_score
    enter = _enter_unscored if needs_score else functools.partial(_enter_race, exclusive=exclusive)
    entered = enter(tx, chunk, state, requeue=requeue) if chunk.hashes else _Entered()
    added, requeued, known, touched = entered
    unscored = added + requeued if needs_score else 0
    evict(tx, state, scored=added + requeued - unscored, unscored=unscored)
    deltas = {"added": added, "requeued": requeued, "unscored": unscored}
    tx.count(touched=touched, refused=len(chunk.refused_at), **deltas)
    duplicates = chunk.duplicates + len(chunk.hashes) - added - requeued - known
    return AddResult(added, requeued, duplicates, known, chunk.refused_at)


def _enter_unscored(
    tx: Transaction, chunk: Incoming, state: RaceState, *, requeue: bool
) -> _Entered:
    """Add samples that wait for a score."""
    dialect = tx.backend
    if dialect.supports_bulk_upsert:
        keyed = tx.buffer.keep_key
        statement = queries.samples.add_unscored(dialect, requeue=requeue, keyed=keyed)
        found = _in_bulk(tx, statement, chunk, state, given=len(chunk.hashes)).one()
        # At the same time, others may have requeued and evicted a sample that was out before.
        known = min(found.known, len(chunk.hashes) - found.stored)
        return _Entered(found.stored - found.requeued, found.requeued, known)
    put = _put(tx, chunk, state, requeue=requeue)
    added = tx.execute(queries.samples.enter_unscored(), after=put.newest).rowcount
    again = _requeued(tx, chunk, put.stored - added) if added < put.stored else []
    never = np.full(len(again), math.inf)
    ids = [row.id for row in again]
    none = np.full(len(again), math.nan)
    pool.enter(tx, state, ids, never, none, none, [0] * len(again))
    return _Entered(added, len(again), put.known)


def _enter_race(
    tx: Transaction, chunk: Incoming, state: RaceState, *, requeue: bool, exclusive: bool
) -> _Entered:
    """Add samples that join the race at once.

    Raises:
        Blurred: If `exclusive` must be true.
    """
    dialect = tx.backend
    if dialect.supports_bulk_upsert:
        keyed = tx.buffer.keep_key
        statement = queries.samples.add_samples(dialect, requeue=requeue, keyed=keyed)
        rows = _in_bulk(tx, statement, chunk, state).all()
        is_told = requeue or len(rows) == len(chunk.hashes)
        known = 0 if is_told else _count_known(tx, chunk)
    else:
        newest, stored, known = _put(tx, chunk, state, requeue=requeue)
        rows = tx.execute(queries.samples.samples_after(), after=newest).all()
        rows += _requeued(tx, chunk, stored - len(rows)) if len(rows) < stored else []
    if not rows:
        return _Entered(known=known)
    ids, hashes, requeues = zip(*rows, strict=True)
    state = tx.lock_race_to_join(state)  # late, because storing takes most of the time
    weights, first = np.ones(len(rows)), [1] * len(rows)
    state = resolved(tx, state, weights, may_turn_back=exclusive)
    keys = pool.join_race(tx.buffer, state, hashes, requeues, first, weights)
    scores = np.full(len(rows), math.nan)
    pool.enter(tx, state, ids, keys, weights, scores, first)
    added = requeues.count(0)
    return _Entered(added, len(requeues) - added, known, state.clock)


def _in_bulk(
    tx: Transaction, statement: Any, chunk: Incoming, state: RaceState, **more: Any
) -> Any:
    columns = chunk.columns(tx.buffer)
    shape = queries.samples.incoming_samples(keyed=tx.buffer.keep_key)
    more |= {"iteration": state.iteration, "tick": state.tick}
    return tx.execute_with(statement, shape, columns, **more)


def _count_known(tx: Transaction, chunk: Incoming) -> int:
    """Return how many samples of a chunk stay out, after the others were put in.

    The upsert has locked all of them, so none has come or gone since.
    """
    statement, columns = queries.samples.samples_out(tx.backend), {"hash": chunk.hashes}
    return int(tx.execute_with(statement, queries.params.INCOMING_HASHES, columns).scalar_one())


class _Put(NamedTuple):
    """The newest id before samples were put in, and how many were stored, and stay out."""

    newest: int
    stored: int
    known: int


def _put(tx: Transaction, chunk: Incoming, state: RaceState, *, requeue: bool) -> _Put:
    """Store and requeue samples, row by row."""
    newest = tx.connection.execute(queries.samples.newest_sample()).scalar_one()
    keyed = tx.buffer.keep_key
    statement = queries.samples.put_samples(tx.backend, requeue=requeue, keyed=keyed)
    shape, columns = queries.samples.incoming_samples(keyed=keyed), chunk.columns(tx.buffer)
    moment = {"iteration": state.iteration, "tick": state.tick}
    stored = tx.execute_each(statement, shape, columns, **moment)
    return _Put(newest, stored, tx.backend.n_noted(tx.connection))


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

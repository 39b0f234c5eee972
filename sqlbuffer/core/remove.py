"""Remove waiting samples from the pool, or replace them by other samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlbuffer.core import add, pool
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries


def remove(tx: Transaction, ids: Sequence[int], hashes: Sequence[bytes] | None = None) -> int:
    """Take waiting samples out of the pool.

    Args:
        tx: A writing transaction.
        ids: Ids of samples.
        hashes: The hash of each sample, if they are known: an id with another hash is skipped.

    Returns:
        The number of samples that waited.

    Raises:
        StaleIds: If `hashes` is None and the ids may belong to other samples by now.
    """
    state = tx.lock_race()
    if tx.backend.has_concurrent_writers:
        columns = {"sample_id": sorted(set(ids))}
        tx.execute_with(
            queries.samples.lock_samples(tx.backend), queries.params.INCOMING_IDS, columns
        )
    tx.lock_race_to_join(state)  # a sample that an open draw has taken does not wait
    rows = _standing(tx, ids, hashes)
    pool.take_out(tx, rows)
    return len(rows)


def replace(
    tx: Transaction,
    ids: Sequence[int],
    samples: Sequence[Any],
    hashes: Sequence[bytes | None],
    old: Sequence[bytes] | None = None,
) -> int:
    """Replace waiting samples by other samples.

    Args:
        tx: A writing transaction.
        ids: n ids of waiting samples.
        samples: n samples that take their places.
        hashes: n hashes of `samples`; None for a sample without a key, which is refused.
        old: n hashes of the waiting samples, if they are known: an id with another hash is skipped.

    Returns:
        The number of samples that waited.

    Raises:
        StaleIds: If `old` is None and the ids may belong to other samples by now.
    """
    tx.lock_race(exclusive=True)  # the waiting samples must not change until the end
    rows = {row.sample_id: row for row in _standing(tx, ids, old)}
    changed = [
        (rows[i], sample, digest)
        for i, sample, digest in zip(ids, samples, hashes, strict=True)
        if i in rows and rows[i].hash != digest
    ]
    pool.take_out(tx, [row for row, _, _ in changed])
    sources = [row.source for row, _, _ in changed]
    ours, theirs = [sample for _, sample, _ in changed], [digest for _, _, digest in changed]
    chunk = add.incoming(tx.buffer, ours, sources, start=None, hashes=theirs)
    add.insert(tx, chunk=chunk, requeue=True, exclusive=True)
    return len(rows)


def _standing(tx: Transaction, ids: Sequence[int], hashes: Sequence[bytes] | None) -> list[Any]:
    """Find waiting samples by id and hash, or by ids that the user has kept."""
    if hashes is None:
        tx.require_ids(ids)
        return pool.standing(tx, ids)
    known = dict(zip(ids, hashes, strict=True))
    return [row for row in pool.standing(tx, ids) if row.hash == known[row.sample_id]]

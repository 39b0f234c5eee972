"""Heartbeat of this worker, which also releases the claims and jobs of stale workers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping

from sqlbuffer.core import leases
from sqlbuffer.core.attempts import count_attempts
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.heartbeat import INTERVAL_S, Beat, Heartbeat, Occasion
from sqlbuffer.core.release import release_all, release_open
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import (
    Mark,
    beat,
    finish,
    fold,
    forget_receipts,
    lock_stale,
    stale_workers,
    worker_id,
)
from sqlbuffer.db import queries

_stores: dict[object, tuple[str, int]] = {}
"""Database and buffer of each store of this process that has a heartbeat.

When the last store of a buffer is closed, this process is marked as finished with it. A store that
writes later removes the mark, so two spellings of the same database do no harm.
"""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stores.clear)


def with_heartbeat(buffer: BufferHandle) -> BufferHandle:
    """Return the handle with a heartbeat, which starts with its first write."""
    interval_s = min(INTERVAL_S, buffer.grace_s / 4)
    beats = functools.partial(_beats, buffer.apart())
    return dataclasses.replace(buffer, heartbeat=Heartbeat(beats, interval_s))


@contextlib.contextmanager
def _beats(apart: BufferHandle) -> Iterator[Beat]:
    """Provide the function of the heartbeat; its own connection waits for no lock of others."""
    store = object()
    opened = apart.database.url, apart.buffer_id

    def attend(occasion: Occasion) -> None:
        if occasion is Occasion.ALIVE:
            apart.write(beat)
            release_dead(apart)
            apart.read(leases.look)
            return
        _stores.pop(store, None)
        if occasion is Occasion.EXIT or opened not in list(_stores.values()):
            apart.write(_leave, occasion=occasion)

    _stores[store] = opened
    try:
        with contextlib.closing(apart.database):
            yield attend
    finally:
        _stores.pop(store, None)


def _leave(tx: Transaction, *, occasion: Occasion) -> None:
    """Mark this worker as finished with the buffer; at exit, also release its claims and jobs."""
    if occasion is Occasion.EXIT:
        release_open(tx, [worker_id()])
        leases.release_jobs(tx, [worker_id()])
    finish(tx)


def release_dead(buffer: BufferHandle) -> int:
    """Release the open batches and the jobs of stale workers, and delete the rows of the workers.

    Batches whose leases are over are released too.

    Returns:
        The number of released batches.
    """
    stale = buffer.peek(stale_workers)
    n_released = buffer.write(_release_stale, stale=stale) if stale else 0
    if buffer.look(_expired):
        n_released += buffer.write(_release_expired)
    return n_released


def _expired(tx: Transaction) -> list[int]:
    return list(tx.execute(queries.batches.expired_batches()).scalars())


def _release_expired(tx: Transaction) -> int:
    tx.lock_race(exclusive=True)
    return release_all(tx, _expired(tx))


def _release_stale(tx: Transaction, *, stale: Mapping[str, Mark]) -> int:
    tx.lock_race(exclusive=True)  # every transaction locks the race before rows
    dead = lock_stale(tx, stale)
    forget_receipts(tx)
    for batch in tx.execute(queries.batches.open_batches_of(), owners=dead).scalars().all():
        count_attempts(tx, batch=batch)
    n_released = release_open(tx, dead)
    leases.release_jobs(tx, dead)
    for worker in dead:
        fold(tx, worker=worker)
    return n_released

"""What a process does in the background while it is attached: say that it is alive, and look after the dead."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator

from sqlbuffer.core import leases
from sqlbuffer.core.batch import release_dead, release_open
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.heartbeat import INTERVAL_S, Beat, Heartbeat, Occasion
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import beat, finish, worker_id


def with_heartbeat(buffer: BufferHandle) -> BufferHandle:
    """Return the handle with a heartbeat, which its first write starts."""
    interval_s = min(INTERVAL_S, buffer.grace_s / 4)
    beats = functools.partial(_beats, buffer.apart())
    return dataclasses.replace(buffer, heartbeat=Heartbeat(beats, interval_s))


@contextlib.contextmanager
def _beats(apart: BufferHandle) -> Iterator[Beat]:
    """Give what a beat does, on a connection of its own: a lock or a loss of the others does not concern it."""
    store = object()
    attended = apart.database.url, apart.buffer_id

    def attend(occasion: Occasion) -> None:
        if occasion is Occasion.ALIVE:
            apart.write(beat)
            release_dead(apart)
            apart.read(leases.look)
            return
        _stores.pop(store, None)
        if occasion is Occasion.EXIT or attended not in list(_stores.values()):
            apart.write(_leave, occasion=occasion)

    _stores[store] = attended
    try:
        with contextlib.closing(apart.database):
            yield attend
    finally:
        _stores.pop(store, None)


def _leave(tx: Transaction, *, occasion: Occasion) -> None:
    """Say that this process is done with the buffer; at its end it has no use for a claim or a job any more."""
    if occasion is Occasion.EXIT:
        release_open(tx, [worker_id()])
        leases.release_jobs(tx, [worker_id()])
    finish(tx)


_stores: dict[object, tuple[str, int]] = {}
"""The database and buffer of each store of this process that beats: the last one to end says that the process is done.

A store that writes later says otherwise, so no harm is done where two spell the same database in two ways.
"""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stores.clear)

"""Workers: one row for each process attached to a buffer, with its counters and clock.

Counters are kept by worker and summed up when read, so that no row is written by everybody. What the dead have
counted is added to the row `ledger`, which every buffer has.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import psutil
import sqlalchemy as sa

from sqlbuffer.dialect import Dialect, ago, identity_of, now, right_now
from sqlbuffer.errors import printable
from sqlbuffer.schema import batches, jobs, receipts, workers
from sqlbuffer.statements import COUNTERS

LEDGER = "ledger"

GRACE_S = 60.0
"""How long a worker of another host may be silent before it counts as dead, unless the user says otherwise."""

SHORTEST_GRACE_S, LONGEST_GRACE_S = 1e-3, 1e9
"""A heartbeat comes four times in it, and databases reckon with it: some thirty years at the most."""

RECEIPTS_KEPT_S = 86_400.0


def is_grace(seconds: float) -> bool:
    """Tell whether a worker may be silent for so long."""
    return SHORTEST_GRACE_S <= seconds <= LONGEST_GRACE_S


@functools.cache
def host() -> str:
    """Return what makes a pid unique: the host's name, and a digest of its boot and pid namespace."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()
        boot += os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: the boot time does
        boot = str(psutil.boot_time())
    return f"{printable(socket.gethostname())}/{hashlib.blake2b(boot.encode(), digest_size=4).hexdigest()}"


@functools.cache
def _worker_id(pid: int) -> str:
    return f"{printable(socket.gethostname())}-{pid}-{secrets.token_hex(4)}"


def worker_id() -> str:
    """Return the id of this process; a forked child has one of its own."""
    return _worker_id(os.getpid())


@functools.cache
def _started_at(pid: int) -> float:
    """Return when this process started, by the clock that its host had when it first asked."""
    return float(psutil.Process(pid).create_time())


def register(connection: sa.Connection, dialect: Dialect, buffer_id: int, *, worker: str) -> None:
    """Write the row of a worker, unless another thread of it was quicker; of the ledger, if that is its name."""
    connection.execute(
        dialect.upsert(workers)
        .values(
            buffer_id=buffer_id,
            id=worker,
            host="" if worker == LEDGER else f"{host()}#{identity_of(connection)}",
            pid=0 if worker == LEDGER else os.getpid(),
            process_started_at=0.0 if worker == LEDGER else _started_at(os.getpid()),
            created_at=now(),
            heartbeat_at=right_now(),
            clock=0.0,
            **dict.fromkeys(COUNTERS, 0),
        )
        .on_conflict_do_nothing(index_elements=[workers.c.buffer_id, workers.c.id])
    )


def beat(connection: sa.Connection, buffer_id: int) -> None:
    """Say that this process is alive."""
    mine = sa.update(workers).where(workers.c.buffer_id == buffer_id, workers.c.id == worker_id())
    connection.execute(mine.values(heartbeat_at=right_now(), finished_at=None))


def finish(connection: sa.Connection, buffer_id: int) -> None:
    """Say that this process has closed the buffer; its next write says otherwise."""
    mine = sa.update(workers).where(workers.c.buffer_id == buffer_id, workers.c.id == worker_id())
    connection.execute(mine.values(finished_at=right_now()))


def dead(connection: sa.Connection, buffer_id: int, *, grace_s: float) -> list[str]:
    """Return the ids of the workers that are dead.

    Of this host those whose processes are gone, of others those that have been silent for too long; of all those that
    have finished, or that work on the database of which this one is a copy.
    """
    return _dead(connection.execute(_attached(buffer_id, identity_of(connection), grace_s=grace_s)))


def lock_dead(
    connection: sa.Connection, dialect: Dialect, buffer_id: int, gone: Sequence[str], *, grace_s: float
) -> list[str]:
    """Lock the rows of these workers; return the ids of those that are still there, and still dead.

    What a dead process had sent off before it died is over once its row is locked, and who was only silent has to wait
    and finds that it must register anew.
    """
    locked = dialect.lock_rows(
        _attached(buffer_id, identity_of(connection), grace_s=grace_s).where(workers.c.id.in_(gone)), workers
    )
    return _dead(connection.execute(locked))


def _attached(buffer_id: int, database: str, *, grace_s: float) -> sa.Select[Any]:
    is_silent = workers.c.heartbeat_at < ago(grace_s)
    facts = (is_silent.label("silent"), _has_finished().label("finished"), sa.literal(database).label("database"))
    return (
        sa.select(workers.c.id, workers.c.host, workers.c.pid, workers.c.process_started_at, *facts)
        .where(workers.c.buffer_id == buffer_id)
        .where(workers.c.id != LEDGER)
        .order_by(workers.c.id)
    )


def _has_finished() -> sa.ColumnElement[bool]:
    """True where a worker has closed the buffer, and left nothing behind that it may still come back to."""
    its_batches = sa.exists().where(
        batches.c.buffer_id == workers.c.buffer_id,
        batches.c.worker_id == workers.c.id,
        batches.c.settled_at.is_(None),
        batches.c.released_at.is_(None),
    )
    its_jobs = sa.exists().where(jobs.c.buffer_id == workers.c.buffer_id, jobs.c.owner == workers.c.id)
    return sa.and_(workers.c.finished_at.is_not(None), ~its_batches, ~its_jobs)


def _is_of_another(database: str, here: str) -> bool:
    """Tell whether a worker's database is another one than this. What is not known of either is no difference."""
    return any(a and b and a != b for a, b in zip(database.split("."), here.split("."), strict=False))


def _dead(rows: Iterable[Any]) -> list[str]:
    return [row.id for row in rows if _is_dead(row)]


def _is_dead(row: Any) -> bool:
    its_host, _, its_database = row.host.partition("#")
    if _is_of_another(its_database, row.database) or (row.finished and row.id != worker_id()):
        return True
    if its_host != host():
        return bool(row.silent)
    try:
        process, is_mine = psutil.Process(row.pid), row.pid == os.getpid()
        # A pid may have been given again to another process. If it is not ours, only silence proves it: when the clock
        # of the host is set, all processes seem to have started at another time.
        started_at = _started_at(row.pid) if is_mine else process.create_time()
        is_another = abs(started_at - row.process_started_at) >= 1.0 and (is_mine or row.silent)
        return bool(is_another or process.status() == psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, TypeError, ValueError):  # the latter: neither pid nor time that a process can have
        return True
    except psutil.AccessDenied:  # hidden from this user
        return bool(row.silent)


def forget_receipts(connection: sa.Connection) -> None:
    """Drop what long closed connections have left."""
    connection.execute(sa.delete(receipts).where(receipts.c.written_at < ago(RECEIPTS_KEPT_S)))


def fold(connection: sa.Connection, buffer_id: int, *, worker: str) -> None:
    """Add a dead worker's counters to the ledger and drop its row."""
    gone = connection.execute(
        sa.delete(workers)
        .where(workers.c.buffer_id == buffer_id)
        .where(workers.c.id == worker)
        .returning(workers.c.clock, *(workers.c[name] for name in COUNTERS))
    ).one_or_none()
    if gone is None:  # somebody else was quicker
        return
    clock = sa.case((workers.c.clock < gone.clock, gone.clock), else_=workers.c.clock)
    connection.execute(
        sa.update(workers)
        .where(workers.c.buffer_id == buffer_id)
        .where(workers.c.id == LEDGER)
        .values(clock=clock, **{name: workers.c[name] + getattr(gone, name) for name in COUNTERS})
    )

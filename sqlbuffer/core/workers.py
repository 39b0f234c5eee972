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
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import psutil
import sqlalchemy as sa

from sqlbuffer._messages import printable
from sqlbuffer.db.backends import Dialect, ago, now, origin_of, right_now
from sqlbuffer.db.queries import COUNTERS
from sqlbuffer.db.schema import batches, jobs, receipts, workers

if TYPE_CHECKING:
    from sqlbuffer.core.transaction import Transaction

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
        boot = str(psutil.boot_time()) if sees_processes() else "unknown"
    return f"{printable(socket.gethostname())}/{hashlib.blake2b(boot.encode(), digest_size=4).hexdigest()}"


@functools.cache
def sees_processes() -> bool:
    """Tell whether pids mean anything here: not without /proc on Linux, or with that of another pid namespace."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        return os.readlink("/proc/self") == str(os.getpid()) and os.path.exists("/proc/self/ns/pid")
    except OSError:
        return False


@functools.cache
def _worker_id(pid: int) -> str:
    return f"{printable(socket.gethostname())}-{pid}-{secrets.token_hex(4)}"


def worker_id() -> str:
    """Return the id of this process; a forked child has one of its own."""
    return _worker_id(os.getpid())


@functools.cache
def _started_at(pid: int) -> float:
    """Return when this process started, by the clock that its host had when it first asked; 0 if that is not known."""
    return float(psutil.Process(pid).create_time()) if sees_processes() else 0.0


def register(connection: sa.Connection, dialect: Dialect, buffer_id: int, *, worker: str) -> None:
    """Write the row of a worker, unless another thread of it was quicker; of the ledger, if that is its name."""
    connection.execute(
        dialect.upsert(workers)
        .values(
            buffer_id=buffer_id,
            id=worker,
            host="" if worker == LEDGER else f"{host()}#{origin_of(connection)}",
            pid=0 if worker == LEDGER else os.getpid(),
            process_started_at=0.0 if worker == LEDGER else _started_at(os.getpid()),
            created_at=now(),
            heartbeat_at=right_now(),
            clock=0.0,
            **dict.fromkeys(COUNTERS, 0),
        )
        .on_conflict_do_nothing(index_elements=[workers.c.buffer_id, workers.c.id])
    )


def beat(tx: Transaction) -> None:
    """Say that this process is alive."""
    tx.connection.execute(_mine(tx).values(heartbeat_at=right_now(), finished_at=None))


def finish(tx: Transaction) -> None:
    """Say that this process has closed the buffer; its next write says otherwise."""
    tx.connection.execute(_mine(tx).values(finished_at=right_now()))


def _mine(tx: Transaction) -> sa.Update:
    return sa.update(workers).where(
        workers.c.buffer_id == tx.buffer.buffer_id, workers.c.id == worker_id()
    )


Mark: TypeAlias = tuple[Any, int]
"""What a worker that lives changes again and again: the time of its heartbeat, and its tick."""


def dead(tx: Transaction) -> dict[str, Mark]:
    """Return the workers that are dead, by their ids, each with its last mark.

    Of this host those whose processes are gone. Of others, and where nothing can be known of a process, those whose
    marks this process has itself seen unchanged for `grace_s`: never at the first look. Of all those that have
    finished, or that work on the database of which this one is a copy.
    """
    watch, grace_s = tx.buffer.watch, tx.buffer.grace_s
    began = watch.begin()
    rows = tx.connection.execute(_attached(tx)).all()
    marks = {row.id: _mark(row) for row in rows}
    silent_s = watch.same_for_s(
        ("workers", tx.buffer.buffer_id), marks, began=began, gap_s=grace_s / 2
    )
    return {
        row.id: marks[row.id]
        for row in rows
        if _is_dead(row, is_silent=silent_s[row.id] >= grace_s)
    }


def lock_dead(tx: Transaction, gone: Mapping[str, Mark]) -> list[str]:
    """Lock the rows of these workers; return the ids of those that are still there, and still dead.

    What a dead process had sent off before it died is over once its row is locked, and who was only silent has to wait
    and finds that it must register again.
    """
    attached = _attached(tx).where(workers.c.id.in_(list(gone)))
    rows = tx.connection.execute(tx.backend.lock_rows(attached, workers)).all()
    return [row.id for row in rows if _is_dead(row, is_silent=_mark(row) == gone[row.id])]


def unknown(tx: Transaction) -> dict[str, Mark]:
    """Return the workers that only silence tells to be dead, each with its last mark."""
    rows = tx.connection.execute(_attached(tx))
    return {row.id: _mark(row) for row in rows if _is_known_by_silence(row)}


def quiet(tx: Transaction) -> list[str]:
    """Return those of them that have been silent for the grace period by the database's clock.

    For people to read: the clock may have been set.
    """
    rows = tx.connection.execute(
        _attached(tx).where(workers.c.heartbeat_at < ago(tx.buffer.grace_s))
    )
    return [row.id for row in rows if _is_known_by_silence(row)]


def _is_known_by_silence(row: Any) -> bool:
    return _is_dead(row, is_silent=True) and not _is_dead(row, is_silent=False)


def _attached(tx: Transaction) -> sa.Select[Any]:
    columns = ("id", "host", "pid", "process_started_at", "heartbeat_at", "tick")
    facts = (
        _has_finished().label("finished"),
        sa.literal(origin_of(tx.connection)).label("database"),
    )
    return (
        sa.select(*(workers.c[name] for name in columns), *facts)
        .where(workers.c.buffer_id == tx.buffer.buffer_id)
        .where(workers.c.id != LEDGER)
        .order_by(workers.c.id)
    )


def _mark(row: Any) -> Mark:
    return row.heartbeat_at, row.tick


def _has_finished() -> sa.ColumnElement[bool]:
    """True where a worker has closed the buffer, and left nothing behind that it may still come back to."""
    its_batches = sa.exists().where(
        batches.c.buffer_id == workers.c.buffer_id,
        batches.c.worker_id == workers.c.id,
        batches.c.settled_at.is_(None),
        batches.c.released_at.is_(None),
    )
    its_jobs = sa.exists().where(
        jobs.c.buffer_id == workers.c.buffer_id, jobs.c.owner == workers.c.id
    )
    return sa.and_(workers.c.finished_at.is_not(None), ~its_batches, ~its_jobs)


def _is_of_another(database: str, here: str) -> bool:
    """Tell whether a worker's database is another one than this. What is not known of either is no difference."""
    return any(
        a and b and a != b for a, b in zip(database.split("."), here.split("."), strict=False)
    )


def _is_dead(row: Any, *, is_silent: bool) -> bool:
    its_host, _, its_database = row.host.partition("#")
    if _is_of_another(its_database, row.database) or (row.finished and row.id != worker_id()):
        return True
    if its_host != host():
        return is_silent
    if row.id == worker_id():
        return False
    if not sees_processes():
        return is_silent
    try:
        if row.pid == os.getpid() or not _exists(
            row.pid
        ):  # the first: its number was given to this process
            return True
        process = psutil.Process(row.pid)
        # A pid may have been given to another process. Only silence proves it: when the clock of the host is set, all
        # processes seem to have started at another time.
        is_another = abs(process.create_time() - row.process_started_at) >= 1.0 and is_silent
        return bool(is_another or process.status() == psutil.STATUS_ZOMBIE)
    except (TypeError, ValueError, OverflowError):  # neither pid nor time that a process can have
        return True
    except psutil.ZombieProcess:
        return True
    except psutil.Error:  # hidden from this user, as hidepid=2 does: it was there a moment ago
        return False


def _exists(pid: int) -> bool:
    """Tell whether there is a process of this number, also where this user may see nothing of it."""
    if os.name != "posix":  # elsewhere a signal 0 is no question
        return bool(psutil.pid_exists(pid))
    if pid < 1:  # a group of processes
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process of another user exists
        return True
    return True


def forget_receipts(tx: Transaction) -> None:
    """Drop what long closed connections have left."""
    tx.connection.execute(sa.delete(receipts).where(receipts.c.written_at < ago(RECEIPTS_KEPT_S)))


def fold(tx: Transaction, *, worker: str) -> None:
    """Add a dead worker's counters to the ledger and drop its row."""
    gone = tx.connection.execute(
        sa.delete(workers)
        .where(workers.c.buffer_id == tx.buffer.buffer_id)
        .where(workers.c.id == worker)
        .returning(
            *(workers.c[name] for name in ("clock", "touched", "tick")),
            *(workers.c[name] for name in COUNTERS),
        )
    ).one_or_none()
    if gone is None:  # another process was quicker
        return
    largest = {
        name: sa.case(
            (workers.c[name] < getattr(gone, name), getattr(gone, name)), else_=workers.c[name]
        )
        for name in ("clock", "touched", "tick")
    }
    tx.connection.execute(
        sa.update(workers)
        .where(workers.c.buffer_id == tx.buffer.buffer_id)
        .where(workers.c.id == LEDGER)
        .values(**largest, **{name: workers.c[name] + getattr(gone, name) for name in COUNTERS})
    )

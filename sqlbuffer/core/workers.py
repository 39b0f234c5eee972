"""Workers: one row for each process attached to a buffer, with its counters and clock.

Each worker counts in its own row, so that workers do not wait for each other; readers sum up the
rows. The counters of a stale worker are added to the row `ledger`, which every buffer has.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import psutil
import sqlalchemy as sa

from sqlbuffer._messages import printable
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Dialect, origin_of
from sqlbuffer.db.queries.workers import LEDGER as LEDGER

if TYPE_CHECKING:
    from sqlbuffer.core.transaction import Transaction

GRACE_S = 60.0
"""Default of `grace_s`: a worker of another host is stale after so many seconds of silence."""

SHORTEST_GRACE_S, LONGEST_GRACE_S = 1e-3, 1e9
"""Limits of `grace_s`: it holds four heartbeats, and databases add it to times (30 years)."""

RECEIPTS_KEPT_S = 86_400.0


def is_grace(seconds: float) -> bool:
    """Return whether `grace_s` may have this value, in seconds."""
    return SHORTEST_GRACE_S <= seconds <= LONGEST_GRACE_S


def is_lease(seconds: float) -> bool:
    """Return whether a batch may be leased for so long, in seconds."""
    return 0.0 < seconds <= LONGEST_GRACE_S


@functools.cache
def host() -> str:
    """Return the scope in which a pid is unique: host name, digest of boot and pid namespace."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()
        boot += os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: the boot time stands for the boot id
        boot = str(psutil.boot_time()) if sees_processes() else "unknown"
    digest = hashlib.blake2b(boot.encode(), digest_size=4).hexdigest()
    return f"{printable(socket.gethostname())}/{digest}"


@functools.cache
def sees_processes() -> bool:
    """Return whether this process can look up other pids.

    On Linux it cannot without /proc, or if /proc is that of another pid namespace.
    """
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
    """Return the worker id of this process; a forked child has its own."""
    return _worker_id(os.getpid())


@functools.cache
def _started_at(pid: int) -> float:
    """Return when this process started, in seconds since 1970; 0 if unknown.

    The first answer is kept: later changes of the host's clock do not move it.
    """
    return float(psutil.Process(pid).create_time()) if sees_processes() else 0.0


def register(connection: sa.Connection, dialect: Dialect, buffer_id: int, *, worker: str) -> None:
    """Insert the row of this worker, or of the ledger for `LEDGER`, unless it is there."""
    is_ledger = worker == LEDGER
    row = {
        "at_host": "" if is_ledger else f"{host()}#{origin_of(connection)}",
        "process": 0 if is_ledger else os.getpid(),
        "started_at": 0.0 if is_ledger else _started_at(os.getpid()),
    }
    statement = queries.workers.register_worker(dialect)
    connection.execute(statement, {"buffer": buffer_id, "worker": worker, **row})


def beat(tx: Transaction) -> None:
    """Store the heartbeat of this worker."""
    tx.execute(queries.workers.beat_worker(), worker=worker_id())


def finish(tx: Transaction) -> None:
    """Note that this worker has closed the buffer; its next write takes the note back."""
    tx.execute(queries.workers.finish_worker(), worker=worker_id())


Mark: TypeAlias = tuple[Any, int]
"""Time of the last heartbeat and tick of a worker: both change as long as the worker lives."""


def stale_workers(tx: Transaction) -> dict[str, Mark]:
    """Return the stale workers, by id, each with its last mark.

    A worker is stale

    - if it ran on this host and its process is gone,
    - if its process cannot be looked up from here, and this process has seen its mark unchanged
      for `grace_s`, so never at the first look,
    - if it has closed the buffer and left nothing open,
    - if it works on another database, of which this one is a copy.
    """
    watch, grace_s = tx.buffer.watch, tx.buffer.grace_s
    began = watch.begin()
    rows = _attached(tx, queries.workers.attached_workers())
    marks = {row.id: _mark(row) for row in rows}
    silent_s = watch.same_for_s(
        ("workers", tx.buffer.buffer_id), marks, began=began, gap_s=grace_s / 2
    )
    return {
        row.id: marks[row.id]
        for row in rows
        if _is_stale(row, is_silent=silent_s[row.id] >= grace_s)
    }


def other_workers(tx: Transaction) -> list[str]:
    """Return the ids of the living workers, without this process."""
    stale = stale_workers(tx)
    attached = _attached(tx, queries.workers.attached_workers())
    return [row.id for row in attached if row.id not in stale and row.id != worker_id()]


def lock_stale(tx: Transaction, marks: Mapping[str, Mark]) -> list[str]:
    """Lock the rows of workers that were found stale; return the ids of those that still are.

    Once the row of a worker is locked, no transaction of its process is under way. A worker that
    was only silent waits for the lock, and registers again when it finds its row gone.
    """
    rows = _attached(tx, queries.workers.lock_workers(tx.backend), worker_ids=list(marks))
    return [row.id for row in rows if _is_stale(row, is_silent=_mark(row) == marks[row.id])]


def unverifiable_workers(tx: Transaction) -> dict[str, Mark]:
    """Return the workers whose death only silence can tell, by id, each with its last mark."""
    rows = _attached(tx, queries.workers.attached_workers())
    return {row.id: _mark(row) for row in rows if _is_unverifiable(row)}


def silent_workers(tx: Transaction) -> list[str]:
    """Return the unverifiable workers without a heartbeat for `grace_s`, by the database's clock.

    For display only: the clock may have been set.
    """
    silent = queries.workers.silent_workers()
    rows = _attached(tx, silent, minus_seconds=-tx.buffer.grace_s)
    return [row.id for row in rows if _is_unverifiable(row)]


def _is_unverifiable(row: Any) -> bool:
    return _is_stale(row, is_silent=True) and not _is_stale(row, is_silent=False)


def _attached(tx: Transaction, statement: sa.Select[Any], **parameters: Any) -> Sequence[Any]:
    return tx.rows(statement, origin=origin_of(tx.connection), **parameters)


def _mark(row: Any) -> Mark:
    return row.heartbeat_at, row.tick


def _is_of_another(database: str, here: str) -> bool:
    """Return whether a worker's database differs from this one; unknown parts do not differ."""
    return any(
        a and b and a != b for a, b in zip(database.split("."), here.split("."), strict=False)
    )


def _is_stale(row: Any, *, is_silent: bool) -> bool:
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
        # The pid of this process once belonged to a worker that is gone.
        if row.pid == os.getpid() or not _exists(row.pid):
            return True
        process = psutil.Process(row.pid)
        # A pid may have been given to another process. Only silence proves it: after the clock of
        # the host is set, all processes seem to have started at another time.
        is_another = abs(process.create_time() - row.process_started_at) >= 1.0 and is_silent
        return bool(is_another or process.status() == psutil.STATUS_ZOMBIE)
    except (TypeError, ValueError, OverflowError):  # no process has such a pid or start time
        return True
    except psutil.ZombieProcess:
        return True
    except psutil.Error:  # hidden from this user (hidepid=2): `_exists` has just found it
        return False


def _exists(pid: int) -> bool:
    """Return whether a process of this pid exists, even if it is hidden from this user."""
    if os.name != "posix":  # elsewhere signal 0 has another meaning
        return bool(psutil.pid_exists(pid))
    if pid < 1:  # stands for a group of processes
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process of another user exists
        return True
    return True


def forget_receipts(tx: Transaction) -> None:
    """Delete the receipts of connections that were closed long ago."""
    tx.execute(queries.workers.delete_receipts(), minus_seconds=-RECEIPTS_KEPT_S)


def fold(tx: Transaction, *, worker: str) -> None:
    """Add the counters of a worker that is gone to the ledger, and delete its row."""
    gone = tx.execute(queries.workers.delete_worker(), worker=worker).mappings().one_or_none()
    if gone is not None:  # else another process was quicker
        tx.execute(
            queries.workers.add_to_ledger(), **{f"d_{name}": value for name, value in gone.items()}
        )

"""Copy of a buffer into another database, which is visible once it is whole.

Until then the copy is a buffer with a reserved name. Its settings note the state of the original
that it is a copy of, and the process that goes on with it. Rows are written in order, in
transactions of some 10,000 rows, so that those that are there are the first ones of the original.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import secrets
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer._integrity import numbers_of
from sqlbuffer._messages import listed
from sqlbuffer._validation import require_flag
from sqlbuffer.core.attach import require_name
from sqlbuffer.core.deletion import delete
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.heartbeat import Heartbeat
from sqlbuffer.core.lineage import Lineage
from sqlbuffer.core.release import release
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.watch import Watch
from sqlbuffer.core.weights import progress_bar
from sqlbuffer.core.workers import LEDGER, fold, register, worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.backends import origin_of
from sqlbuffer.db.database import Database
from sqlbuffer.db.queries.buffers import COUNTERS, UNFINISHED
from sqlbuffer.db.queries.transfer import ORDERS
from sqlbuffer.db.schema import batches, samples
from sqlbuffer.db.stills import read_for_long
from sqlbuffer.errors import InconsistentDatabase, InvalidArgument
from sqlbuffer.maintenance.rows import Digest, Read, Renumbering, chunks, read

log = logging.getLogger(__name__)

_NOTE = "unfinished_copy"
"""Name of the entry of the settings that an unfinished copy has."""


class _Staged(NamedTuple):
    """An unfinished copy that this process goes on with."""

    buffer: BufferHandle
    owner: str
    """Random name of this call; another process that goes on with the copy writes another one."""
    was_begun: bool


def transfer(
    buffer: BufferHandle, url: str | sa.URL, new: str | None = None, *, silent: bool = True
) -> BufferHandle:
    """Copy a buffer into another database; see `SampleStore.copy`."""
    new, silent = require_name(buffer.name if new is None else new), require_flag(silent, "silent")
    target = Database(url)
    try:
        origin = _identity(buffer.database)
        if origin == _identity(target):
            raise InvalidArgument(
                f"{target.url} is the database that has buffer {buffer.name!r}: leave out the URL "
                "to copy a buffer within its database."
            )
        _require_free(target, new)
        with progress_bar(f"copying {buffer.name}", silent=silent) as advance:
            return read_for_long(
                buffer.database,
                lambda connection: _copy(
                    Transaction(connection, buffer), target, new, origin=origin, advance=advance
                ),
            )
    except BaseException:
        target.close()
        raise


def refuse_changes(*, predictors: bool, **changes: Any) -> None:
    """Refuse changes that a copy in another database does not make; None is no change."""
    given = [name for name, value in changes.items() if value is not None]
    given += [] if require_flag(predictors, "predictors") else ["predictors"]
    if given:
        raise InvalidArgument(
            "a copy in another database has the state and settings of its original, got "
            f"{listed(given)}: copy it first, and then the copy within that database."
        )


def _identity(database: Database) -> tuple[str, str]:
    """Return what no other database has, not even a copy of this one."""
    return database.read(database.dialect.lineage), database.read(origin_of)


def _copy(
    tx: Transaction,
    target: Database,
    new: str,
    *,
    origin: tuple[str, str],
    advance: Callable[[int], None],
) -> BufferHandle:
    tx.race_state()  # raises if the buffer is gone
    row = tx.own_row(queries.audit.buffer_row())
    totals = tx.execute(queries.buffers.totals()).one()
    state = hashlib.sha256(repr((origin, tuple(row), tuple(totals))).encode()).hexdigest()
    staged = _begin(tx, target, new, row=row, state=state)
    numbers, differing = _fill(tx, staged, advance=advance)
    if differing and staged.was_begun:  # the original has changed, and its counters have not
        log.info("the unfinished copy %r is begun again", staged.buffer.name)
        staged.buffer.write_alone(_discard, owner=staged.owner)
        staged = _begin(tx, target, new, row=row, state=state)
        numbers, differing = _fill(tx, staged, advance=advance)
    if differing:
        staged.buffer.write_alone(_discard, owner=staged.owner)
        raise InconsistentDatabase(
            f"the copy of buffer {tx.buffer.name!r} in {target.url} differs from the original "
            f"({differing}), and was deleted: run `sqlbuffer db check` on both databases, and copy "
            "again."
        )
    with numbers_of(f"the counters of buffer {tx.buffer.name!r}"):
        ledger: dict[str, float] = {name: int(getattr(totals, name)) for name in COUNTERS}
        ledger |= {name: float(getattr(totals, name)) for name in ("clock", "touched")}
        ledger["tick"] = int(totals.tick) - 1  # the largest one, and not the next
    bound = numbers[batches].bound(row.pruned_batch)
    finished = {"new": new, "given": row.settings, "bound": bound}
    created_at = staged.buffer.write(_finish, owner=staged.owner, ledger=ledger, row=finished)
    if created_at is None:
        staged.buffer.write_alone(_discard, owner=staged.owner)
        raise _is_taken(target, new)
    identity: Any = {"name": new, "created_at": created_at, "heartbeat": Heartbeat()}
    return dataclasses.replace(staged.buffer, **identity)


# -- the unfinished copy ---------------------------------------------------------------------------


def _begin(tx: Transaction, target: Database, new: str, *, row: Any, state: str) -> _Staged:
    """Begin a copy, or go on with the unfinished one of the same state of the original."""
    name, owner = UNFINISHED + new, secrets.token_hex(8)
    note = {_NOTE: {"state": state, "owner": owner}}

    def staged(buffer_id: int, was_begun: bool) -> _Staged:
        identity: Any = {"lineage": Lineage(), "watch": Watch(), "heartbeat": Heartbeat()}
        made = dataclasses.replace(
            tx.buffer,
            database=target,
            buffer_id=buffer_id,
            name=name,
            created_at=None,
            **identity,
        )
        return _Staged(made, owner, was_begun)

    found = target.read(functools.partial(_named, name=name))
    if found is not None:
        begun = staged(found.id, True)
        if (found.settings.get(_NOTE) or {}).get("state") == state:
            begun.buffer.write(_own, settings={**row.settings, **note})
            return begun
        begun.buffer.write_alone(_discard)
    values = {**row._mapping, "name": name, "settings": {**row.settings, **note}}
    created = target.write(functools.partial(_create, database=target, values=values))
    if created is None:
        raise InvalidArgument(
            f"another process has just begun to copy a buffer to {new!r} in {target.url}: wait "
            "until it ends, or give the copy another name."
        )
    return staged(created, False)


def _create(connection: sa.Connection, *, database: Database, values: Mapping[str, Any]) -> Any:
    """Insert the row of a copy, and its ledger; return its id, None if another process has."""
    kept = {name: value for name, value in values.items() if name not in ("id", "created_at")}
    created = connection.scalar(queries.transfer.begin_copy(database.dialect), kept)
    if created is not None:
        register(connection, database.dialect, created, worker=LEDGER)
    return created


def _own(tx: Transaction, *, settings: Mapping[str, Any]) -> None:
    _require_unfinished(tx)
    tx.execute(queries.transfer.own_copy(), noted=settings)


def _discard(tx: Transaction, *, owner: str | None = None) -> None:
    """Delete the copy, with `owner` only if no other process goes on with it."""
    _require_unfinished(tx, owner)
    delete(tx, force=True)


def _require_unfinished(tx: Transaction, owner: str | None = None) -> Any:
    """Lock the copy and return its row, if it is unfinished and no other process goes on with it.

    Raises:
        InvalidArgument: If another process has finished it, or goes on with it.
    """
    tx.lock_race(exclusive=True)
    row = tx.own_row(queries.audit.buffer_row())
    note = row.settings.get(_NOTE) or {}
    if row.name != tx.buffer.name or owner not in (None, note.get("owner")):
        raise InvalidArgument(
            f"another process goes on with {tx.buffer.name!r} in {tx.buffer.database.url}: wait "
            "until it ends."
        )
    return row


def _named(connection: sa.Connection, *, name: str) -> Any:
    return connection.execute(queries.buffers.buffer_named(), {"name": name}).one_or_none()


def _require_free(target: Database, new: str) -> None:
    if target.read(functools.partial(_named, name=new)) is not None:
        raise _is_taken(target, new)


def _is_taken(target: Database, new: str) -> InvalidArgument:
    return InvalidArgument(
        f"buffer {new!r} already exists in {target.url}: give the copy another name."
    )


def _finish(tx: Transaction, *, owner: str, ledger: Mapping[str, Any], row: Any) -> Any:
    """Release open batches, set the counters, and give the copy its name.

    Returns:
        When the copy was created; None, and nothing is done, if there is a buffer of the name.
    """
    created_at = _require_unfinished(tx, owner).created_at
    if _named(tx.connection, name=row["new"]) is not None:
        return None
    tx.execute(queries.workers.set_ledger(dict(ledger)))
    for batch in tx.execute(queries.copy.open_batches()).scalars().all():
        release(tx, batch=batch)
    fold(tx, worker=worker_id())
    tx.execute(queries.transfer.finish_copy(), **row)
    return created_at


# -- rows ------------------------------------------------------------------------------------------


def _fill(
    tx: Transaction, staged: _Staged, *, advance: Callable[[int], None]
) -> tuple[Mapping[sa.Table, Renumbering], str]:
    """Write the rows that are missing, and compare all rows.

    Returns:
        New numbers by table, and a text that tells which table differs, "" if none does.
    """
    numbers: dict[sa.Table, Renumbering] = {}
    for table in ORDERS:
        theirs = _write(tx, staged, table, numbers, advance=advance)
        ours = staged.buffer.read(read, table)
        if ours.digest != theirs.digest:
            n_ours, n_theirs = ours.digest.n_rows, theirs.digest.n_rows
            rows = "other values" if n_ours == n_theirs else f"{n_ours} rows of {n_theirs}"
            return numbers, f"{rows} in {table.name}"
        if table in (samples, batches):
            numbers[table] = Renumbering(table.name, theirs.ids, ours.ids)
    return numbers, ""


def _write(
    tx: Transaction,
    staged: _Staged,
    table: sa.Table,
    numbers: Mapping[sa.Table, Renumbering],
    *,
    advance: Callable[[int], None],
) -> Read:
    there = staged.buffer.read(_count, table) if staged.was_begun else 0
    digest, ids = Digest(), array("q")
    with contextlib.closing(chunks(tx, table, numbers)) as found:
        for chunk in found:
            missing = chunk.rows[max(there - digest.n_rows, 0) :]
            digest += chunk.digest
            ids.extend(chunk.ids)
            if missing:
                staged.buffer.write(_append, owner=staged.owner, table=table, rows=missing)
            advance(len(chunk.rows))
    return Read(digest, ids)


def _append(
    tx: Transaction, *, owner: str, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    _require_unfinished(tx, owner)
    given = [{**row, "buffer": tx.buffer.buffer_id} for row in rows]
    tx.connection.execute(queries.transfer.insert_row(table), given)


def _count(tx: Transaction, table: sa.Table) -> int:
    return int(tx.execute(queries.transfer.count_rows(table)).scalar_one())

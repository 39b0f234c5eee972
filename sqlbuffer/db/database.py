"""A database: its engines and transactions. The only module that opens one."""

from __future__ import annotations

import copy
import functools
import os
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from sqlbuffer._messages import printable
from sqlbuffer._validation import require_choice
from sqlbuffer.db import disposal, forks, migrate
from sqlbuffer.db.backends import (
    ONE_STATEMENT,
    Presence,
    Receipt,
    parse_url,
    translated,
)
from sqlbuffer.db.interruptions import interruption
from sqlbuffer.db.reentry import WRITING, refuse_reentry
from sqlbuffer.db.retry import call_again, until_true
from sqlbuffer.errors import DatabaseUnavailable, ReadOnlyStore

T = TypeVar("T")

DEFAULT_URL = "sqlite:///sqlbuffer.db"
URL_VARIABLE = "SQLBUFFER_URL"


def boundary(moment: str) -> None:
    """Do nothing "before" and "after" each COMMIT of a writer: tests may stop the process here."""


def _begin(engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


class Database:
    """A database with our schema, which is created in an empty one.

    Args:
        url: SQLAlchemy URL; by default the environment variable `SQLBUFFER_URL`, else
            `sqlite:///sqlbuffer.db`.
        durability: With "normal" a power cut may lose the last commits on SQLite, and on PostgreSQL
            those that the server's `synchronous_commit` allows. With "full" it loses none. Killing
            processes never loses any.
        create: True to create the schema in an empty database, False to refuse it.
        any_revision: True to open a database whose schema is not that of this release.
        read_only: True to write nothing, so that the right to read is enough; implies that the
            schema is not created.

    Raises:
        DatabaseUnavailable: If it cannot be opened, reached, read or written.
        SchemaMismatch: If it holds an older or newer schema, or other tables. Nothing is changed.
    """

    def __init__(
        self,
        url: str | sa.URL | None = None,
        *,
        durability: str = "normal",
        create: bool = True,
        any_revision: bool = False,
        read_only: bool = False,
    ) -> None:
        durability = require_choice(
            durability, 'durability must be "normal" or "full"', ("normal", "full")
        )
        given = url if url is not None else os.environ.get(URL_VARIABLE, DEFAULT_URL)
        self._url, self.dialect = parse_url(given)
        self._durability = durability
        self.is_read_only = read_only
        self._identity: object = None
        self._was_reached = self._has_room = False
        self._is_patient = True
        self._begin_without_connections()
        if caution := self.dialect.caution(self._url):
            warnings.warn(printable(caution), stacklevel=4)
        try:
            found = self.revision()
            if found is None and create and not read_only:
                self._change_schema(migrate.create)
            elif not any_revision:
                migrate.require_current(found, self.url)
        except BaseException:
            self.close()
            raise
        self._identity = self.dialect.identity(self._url)

    @functools.cached_property
    def url(self) -> str:
        """The URL, its password masked."""
        return self._url.render_as_string(hide_password=True)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work`, which only reads, in a transaction that sees one state of the database."""
        return self._run("reader", functools.partial(_begin, work=work))

    def look(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work`, one statement that reads: one round trip, a third of a transaction's."""
        return self._run("looker", functools.partial(_begin, work=work))

    def write(self, work: Callable[[sa.Connection], T], *, presence: Presence | None = None) -> T:
        """Run `work` in a transaction: all that it writes is stored, or nothing.

        `work` runs again if a deadlock ended its transaction (adding locks samples in the order of
        their hashes, settling and scoring in that of their ids), or if the connection was lost. It
        never runs again once it was committed. `presence` is the lock that it begins with.
        """
        self._require_room()
        return self._run("writer", functools.partial(self._commit, work=work, presence=presence))

    def write_from_one_state(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` as `write` does, in a transaction that sees one state of the database.

        `work` may only insert rows: if it changed a row that another process has changed since, the
        transaction would fail and run again.
        """
        self._require_room()
        return self._run("copier", functools.partial(self._commit, work=work))

    def connect(self) -> sa.Connection:
        """Return a connection that can read and nothing else."""
        return self._run("viewer", sa.Engine.connect)

    def revision(self) -> str | None:
        """Return the revision of the schema, None for an empty database.

        Raises:
            ForeignDatabase: If the database holds tables of another program.
        """
        if not self.dialect.exists(self._url):
            return None
        return self.read(
            functools.partial(migrate.read_revision, dialect=self.dialect, url=self.url)
        )

    def upgrade(self) -> None:
        """Create the schema, or upgrade it, in one transaction."""
        self._change_schema(migrate.upgrade)

    def _change_schema(self, change: Callable[..., None]) -> None:
        self._require_room()
        work = functools.partial(change, dialect=self.dialect, url=self.url)
        self._run("owner", functools.partial(_begin, work=work))
        if (owner := self._engines.pop((os.getpid(), "owner"), None)) is not None:
            owner.dispose()  # one connection less: used once

    def sibling(self, *, is_patient: bool = True) -> Database:
        """Return the same database with connections of its own.

        Args:
            is_patient: False to fail at once if the server is gone.
        """
        made = copy.copy(self)
        made._is_patient = is_patient
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Leave the connections out: a process, and a sibling, opens its own."""
        kept = (
            *("_url", "_durability", "is_read_only"),
            *("_identity", "_was_reached", "_has_room", "_is_patient"),
        )
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.dialect = parse_url(self._url)[1]
        self._begin_without_connections()

    def _begin_without_connections(self) -> None:
        self._engines: dict[tuple[int, str], sa.Engine] = {}
        # Connections that are garbage warn, and closing one may make SQLite write: not in a
        # finalizer.
        weakref.finalize(self, _put_away, self._engines).atexit = False
        forks.databases.add(self)

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        self._renew_engines()

    def close_idle(self) -> None:
        """Close the connections that no thread uses, and let the others close after their use."""
        for engine in list(self._engines.values()):
            engine.dispose()

    def _require_room(self) -> None:
        """Check before the first write that the server allows enough connections."""
        if self._has_room or not self.dialect.exists(self._url):
            return
        if shortage := self.read(self.dialect.shortage):
            raise DatabaseUnavailable(f"{shortage} ({self.url}).")
        self._has_room = True

    def _engine(self, kind: str) -> sa.Engine:
        # By process: a connection must never be used on both sides of a fork.
        key = (os.getpid(), kind)
        engine = self._engines.get(key)
        return (
            engine if engine is not None else self._engines.setdefault(key, self._new_engine(kind))
        )

    def _new_engine(self, kind: str) -> sa.Engine:
        found = self.dialect.identity(self._url)
        if None not in (found, self._identity) and found != self._identity:
            raise DatabaseUnavailable(
                f"{self.url} was replaced after this store had opened it, and this store writes "
                "nothing more to it: close the store and open it again."
            )
        if kind == "looker":
            return self._engine("reader").execution_options(**ONE_STATEMENT)
        pool = functools.partial(self._engine, "pool")
        return self.dialect.engine(self._url, kind, durability=self._durability, pool=pool)

    def _run(self, kind: str, attempt: Callable[[sa.Engine], T]) -> T:
        """Run a transaction, again after errors that may pass."""
        if kind in WRITING:
            self._require_writable()
            refuse_reentry(self._url, self.url, Database._run.__code__)
        once = functools.partial(self._once, kind, attempt, handled=sys.exc_info()[1])
        try:
            found = self._again_if_passing(once)
        except sa.exc.TimeoutError as exc:
            raise DatabaseUnavailable(
                f"no connection of this process to {self.url} became free in time, because other "
                "threads hold all of them: use fewer threads at a time, or open a store for "
                "each."
            ) from exc
        except sa.exc.DBAPIError as exc:
            if (ours := translated(exc, self._url, self.dialect)) is not None:
                raise ours from exc
            raise
        self._was_reached = True
        return found

    def _again_if_passing(self, once: Callable[[], T]) -> T:
        try:
            return once()
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as exc:
            if not self._is_passing(exc, 1):
                raise
        return call_again(once, self._is_passing)  # here: its errors have no context

    def _require_writable(self) -> None:
        if self.is_read_only:
            raise ReadOnlyStore(
                f"{self.url} was opened with read_only=True, and nothing can be stored in it: open "
                "the store without read_only."
            )

    def _once(
        self, kind: str, attempt: Callable[[sa.Engine], T], handled: BaseException | None
    ) -> T:
        """Run a transaction once; raise the exception of a signal as it was."""
        try:
            return attempt(self._engine(kind))
        except BaseException as exc:
            cause = interruption(exc, handled)
            if cause is None:
                raise
            self._renew_engines()  # a connection that was just being handed out is lost to its pool
            if cause is exc:
                raise
            raise cause from cause.__cause__

    def _renew_engines(self) -> None:
        """Drop all engines: the next use opens new connections, old ones close after their use."""
        _dispose(self._engines)

    def _is_passing(self, error: BaseException, attempt: int) -> bool:
        """Return True to try again.

        A server that was never reached is more likely a wrong URL than one that restarts.
        """
        if isinstance(error, sa.exc.TimeoutError):  # of a pool that may have been replaced
            return True
        if not isinstance(error, sa.exc.DBAPIError):
            return False
        if self.dialect.is_overdue(error):  # a suspended process is in time at the next attempt
            return attempt == 1
        may_be_back = self._was_reached and self._is_patient
        return self.dialect.is_conflict(error) or (may_be_back and self.dialect.is_lost(error))

    def _commit(
        self,
        engine: sa.Engine,
        work: Callable[[sa.Connection], T],
        presence: Presence | None = None,
    ) -> T:
        """Run `work` in a transaction and commit it, even if the answer to the COMMIT is lost."""
        handled = sys.exc_info()[1]
        receipt, done = None, []
        try:
            with engine.connect() as connection:
                info = connection.info
                info["presence"] = presence
                with connection.begin():
                    if self.dialect.has_receipts:
                        receipt = self.dialect.receipt(connection)
                    info["ticks"] = {}
                    done.append(work(connection))
                    boundary("before")
            boundary("after")
        except sa.exc.DBAPIError as exc:
            if receipt is None or interruption(exc, handled) or not self.dialect.is_lost(exc):
                raise
            if not self._was_committed(receipt):
                raise
        return done[0]

    def _was_committed(self, receipt: Receipt) -> bool:
        """Return True if a transaction whose connection was lost was committed."""
        if not until_true(self.read, functools.partial(self.dialect.end, receipt=receipt)):
            raise DatabaseUnavailable(
                f"the connection to {self.url} was lost, and the server still runs its last "
                "transaction, whose outcome is not known: check the network, and run again."
            )
        return self.read(functools.partial(self.dialect.was_committed, receipt=receipt))


def _put_away(engines: dict[tuple[int, str], sa.Engine]) -> None:
    """Close, in another thread, the connections of a database that is garbage."""
    if engines:
        disposal.later(functools.partial(_dispose, engines))


def _dispose(engines: dict[tuple[int, str], sa.Engine]) -> None:
    """Close all connections, those in use when they return. A child leaves its parent's open."""
    while engines:
        (pid, _), engine = engines.popitem()
        if pid == os.getpid():
            sa.event.listen(engine.pool, "checkin", _close_returned)
        engine.dispose(close=pid == os.getpid())


def _close_returned(_: Any, record: sa.pool.ConnectionPoolEntry) -> None:
    """Close a connection that returns to a pool that has none to hand out."""
    record.invalidate()

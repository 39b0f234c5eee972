"""Engines, transactions and the schema's version: the only module that opens a database."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import logging
import os
import pathlib
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from sqlbuffer._validation import require_choice
from sqlbuffer.db import disposal
from sqlbuffer.db.backends import (
    ONE_STATEMENT,
    VERSION_TABLE,
    Columns,
    Receipt,
    Rows,
    first_line,
    is_unavailable,
    parse_url,
    unavailable,
)
from sqlbuffer.db.retry import retrying, until_true
from sqlbuffer.db.schema import REVISION
from sqlbuffer.errors import (
    DatabaseUnavailable,
    ForeignDatabase,
    InvalidArgument,
    SchemaMismatch,
    SchemaTooNew,
    SchemaTooOld,
    printable,
    tampered,
)

T = TypeVar("T")

DEFAULT_URL = "sqlite:///sqlbuffer.db"
URL_VARIABLE = "SQLBUFFER_URL"

_OVERFLOWS = ("integer overflow", "bigint out of range")
"""Messages of SQLite and of PostgreSQL; numbers of users are checked before they are sent."""

log = logging.getLogger(__name__)


def boundary(moment: str) -> None:
    """Do nothing, "before" and "after" every COMMIT of a writer: where a test may stop the process."""


def _interruption(
    error: BaseException | None, handled: BaseException | None
) -> BaseException | None:
    """Return the Ctrl-C, or what else a signal raised, that an error came of, other than one that is `handled` already.

    A signal may come during the steps of a driver or a pool, which then fail in their own words.
    """
    if isinstance(error, Exception) and not _is_of_database(error):
        return None
    while error is not None and error is not handled:
        if not _is_of_database(error):
            return error
        error = error.__context__
    return None


def _is_of_database(error: BaseException) -> bool:
    is_theirs = type(error).__module__.partition(".")[0] in (
        "sqlalchemy",
        "sqlite3",
        "pysqlite3",
        "psycopg",
    )
    is_of_network = (
        isinstance(error, OSError) and type(error) is not TimeoutError
    )  # which a handler likes to raise
    return is_theirs or is_of_network or isinstance(error, AssertionError)


def _begin(engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


class Database:
    """A database of ours: opened, checked, and created where it was empty.

    Args:
        url: SQLAlchemy URL; by default the environment variable `SQLBUFFER_URL`, else `sqlite:///sqlbuffer.db`.
        durability: "normal": a power cut may take the last commits on SQLite, and what the server's own
            `synchronous_commit` allows on PostgreSQL; "full": it takes none. Killing processes never takes any.
        create: Create the schema in an empty database; otherwise refuse it.
        any_revision: Open a database of ours even where its schema does not fit this release.

    Raises:
        DatabaseUnavailable: Where it cannot be opened, reached, read or written.
        SchemaMismatch: Where it holds an older or newer schema, or another process's tables. It is left untouched.
    """

    def __init__(
        self,
        url: str | sa.URL | None = None,
        *,
        durability: str = "normal",
        create: bool = True,
        any_revision: bool = False,
    ) -> None:
        durability = require_choice(
            durability, 'durability must be "normal" or "full"', ("normal", "full")
        )
        given = url if url is not None else os.environ.get(URL_VARIABLE, DEFAULT_URL)
        self._url, self.dialect = parse_url(given)
        self._durability = durability
        self._identity: object = None
        self._was_reached = self._has_room = False
        self._is_patient = True
        self._begin_without_connections()
        if caution := self.dialect.caution(self._url):
            warnings.warn(printable(caution), stacklevel=3)
        try:
            found = self.revision()
            if found is None and create:
                self._change_schema(self._create)
            elif not any_revision:
                _require_current(found, self.url)
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
        """Run `work`, which is one statement that reads: one round trip, where a transaction takes three."""
        return self._run("looker", functools.partial(_begin, work=work))

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction: all that it writes is stored, or nothing.

        `work` runs again where a deadlock ended its transaction (adding locks samples in the order of their hashes,
        settling and scoring in that of their ids), and where the connection was lost; never when it was committed.
        """
        self._require_room()
        return self._run("writer", functools.partial(self._commit, work=work))

    def write_from_one_state(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` as `write` does, in a transaction that sees one state of the database from its first read on.

        It writes new rows only: where it changed a row that another process has changed since, it would begin again.
        """
        self._require_room()
        return self._run("copier", functools.partial(self._commit, work=work))

    def connect(self) -> sa.Connection:
        """Return a connection that can read and nothing else."""
        return self._run("viewer", sa.Engine.connect)

    def execute(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, **more: Any
    ) -> Any:
        """Execute a statement with rows that travel with it."""
        return connection.execute(
            statement, {**self.dialect.load(connection, rows, columns), **more}
        )

    def revision(self) -> str | None:
        """Return the revision of the schema, None for an empty database.

        Raises:
            ForeignDatabase: Where the tables are another process's.
        """
        return self.read(self._revision) if self.dialect.exists(self._url) else None

    def upgrade(self) -> None:
        """Create the schema, or bring it up to date, in one transaction."""
        self._change_schema(self._upgrade)

    def _change_schema(self, work: Callable[[sa.Connection], None]) -> None:
        self._require_room()
        self._run("owner", functools.partial(_begin, work=work))
        if (owner := self._engines.pop((os.getpid(), "owner"), None)) is not None:
            owner.dispose()  # one connection less: it is needed once

    def sibling(self, *, is_patient: bool = True) -> Database:
        """Return the same database with connections of its own; an impatient one waits for no server that is gone."""
        made = copy.copy(self)
        made._is_patient = is_patient
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Leave the connections behind: a process, and a sibling, opens its own."""
        kept = ("_url", "_durability", "_identity", "_was_reached", "_has_room", "_is_patient")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.dialect = parse_url(self._url)[1]
        self._begin_without_connections()

    def _begin_without_connections(self) -> None:
        self._engines: dict[tuple[int, str], sa.Engine] = {}
        # Connections that are garbage warn, and where they are closed SQLite may write: not in a finalizer.
        weakref.finalize(self, _put_away, self._engines).atexit = False
        _databases.add(self)

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        self._renew_engines()

    def _require_room(self) -> None:
        """Refuse, before the first write, what would wait for a connection in vain."""
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
        if kind == "writer":
            return self.dialect.writer(self._url, durability=self._durability)
        if kind == "copier":
            return self.dialect.writer(self._url, durability=self._durability, sees_one_state=True)
        if kind == "viewer":
            return self.dialect.viewer(self._url)
        return self.dialect.owner(self._url) if kind == "owner" else self.dialect.reader(self._url)

    def _run(self, kind: str, attempt: Callable[[sa.Engine], T]) -> T:
        """Run a transaction, and again while what ended it is said to pass."""
        if kind in _WRITING:
            self._refuse_reentry()
        once = functools.partial(self._once, kind, attempt, handled=sys.exc_info()[1])
        try:
            found = retrying(self._is_passing)(once)
        except sa.exc.TimeoutError as exc:
            raise DatabaseUnavailable(
                f"no connection of this process to {self.url} became free in time, because other "
                "threads hold all of them: use fewer threads at a time, or open a store for "
                "each."
            ) from exc
        except sa.exc.DBAPIError as exc:
            if first_line(str(exc.orig)) in _OVERFLOWS:
                raise tampered(
                    f"a result in {self.url} is beyond the largest integer ({exc.orig}), so a "
                    "stored number is beyond any that sqlbuffer counts to"
                ) from exc
            if is_unavailable(exc):
                raise unavailable(exc, self._url, self.dialect) from exc
            if isinstance(exc, sa.exc.DataError):
                raise InvalidArgument(
                    f"a value does not fit its column in {self.url}: {first_line(str(exc.orig))}."
                ) from exc
            raise
        self._was_reached = True
        return found

    def _refuse_reentry(self) -> None:
        """Refuse to write where this thread is writing already, which would wait for itself.

        Found on the stack of calls, which takes 7 us at 60 calls. A mark that is set and taken back could stay for good
        where a signal comes between.
        """
        code = Database._run.__code__
        frame = inspect.currentframe()
        frame = frame and frame.f_back and frame.f_back.f_back  # those that call this one
        while frame is not None:
            given = frame.f_locals if frame.f_code is code else {}
            if given and given["kind"] in _WRITING and given["self"]._url == self._url:
                raise DatabaseUnavailable(
                    f"this thread is in the middle of writing to {self.url}, and a second write "
                    "would wait for the first: set a flag in the signal handler, destructor or "
                    "callback, and write after the interrupted call has returned."
                )
            frame = frame.f_back

    def _once(
        self, kind: str, attempt: Callable[[sa.Engine], T], handled: BaseException | None
    ) -> T:
        """Run a transaction once; what a signal raised during it comes out as such."""
        try:
            return attempt(self._engine(kind))
        except BaseException as exc:
            interruption = _interruption(exc, handled)
            if interruption is None:
                raise
            self._renew_engines()  # a connection that was just being handed out is lost to its pool
            if interruption is exc:
                raise
            raise interruption from interruption.__cause__

    def _renew_engines(self) -> None:
        """Let the next use open new connections; those in use are closed when they come back."""
        _dispose(self._engines)

    def _is_passing(self, error: BaseException, attempt: int) -> bool:
        """Tell whether to try again; a server that was never reached is more likely a wrong URL than a restart."""
        if isinstance(
            error, sa.exc.TimeoutError
        ):  # who waits for a connection may wait at a pool that was replaced
            return True
        if not isinstance(error, sa.exc.DBAPIError):
            return False
        if self.dialect.is_overdue(
            error
        ):  # a process that was suspended during a transaction is in time at the next
            return attempt == 1
        may_be_back = self._was_reached and self._is_patient
        return self.dialect.is_conflict(error) or (may_be_back and self.dialect.is_lost(error))

    def _commit(self, engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction of its own, and commit it, also where the answer to the COMMIT is lost."""
        handled = sys.exc_info()[1]
        receipt, done = None, []
        try:
            with engine.begin() as connection:
                receipt = self.dialect.receipt(connection)
                connection.info["ticks"] = {}
                done.append(work(connection))
                boundary("before")
            boundary("after")
        except sa.exc.DBAPIError as exc:
            if receipt is None or _interruption(exc, handled) or not self.dialect.is_lost(exc):
                raise
            if not self._was_committed(receipt):
                raise
        return done[0]

    def _was_committed(self, receipt: Receipt) -> bool:
        """Tell what became of a transaction whose connection was lost."""
        if not until_true(self.read, functools.partial(self.dialect.end, receipt=receipt)):
            raise DatabaseUnavailable(
                f"the connection to {self.url} was lost, and the server still runs its last "
                "transaction, whose outcome is not known: check the network, and run again."
            )
        return self.read(functools.partial(self.dialect.was_committed, receipt=receipt))

    def _revision(self, connection: sa.Connection) -> str | None:
        tables = self.dialect.tables(connection)
        if not tables:
            return None
        found = (
            connection.scalar(sa.select(_version.c.version_num))
            if VERSION_TABLE in tables
            else None
        )
        if found is None and tables == {VERSION_TABLE}:  # what `alembic downgrade base` leaves
            return None
        if found is None:
            raise ForeignDatabase(
                f"{self.url} holds other tables ({', '.join(sorted(tables)[:3])}, ...): give an empty database."
            )
        return str(found)

    def _create(self, connection: sa.Connection) -> None:
        """Create the schema, unless another process has created one since this one looked: that has to fit."""
        self.dialect.lock_schema(connection)
        found = self._revision(connection)
        if found is None:
            self._migrate(connection)
        else:
            _require_current(found, self.url)

    def _upgrade(self, connection: sa.Connection) -> None:
        self.dialect.lock_schema(connection)
        found = self._revision(connection)
        if found is not None and found > REVISION:
            _require_current(found, self.url)
        self._migrate(connection)

    def _migrate(self, connection: sa.Connection) -> None:
        from alembic import command  # 0.2 s to import, needed once in a database's life
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(migrations_folder()))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except RuntimeError as exc:
            raise SchemaTooOld(
                f"{self.url} was not upgraded, and nothing has changed: {exc}"
            ) from exc
        log.info("schema of %s is now at revision %s", printable(self.url), REVISION)


def _put_away(engines: dict[tuple[int, str], sa.Engine]) -> None:
    """Have the connections closed of a database that is garbage."""
    if engines:
        disposal.later(functools.partial(_dispose, engines))


def _dispose(engines: dict[tuple[int, str], sa.Engine]) -> None:
    """Close all connections, but for those that a forked child finds: they are its parent's."""
    while engines:
        (pid, _), engine = engines.popitem()
        engine.dispose(close=pid == os.getpid())


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


FORK_PATIENCE_S = 5.0
"""How long a fork waits for the transactions of other threads."""
_LONGER_THAN_A_TRANSACTION_S = 0.1


def _before_fork() -> None:
    """Close what a child must not find; the next use opens it again."""
    disposal.before_fork()
    begun = time.monotonic()
    is_collected = False
    while open_ones := [
        database for database in list(_databases) if not database.dialect.may_fork()
    ]:
        for database in open_ones:
            for engine in list(database._engines.values()):
                engine.dispose()
        passed_s = time.monotonic() - begun
        if passed_s > FORK_PATIENCE_S:
            return
        if passed_s > _LONGER_THAN_A_TRANSACTION_S and not is_collected:
            gc.collect()  # who waited at a pool that was replaced has left a connection in it
            is_collected = True
        time.sleep(0.001)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)

_WRITING = ("writer", "copier", "owner")
"""The kinds of engines whose transactions write."""

_version = sa.Table(VERSION_TABLE, sa.MetaData(), sa.Column("version_num", sa.Text))


def migrations_folder() -> pathlib.Path:
    """Return the folder of the Alembic migrations: inside an installed wheel, or at the top of a checkout."""
    package = pathlib.Path(__file__).parents[1]
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def _require_current(found: str | None, url: str) -> None:
    if found is None:
        raise SchemaMismatch(
            f"{url} holds no buffer yet: open_store, or `sqlbuffer db upgrade`, creates one."
        )
    if found < REVISION:
        raise SchemaTooOld(
            f"{url} has the schema of an older release ({found}, this one needs {REVISION}): make a copy, then run "
            f"`sqlbuffer db upgrade --url {url}`."
        )
    if found > REVISION:
        raise SchemaTooNew(
            f"{url} has the schema of a newer release ({found}, this one knows {REVISION}): `pip install -U sqlbuffer`."
        )

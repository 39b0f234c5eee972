"""Engines for a PostgreSQL server: how connections are opened, and how transactions begin."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from sqlbuffer.db.backends import driver
from sqlbuffer.db.backends.base import CACHED_STATEMENTS, POOL_TIMEOUT_S, SCHEMA
from sqlbuffer.db.backends.postgresql_arrays import dumpers
from sqlbuffer.db.backends.postgresql_options import driver_options
from sqlbuffer.db.backends.values import Lock, Presence, quoted
from sqlbuffer.errors import DatabaseUnavailable, MissingExtra

# A batch needs scattered rows, and they are in memory. At the default of 4 the planner reads and
# sorts the whole pool for each chunk of a refresh. Both are set for one transaction: behind a
# proxy that pools transactions the next one may be another session's.
_PLAN_FOR_MEMORY = "SET LOCAL random_page_cost = 1"

# A look at a buffer takes one process of the server. Parallel ones take two more for a moment: they
# must be started, and those who draw and settle wait for the processors that they occupy.
_ALONE = "SET LOCAL max_parallel_workers_per_gather = 0"

ADVISORY_CLASS = 0x5B0F
"""First number of the advisory locks; `Lock` and the buffer's id tell them apart."""

_SYNCHRONOUS = "SET LOCAL synchronous_commit = on"

_PINNED = {
    "array_nulls": "on",
    "bytea_output": "hex",
    "DateStyle": "ISO, MDY",
    "extra_float_digits": "1",  # shortest text that reads back as the same float
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}
"""Settings that change the meaning of values; a role, a database or a server may have others."""

_statements: sa.util.LRUCache[Any, Any] = sa.util.LRUCache(CACHED_STATEMENTS)
"""Compiled statements of all engines, by statement and dialect."""


READERS, WRITERS = 4, 2
"""Connections of a store at most: for what it reads, and for what it writes."""


def pool(url: sa.URL) -> sa.Engine:
    """Return the engine of kind "pool": see `Dialect.engine`."""
    return _engine(url, pool_size=WRITERS)


def reader(url: sa.URL) -> sa.Engine:
    """Return the engine of kind "reader": see `Dialect.engine`."""
    begins = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_PLAN_FOR_MEMORY}; {_ALONE}"
    return _beginning(_engine(url, pool_size=READERS), begins)


def writer(shared: sa.Engine, kind: str, durability: str) -> sa.Engine:
    """Return an engine that writes through the connections of another one: see `Dialect.engine`."""
    if kind == "owner":
        return _beginning(shared, "BEGIN ISOLATION LEVEL READ COMMITTED")
    level = "REPEATABLE READ" if kind == "copier" else "READ COMMITTED"
    settings = f"{_PLAN_FOR_MEMORY}; {_SYNCHRONOUS}" if durability == "full" else _PLAN_FOR_MEMORY
    begins = f"BEGIN ISOLATION LEVEL {level}; {settings}"
    return _beginning(shared, begins, leaves_receipts=True)


def viewer(url: sa.URL) -> sa.Engine:
    """Return the engine of kind "viewer": see `Dialect.engine`."""
    begins = f"BEGIN READ ONLY; SET LOCAL search_path = {SCHEMA}, public"
    return _beginning(_engine(url, pool_size=READERS, is_ours=False), begins)


def inspector(url: sa.URL, *, timeout_s: float | None = None) -> sa.Engine:
    """See `Dialect.inspector`."""
    # The time zone stays that of the role, in which a person writes times.
    pinned = {name: value for name, value in _PINNED.items() if name != "TimeZone"}
    begins = f"BEGIN READ ONLY; SET LOCAL search_path = {SCHEMA}"
    if timeout_s is not None:
        begins += f"; SET LOCAL statement_timeout = {int(timeout_s * 1000)}"
    # A server-side cursor takes one SELECT: anything after a semicolon, COMMIT, SET, COPY and DO
    # are errors.
    engine = _engine(url, pool_size=1, pinned=pinned, is_ours=False)
    engine = _beginning(engine, begins, pinned=pinned)
    ahead = 1000 if timeout_s is None else 20
    return engine.execution_options(no_parameters=True, stream_results=True, max_row_buffer=ahead)


@functools.cache
def _dialect(server: sa.URL) -> Any:
    """Return SQLAlchemy's dialect, which all engines of a server share: see `sqlite_connections`.

    A dialect is told by the first connection which version the server has. HSTORE, which a database
    may have or not, is not used.
    """
    import psycopg  # an extra

    return postgresql.psycopg.dialect(dbapi=psycopg, use_native_hstore=False)  # type: ignore[no-untyped-call]


def _engine(
    url: sa.URL,
    *,
    pool_size: int,
    pinned: Mapping[str, str] = _PINNED,
    is_ours: bool = True,
) -> sa.Engine:
    """Return an engine whose transactions `_beginning` begins.

    Args:
        url: URL of the database.
        pool_size: Connections at most.
        pinned: Settings of a session.
        is_ours: False for statements of users, which would push ours out of the cache.
    """
    try:
        url, options = driver_options(url)
    except ModuleNotFoundError as exc:
        raise MissingExtra('PostgreSQL needs psycopg: pip install "sqlbuffer[postgres]".') from exc
    dialect = _dialect(sa.URL.create("postgresql", host=url.host, port=url.port, query=url.query))
    arguments, parameters = dialect.create_connect_args(url)
    # BEGIN is sent below.
    parameters |= {"autocommit": True, "client_encoding": "utf8", **options}
    rows = ", ".join(f"('{name}', '{value}')" for name, value in pinned.items())

    def connect(record: sa.pool.ConnectionPoolEntry) -> Any:
        return _connect(record, dialect, arguments, parameters, rows)

    # As `sa.create_engine` does, which makes a dialect for each engine.
    connections = sa.QueuePool(
        connect,  # type: ignore[arg-type]  # which names its argument otherwise
        pool_size=pool_size,
        max_overflow=0,
        timeout=POOL_TIMEOUT_S,
        dialect=dialect,
    )
    engine = sa.Engine(
        connections,
        dialect,
        url.set(drivername="postgresql+psycopg"),
        execution_options={"schema_translate_map": {None: SCHEMA}},
    )
    if is_ours:
        engine.update_execution_options(compiled_cache=_statements)
    return engine


def _beginning(
    shared: sa.Engine,
    begins: str,
    *,
    pinned: Mapping[str, str] = _PINNED,
    leaves_receipts: bool = False,
) -> sa.Engine:
    """Return an engine with the connections of another one, whose transactions begin with some SQL.

    Args:
        shared: The other engine.
        begins: The SQL, all of which is sent at once.
        pinned: Settings of a session. Behind a pooler, where the next transaction may be in another
            session, they are set for each transaction.
        leaves_receipts: True if each transaction writes a receipt.
    """
    settings = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in pinned.items())

    def begin(connection: sa.Connection) -> None:
        is_pooled = connection.info["is_pooled"]
        sql = f"{begins}; {settings}" if is_pooled else begins
        _begin(connection, sql, is_pooled=is_pooled, leaves_receipt=leaves_receipts)

    engine = shared.execution_options()
    sa.event.listen(engine, "begin", begin)
    return engine


def _connect(
    record: sa.pool.ConnectionPoolEntry,
    dialect: Any,
    arguments: Sequence[Any],
    parameters: Mapping[str, Any],
    pinned: str,
) -> Any:
    """Open a connection of a pool, and note whether a pooler stands before the server.

    Args:
        record: Place of the connection in the pool.
        dialect: SQLAlchemy's dialect.
        arguments: Arguments of the driver.
        parameters: Named arguments of the driver.
        pinned: Settings of a session, as rows of VALUES.
    """
    record.info["connection"] = secrets.token_hex(8)
    name = f"sqlbuffer {record.info['connection']}"
    connection = dialect.connect(*arguments, **parameters, application_name=name)
    try:
        _require_unicode(connection)
        for kind, dumper in dumpers().items():
            connection.adapters.register_dumper(kind, dumper)
        record.info["is_pooled"] = not _pin(connection, pinned)
        if record.info["is_pooled"] and "prepare_threshold" not in parameters:
            # A statement that was prepared in one session is unknown in the next.
            connection.prepare_threshold = None
    except BaseException:
        connection.close()
        raise
    dialect.on_connect()(connection)
    record.info[driver.BINARY_ROWS] = True
    return connection


def _begin(connection: sa.Connection, sql: str, *, is_pooled: bool, leaves_receipt: bool) -> None:
    """Begin a transaction: one message to the server, or none before a statement that is alone."""
    if connection.dialect.server_version_info is None:
        _initialize(connection)
    driver.begin(connection)
    if leaves_receipt:
        connection.info["number"] = connection.info.get("number", 0) + 1
        sql = f"{sql}; {_leave_receipt(connection)}"
        if (presence := connection.info.get("presence")) is not None:
            sql = f"{sql}; {_lock_buffer(presence)}"
    if is_pooled or not connection.get_execution_options().get("is_one_statement"):
        driver.run(connection, sql)


def _initialize(connection: sa.Connection) -> None:
    """Ask the server for its version, before there is a transaction that a cursor could be of."""
    streams = connection.get_execution_options().get("stream_results", False)
    connection.execution_options(stream_results=False)
    connection.dialect.initialize(connection)
    connection.execution_options(stream_results=streams)


def _require_unicode(connection: Any) -> None:
    """Refuse a database whose encoding cannot store every text."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = quoted(connection.info.dbname)
        raise DatabaseUnavailable(
            f"the database {name} has the encoding {encoding}, which cannot store every text: "
            "create a database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and "
            "use it."
        )


def _pin(connection: Any, pinned: str) -> bool:
    """Set the settings of a session; False if a pooler stands before the server, and none are set.

    The server process behind a pooler is not the one that was connected to.
    """
    pid = int(connection.info.backend_pid)
    statement = (
        "SELECT pg_catalog.set_config(name, value, false) "
        f"FROM (VALUES {pinned}) AS pinned (name, value) WHERE pg_catalog.pg_backend_pid() = {pid}"
    )
    return bool(connection.execute(statement, prepare=False).fetchall())


def _leave_receipt(connection: sa.Connection) -> str:
    """Return the SQL by which a transaction leaves its receipt.

    The number of the transaction itself would not do: a server that crashed may give it to another
    transaction, whose commit would then be taken for this one's.
    """
    receipt = f"'{connection.info['connection']}', {connection.info['number']}, now()"
    return (
        f"INSERT INTO {SCHEMA}.receipts (connection, number, written_at) VALUES ({receipt}) "
        "ON CONFLICT (connection) DO UPDATE "
        "SET number = excluded.number, written_at = excluded.written_at"
    )


def _lock_buffer(presence: Presence) -> str:
    """Return the SQL by which a transaction waits until no other one deletes from the buffer.

    It travels with BEGIN. A statement of its own would be another round trip for each transaction.
    """
    shared = "" if presence.is_alone else "_shared"
    key = f"{ADVISORY_CLASS + Lock.BUFFER.value}, {int(presence.buffer_id)}"
    return f"SELECT pg_catalog.pg_advisory_xact_lock{shared}({key})"

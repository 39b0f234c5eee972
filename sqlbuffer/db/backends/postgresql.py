"""PostgreSQL: a server with many writers, rows that are sent as arrays, and receipts of what was committed."""

from __future__ import annotations

import contextlib
import functools
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY

from sqlbuffer.db.backends import postgresql_privileges as privileges
from sqlbuffer.db.backends.base import (
    POOL_TIMEOUT_S,
    SCHEMA,
    VERSION_TABLE,
    Columns,
    Dialect,
    Lock,
    Receipt,
    Rows,
    needs_begin,
    quoted,
)
from sqlbuffer.db.backends.postgresql_options import driver_options
from sqlbuffer.db.types import Json
from sqlbuffer.errors import DatabaseUnavailable, MissingExtra, TooLarge

_ADVISORY_CLASS = 0x5B0F

# What a batch needs is scattered, and in memory. At the default of 4 the planner rather reads and sorts the whole pool
# for each chunk of a refresh. Both are set for one transaction: behind a proxy that pools transactions the next one
# may be another session's.
_PLAN_FOR_MEMORY = "SET LOCAL random_page_cost = 1"
_SYNCHRONOUS = "SET LOCAL synchronous_commit = on"

_LARGEST = 500_000_000
"""A message of the protocol has 1 GB at most, and a value is read back in hexadecimal digits."""

_NEEDED = 5
"""Connections of one thread: for reading, for writing, for copying or creating, and two for the heartbeat."""

_LIMIT = """
SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1))
FROM pg_catalog.pg_roles, pg_catalog.pg_database
WHERE rolname = session_user
  AND datname = current_database()
  AND NOT rolsuper
"""

_NO_CURSOR = {"stream_results": False}

_PINNED = {
    "array_nulls": "on",
    "bytea_output": "hex",
    "DateStyle": "ISO, MDY",
    "extra_float_digits": "1",  # shortest text that reads back as the same float
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}
"""Settings on which the meaning of what is sent and read depends; a role, a database or a server may have others."""

_TOO_MANY = "end sessions that are idle, or raise the limit on connections that the message is about, and run again"
_PREPARED = (
    "a pooler shares the session with other clients: put ?prepare_threshold=none into the URL"
)
_RAISE = "raise it for this role or database (ALTER ROLE ... SET), and run again"
_CLOSED = "the server or its pooler stopped the statement or ended the session: see their logs and run again"
_WAYS_OUT = {
    "08P01": "look into the logs of the server, and of its pooler if there is one",
    "25P03": f"a transaction was idle for longer than idle_in_transaction_session_timeout: {_RAISE}",
    "25P04": f"a transaction took longer than transaction_timeout: {_RAISE}",
    "26000": _PREPARED,
    "42P05": _PREPARED,
    "53200": "the server has too little memory: give it more, or do less at a time",
    "53100": "free space on the disk of the server and run again; committed data is safe",
    "53300": _TOO_MANY,
    "55P03": "another session holds a lock for longer than lock_timeout: end it, or raise the timeout, and run again",
    "57P01": _CLOSED,
    "57P02": _CLOSED,
    "57P05": f"a connection was idle for longer than idle_session_timeout: {_RAISE}",
    "57014": "the statement was ended from outside: if statement_timeout ended it, raise "
    "statement_timeout, and run again",
}
"""What to do about an error whose SQLSTATE says it all."""


class PostgreSQL(Dialect):
    """A server. All tables live in a schema of their own; claims pass over each other's rows."""

    schema = SCHEMA
    claim_deletes = True
    adds_in_bulk = True
    largest = _LARGEST
    writers_overlap = True
    interleaved = (
        10  # a row's new version stays on its page, where the one before has left a few rows' room
    )

    def exists(self, url: sa.URL) -> bool:
        return True

    def identity(self, url: sa.URL) -> object:
        return None

    def caution(self, url: sa.URL) -> str | None:
        return None

    def writer(self, url: sa.URL, *, durability: str, sees_one_state: bool = False) -> sa.Engine:
        level = "REPEATABLE READ" if sees_one_state else "READ COMMITTED"
        settings = (
            f"{_PLAN_FOR_MEMORY}; {_SYNCHRONOUS}" if durability == "full" else _PLAN_FOR_MEMORY
        )
        begins = f"BEGIN ISOLATION LEVEL {level}; {settings}"
        return self._engine(url, pool_size=2, begins=begins, leaves_receipts=True)

    def owner(self, url: sa.URL) -> sa.Engine:
        return self._engine(url, pool_size=1, begins="BEGIN ISOLATION LEVEL READ COMMITTED")

    def reader(self, url: sa.URL) -> sa.Engine:
        begins = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_PLAN_FOR_MEMORY}"
        return self._engine(url, pool_size=4, begins=begins)

    @staticmethod
    def _engine(
        url: sa.URL,
        *,
        pool_size: int,
        begins: str,
        leaves_receipts: bool = False,
        pinned: Mapping[str, str] = _PINNED,
    ) -> sa.Engine:
        """Return an engine whose transactions begin with some SQL, all of it sent at once.

        What is `pinned` is set for a session, which is ours; behind a pooler, where the next transaction may be in
        another one, for each transaction.
        """
        try:
            url, options = driver_options(url)
            engine = sa.create_engine(
                url.set(drivername="postgresql+psycopg"),
                pool_size=pool_size,
                max_overflow=0,
                pool_timeout=POOL_TIMEOUT_S,
                execution_options={"schema_translate_map": {None: SCHEMA}},
                connect_args={
                    "autocommit": True,
                    "client_encoding": "utf8",
                    **options,
                },  # BEGIN is sent below
            )
        except ModuleNotFoundError as exc:
            raise MissingExtra(
                'PostgreSQL needs psycopg: pip install "sqlbuffer[postgres]".'
            ) from exc
        for_session = "; ".join(f"SET {name} = '{value}'" for name, value in pinned.items())
        for_transaction = f"{begins}; {for_session.replace('SET ', 'SET LOCAL ')}"

        @sa.event.listens_for(engine, "do_connect")
        def _connect(
            dialect: Any, record: Any, arguments: list[Any], parameters: dict[str, Any]
        ) -> Any:
            record.info["connection"] = secrets.token_hex(8)
            parameters["application_name"] = f"sqlbuffer {record.info['connection']}"
            connection = dialect.connect(*arguments, **parameters)
            try:
                _require_unicode(connection)
                for kind, dumper in _dumpers().items():
                    connection.adapters.register_dumper(kind, dumper)
                record.info["is_pooled"] = _is_pooled(connection)
                if not record.info["is_pooled"]:
                    connection.execute(for_session, prepare=False)
                elif "prepare_threshold" not in parameters:
                    connection.prepare_threshold = (
                        None  # what is prepared in one session is unknown in the next
                    )
            except BaseException:
                connection.close()
                raise
            return connection

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            is_pooled = connection.info["is_pooled"]
            sql = for_transaction if is_pooled else begins
            if leaves_receipts:
                connection.info["number"] = connection.info.get("number", 0) + 1
                sql = f"{sql}; {_leave(connection)}"
            if is_pooled or needs_begin(connection):
                connection.exec_driver_sql(sql, execution_options=_NO_CURSOR)

        return engine

    def relation(self, rows: Rows) -> sa.FromClause:
        return _unnest(rows)

    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        return {rows.parameter(name): _array(columns[name], kind) for name, kind in rows.columns}

    def lock(self, connection: sa.Connection, buffer_id: int, locks: Mapping[Lock, bool]) -> None:
        # Advisory, so that nothing is written: a row lock would make the row of the buffer the hot spot of all claims.
        taken = (
            (
                sa.func.pg_advisory_xact_lock
                if is_exclusive
                else sa.func.pg_advisory_xact_lock_shared
            )(_ADVISORY_CLASS + lock.value, buffer_id)
            for lock, is_exclusive in locks.items()
        )
        connection.execute(sa.select(*taken))

    def each(self, rows: Rows) -> Any:
        return self.relation(rows).c

    def insert_each(self, table: sa.Table, values: Mapping[str, Any]) -> Any:
        columns = (value.label(name) for name, value in values.items())
        return postgresql.insert(table).from_select(
            list(values), sa.select(*columns), include_defaults=False
        )

    def execute_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> int:
        parameters = {**self.load(connection, rows, columns), **constants}
        return connection.execute(
            statement, parameters, execution_options={"preserve_rowcount": True}
        ).rowcount

    def changed_by_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> list[bool]:
        key, _ = rows.columns[0]
        found = connection.execute(
            _returning(statement, key), {**self.load(connection, rows, columns), **constants}
        )
        changed = set(found.scalars().all())
        return [value in changed for value in columns[key]]

    def claim(self, statement: sa.Select[Any], table: sa.Table) -> sa.FromClause:
        head = self.skip_locked(statement.add_columns(table.c.buffer_id), table).cte("head")
        same = (column == head.c[column.key] for column in table.primary_key.columns)
        return sa.delete(table).where(*same).returning(*statement.selected_columns).cte("claimed")

    def skip_locked(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement.with_for_update(skip_locked=True, of=table)

    def lock_rows(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement.with_for_update(of=table)

    def upsert(self, table: sa.Table) -> Any:
        return postgresql.insert(table)

    def json(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.cast(column, Json)

    def tables(self, connection: sa.Connection) -> set[str]:
        inspector = sa.inspect(connection)
        return {*inspector.get_table_names(schema=SCHEMA), *inspector.get_view_names(schema=SCHEMA)}

    def lock_schema(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_CLASS, 0)))
        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))

    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        names = ", ".join(f"{SCHEMA}.{table.name}" for table in tables)
        connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")

    def grants(self, url: sa.URL, *, reader: str, worker: str) -> list[str]:
        everybody = f"{quoted(reader)}, {quoted(worker)}"
        tables, sequences = f"ALL TABLES IN SCHEMA {SCHEMA}", f"ALL SEQUENCES IN SCHEMA {SCHEMA}"
        return [
            *(
                [f"GRANT CONNECT ON DATABASE {quoted(url.database)} TO {everybody}"]
                if url.database
                else []
            ),
            f"GRANT USAGE ON SCHEMA {SCHEMA} TO {everybody}",
            f"GRANT SELECT ON {tables} TO {everybody}",
            f"GRANT INSERT, UPDATE, DELETE ON {tables} TO {quoted(worker)}",
            f"REVOKE INSERT, UPDATE, DELETE ON {SCHEMA}.{VERSION_TABLE} FROM {quoted(worker)}",
            f"GRANT USAGE ON {sequences} TO {quoted(worker)}",
        ]

    def lineage(self, connection: sa.Connection) -> str:
        # The timeline is another one after each promotion, and after a recovery to a point in time; the numbers of
        # database and table are others after pg_restore. pg_control_checkpoint() tells a timeline only at the next
        # checkpoint. A server that follows has no log of its own.
        row = connection.exec_driver_sql(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END, "
            f"(SELECT oid FROM pg_database WHERE datname = current_database()), '{SCHEMA}.samples'::regclass::oid"
        ).one()
        return "/".join(map(str, (_system(connection), *row)))

    def origin(self, connection: sa.Connection) -> str:
        # What pg_restore or CREATE DATABASE ... TEMPLATE makes has a number of its own on its server, and a server that
        # was not made from this one's files, as a standby is, has another identifier. Not the timeline: workers go on
        # after a promotion.
        number = connection.exec_driver_sql(
            "SELECT oid FROM pg_database WHERE datname = current_database()"
        )
        return f"{number.scalar_one()}.{_system(connection)}"

    def about(self, connection: sa.Connection) -> str:
        return f"PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar_one()}"

    def damage(self, connection: sa.Connection) -> list[str]:
        return []  # the server checks its pages as it reads them

    def wrong_types(
        self, connection: sa.Connection, table: sa.Table, rows: sa.ColumnElement[bool]
    ) -> list[str]:
        return []  # the server takes no value of another type

    def mend_integers(
        self, connection: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]
    ) -> int:
        return 0

    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        return getattr(error.orig, "sqlstate", None) in ("40P01", "40001")

    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # what the server had no chance to say
            return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)
        if self.is_overdue(error):
            return False
        return (
            error.connection_invalidated
            or state.startswith("08")
            or state in ("57P01", "57P02", "57P03", "57P05")
        )

    def shortage(self, connection: sa.Connection) -> str | None:
        if connection.info["is_pooled"]:
            return None
        limit = connection.scalar(sa.text(_LIMIT))
        if limit is None or limit >= _NEEDED:
            return None
        return (
            f"this role or database may have {limit} connections at a time (CONNECTION LIMIT), "
            f"and one process needs up to {_NEEDED}: raise the limit to {_NEEDED} for each "
            "process, or put a pooler in front"
        )

    def is_overdue(self, error: sa.exc.DBAPIError) -> bool:
        return getattr(error.orig, "sqlstate", None) in ("25P03", "25P04")

    def receipt(self, connection: sa.Connection) -> Receipt | None:
        return Receipt(connection.info["connection"], connection.info["number"])

    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        # A server may not notice for hours that its client is gone.
        running = sa.text(
            "SELECT count(*) FILTER (WHERE NOT pg_terminate_backend(pid, 1000)) FROM pg_stat_activity "
            "WHERE application_name = :name"
        )
        return bool(connection.scalar(running, {"name": f"sqlbuffer {receipt.connection}"}) == 0)

    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        newest = sa.text(f"SELECT number FROM {SCHEMA}.receipts WHERE connection = :connection")
        return bool(connection.scalar(newest, {"connection": receipt.connection}) == receipt.number)

    def advice(self, error: BaseException) -> str:
        of_driver = getattr(error, "orig", error)  # without the SQL and its values
        state, message = getattr(of_driver, "sqlstate", None), str(of_driver).lower()
        if "query_wait_timeout" in message:  # of PgBouncer, whose every message has the same code
            return "the pooler had no session left for this process, which uses several: raise its default_pool_size"
        if state in _WAYS_OUT:
            return _WAYS_OUT[state]
        for sign, way_out in {
            "password": "check user and password in the URL",
            "does not exist": "create it first, or correct the URL",
            "permission denied": "grant the missing rights (`sqlbuffer db grants` prints them), or use another role",
            "too many": _TOO_MANY,  # refused connections come without a code
            "connection slots": _TOO_MANY,
            "startup parameter": "the pooler does not forward this option: remove it from the "
            "URL, and set it for the role",
            "invalid ": "correct this option of the URL",  # as libpq says it, before it connects
            "closed": _CLOSED,
            "the connection is lost": _CLOSED,
            "read-only": "this server or connection is read-only: use the primary",
        }.items():
            if sign in message:
                return way_out
        return "check that the server runs and that host and port in the URL are right"

    def viewer(self, url: sa.URL) -> sa.Engine:
        return self._engine(
            url, pool_size=4, begins=f"BEGIN READ ONLY; SET LOCAL search_path = {SCHEMA}, public"
        )

    def inspector(self, url: sa.URL) -> sa.Engine:
        # The time zone stays that of the role: what a person compares with times is meant in it.
        pinned = {name: value for name, value in _PINNED.items() if name != "TimeZone"}
        begins = f"BEGIN READ ONLY; SET LOCAL search_path = {SCHEMA}"
        # A server-side cursor is for one SELECT: whatever follows a semicolon, COMMIT, SET, COPY and DO are errors.
        engine = self._engine(url, pool_size=1, begins=begins, pinned=pinned)
        return engine.execution_options(no_parameters=True, stream_results=True)

    @contextlib.contextmanager
    def guarded(
        self,
        connection: sa.Connection,
        sql: str,
        *,
        role: str | None = None,
        may_step_down: bool = False,
    ) -> Iterator[None]:
        privileges.guard(connection, sql, role=role, may_step_down=may_step_down)
        yield  # what it has set ends with the transaction


class _Packed(bytes):
    """An array of numbers as the protocol has it."""


_NUMBERS = {
    sa.Integer: (23, ">i4"),
    sa.BigInteger: (20, ">i8"),
    sa.Double: (701, ">f8"),
    sa.Boolean: (16, "?"),
}
"""Types that are packed at once instead of element by element: their OID, and how one of them is sent."""


def _array(values: Sequence[Any], kind: Any) -> list[Any] | _Packed:
    """Return a column as the driver is to send it."""
    oid, sent = _NUMBERS.get(type(kind), (0, ""))
    if not sent or not len(values) or (oid == 701 and None in values):
        return list(values)
    size = np.dtype(sent).itemsize
    packed = np.empty(len(values), dtype=[("size", ">i4"), ("value", sent)])
    packed["size"], packed["value"] = size, values
    return _Packed(struct.pack("!5i", 1, 0, oid, len(values), 1) + packed.tobytes())


@functools.cache
def _dumpers() -> dict[type[Any], type[Any]]:
    """Return how arrays are sent: as text, which is the default, every element would be searched for quotes."""
    from psycopg.adapt import Dumper  # an extra: known to be there by now
    from psycopg.pq import Format
    from psycopg.types.array import ListBinaryDumper

    class PackedDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: bytes) -> bytes:
            return obj

    class BoundedDumper(ListBinaryDumper):
        def dump(self, obj: list[Any]) -> Any:
            sent = super().dump(obj)
            if (
                sent is not None and len(sent) > _LARGEST
            ):  # the server would close the connection, without a word
                raise TooLarge(
                    f"the values of one statement take {len(sent) / 1e6:,.0f} MB, and PostgreSQL "
                    f"takes {_LARGEST / 1e6:,.0f} MB at most: give fewer or smaller samples at a "
                    "time."
                )
            return sent

    return {list: BoundedDumper, _Packed: PackedDumper}


def _require_unicode(connection: Any) -> None:
    """Refuse a database that cannot hold every text, or would not know it as text."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = quoted(connection.info.dbname)
        raise DatabaseUnavailable(
            f"the database {name} has the encoding {encoding}, which cannot store every text: "
            "create a database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and "
            "use it."
        )


def _is_pooled(connection: Any) -> bool:
    """Tell whether a pooler stands between: the process that answers is not the one that the connection was made to."""
    (pid,) = connection.execute("SELECT pg_catalog.pg_backend_pid()", prepare=False).fetchone()
    return bool(pid != connection.info.backend_pid)


def _system(connection: sa.Connection) -> str:
    """Return the identifier of the server, which a standby shares; nothing where the role has been denied it."""
    may_ask = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
    if not connection.exec_driver_sql(may_ask).scalar_one():
        return ""
    return str(
        connection.exec_driver_sql("SELECT system_identifier FROM pg_control_system()").scalar_one()
    )


def _leave(connection: sa.Connection) -> str:
    """Return the SQL by which a transaction leaves its receipt.

    The number of the transaction itself would not do: a server that crashed may give it to another one, whose commit
    would then be taken for this one's.
    """
    receipt = f"'{connection.info['connection']}', {connection.info['number']}, now()"
    return (
        f"INSERT INTO {SCHEMA}.receipts (connection, number, written_at) VALUES ({receipt}) "
        "ON CONFLICT (connection) DO UPDATE SET number = excluded.number, written_at = excluded.written_at"
    )


@functools.cache
def _returning(statement: Any, column: str) -> Any:
    return statement.returning(statement.table.c[column])


@functools.cache
def _unnest(rows: Rows) -> sa.FromClause:
    arrays = (
        sa.cast(sa.bindparam(rows.parameter(name), type_=sa.types.NullType()), ARRAY(kind))
        for name, kind in rows.columns
    )
    columns = (sa.column(name, kind) for name, kind in rows.columns)
    return (
        sa.func.unnest(*arrays)
        .table_valued(*columns, name=rows.name)
        .render_derived(name=rows.name)
    )

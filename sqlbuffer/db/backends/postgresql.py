"""PostgreSQL: many writers at a time, rows that are sent as arrays, and receipts of commits."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from sqlbuffer.db.backends import backups, hot
from sqlbuffer.db.backends import postgresql_bounds as bounds
from sqlbuffer.db.backends import postgresql_connections as connections
from sqlbuffer.db.backends import postgresql_errors as errors
from sqlbuffer.db.backends import postgresql_privileges as privileges
from sqlbuffer.db.backends.base import SCHEMA, VERSION_TABLE, Dialect
from sqlbuffer.db.backends.postgresql_arrays import LARGEST, as_array, unnest
from sqlbuffer.db.backends.postgresql_connections import ADVISORY_CLASS
from sqlbuffer.db.backends.types import Json
from sqlbuffer.db.backends.values import Claimed, Columns, Lock, Pool, Receipt, Rows, quoted

_NEEDED = 4
"""Connections of one thread: to read and to write, and the same two for the heartbeat."""

_LIMIT = """
SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1))
FROM pg_catalog.pg_roles, pg_catalog.pg_database
WHERE rolname = session_user
  AND datname = current_database()
  AND NOT rolsuper
"""

# The timeline changes with each promotion, and with a recovery to a point in time; the numbers of
# database and table change with pg_restore. pg_control_checkpoint() shows a new timeline only at
# the next checkpoint. A standby has no log of its own.
_LINEAGE = f"""
SELECT CASE
         WHEN NOT pg_is_in_recovery()
         THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
       END,
       (SELECT oid FROM pg_database WHERE datname = current_database()),
       '{SCHEMA}.samples'::regclass::oid
"""

_TABLE_BYTES = f"""
SELECT relname AS name, pg_total_relation_size(oid) AS size_bytes
FROM pg_class
WHERE relnamespace = '{SCHEMA}'::regnamespace AND relkind = 'r'
"""

_RELATIONS = f"""
SELECT relname
FROM pg_catalog.pg_class
WHERE relnamespace = pg_catalog.to_regnamespace('{SCHEMA}') AND relkind IN ('r', 'p', 'v')
"""

_END = """
SELECT count(*) FILTER (WHERE NOT pg_terminate_backend(pid, 1000))
FROM pg_stat_activity
WHERE application_name = :name
"""


class PostgreSQL(Dialect):
    """A server. All tables live in a schema of their own; claims skip each other's rows."""

    schema = SCHEMA
    supports_deleting_claims = True
    supports_bulk_upsert = True
    max_value_bytes = LARGEST
    has_concurrent_writers = True
    supports_long_reads = True
    chunks_sharing_pages = 10  # a row's new version stays on its page, in space of older rows
    gives_ids_again = False
    about_free_space = "new rows use the space again once autovacuum has cleaned the tables"
    has_receipts = True

    # -- the database -----------------------------------------------------------------------------

    def exists(self, url: sa.URL) -> bool:
        return True

    def identity(self, url: sa.URL) -> object:
        return None

    def caution(self, url: sa.URL) -> str | None:
        return None

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

    def lineage(self, connection: sa.Connection) -> str:
        row = connection.exec_driver_sql(_LINEAGE).one()
        return "/".join(map(str, (_system(connection), *row)))

    def origin(self, connection: sa.Connection) -> str:
        # A database made by pg_restore or CREATE DATABASE ... TEMPLATE has a number of its own on
        # its server. Only a server made from the files of this one, such as a standby, has the same
        # identifier. Not the timeline: workers continue after a promotion.
        number = connection.exec_driver_sql(
            "SELECT oid FROM pg_database WHERE datname = current_database()"
        )
        return f"{number.scalar_one()}.{_system(connection)}"

    def about(self, connection: sa.Connection) -> str:
        return f"PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar_one()}"

    def table_bytes(self, connection: sa.Connection) -> dict[str, int]:
        rows = connection.exec_driver_sql(_TABLE_BYTES)
        return {str(row.name): int(row.size_bytes) for row in rows}

    def about_size(self, connection: sa.Connection) -> str:
        size = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
        return f"the database has {size.scalar_one() / 1e6:,.1f} MB"

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

    # -- engines ----------------------------------------------------------------------------------

    def engine(
        self, url: sa.URL, kind: str, *, durability: str = "normal", pool: Pool | None = None
    ) -> sa.Engine:
        if kind in ("viewer", "reader"):
            return (connections.viewer if kind == "viewer" else connections.reader)(url)
        if kind == "pool":
            return connections.pool(url)
        shared = connections.pool(url) if pool is None else pool()
        return connections.writer(shared, kind, durability)

    def backup(self, url: sa.URL, target: pathlib.Path) -> None:
        backups.dump_postgresql(url, target)

    # -- rows that travel with a statement --------------------------------------------------------

    def relation(self, rows: Rows) -> sa.FromClause:
        return unnest(rows)

    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        return {rows.parameter(name): as_array(columns[name], kind) for name, kind in rows.columns}

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
        return hot.n_changed(connection, statement, parameters)

    def changed_by_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> list[bool]:
        key, _ = rows.columns[0]
        parameters = {**self.load(connection, rows, columns), **constants}
        found = hot.execute(connection, _returning(statement, key), parameters)
        changed = set(found.scalars())
        return [value in changed for value in columns[key]]

    # -- statements and locks ---------------------------------------------------------------------

    def lock(self, connection: sa.Connection, buffer_id: int, locks: Mapping[Lock, bool]) -> None:
        # Advisory locks, which write nothing: with a row lock all claims would write to the row of
        # the buffer.
        hot.execute(connection, _locking(tuple(locks.items())), {"buffer": buffer_id})

    def lock_schema(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_CLASS, 0)))
        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))

    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        names = ", ".join(f"{SCHEMA}.{table.name}" for table in tables)
        connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")

    def claim(self, statement: sa.Select[Any], table: sa.Table) -> Claimed:
        head = self.skip_locked(statement.add_columns(table.c.buffer_id), table).cte("head")
        same = (column == head.c[column.key] for column in table.primary_key.columns)
        left = sa.delete(table).where(*same).returning(*statement.selected_columns)
        return sa.select(), left.cte("claimed")

    def skip_locked(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement.with_for_update(skip_locked=True, of=table)

    def lock_rows(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        return statement.with_for_update(of=table)

    def upsert(self, table: sa.Table) -> Any:
        return postgresql.insert(table)

    def json(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.cast(column, Json)

    def has_table(self, connection: sa.Connection, name: str) -> bool:
        # A look into the catalogue's caches, not a scan: every process begins with it.
        found = connection.exec_driver_sql(f"SELECT pg_catalog.to_regclass('{SCHEMA}.{name}')")
        return found.scalar_one() is not None

    def tables(self, connection: sa.Connection) -> set[str]:
        return set(connection.exec_driver_sql(_RELATIONS).scalars())

    def grants(self, url: sa.URL, *, reader: str | None, worker: str | None) -> list[str]:
        both = ", ".join(quoted(role) for role in (reader, worker) if role is not None)
        tables, sequences = f"ALL TABLES IN SCHEMA {SCHEMA}", f"ALL SEQUENCES IN SCHEMA {SCHEMA}"
        database = quoted(url.database) if url.database else None
        to_read = [
            *([f"GRANT CONNECT ON DATABASE {database} TO {both}"] if database else []),
            f"GRANT USAGE ON SCHEMA {SCHEMA} TO {both}",
            f"GRANT SELECT ON {tables} TO {both}",
        ]
        if worker is None:
            return to_read
        return [
            *to_read,
            f"GRANT INSERT, UPDATE, DELETE ON {tables} TO {quoted(worker)}",
            f"REVOKE INSERT, UPDATE, DELETE ON {SCHEMA}.{VERSION_TABLE} FROM {quoted(worker)}",
            f"GRANT USAGE ON {sequences} TO {quoted(worker)}",
        ]

    # -- errors and lost connections --------------------------------------------------------------

    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        return errors.is_conflict(error)

    def is_overdue(self, error: sa.exc.DBAPIError) -> bool:
        return errors.is_overdue(error)

    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        return errors.is_lost(error)

    def receipt(self, connection: sa.Connection) -> Receipt | None:
        return Receipt(connection.info["connection"], connection.info["number"])

    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        # A server may not notice for hours that its client is gone.
        found = connection.scalar(sa.text(_END), {"name": f"sqlbuffer {receipt.connection}"})
        return bool(found == 0)

    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        newest = sa.text(f"SELECT number FROM {SCHEMA}.receipts WHERE connection = :connection")
        return bool(connection.scalar(newest, {"connection": receipt.connection}) == receipt.number)

    def advice(self, error: BaseException) -> str:
        return errors.way_out(getattr(error, "orig", error))  # without the SQL and its values

    # -- SQL that a person types ------------------------------------------------------------------

    def unknown_name(self, error: sa.exc.DBAPIError) -> tuple[str, str] | None:
        return errors.unknown_name(error)

    def inspector(self, url: sa.URL, *, timeout_s: float | None = None) -> sa.Engine:
        return connections.inspector(url, timeout_s=timeout_s)

    def bounded(self, sql: str) -> str:
        return bounds.bounded(sql)

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
        connection.exec_driver_sql(_FIND_TABLES, execution_options={"stream_results": False})
        yield  # the settings of `guard` end with the transaction


_FIND_TABLES = (
    f"SELECT set_config('search_path', '{SCHEMA}, ' || current_setting('search_path'), true)"
)
"""Lets SQL of a person name tables as SQLite does, without their schema."""


def _system(connection: sa.Connection) -> str:
    """Return the identifier of the server, which a standby shares; "" if the role may not ask."""
    may_ask = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
    if not connection.exec_driver_sql(may_ask).scalar_one():
        return ""
    return str(
        connection.exec_driver_sql("SELECT system_identifier FROM pg_control_system()").scalar_one()
    )


@hot.hot
def _locking(locks: tuple[tuple[Lock, bool], ...]) -> sa.Select[Any]:
    """Return the statement that takes locks of a buffer."""
    buffer: sa.BindParameter[int] = sa.bindparam("buffer", type_=sa.Integer)
    functions = sa.func.pg_advisory_xact_lock_shared, sa.func.pg_advisory_xact_lock
    return sa.select(
        *(
            functions[is_exclusive](ADVISORY_CLASS + lock.value, buffer)
            for lock, is_exclusive in locks
        )
    )


@hot.hot
def _returning(statement: Any, column: str) -> Any:
    return statement.returning(statement.table.c[column])

"""The contract: everything that the rest of the package asks of a database."""

from __future__ import annotations

import abc
import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from sqlbuffer.db.backends.values import Claimed, Columns, Lock, Pool, Receipt, Rows
from sqlbuffer.errors import TooLarge

SCHEMA = "sqlbuffer"
"""Name of the PostgreSQL schema that all tables live in."""

VERSION_TABLE = "sqlbuffer_version"
"""Name of Alembic's version table."""

POOL_TIMEOUT_S = 1.0
"""How long a thread waits for a connection before it looks for the pool again, which may have been
replaced."""

CACHED_STATEMENTS = 1000
"""Compiled statements that are kept: the package has about 200, some of them in variants."""

ONE_STATEMENT = {"is_one_statement": True}
"""Execution options of a reader that executes one statement, which sees one state of the database
without BEGIN and COMMIT."""


class Dialect(abc.ABC):
    """Everything that the rest of the package asks of a database."""

    schema: ClassVar[str | None]
    """Name of the schema of our tables, None if the database has no schemas."""

    supports_deleting_claims: ClassVar[bool]
    """Whether a claim takes its rows out of the pool in the same statement."""

    supports_bulk_upsert: ClassVar[bool]
    """Whether one statement inserts or updates many rows and returns those that it changed."""

    max_value_bytes: ClassVar[int]
    """Bytes of the largest value that can be stored and read back."""

    has_concurrent_writers: ClassVar[bool]
    """Whether a writing transaction may run at the same time as another one, uncommitted."""

    supports_long_reads: ClassVar[bool]
    """Whether others write at no cost in space while a transaction reads for minutes."""

    chunks_sharing_pages: ClassVar[int]
    """Chunks that share their pages when a whole table is rewritten chunk by chunk."""

    gives_ids_again: ClassVar[bool]
    """Whether a new row may get the id of the newest row if that was deleted."""

    about_free_space: ClassVar[str]
    """What becomes of the space of deleted rows, as words for people."""

    has_receipts: ClassVar[bool]
    """Whether the answer to a COMMIT can be lost, so that transactions leave receipts."""

    time_words: ClassVar[Mapping[str, str]] = {}
    """What a user's SQL gets for a word whose time is written in another way than stored ones."""
    parameter_signs: ClassVar[str] = ""  # with which a parameter begins, and nothing else

    def require_fits(self, what: str, size: int) -> None:
        """Refuse a value that the database could not store or not return.

        Args:
            what: The value, as the error names it.
            size: Bytes of the value.

        Raises:
            TooLarge: If the value is too large.
        """
        if size > self.max_value_bytes:
            raise TooLarge(
                f"{what} takes {size / 1e6:,.0f} MB in storage, and this database takes "
                f"{self.max_value_bytes / 1e6:,.0f} MB at most: keep the value in a file and store "
                "the path, or make the value smaller."
            )

    # -- the database -----------------------------------------------------------------------------

    @abc.abstractmethod
    def exists(self, url: sa.URL) -> bool:
        """Return True if there is a database to read from."""

    @abc.abstractmethod
    def identity(self, url: sa.URL) -> object:
        """Return a value, found without a connection, that another database of the URL has not."""

    @abc.abstractmethod
    def caution(self, url: sa.URL) -> str | None:
        """Return a reason not to use the database at this place, None if there is none."""

    def may_fork(self) -> bool:
        """Return True if a child may be forked now; if not, no connection is opened until then."""
        return True  # a child does not touch the connections that it finds

    @abc.abstractmethod
    def shortage(self, connection: sa.Connection) -> str | None:
        """Return the reason why a process cannot open all connections of a store, or None."""

    @abc.abstractmethod
    def lineage(self, connection: sa.Connection) -> str:
        """Return text that differs for another database and for one that was restored since."""

    @abc.abstractmethod
    def origin(self, connection: sa.Connection) -> str:
        """Return text that a copy has not: parts joined by dots, empty if they cannot be known."""

    @abc.abstractmethod
    def about(self, connection: sa.Connection) -> str:
        """Return the name and version of the database, and known faults of that version."""

    @abc.abstractmethod
    def table_bytes(self, connection: sa.Connection) -> dict[str, int]:
        """Return the bytes of each table with its indexes; empty if the database cannot tell."""

    @abc.abstractmethod
    def about_size(self, connection: sa.Connection) -> str:
        """Return the size of the whole database in words."""

    @abc.abstractmethod
    def damage(self, connection: sa.Connection) -> list[str]:
        """Return the faults that the database itself finds in its storage."""

    @abc.abstractmethod
    def wrong_types(
        self, connection: sa.Connection, table: sa.Table, rows: sa.ColumnElement[bool]
    ) -> list[str]:
        """Return one sentence for each column in which rows have values of another type."""

    @abc.abstractmethod
    def mend_integers(
        self, connection: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]
    ) -> int:
        """Replace integers that were stored as bytes by integers; return their number."""

    # -- engines ----------------------------------------------------------------------------------

    @abc.abstractmethod
    def engine(
        self, url: sa.URL, kind: str, *, durability: str = "normal", pool: Pool | None = None
    ) -> sa.Engine:
        """Return an engine for a URL.

        Args:
            url: Its URL.
            kind: "writer", whose transactions may write from their first statement on; "copier", a
                writer that sees no later commit of others; "owner" creates and upgrades the schema;
                "reader" only reads, for which the right to read is enough, and never waits for a
                writer; "viewer" only runs SQL of the user's own program, which can only read.
            durability: See `Database`.
            pool: Returns the engine of kind "pool", whose connections all that write may share.
        """

    # -- rows that travel with a statement --------------------------------------------------------

    @abc.abstractmethod
    def relation(self, rows: Rows) -> sa.FromClause:
        """Return the relation in which a statement reads the rows that travel with it."""

    @abc.abstractmethod
    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        """Send the rows ahead, or return them as the parameters that the statement needs."""

    @abc.abstractmethod
    def each(self, rows: Rows) -> Any:
        """Return an object with the columns of a row as attributes, for `execute_each`."""

    @abc.abstractmethod
    def insert_each(self, table: sa.Table, values: Mapping[str, Any]) -> Any:
        """Return an INSERT for each row, with the method `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def execute_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> int:
        """Execute a statement for each row, in order; return how many stored rows it changed."""

    @abc.abstractmethod
    def changed_by_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> list[bool]:
        """Execute an UPDATE for each row; return for each row whether it found a stored row.

        The first column is the key. One of the values that the UPDATE sets is `noted`.
        """

    def noted(self, rows: Rows, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return a value that tells `changed_by_each` and `n_noted` in which rows it was used."""
        return value

    def n_noted(self, connection: sa.Connection) -> int:
        """Return how often the last `execute_each` used a value that is `noted`.

        Only without `supports_bulk_upsert`, whose statements return the rows that they changed.
        """
        return 0

    # -- statements and locks ---------------------------------------------------------------------

    @abc.abstractmethod
    def lock(self, connection: sa.Connection, buffer_id: int, locks: Mapping[Lock, bool]) -> None:
        """Take locks of a buffer's race in the order given, exclusive if True, else shared."""

    @abc.abstractmethod
    def lock_schema(self, connection: sa.Connection) -> None:
        """Keep other processes from creating or upgrading the schema until the transaction ends."""

    @abc.abstractmethod
    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        """Keep other processes from writing into tables until the transaction ends."""

    @abc.abstractmethod
    def claim(self, statement: sa.Select[Any], table: sa.Table) -> Claimed:
        """Select rows from `table`, without those locked by a claim.

        If `supports_deleting_claims`, the rows leave the table with it.
        """

    @abc.abstractmethod
    def skip_locked(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        """Lock the rows of `table` that a statement selects, without those locked by a claim."""

    @abc.abstractmethod
    def lock_rows(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        """Lock the rows of `table` that a statement selects, after waiting for other locks."""

    @abc.abstractmethod
    def upsert(self, table: sa.Table) -> Any:
        """Return an INSERT with `on_conflict_do_update` and `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def json(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return a column of JSON text as the JSON type."""

    def has_table(self, connection: sa.Connection, name: str) -> bool:
        return name in self.tables(connection)

    @abc.abstractmethod
    def tables(self, connection: sa.Connection) -> set[str]:
        """Return the names of all tables and views in the schema of our tables."""

    @abc.abstractmethod
    def grants(self, url: sa.URL, *, reader: str | None, worker: str | None) -> list[str]:
        """Return the SQL that grants reading to a role, working to a role, or both."""

    @abc.abstractmethod
    def backup(self, url: sa.URL, target: pathlib.Path) -> None:
        """Write the state of the database at one moment into a file that does not exist."""

    # -- errors and lost connections --------------------------------------------------------------

    @abc.abstractmethod
    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        """Return True if a transaction was ended in favour of another one: it may run again."""

    @abc.abstractmethod
    def is_overdue(self, error: sa.exc.DBAPIError) -> bool:
        """Return True if a transaction took too long, such as that of a suspended process."""

    @abc.abstractmethod
    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        """Return True if the connection was lost or could not be made: another one may work."""

    @abc.abstractmethod
    def receipt(self, connection: sa.Connection) -> Receipt | None:
        """Return the row that proves this transaction's commit; None without `has_receipts`."""

    @abc.abstractmethod
    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        """End the transaction of a lost connection; return True if it does not run any more."""

    @abc.abstractmethod
    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        """Return True if a transaction that has ended was committed."""

    @abc.abstractmethod
    def advice(self, error: BaseException) -> str:
        """Return how to solve an error of the database, "" if that is not known."""

    # -- SQL that a person types ------------------------------------------------------------------

    @abc.abstractmethod
    def unknown_name(self, error: sa.exc.DBAPIError) -> tuple[str, str] | None:
        """Return "table" or "column", and the name in the SQL that the database does not know.

        Returns:
            None for another error.
        """

    @property
    def sql_errors(self) -> tuple[type[Exception], ...]:
        """The exceptions with which the database refuses SQL that a person types."""
        return (sa.exc.DBAPIError,)

    @abc.abstractmethod
    def inspector(self, url: sa.URL, *, timeout_s: float | None = None) -> sa.Engine:
        """Return an engine for SQL that a person types: one statement at a time, which can read.

        A transaction that takes longer than `timeout_s` fails; with None it may take any time.
        With `timeout_s` few rows are read ahead, and SQLite refuses values of more than 1 MB.
        """

    def bounded(self, sql: str) -> str:
        """Return SQL of a person that fails at a row of more than 1 MB, before it travels.

        SQLite has its limits from `inspector`.
        """
        return sql

    @abc.abstractmethod
    def guarded(
        self,
        connection: sa.Connection,
        sql: str,
        *,
        role: str | None = None,
        may_step_down: bool = False,
    ) -> contextlib.AbstractContextManager[None]:
        """Make sure that SQL that a person has typed, run in the block, can only read.

        Args:
            connection: A transaction, which does nothing else afterwards.
            sql: The SQL, or part of it.
            role: The role that runs the SQL; None for the one that has logged in.
            may_step_down: True to run the SQL as a role that only reads if the role that has logged
                in has too many rights and may take that role.

        Raises:
            InvalidArgument: If the SQL could do more than read, or there are no roles.
        """

"""The contract: what the rest of the package asks of a database, and the words in which it does."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from sqlbuffer.errors import TooLarge

SCHEMA = "sqlbuffer"
"""Name of the PostgreSQL schema that all tables live in."""

VERSION_TABLE = "sqlbuffer_version"
"""Name of Alembic's version table."""

Columns: TypeAlias = Mapping[str, Sequence[Any]]

POOL_TIMEOUT_S = 1.0
"""How long a thread waits for a connection before it looks at the pool again, which may be another one by then."""

ONE_STATEMENT = {"is_one_statement": True}
"""Execution options of a reader that executes one statement: it sees one state without BEGIN and COMMIT around it."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """The shape of rows that travel with a statement, which reads them as a relation."""

    name: str
    columns: tuple[tuple[str, TypeEngine[Any]], ...]

    def parameter(self, column: str) -> str:
        """Return the name of the bound parameter that carries a column."""
        return f"{self.name}_{column}"


def quoted(name: str) -> str:
    """Return an identifier as SQL has it, whatever is in it."""
    return '"{}"'.format(name.replace('"', '""'))


def needs_begin(connection: sa.Connection) -> bool:
    """Tell whether a transaction is more than the one statement that it consists of."""
    return not connection.get_execution_options().get("is_one_statement", False)


class Lock(enum.Enum):
    """What a transaction may hold of a buffer's race until it ends.

    Everybody locks in one order: the race, rows of `samples`, draws, rows of `pool`, counters of the own worker.
    """

    RACE = 0
    """Shared to use keys and clock, exclusive to move every key."""
    DRAWS = 1
    """Shared to draw; exclusive, while no draw is under way, to let samples join the race or leave it undrawn."""


class Receipt(NamedTuple):
    """What a transaction leaves in the table `receipts`: the number of the transaction of one connection."""

    connection: str
    number: int


class Dialect(abc.ABC):
    """What the rest of the package asks of a database."""

    schema: ClassVar[str | None]
    claim_deletes: ClassVar[bool]
    adds_in_bulk: ClassVar[bool]
    largest: ClassVar[int]
    """Bytes that one value may have, so that it can also be read back."""

    writers_overlap: ClassVar[bool]
    """Whether a transaction that writes may meet what others have written and not committed yet."""

    interleaved: ClassVar[int]
    """Chunks that share their pages where a whole table is rewritten chunk by chunk."""

    def require_fits(self, what: str, size: int) -> None:
        """Refuse a value of so many bytes where the database would not take it, or not give it back.

        Raises:
            TooLarge: Where it is too large.
        """
        if size > self.largest:
            raise TooLarge(
                f"{what} takes {size / 1e6:,.0f} MB in storage, and this database takes "
                f"{self.largest / 1e6:,.0f} MB at most: keep the value in a file and store the "
                "path, or make the value smaller."
            )

    def may_fork(self) -> bool:
        """Tell whether a child may be forked now; where it may not, no connection is opened until it is forked."""
        return True  # a child leaves the connections that it finds alone

    @abc.abstractmethod
    def shortage(self, connection: sa.Connection) -> str | None:
        """Return what keeps a process from opening the connections that a store needs, if anything does."""

    @abc.abstractmethod
    def exists(self, url: sa.URL) -> bool:
        """Tell whether there is a database to read from."""

    @abc.abstractmethod
    def identity(self, url: sa.URL) -> object:
        """Return what tells a database, without a connection, from another one of the same URL; None: nothing does."""

    @abc.abstractmethod
    def caution(self, url: sa.URL) -> str | None:
        """Return what speaks against this database where it is, if anything does."""

    @abc.abstractmethod
    def writer(self, url: sa.URL, *, durability: str, sees_one_state: bool = False) -> sa.Engine:
        """Return an engine whose transactions may write from their first statement on.

        With `sees_one_state` they do not see what others commit in between.
        """

    @abc.abstractmethod
    def owner(self, url: sa.URL) -> sa.Engine:
        """Return an engine that creates and upgrades the schema."""

    @abc.abstractmethod
    def reader(self, url: sa.URL) -> sa.Engine:
        """Return an engine that is only read from, and never waits for a writer."""

    @abc.abstractmethod
    def relation(self, rows: Rows) -> sa.FromClause:
        """Return the relation in which a statement reads the rows that travel with it."""

    @abc.abstractmethod
    def load(self, connection: sa.Connection, rows: Rows, columns: Columns) -> dict[str, Any]:
        """Send the rows ahead, or return them as the parameters that the statement needs."""

    @abc.abstractmethod
    def each(self, rows: Rows) -> Any:
        """Return what stands for the columns of a row, by name, in a statement that is for each row."""

    @abc.abstractmethod
    def insert_each(self, table: sa.Table, values: Mapping[str, Any]) -> Any:
        """Return an INSERT for each row, which knows `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def execute_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> int:
        """Execute a statement for each row, in their order; return how many rows of the database it has changed."""

    @abc.abstractmethod
    def changed_by_each(
        self,
        connection: sa.Connection,
        statement: Any,
        rows: Rows,
        columns: Columns,
        constants: Mapping[str, Any],
    ) -> list[bool]:
        """Execute an UPDATE for each row, found by a key, its first column; tell which of them found theirs.

        One of the values that it sets is `noted`.
        """

    def noted(self, rows: Rows, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return a value such that `changed_by_each` knows the rows in which it is set."""
        return value

    @abc.abstractmethod
    def lock(self, connection: sa.Connection, buffer_id: int, locks: Mapping[Lock, bool]) -> None:
        """Take locks of a buffer's race, in the order given, each shared, or exclusive where it says True."""

    @abc.abstractmethod
    def claim(self, statement: sa.Select[Any], table: sa.Table) -> sa.FromClause:
        """Return the rows that a statement selects from `table`, passing over those that another claim has locked.

        Where `claim_deletes`, they leave the table with it.
        """

    @abc.abstractmethod
    def skip_locked(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        """Lock the rows of `table` that a statement selects, passing over those that another claim has locked."""

    @abc.abstractmethod
    def lock_rows(self, statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
        """Lock the rows of `table` that a statement selects, waiting for any process that has them."""

    @abc.abstractmethod
    def upsert(self, table: sa.Table) -> Any:
        """Return an INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing`."""

    @abc.abstractmethod
    def json(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Read a column of JSON text as the JSON type."""

    @abc.abstractmethod
    def tables(self, connection: sa.Connection) -> set[str]:
        """Return the names of the tables and views that stand where ours would."""

    @abc.abstractmethod
    def lock_schema(self, connection: sa.Connection) -> None:
        """Make sure that no other process creates or upgrades the schema until the transaction ends."""

    @abc.abstractmethod
    def lock_tables(self, connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
        """Make sure that no other process writes into tables until the transaction ends."""

    @abc.abstractmethod
    def grants(self, url: sa.URL, *, reader: str, worker: str) -> list[str]:
        """Return the SQL that lets one role read a database's buffers, and another one work on them."""

    @abc.abstractmethod
    def lineage(self, connection: sa.Connection) -> str:
        """Return what changes where this is another database, or one that others may have written into since."""

    @abc.abstractmethod
    def about(self, connection: sa.Connection) -> str:
        """Return which database it is, in which version, and what is known to be wrong with that."""

    @abc.abstractmethod
    def origin(self, connection: sa.Connection) -> str:
        """Return what tells a database from its copies: parts joined by dots, empty where they cannot be known."""

    @abc.abstractmethod
    def damage(self, connection: sa.Connection) -> list[str]:
        """Return what the database itself finds wrong with its storage."""

    @abc.abstractmethod
    def wrong_types(
        self, connection: sa.Connection, table: sa.Table, rows: sa.ColumnElement[bool]
    ) -> list[str]:
        """Return what of these rows is not of the type of its column, one sentence for each column."""

    @abc.abstractmethod
    def mend_integers(
        self, connection: sa.Connection, column: sa.Column[Any], rows: sa.ColumnElement[bool]
    ) -> int:
        """Write integers that were stored as bytes as what they are; return how many there were."""

    @abc.abstractmethod
    def is_conflict(self, error: sa.exc.DBAPIError) -> bool:
        """Tell whether a transaction was given up for another one's sake, and would do if run again."""

    @abc.abstractmethod
    def is_overdue(self, error: sa.exc.DBAPIError) -> bool:
        """Tell whether a transaction was ended for the time that it took, as where its process was suspended."""

    @abc.abstractmethod
    def is_lost(self, error: sa.exc.DBAPIError) -> bool:
        """Tell whether the connection was lost, or none could be made: another one may do."""

    @abc.abstractmethod
    def receipt(self, connection: sa.Connection) -> Receipt | None:
        """Return what proves that the transaction under way was committed; None where its answer cannot be lost."""

    @abc.abstractmethod
    def end(self, connection: sa.Connection, receipt: Receipt) -> bool:
        """End the transaction of a lost connection if the server goes on with it; tell whether it has ended."""

    @abc.abstractmethod
    def was_committed(self, connection: sa.Connection, receipt: Receipt) -> bool:
        """Tell whether a transaction that has ended was committed."""

    @abc.abstractmethod
    def advice(self, error: BaseException) -> str:
        """Return what to do about an error of the database."""

    @abc.abstractmethod
    def viewer(self, url: sa.URL) -> sa.Engine:
        """Return an engine for SQL of the user's own program, which can read and nothing else."""

    # -- SQL that a person types --------------------------------------------------------------------------------------

    @abc.abstractmethod
    def inspector(self, url: sa.URL) -> sa.Engine:
        """Return an engine for SQL that is not ours: one statement at a time, which can read and nothing else."""

    @abc.abstractmethod
    def guarded(
        self,
        connection: sa.Connection,
        sql: str,
        *,
        role: str | None = None,
        may_step_down: bool = False,
    ) -> contextlib.AbstractContextManager[None]:
        """Make sure that SQL that is not ours, run in the block, can do no more than read.

        Args:
            connection: A transaction, which does nothing else afterwards.
            sql: The SQL, or part of it.
            role: The role to go on as, None for the one that has logged in.
            may_step_down: Go on as a role that only reads where the one that has logged in may do too much, and can.

        Raises:
            InvalidArgument: Where it could do more, or there are no roles.
        """

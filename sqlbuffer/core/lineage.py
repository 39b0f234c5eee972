"""Proof that ids of samples still belong to the same rows.

Ids are given in ascending order, and never twice. As long as the newest row that a store
has seen is there, and the newest batch that it has drawn, every row before them is there too, so
every id up to theirs belongs to the same row, or to none. A database that was set back to an
earlier state has lost them, and gives their ids to other rows.

A row that was deleted (a forgotten sample, a deleted buffer) is missing too. The deletion leaves a
mark in the table `lineage`, the largest id that was deleted: if the database has this mark, it has
come at least to the deletion, and so past the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from sqlbuffer._integrity import numbers_of
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Dialect
from sqlbuffer.errors import StaleIds

if TYPE_CHECKING:
    from sqlbuffer.core.transaction import Transaction


class Lineage:
    """The identity of the database that a store opened, and the newest rows seen since."""

    def __init__(self) -> None:
        self.last_draw: Mapping[str, Any] | None = None
        """The newest batch that this store has drawn, as `queries.batches.find_claim` takes it."""
        self._opened: str | None = None
        self._newest: Any = None

    def note(self, connection: sa.Connection, dialect: Dialect) -> None:
        """Remember the newest row when ids are read; does nothing if the database was set back."""
        if self._opened is None or self._holds(connection):
            self._opened = dialect.lineage(connection)
            newest = connection.execute(queries.samples.newest_row()).one_or_none()
            self._newest = self._newest if newest is None else tuple(newest)

    def require(self, connection: sa.Connection, dialect: Dialect, ids: Sequence[int]) -> None:
        """Prove that ids belong to the rows that they belonged to when they were read.

        Ids beyond all that the store has seen come from another source. They are believed as long
        as the database is the one that was opened.

        Raises:
            StaleIds: If an id may belong to another row.
        """
        if not len(ids):
            return
        newest = self._newest
        beyond = newest is None or max(ids) > newest[0]
        if not self._holds(connection) or (
            beyond and self._opened not in (None, dialect.lineage(connection))
        ):
            raise StaleIds(
                f"number {max(ids)} may now belong to another sample: the database has returned "
                "to an earlier state, or was replaced (failover, restore); open the store "
                "again, and read the numbers again."
            )
        self.note(connection, dialect)

    def _holds(self, connection: sa.Connection) -> bool:
        """Return whether the newest row and the newest batch that were seen are still there."""
        newest = self._newest  # another thread may note a newer one at any time
        if newest is not None:
            row = connection.execute(queries.samples.row_of(), {"number": newest[0]}).one_or_none()
            if row is None and newest[0] > _largest_deleted(connection):
                return False
            if row is not None and tuple(row) != newest:
                return False
        draw = self.last_draw
        return (
            draw is None
            or connection.execute(queries.batches.find_claim(), draw).one_or_none() is not None
        )


def note_deleted(tx: Transaction, largest: int | None) -> None:
    """Store the largest id of the samples that this transaction deletes; None if there is none."""
    if largest is None or largest <= _largest_deleted(tx.connection):
        return
    for statement in queries.deletion.set_mark(tx.backend):
        tx.execute(statement, mark=f"{queries.deletion.MARK}{largest}")


def _largest_deleted(connection: sa.Connection) -> int:
    """Return the largest id of a deleted sample, 0 if none was deleted."""
    marks = connection.scalars(queries.deletion.marks()).all()
    with numbers_of("a mark in the table lineage"):
        return max((int(mark.removeprefix(queries.deletion.MARK)) for mark in marks), default=0)

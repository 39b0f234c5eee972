"""What a store has seen of its database, by which it tells whether numbers of samples still mean the same rows.

Numbers are given in order, and rows are never deleted. So as long as the newest row that was seen is there, and the
newest batch that was drawn, every number up to theirs means what it meant, or nothing: whatever was stored before them
is there too. A database that was set back to an earlier state has lost them, and gives their numbers again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer.db import queries
from sqlbuffer.db.backends import Dialect
from sqlbuffer.errors import StaleIds


class Lineage:
    """The database as a store has opened it, and the newest that it has seen of it since."""

    def __init__(self) -> None:
        self.last_draw: Mapping[str, Any] | None = None
        """The newest batch that this store has drawn: the parameters of `queries.find_claim`."""
        self._opened: str | None = None
        self._newest: Any = None

    def note(self, connection: sa.Connection, dialect: Dialect) -> None:
        """Remember what there is, when numbers are read: they are proven by it later. What is stale stays so."""
        if self._opened is None or self._holds(connection):
            self._opened = dialect.lineage(connection)
            newest = connection.execute(queries.newest_row()).one_or_none()
            self._newest = self._newest if newest is None else tuple(newest)

    def require(self, connection: sa.Connection, dialect: Dialect, ids: Sequence[int]) -> None:
        """Prove that these numbers mean what they meant when they were read.

        Numbers beyond all that the store has seen have come by other ways: they are taken at their word while the
        database is the one that was opened.

        Raises:
            StaleIds: Where they do not, or may not.
        """
        if not len(ids):
            return
        beyond = self._newest is None or max(ids) > self._newest[0]
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
        """Tell whether the newest that was seen is still there."""
        if self._newest is not None:
            row = connection.execute(queries.row_of(), {"number": self._newest[0]}).one_or_none()
            if row is None or tuple(row) != self._newest:
                return False
        draw = self.last_draw
        return (
            draw is None or connection.execute(queries.find_claim(), draw).one_or_none() is not None
        )

"""What statements and transactions hand to a backend: rows, locks, receipts."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

Claimed: TypeAlias = "tuple[sa.Select[Any], sa.FromClause]"
"""A SELECT, and those of its tables that have the claimed rows."""

Columns: TypeAlias = Mapping[str, Sequence[Any]]
"""Values of n rows, by column."""

Pool: TypeAlias = "Callable[[], sa.Engine]"
"""Returns an engine whose connections others share."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The columns of rows that travel with a statement, which reads them as a relation."""

    name: str
    columns: tuple[tuple[str, TypeEngine[Any]], ...]

    def parameter(self, column: str) -> str:
        """Return the name of the bound parameter that carries a column."""
        return f"{self.name}_{column}"


class Lock(enum.Enum):
    """Locks of a buffer's race, which a transaction holds until it ends.

    All transactions lock in one order: the race, rows of `samples`, draws, rows of `pool`, counters
    of their own worker.
    """

    RACE = 0
    """Shared to use keys and clock, exclusive to move every key."""
    DRAWS = 1
    """Shared to draw. Exclusive, while no draw is under way, to add samples to the race or to take
    samples out of it undrawn."""
    BUFFER = 2
    """Taken when a transaction begins (`Presence`): shared to write, exclusive to delete."""


class Presence(NamedTuple):
    """The lock `BUFFER` of a buffer, with which a writing transaction begins."""

    buffer_id: int
    is_alone: bool = False
    """True if no other transaction may write to the buffer."""


class Receipt(NamedTuple):
    """A row of the table `receipts`: the number of a transaction of one connection."""

    connection: str
    number: int


def quoted(name: str) -> str:
    """Return a name, which may contain any character, as an identifier of SQL."""
    return '"{}"'.format(name.replace('"', '""'))

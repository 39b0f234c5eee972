"""One process's handle on one buffer: its identity, its settings and its transactions."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import logging
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlbuffer.core.heartbeat import Heartbeat
from sqlbuffer.core.lineage import Lineage
from sqlbuffer.core.settings import Settings
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.watch import Watch
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import Database

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[Concatenate[Transaction, P], T]
"""A function of a transaction, and of what it is called with."""


@dataclasses.dataclass(frozen=True)
class BufferHandle:
    """A buffer, as one process has opened it."""

    database: Database
    buffer_id: int
    name: str
    settings: Settings
    key: Callable[[Any], Any] | None = None
    allow_pickle: bool = False
    grace_s: float = GRACE_S
    created_at: dt.datetime | None = None
    lineage: Lineage = dataclasses.field(default_factory=Lineage, compare=False, repr=False)
    heartbeat: Heartbeat = dataclasses.field(default_factory=Heartbeat, compare=False, repr=False)
    watch: Watch = dataclasses.field(default_factory=Watch, compare=False, repr=False)
    key_name: str | None = None
    """What the first worker stores of its key function, see `key_name`; None for a handle that was given none."""

    @property
    def consumes(self) -> bool:
        """True if a drawn sample leaves the pool."""
        return self.settings.consumes

    def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which only reads, in a transaction that sees one state of the database."""
        return self.database.read(
            lambda connection: work(Transaction(connection, self), *args, **kwargs)
        )

    def look(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which is one statement that reads: one round trip, where a transaction takes three."""
        return self.database.look(
            lambda connection: work(Transaction(connection, self), *args, **kwargs)
        )

    def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a transaction: all that it writes is stored, or nothing; see `Database.write`."""
        return self.database.write(
            lambda connection: work(Transaction(connection, self), *args, **kwargs)
        )

    def write_from_one_state(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` as `write` does, in a transaction that sees one state of the database from its first read on."""
        return self.database.write_from_one_state(
            lambda connection: work(Transaction(connection, self), *args, **kwargs)
        )

    def apart(self, *, is_patient: bool = True) -> BufferHandle:
        """Return the same buffer on connections of its own and without a heartbeat, for a thread in the background.

        It leads to nothing of the user's: a thread that has it keeps no store, and no owner of a key, from being
        garbage.
        """
        return dataclasses.replace(
            self,
            database=self.database.sibling(is_patient=is_patient),
            key=None,
            heartbeat=Heartbeat(),
        )

    @functools.cached_property
    def in_disposal(self) -> BufferHandle:
        """The same buffer for the thread that puts away what garbage leaves behind."""
        return self.apart(is_patient=False)  # one thread sees to the garbage of all databases

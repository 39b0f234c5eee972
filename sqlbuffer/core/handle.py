"""One process's handle on one buffer: its identity, its settings and its transactions."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from sqlbuffer.core.heartbeat import Heartbeat
from sqlbuffer.core.lineage import Lineage
from sqlbuffer.core.places import Places
from sqlbuffer.core.settings import Settings
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.watch import Watch
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.backends import Presence
from sqlbuffer.db.database import Database

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[Concatenate[Transaction, P], T]
"""A function whose first argument is a transaction."""


@dataclasses.dataclass(frozen=True)
class BufferHandle:
    """A buffer that one process has opened."""

    database: Database
    buffer_id: int
    name: str
    settings: Settings
    key: Callable[[Any], Any] | None = None
    allow_pickle: bool = False
    grace_s: float = GRACE_S
    created_at: dt.datetime | None = None
    direction: str = "maximize"
    keep_key: bool = False
    lineage: Lineage = dataclasses.field(default_factory=Lineage, compare=False, repr=False)
    heartbeat: Heartbeat = dataclasses.field(default_factory=Heartbeat, compare=False, repr=False)
    watch: Watch = dataclasses.field(default_factory=Watch, compare=False, repr=False)
    places: Places = dataclasses.field(default_factory=Places, compare=False, repr=False)
    key_name: str | None = None
    """Stored name of the key function (`attach.key_name`); None if the handle was opened without
    looking at keys."""
    key_caution: str | None = None
    """Warning for look-ups by sample in a store that is only read, and has not the buffer's key."""

    @functools.cached_property
    def consumes(self) -> bool:
        """True if a drawn sample leaves the pool."""
        return self.settings.consumes

    @property
    def minimizes(self) -> bool:
        """True if a lower reward is better."""
        return self.direction == "minimize"

    def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which only reads, in a transaction that sees one state of the database.

        Raises:
            BufferNotFound: If the buffer is gone, even if another buffer has its id by now.
        """

        def read(connection: sa.Connection) -> T:
            tx = Transaction(connection, self)
            tx.require_buffer()
            return work(tx, *args, **kwargs)

        return self.database.read(read)

    def peek(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` as `read` does, one statement less: nothing looks whether the buffer is there.

        It is for loops of writes, which look themselves.
        """
        return self.database.read(self.bound(work, *args, **kwargs))

    def look(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which reads with one statement: one round trip, a transaction takes three."""
        return self.database.look(self.bound(work, *args, **kwargs))

    def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a transaction that stores all of its writes or none (`Database.write`)."""
        return self.database.write(
            self.bound(work, *args, **kwargs), presence=Presence(self.buffer_id)
        )

    def write_alone(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` as `write` does, while no other transaction writes to the buffer."""
        return self.database.write(
            self.bound(work, *args, **kwargs), presence=Presence(self.buffer_id, is_alone=True)
        )

    def write_from_one_state(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` as `write` does; all of its reads see the database as its first read did."""
        return self.database.write_from_one_state(self.bound(work, *args, **kwargs))

    def bound(
        self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[sa.Connection], T]:
        """Return `work` as a function of a connection, on which it begins a transaction."""
        return lambda connection: work(Transaction(connection, self), *args, **kwargs)

    def apart(self, *, is_patient: bool = True) -> BufferHandle:
        """Return the same buffer with its own connections and no heartbeat, for another thread.

        The new handle refers to no object of the user, so a background thread that holds it keeps
        neither the store nor the owner of a key function in memory.

        Args:
            is_patient: Wait for a server that cannot be reached; False: fail at once.
        """
        return dataclasses.replace(
            self,
            database=self.database.sibling(is_patient=is_patient),
            key=None,
            heartbeat=Heartbeat(),
        )

    @functools.cached_property
    def in_disposal(self) -> BufferHandle:
        """The same buffer for the thread that releases garbage-collected batches and leases."""
        return self.apart(is_patient=False)  # one thread serves all databases

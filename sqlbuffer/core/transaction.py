"""One transaction on a buffer: the statements that it runs, the race that it locks, and what it counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.core.workers import register, worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Columns, Dialect, Lock, Rows
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import BufferNotFound, numbers_of, require_all, shown, tampered

if TYPE_CHECKING:
    from sqlbuffer.core.handle import BufferHandle


LARGEST_TICK = 2**62
"""Beyond any logical time that was counted, and far from the largest integer of a column."""


class RaceState(NamedTuple):
    """Where the race stands."""

    clock: float
    turn: int
    base: float | None
    top_score: float | None
    """What can be drawn and has at least this score is marked as top; -infinity: all of it, None: nothing."""
    version: int
    iteration: int
    tick: int
    touched: float
    """The latest clock at which a sample joined the race, a weight changed, or a sample was taken out undrawn."""
    epoch: int
    """How often every key has been moved at once: a key that was read under another one stands elsewhere."""
    max_size: int | None = None
    """Most samples that may wait once they are scored; None: any number."""


class Transaction:
    """A transaction under way on one buffer, which `BufferHandle.read` and `write` begin and end.

    Attributes:
        connection: The connection of SQLAlchemy that runs it.
        buffer: The buffer.
        backend: What differs between SQLite and PostgreSQL.
    """

    __slots__ = ("backend", "buffer", "connection")

    def __init__(self, connection: sa.Connection, buffer: BufferHandle) -> None:
        self.connection = connection
        self.buffer = buffer
        self.backend: Dialect = buffer.database.dialect

    def on(self, buffer: BufferHandle) -> Transaction:
        """Return the same transaction on another buffer of the same database."""
        return Transaction(self.connection, buffer)

    # -- statements ---------------------------------------------------------------------------------------------------

    def execute(self, statement: Any, **parameters: Any) -> Any:
        """Execute a statement on this buffer."""
        return self.connection.execute(statement, {"buffer": self.buffer.buffer_id, **parameters})

    def rows(self, statement: Any, **parameters: Any) -> Sequence[Any]:
        """Execute a statement on this buffer; return its rows."""
        found: Sequence[Any] = self.execute(statement, **parameters).all()
        return found

    def execute_with(self, statement: Any, rows: Rows, columns: Columns, **more: Any) -> Any:
        """Execute a statement on this buffer with rows that travel with it."""
        return self.execute(statement, **self.backend.load(self.connection, rows, columns), **more)

    def execute_each(self, statement: Any, rows: Rows, columns: Columns, **more: Any) -> int:
        """Execute a statement on this buffer for each of the rows; return how many rows of the database it changed."""
        constants = {"buffer": self.buffer.buffer_id, **more}
        return self.backend.execute_each(self.connection, statement, rows, columns, constants)

    def changed_by_each(
        self, statement: Any, rows: Rows, columns: Columns, **more: Any
    ) -> list[bool]:
        """Execute a statement on this buffer for each of the rows; tell which of them it found in the database."""
        constants = {"buffer": self.buffer.buffer_id, **more}
        return self.backend.changed_by_each(self.connection, statement, rows, columns, constants)

    # -- the race -----------------------------------------------------------------------------------------------------

    def lock_race(self, *, exclusive: bool = False) -> RaceState:
        """Lock the race until the transaction ends and return where it stands; shared, draws still move the clock."""
        self.backend.lock(self.connection, self.buffer.buffer_id, {Lock.RACE: exclusive})
        return self.race_state()

    def lock_race_to_draw(self, *, alone: bool) -> RaceState:
        """Lock the race for a draw, which may be the only one under way, and return where it stands."""
        self.backend.lock(
            self.connection, self.buffer.buffer_id, {Lock.RACE: False, Lock.DRAWS: alone}
        )
        return self.race_state()

    def lock_race_to_join(self, state: RaceState) -> RaceState:
        """Wait until no draw is under way, hold others up until the transaction ends, and return where the race stands.

        A sample that joins the race at a clock that a draw under way passes would stand behind its rivals. The caller
        has locked the race, has read `state` since, and has already locked the rows of `samples` that it writes: two
        transactions that wait for each other would be a deadlock.
        """
        if not self.backend.has_concurrent_writers:
            return state
        self.backend.lock(self.connection, self.buffer.buffer_id, {Lock.DRAWS: True})
        return self.race_state()

    def race_state(self) -> RaceState:
        """Return where the race stands; other transactions may move it.

        Raises:
            BufferNotFound: If the buffer is gone, even if another buffer has its number.
        """
        row = self.own_row(queries.race_state())
        if self.buffer.created_at not in (None, row.created_at):
            raise self._is_gone()
        with numbers_of(f"the race of buffer {self.buffer.name!r}"):
            state = _race_state(row)
        self.reach(state.tick)
        return state

    def own_row(self, statement: Any, **parameters: Any) -> Any:
        """Execute a statement that returns one row for the buffer.

        Raises:
            BufferNotFound: If there is no such row: the buffer is gone.
        """
        row = self.execute(statement, **parameters).one_or_none()
        if row is None:
            raise self._is_gone()
        return row

    def _is_gone(self) -> BufferNotFound:
        return BufferNotFound(
            f"buffer {self.buffer.name!r} is no longer the buffer that this store opened, because "
            f"{self.buffer.database.url} has returned to an earlier state or was replaced "
            "(failover, restore): open the store again."
        )

    # -- logical time and numbers -------------------------------------------------------------------------------------

    def tick(self, *, again: bool = False) -> int:
        """Return the logical time of the transaction, read `again` if it may have seen newer changes since.

        It is later than that of every transaction whose changes this one could see (Lamport 1978), whatever the clocks
        of the hosts say. A caller that writes it into a row must also `count`, which stores it for later transactions.
        """
        if again or self.buffer.buffer_id not in self._ticks:
            self.reach(self.execute(queries.next_tick()).scalar_one())
        return self._ticks[self.buffer.buffer_id]

    def reach(self, tick: int) -> None:
        """Move the logical time of the transaction forward to `tick`, which one of its statements has found."""
        if not tick <= LARGEST_TICK:
            name = self.buffer.name
            raise tampered(
                f"the logical time of buffer {name!r} is stored as {shown(tick)}, beyond any that was counted"
            )
        self._ticks[self.buffer.buffer_id] = max(self._ticks.get(self.buffer.buffer_id, 0), tick)

    @property
    def _ticks(self) -> dict[int, int]:
        """The logical time of the transaction, by buffer; each transaction begins without."""
        ticks: dict[int, int] = self.connection.info.setdefault("ticks", {})
        return ticks

    def note_ids(self) -> None:
        """Remember what proves the numbers of samples that are read in this transaction."""
        self.buffer.lineage.note(self.connection, self.backend)

    def require_ids(self, ids: Sequence[int]) -> None:
        """Prove that numbers given by the user mean the samples that they meant.

        Raises:
            StaleIds: If they may not: the database has gone back to an earlier state, or was replaced.
        """
        self.buffer.lineage.require(self.connection, self.backend, ids)

    # -- counters -----------------------------------------------------------------------------------------------------

    def count(self, *, clock: float = 0.0, touched: float | None = None, **deltas: int) -> None:
        """Add to the counters of this worker; move its clock forward to `clock`, its tick to the transaction's.

        The last statement of a transaction: it locks no rows of other workers after this one.

        Args:
            clock: Largest key that it has drawn.
            touched: Clock of the race at which a sample joined or a weight changed, or a sample was
                taken out undrawn; None if none of these happened.
            deltas: What to add, by counter.
        """
        self.buffer.heartbeat.start()
        parameters: dict[str, Any] = {f"d_{name}": deltas.get(name, 0) for name in queries.COUNTERS}
        new_tick = self._ticks.get(self.buffer.buffer_id, 0)
        parameters |= {
            "new_clock": clock,
            "new_tick": new_tick,
            "new_touched": touched,
            "worker": worker_id(),
        }
        if self.execute(queries.count(), **parameters).rowcount == 0:
            register(self.connection, self.backend, self.buffer.buffer_id, worker=worker_id())
            found = self.execute(queries.count(), **parameters).rowcount
            require_all(found, 1, "the counters of a worker were updated")
            self._tell_key()

    def _tell_key(self) -> None:
        """Store the name of the key function in a buffer of an older release, which has none: the first to write."""
        if self.buffer.key_name is not None:
            untold = sa.update(buffers).where(
                buffers.c.id == self.buffer.buffer_id, buffers.c.key.is_(None)
            )
            self.connection.execute(untold.values(key=self.buffer.key_name))


def _race_state(row: Any) -> RaceState:
    """Read where the race stands; ValueError or TypeError for what is no number."""
    if not 0 <= int(row.score_version) <= LARGEST_INT:
        raise ValueError(f"score_version is {row.score_version}")
    return RaceState(
        clock=_finite(row.clock),
        turn=int(row.turn),
        base=None if row.base_score is None else _finite(row.base_score),
        top_score=None if row.top_score is None else float(row.top_score),
        version=int(row.score_version),
        iteration=int(row.iteration),
        tick=int(row.tick),
        touched=_finite(row.touched),
        epoch=int(row.epoch),
        max_size=None if row.max_size is None else int(row.max_size),
    )


def _finite(number: Any) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{value} is not finite")
    return value

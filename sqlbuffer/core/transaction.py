"""One transaction on a buffer: runs statements, locks the race, and updates the counters."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer._integrity import require_all, tampered
from sqlbuffer._messages import shown
from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.core.workers import register, worker_id
from sqlbuffer.db import queries
from sqlbuffer.db.backends import Columns, Dialect, Lock, Rows, driver, hot
from sqlbuffer.errors import BufferNotFound

if TYPE_CHECKING:
    from sqlbuffer.core.handle import BufferHandle


_NO_CHANGE = {f"d_{name}": 0 for name in queries.buffers.COUNTERS}

LARGEST_TICK = 2**62
"""Largest logical time that can be genuine; the largest integer of a column is twice as large."""


class RaceState(NamedTuple):
    """State of the race and of its buffer."""

    clock: float
    """Largest race key drawn so far."""
    turn: int
    """Batches drawn so far, without the released ones."""
    base: float | None
    """Lowest score of the pool, from which the shift weighting counts."""
    top_score: float | None
    """Samples that can be drawn are marked as top from this score on; -infinity: all of them are,
    None: no sample is."""
    version: int
    """Version that the next scores get."""
    iteration: int
    tick: int
    """Logical time of the transaction that has read this state."""
    touched: float
    """Latest clock at which a sample joined, a weight changed, or a sample left undrawn."""
    epoch: int
    """How often all keys have been moved at once; a key read in another epoch is out of date.

    It also moves on when a sample with an older score comes back during a full refresh.
    """
    max_size: int | None = None
    """Largest number of scored samples that may wait; None: any number."""
    objective: str = ""
    """Name of the reward function whose rewards the samples have."""
    has_budget: bool = False
    """True if the number of samples that may be claimed is limited."""
    evict: str = "lightest"
    """Samples that leave beyond `max_size`: "lightest" or "oldest"."""


class Transaction:
    """An open transaction on one buffer; `BufferHandle.read` and `write` begin and end it.

    Attributes:
        connection: SQLAlchemy's connection.
        buffer: The buffer.
        backend: The operations that differ between SQLite and PostgreSQL.
    """

    __slots__ = ("_by_buffer", "_cursors", "backend", "buffer", "connection")

    def __init__(self, connection: sa.Connection, buffer: BufferHandle) -> None:
        self.connection = connection
        self.buffer = buffer
        self.backend: Dialect = buffer.database.dialect
        self._cursors: driver.Cursors | None = None
        self._by_buffer: dict[int, int] | None = None

    def on(self, buffer: BufferHandle) -> Transaction:
        """Return the same transaction on another buffer of the same database."""
        return Transaction(self.connection, buffer)

    # -- statements -------------------------------------------------------------------------------

    def execute(self, statement: Any, **parameters: Any) -> Any:
        """Execute a statement on this buffer."""
        found = self._cursors
        if found is None:
            found = self._cursors = driver.cursors(self.connection)
        given = {"buffer": self.buffer.buffer_id, **parameters}
        return hot.execute(self.connection, statement, given, found)

    def rows(self, statement: Any, **parameters: Any) -> Sequence[Any]:
        """Execute a statement on this buffer and return all of its rows."""
        found: Sequence[Any] = self.execute(statement, **parameters).all()
        return found

    def execute_with(self, statement: Any, rows: Rows, columns: Columns, **more: Any) -> Any:
        """Execute a statement on this buffer, with `columns` as the relation `rows`."""
        return self.execute(statement, **self.backend.load(self.connection, rows, columns), **more)

    def execute_each(self, statement: Any, rows: Rows, columns: Columns, **more: Any) -> int:
        """Execute a statement on this buffer once for each row of `columns`.

        Returns:
            The number of changed rows of the database.
        """
        if not _has_rows(columns):
            return 0
        constants = {"buffer": self.buffer.buffer_id, **more}
        return self.backend.execute_each(self.connection, statement, rows, columns, constants)

    def changed_by_each(
        self, statement: Any, rows: Rows, columns: Columns, **more: Any
    ) -> list[bool]:
        """Execute a statement on this buffer once for each row of `columns`.

        Returns:
            For each row, whether the statement changed a row of the database.
        """
        if not _has_rows(columns):
            return []
        constants = {"buffer": self.buffer.buffer_id, **more}
        return self.backend.changed_by_each(self.connection, statement, rows, columns, constants)

    # -- the race ---------------------------------------------------------------------------------

    def lock_race(self, *, exclusive: bool = False) -> RaceState:
        """Lock the race until the transaction ends, and return its state.

        Args:
            exclusive: Let no other transaction lock it; False: draws may move the clock.
        """
        self.backend.lock(self.connection, self.buffer.buffer_id, {Lock.RACE: exclusive})
        return self.race_state()

    def lock_race_to_draw(self, *, alone: bool) -> RaceState:
        """Lock the race for a draw, and return its state.

        Args:
            alone: Allow no other draw until the transaction ends.
        """
        self.backend.lock(
            self.connection, self.buffer.buffer_id, {Lock.RACE: False, Lock.DRAWS: alone}
        )
        return self.race_state()

    def lock_race_to_join(self, state: RaceState) -> RaceState:
        """Wait until no draw is open, block draws until this transaction ends; return the state.

        Without this lock an open draw could move the clock beyond the key of a sample that joins.
        The caller has locked the race, has read `state` after that, and has locked the rows of
        `samples` that it writes: in another order, two transactions could deadlock.
        """
        if not self.backend.has_concurrent_writers:
            return state
        self.backend.lock(self.connection, self.buffer.buffer_id, {Lock.DRAWS: True})
        return self.race_state()

    def race_state(self) -> RaceState:
        """Return the state of the race; without a lock, other transactions may change it.

        Raises:
            BufferNotFound: If the buffer is gone, even if another buffer has its id by now.
        """
        row = self.own_row(queries.buffers.race_state())
        self.require_same(row.created_at)
        try:
            state = _race_state(row)
        except (TypeError, ValueError, OverflowError) as exc:
            name = self.buffer.name
            raise tampered(
                f"the race of buffer {name!r} is stored with a value that is not a number "
                f"({shown(exc)})"
            ) from exc
        self.reach(state.tick)
        return state

    def require_buffer(self) -> None:
        """Check that the buffer is there.

        Raises:
            BufferNotFound: If the buffer is gone, even if another buffer has its id by now.
        """
        self.require_same(self.own_row(queries.buffers.created_at()).created_at)

    def require_same(self, created_at: dt.datetime) -> None:
        """Check by the time when it was created that a row of `buffers` is that of the buffer.

        Raises:
            BufferNotFound: If another buffer has its id by now.
        """
        if self.buffer.created_at not in (None, created_at):
            raise self._is_gone()

    def own_row(self, statement: Any, **parameters: Any) -> Any:
        """Execute a statement that returns one row if the buffer exists; return this row.

        Raises:
            BufferNotFound: If there is no row: the buffer no longer exists.
        """
        row = self.execute(statement, **parameters).one_or_none()
        if row is None:
            raise self._is_gone()
        return row

    def _is_gone(self) -> BufferNotFound:
        return BufferNotFound(
            f"buffer {self.buffer.name!r} is no longer the buffer that this store opened, because "
            f"it was deleted, or {self.buffer.database.url} has returned to an earlier state or "
            "was replaced (failover, restore): open the store again."
        )

    # -- logical time and ids ---------------------------------------------------------------------

    def tick(self, *, again: bool = False) -> int:
        """Return the logical time of the transaction.

        It is later than the logical time of each transaction whose changes this transaction can
        see, independent of the clocks of the hosts. A caller that writes it into a row must also
        call `count`, which stores it for later transactions.

        Args:
            again: Read it from the database again, because a later statement of this transaction
                may have seen newer changes.

        Source:
            Lamport 1978.
        """
        if again or self.buffer.buffer_id not in self._ticks:
            self.reach(self.execute(queries.buffers.next_tick()).scalar_one())
        return self._ticks[self.buffer.buffer_id]

    def reach(self, tick: int) -> None:
        """Move the logical time of the transaction forward to `tick`, returned by a statement.

        Raises:
            InvalidPayload: If `tick` is larger than any genuine logical time.
        """
        if not tick <= LARGEST_TICK:
            name = self.buffer.name
            raise tampered(
                f"the logical time of buffer {name!r} is stored as {shown(tick)}, more than the "
                f"largest possible one, {LARGEST_TICK}"
            )
        self._ticks[self.buffer.buffer_id] = max(self._ticks.get(self.buffer.buffer_id, 0), tick)

    @property
    def _ticks(self) -> dict[int, int]:
        """The logical time of the transaction by buffer id; empty when the transaction begins."""
        found = self._by_buffer
        if found is None:
            found = self._by_buffer = self.connection.info.setdefault("ticks", {})
        return found

    def note_ids(self) -> None:
        """Remember the newest rows, which later prove the ids that this transaction reads."""
        self.buffer.lineage.note(self.connection, self.backend)

    def require_ids(self, ids: Sequence[int]) -> None:
        """Check that ids given by the user still belong to the same samples.

        Raises:
            StaleIds: If the database has returned to an earlier state or was replaced, so that the
                ids may belong to other samples.
        """
        self.buffer.lineage.require(self.connection, self.backend, ids)

    # -- counters ---------------------------------------------------------------------------------

    def count(self, *, clock: float = 0.0, touched: float | None = None, **deltas: int) -> None:
        """Add to the counters of this worker, and move its clock and its tick forward.

        It is the last statement of a transaction: after it, the transaction locks no rows that
        other workers write.

        Args:
            clock: Largest key that this transaction has drawn.
            touched: Clock of the race at which a sample joined, a weight changed, or a sample left
                undrawn; None if none of these happened.
            deltas: Amounts to add, by counter.
        """
        self.buffer.heartbeat.start()
        parameters: dict[str, Any] = {
            **_NO_CHANGE,
            **{f"d_{name}": delta for name, delta in deltas.items()},
            "new_clock": clock,
            "new_tick": self._ticks.get(self.buffer.buffer_id, 0),
            "new_touched": touched,
            "worker": worker_id(),
        }
        if self.execute(queries.buffers.count(), **parameters).rowcount == 0:
            self.race_state()  # raises if the buffer is gone
            register(self.connection, self.backend, self.buffer.buffer_id, worker=worker_id())
            found = self.execute(queries.buffers.count(), **parameters).rowcount
            require_all(found, 1, "the counters of a worker were updated")
            self._store_key_name()

    def _store_key_name(self) -> None:
        """Store the name of the key function if the buffer, made by an older release, has none."""
        if self.buffer.key_name is not None:
            self.execute(queries.buffers.name_key(), key_name=self.buffer.key_name)


def _has_rows(columns: Columns) -> bool:
    return any(len(column) for column in columns.values())


def _race_state(row: Any) -> RaceState:
    """Read the state of the race; raise ValueError or TypeError if a value is not a number."""
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
        objective=str(row.objective),
        has_budget=row.budget is not None,
        evict=row.evict,
    )


def _finite(number: Any) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{value} is not finite")
    return value

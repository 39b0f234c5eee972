"""One process's attachment to one buffer: what the modules that work on it share."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from sqlbuffer import statements
from sqlbuffer.database import Database
from sqlbuffer.dialect import Columns, Lock, Rows, now
from sqlbuffer.errors import (
    BufferNotFound,
    InvalidArgument,
    InvalidPayload,
    SettingsMismatch,
    listed,
    no_progress,
    numbers_of,
    printable,
    require_all,
    shown,
    tampered,
)
from sqlbuffer.heartbeat import Heartbeat
from sqlbuffer.lineage import Lineage
from sqlbuffer.names import LARGEST_INT, as_name, is_storable, require_choice, require_int
from sqlbuffer.race import (
    Floats,
    Weighting,
    exponentials,
    replayed_exponentials,
    weighting_from_settings,
    weighting_settings,
)
from sqlbuffer.schema import buffers
from sqlbuffer.watch import Watch
from sqlbuffer.workers import GRACE_S, LEDGER, register, worker_id

log = logging.getLogger(__name__)

_SEED_DIGITS = 1_000
_LARGEST_SEED = 10**_SEED_DIGITS - 1
"""Python neither writes nor reads an integer of more than some thousand digits."""


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


@dataclasses.dataclass(frozen=True)
class Settings:
    """What shapes the draws of a buffer: stored with it, the same for everybody."""

    mode: str
    seed: int
    weighting: Weighting

    def __post_init__(self) -> None:
        mode = require_choice(self.mode, 'mode must be "consume" or "replay"', ("consume", "replay"))
        rule = f"seed must be an integer of at most {_SEED_DIGITS} digits"
        seed = require_int(self.seed, rule, least=-_LARGEST_SEED, most=_LARGEST_SEED)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "seed", seed)


@dataclasses.dataclass(frozen=True)
class Attachment:
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
    """What the first worker stores of its key function, see `key_name`; None for who was not asked for one."""

    @property
    def consumes(self) -> bool:
        """True where a drawn sample leaves the pool."""
        return self.settings.mode == "consume"

    def apart(self, *, is_patient: bool = True) -> Attachment:
        """Return the same buffer on connections of its own and without a heartbeat, for a thread in the background.

        It leads to nothing of the user's: a thread that has it keeps no store, and no owner of a key, from being
        garbage.
        """
        return dataclasses.replace(
            self, database=self.database.sibling(is_patient=is_patient), key=None, heartbeat=Heartbeat()
        )

    @functools.cached_property
    def in_disposal(self) -> Attachment:
        """The same buffer for the thread that puts away what garbage leaves behind."""
        return self.apart(is_patient=False)  # one thread sees to the garbage of all databases

    def run(self, connection: sa.Connection, statement: Any, **parameters: Any) -> Any:
        """Execute a statement on this buffer."""
        return connection.execute(statement, {"buffer": self.buffer_id, **parameters})

    def rows(self, connection: sa.Connection, statement: Any, **parameters: Any) -> Sequence[Any]:
        """Execute a statement on this buffer; return its rows."""
        found: Sequence[Any] = self.run(connection, statement, **parameters).all()
        return found

    def run_with(self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, **more: Any) -> Any:
        """Execute a statement on this buffer with rows that travel with it."""
        return self.database.execute(connection, statement, rows, columns, buffer=self.buffer_id, **more)

    def run_each(self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, **more: Any) -> int:
        """Execute a statement on this buffer for each of the rows; return how many rows of the database it changed."""
        constants = {"buffer": self.buffer_id, **more}
        return self.database.dialect.execute_each(connection, statement, rows, columns, constants)

    def changed_by_each(
        self, connection: sa.Connection, statement: Any, rows: Rows, columns: Columns, **more: Any
    ) -> list[bool]:
        """Execute a statement on this buffer for each of the rows; tell which of them it found in the database."""
        return self.database.dialect.changed_by_each(
            connection, statement, rows, columns, {"buffer": self.buffer_id, **more}
        )

    def race(self, connection: sa.Connection, *, exclusive: bool = False) -> RaceState:
        """Lock the race until the transaction ends and return where it stands; shared, draws still move the clock."""
        self.database.dialect.lock(connection, self.buffer_id, {Lock.RACE: exclusive})
        return self.race_state(connection)

    def race_to_draw(self, connection: sa.Connection, *, alone: bool) -> RaceState:
        """Lock the race for a draw, which may be the only one under way, and return where it stands."""
        self.database.dialect.lock(connection, self.buffer_id, {Lock.RACE: False, Lock.DRAWS: alone})
        return self.race_state(connection)

    def race_to_join(self, connection: sa.Connection, state: RaceState) -> RaceState:
        """Wait until no draw is under way, hold others up until the transaction ends, and return where the race stands.

        What joins the race at a clock that a draw under way goes beyond would stand behind its samples' rivals. The
        caller has locked the race, has read `state` since, and has already locked the rows of `samples` that it writes:
        whoever waits here for another one of these transactions must not have what that one waits for.
        """
        if not self.database.dialect.writers_overlap:
            return state
        self.database.dialect.lock(connection, self.buffer_id, {Lock.DRAWS: True})
        return self.race_state(connection)

    def race_state(self, connection: sa.Connection) -> RaceState:
        """Return where the race stands, which others may move meanwhile.

        Raises:
            BufferNotFound: Where the buffer is not there any more, though another one may have its number.
        """
        row = self.own_row(connection, statements.race_state())
        if self.created_at not in (None, row.created_at):
            raise self._is_gone()
        with numbers_of(f"the race of buffer {self.name!r}"):
            base = None if row.base_score is None else _finite(row.base_score)
            top = None if row.top_score is None else float(row.top_score)
            most = None if row.max_size is None else int(row.max_size)
            state = RaceState(
                clock=_finite(row.clock),
                turn=int(row.turn),
                base=base,
                top_score=top,
                version=int(row.score_version),
                iteration=int(row.iteration),
                tick=int(row.tick),
                touched=_finite(row.touched),
                epoch=int(row.epoch),
                max_size=most,
            )
            if not 0 <= state.version <= LARGEST_INT:
                raise ValueError(f"score_version is {state.version}")
        self.reach(connection, state.tick)
        return state

    def own_row(self, connection: sa.Connection, statement: Any, **parameters: Any) -> Any:
        """Execute a statement that returns one row for the buffer.

        Raises:
            BufferNotFound: If there is no such row: the buffer is not there any more.
        """
        row = self.run(connection, statement, **parameters).one_or_none()
        if row is None:
            raise self._is_gone()
        return row

    def _is_gone(self) -> BufferNotFound:
        return BufferNotFound(
            f"buffer {self.name!r} as this store opened it is not in {self.database.url} any more, which has gone "
            "back to an earlier state or was replaced (failover, restore): open the store again."
        )

    def tick(self, connection: sa.Connection, *, again: bool = False) -> int:
        """Return the logical time of the transaction, read `again` where it may have seen newer changes since.

        It is later than that of every transaction whose changes this one could see (Lamport 1978), whatever the clocks
        of the hosts say. Who writes it into a row must also `count`, which stores it for those who come later.
        """
        if again or self.buffer_id not in _ticks(connection):
            self.reach(connection, self.run(connection, statements.next_tick()).scalar_one())
        return _ticks(connection)[self.buffer_id]

    def reach(self, connection: sa.Connection, tick: int) -> None:
        """Let the logical time of the transaction be at least `tick`, which one of its statements has found."""
        if not tick <= LARGEST_TICK:
            raise tampered(f"the logical time of buffer {self.name!r} is stored as {shown(tick)}, which none comes to")
        ticks = _ticks(connection)
        ticks[self.buffer_id] = max(ticks.get(self.buffer_id, 0), tick)

    def note_ids(self, connection: sa.Connection) -> None:
        """Remember what proves the numbers of samples that are read in this transaction."""
        self.lineage.note(connection, self.database.dialect)

    def require_ids(self, connection: sa.Connection, ids: Sequence[int]) -> None:
        """Prove that numbers given by the user mean the samples that they meant.

        Raises:
            StaleIds: Where they may not: the database has gone back to an earlier state, or was replaced.
        """
        self.lineage.require(connection, self.database.dialect, ids)

    def count(
        self, connection: sa.Connection, *, clock: float = 0.0, touched: float | None = None, **deltas: int
    ) -> None:
        """Add to this process's counters, and move its clock forward to `clock`, its tick to the transaction's.

        Args:
            connection: The transaction, which locks no rows of others after that.
            clock: Largest key that it has drawn.
            touched: Clock of the race at which it let a sample join, changed a weight, or took a sample out undrawn;
                None if it did none of these.
            deltas: What to add, by counter.
        """
        self.heartbeat.start()
        parameters: dict[str, Any] = {f"d_{name}": deltas.get(name, 0) for name in statements.COUNTERS}
        new_tick = _ticks(connection).get(self.buffer_id, 0)
        parameters |= {"new_clock": clock, "new_tick": new_tick, "new_touched": touched, "worker": worker_id()}
        if self.run(connection, statements.count(), **parameters).rowcount == 0:
            register(connection, self.database.dialect, self.buffer_id, worker=worker_id())
            found = self.run(connection, statements.count(), **parameters).rowcount
            require_all(found, 1, "a worker counted what it did")
            self._tell_key(connection)

    def _tell_key(self, connection: sa.Connection) -> None:
        """Store the name of the key function in a buffer of an older release, which has none: the first to write."""
        if self.key_name is not None:
            untold = sa.update(buffers).where(buffers.c.id == self.buffer_id, buffers.c.key.is_(None))
            connection.execute(untold.values(key=self.key_name))

    def variates(
        self, hashes: Iterable[bytes], requeues: Sequence[int], entries: Sequence[int], *, turn: int
    ) -> Floats:
        """Return the exponential variates with which samples join the race now."""
        try:
            flat = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(requeues), 16)
        except (TypeError, ValueError) as exc:
            raise tampered(f"a hash is stored that has not 16 bytes ({shown(exc)})") from exc
        try:
            again, number = np.asarray(requeues, dtype=np.int64), np.asarray(entries, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as exc:
            raise tampered(f"requeues or entries are stored as what is no number ({shown(exc)})") from exc
        if self.consumes:
            return exponentials(self.settings.seed, flat, turn=turn, requeues=again)
        return replayed_exponentials(self.settings.seed, flat, requeues=again, entries=number)

    def weights(self, scores: Floats, base: float | None) -> Floats:
        """Return (n,) weights of scores in which NaN stands for a score that is not finite: weight 0, never drawn."""
        known = ~np.isnan(scores)
        weights = np.zeros(len(scores)) if self.settings.weighting.needs_score else np.ones(len(scores))
        weights[known] = self.settings.weighting(scores[known], 0.0 if base is None else base)
        return weights


def _ticks(connection: sa.Connection) -> dict[int, int]:
    """Return the logical time of the transaction under way, by buffer; each transaction begins without."""
    ticks: dict[int, int] = connection.info.setdefault("ticks", {})
    return ticks


def _finite(number: Any) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{value} is not finite")
    return value


def attach(
    database: Database,
    name: str,
    settings: Settings,
    *,
    max_size: int | None = None,
    fresh: bool = False,
    **options: Any,
) -> Attachment:
    """Open a buffer, or create it; a fresh one under the next free name where that name is taken.

    A buffer that has no limit takes `max_size`.

    Raises:
        SettingsMismatch: Where it is stored with other settings.
    """
    name = require_name(name)
    key = key_name(options.get("key"))
    create = functools.partial(_create, database=database, settings=settings, max_size=max_size, key=key)
    if fresh:
        row = _create_fresh(database, name, create)
    else:
        row = database.read(functools.partial(_find, name=name)) or database.write(functools.partial(create, name=name))
    name = row.name
    stored = _settings(row)
    for field in dataclasses.fields(Settings):
        ours, theirs = getattr(settings, field.name), getattr(stored, field.name)
        if ours != theirs:
            raise SettingsMismatch(
                f"buffer {name!r} is stored with {field.name}={theirs!r}, but was opened with {field.name}={ours!r}: "
                f"open it with the stored value, or give another name."
            )
    if max_size is not None and row.max_size != max_size:
        _limit(database, row, max_size)
    if not isinstance(row.key, (str, type(None))):
        raise tampered(f"the key of buffer {name!r} is stored as {shown(row.key)}, no name")
    if row.key is not None and _are_other_keys(key, row.key):
        warnings.warn(
            f"buffer {name!r} was created with {_key_shown(row.key)}, but is opened with {_key_shown(key)}: samples "
            "that are one by the first may be two by the second, so give the same key= to every process.",
            stacklevel=3,
        )
    attachment = Attachment(database, row.id, name, stored, created_at=row.created_at, key_name=key, **options)
    database.read(attachment.note_ids)
    return attachment


def _limit(database: Database, row: Any, max_size: int) -> None:
    """Store `max_size` with a buffer that has no limit yet, as those of older releases.

    Raises:
        SettingsMismatch: If it has another one.
    """
    this = sa.update(buffers).where(buffers.c.id == row.id)
    most = sa.func.coalesce(buffers.c.max_size, max_size)
    given = this.values(max_size=most).returning(buffers.c.max_size)
    stored = database.write(lambda connection: connection.scalar(given))
    if stored not in (None, max_size):  # None: the buffer is gone, which its first use will say
        raise SettingsMismatch(
            f"buffer {row.name!r} is stored with max_size={shown(stored)}, but was opened with max_size={max_size!r}: "
            f"open it without max_size, which takes the stored value, or make a copy with another one "
            f"(store.copy(name, max_size={max_size!r}))."
        )


def key_name(key: Callable[[Any], Any] | None) -> str:
    """Return what is stored of a key function: its module and name, "" for none, "?" for one without a name."""
    if key is None:
        return ""
    name = getattr(key, "__qualname__", None)
    module = getattr(key, "__module__", None) or getattr(getattr(key, "__objclass__", None), "__module__", None)
    if not isinstance(name, str) or name.endswith("<lambda>") or not is_storable(name):
        return "?"
    module = "__main__" if module == "__mp_main__" else module  # a spawned process calls the script so
    return f"{module}.{name}" if isinstance(module, str) and is_storable(module) else name


def _are_other_keys(ours: str, theirs: str) -> bool:
    """Tell whether two names are those of different key functions: known only where both have names."""
    if ours == theirs:
        return False
    if "?" in (ours, theirs):
        return "" in (ours, theirs)
    # A function of a script belongs to the module __main__ there, and to that of the file elsewhere.
    for script, other in ((ours, theirs), (theirs, ours)):
        name = script.removeprefix("__main__.")
        if name != script and other.endswith(f".{name}"):
            return False
    return True


def _key_shown(name: str) -> str:
    return {"": "no key=", "?": "a key= without a name"}.get(name, f"key={printable(name)}")


def require_name(name: Any) -> str:
    """Return the name of a buffer, or refuse what is none."""
    if not (found := as_name(name, "the name of a buffer")):
        raise InvalidArgument("a buffer needs a name, got ''.")
    return found


def attach_existing(database: Database, name: str, **options: Any) -> Attachment:
    """Open a buffer with the settings it is stored with.

    Raises:
        BufferNotFound: Where there is none of that name.
    """
    row = database.read(functools.partial(_find, name=as_name(name, "the name of a buffer")))
    if row is None:
        names = listed(map(repr, database.read(_names)))
        raise BufferNotFound(f"no buffer {name!r} in {database.url}: it has {names}.")
    return Attachment(database, row.id, name, _settings(row), created_at=row.created_at, **options)


def _settings(row: Any) -> Settings:
    """Read what is stored with a buffer."""
    try:
        return Settings(row.mode, int(row.seed), weighting_from_settings(row.settings["weighting"]))
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise InvalidPayload(
            f"buffer {row.name!r} is stored with settings that make no sense ({shown(exc)}): somebody else has changed "
            "its row in `buffers`; set it right, or restore a copy."
        ) from exc


def _create_fresh(database: Database, name: str, create: Callable[..., Any]) -> Any:
    """Create a buffer under the first of `name`, `name-2`, `name-3` ... that is free."""
    row, found, wanted = None, None, name
    while row is None:
        taken = set(database.read(_names))
        if found is not None and found not in taken:
            raise no_progress("the search for a free name")
        names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
        found = name = next(each for each in names if each not in taken)
        row = database.write(functools.partial(create, name=name, only_new=True))
    log.info("a new buffer, %r, in %s", name, printable(database.url))
    return row


def _names(connection: sa.Connection) -> Sequence[str]:
    return connection.scalars(sa.select(buffers.c.name)).all()


def _find(connection: sa.Connection, *, name: str) -> Any:
    return connection.execute(sa.select(buffers).where(buffers.c.name == name)).one_or_none()


def _create(
    connection: sa.Connection,
    *,
    database: Database,
    name: str,
    settings: Settings,
    max_size: int | None,
    key: str,
    only_new: bool = False,
) -> Any:
    """Create a buffer, unless there is one by now, and return it; None where it is not new and had to be."""
    insert = database.dialect.upsert(buffers).values(
        name=name,
        kind=settings.weighting.name,
        mode=settings.mode,
        seed=str(settings.seed),
        score_version=0,
        refresh_version=0,
        refreshed_version=0,
        settings={"weighting": weighting_settings(settings.weighting)},
        created_at=now(),
        key=key,
        max_size=max_size,
    )
    created = connection.scalar(insert.on_conflict_do_nothing(index_elements=["name"]).returning(buffers.c.id))
    if created is not None:
        register(connection, database.dialect, created, worker=LEDGER)
    return None if only_new and created is None else _find(connection, name=name)

"""One process's handle on one buffer: its identity, its settings and its transactions."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import itertools
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from sqlbuffer._integrity import no_progress, tampered
from sqlbuffer._messages import listed, printable, shown
from sqlbuffer._validation import as_name, is_storable
from sqlbuffer.core.heartbeat import Heartbeat
from sqlbuffer.core.lineage import Lineage
from sqlbuffer.core.race import weighting_from_settings, weighting_settings
from sqlbuffer.core.settings import Settings
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.watch import Watch
from sqlbuffer.core.workers import GRACE_S, LEDGER, register
from sqlbuffer.db.backends import now
from sqlbuffer.db.database import Database
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import BufferNotFound, InvalidArgument, InvalidPayload, SettingsMismatch

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


def attach(
    database: Database,
    name: str,
    settings: Settings,
    *,
    max_size: int | None = None,
    fresh: bool = False,
    **options: Any,
) -> BufferHandle:
    """Open a buffer, or create it; a fresh one under the next free name where that name is taken.

    A buffer that has no limit takes `max_size`.

    Raises:
        SettingsMismatch: Where it is stored with other settings.
    """
    name = require_name(name)
    key = key_name(options.get("key"))
    create = functools.partial(
        _create, database=database, settings=settings, max_size=max_size, key=key
    )
    if fresh:
        row = _create_fresh(database, name, create)
    else:
        row = database.read(functools.partial(_find, name=name)) or database.write(
            functools.partial(create, name=name)
        )
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
            f"buffer {name!r} was created with {_key_shown(row.key)}, but is opened with "
            f"{_key_shown(key)}: the two keys may disagree on which samples are equal, so give "
            "the same key= to every process.",
            stacklevel=3,
        )
    buffer = BufferHandle(
        database, row.id, name, stored, created_at=row.created_at, key_name=key, **options
    )
    buffer.read(Transaction.note_ids)
    return buffer


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
    module = getattr(key, "__module__", None) or getattr(
        getattr(key, "__objclass__", None), "__module__", None
    )
    if not isinstance(name, str) or name.endswith("<lambda>") or not is_storable(name):
        return "?"
    module = (
        "__main__" if module == "__mp_main__" else module
    )  # a spawned process calls the script so
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


def attach_existing(database: Database, name: str, **options: Any) -> BufferHandle:
    """Open a buffer with the settings it is stored with.

    Raises:
        BufferNotFound: Where there is none of that name.
    """
    row = database.read(functools.partial(_find, name=as_name(name, "the name of a buffer")))
    if row is None:
        names = listed(map(repr, database.read(_names)))
        raise BufferNotFound(f"no buffer {name!r} in {database.url}: it has {names}.")
    return BufferHandle(
        database, row.id, name, _settings(row), created_at=row.created_at, **options
    )


def _settings(row: Any) -> Settings:
    """Read what is stored with a buffer."""
    try:
        return Settings(row.mode, int(row.seed), weighting_from_settings(row.settings["weighting"]))
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise InvalidPayload(
            f"buffer {row.name!r} is stored with invalid settings ({shown(exc)}): its row in "
            "`buffers` is corrupt or was edited; fix the row, or restore a backup."
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
    created = connection.scalar(
        insert.on_conflict_do_nothing(index_elements=["name"]).returning(buffers.c.id)
    )
    if created is not None:
        register(connection, database.dialect, created, worker=LEDGER)
    return None if only_new and created is None else _find(connection, name=name)

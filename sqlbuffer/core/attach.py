"""Open a buffer of a database, or create it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer._integrity import no_progress, tampered
from sqlbuffer._messages import listed, printable, shown
from sqlbuffer._validation import as_name, is_storable
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.settings import DIRECTIONS, Settings
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weighting import weighting_from_settings, weighting_settings
from sqlbuffer.core.workers import LEDGER, register
from sqlbuffer.db import queries
from sqlbuffer.db.database import Database
from sqlbuffer.errors import BufferNotFound, InvalidArgument, InvalidPayload, SettingsMismatch

log = logging.getLogger(__name__)


def attach(
    database: Database,
    name: str,
    settings: Settings,
    *,
    max_size: int | None = None,
    direction: str | None = None,
    evict: str | None = None,
    fresh: bool = False,
    **options: Any,
) -> BufferHandle:
    """Open a buffer, or create it.

    Args:
        database: The database.
        name: Name of the buffer.
        settings: Settings of a new buffer; a stored buffer must have the same.
        max_size: Largest number of scored samples that may wait, None for any number; stored if the
            buffer has no limit yet.
        direction: "maximize" or "minimize"; None takes the stored one, "maximize" for a new buffer.
        evict: Samples that leave beyond `max_size`: "lightest" or "oldest"; None for the stored
            value, "lightest" in a new buffer.
        fresh: Create a new buffer, under the next free name if `name` is taken.
        options: Further fields of the handle.

    Raises:
        SettingsMismatch: If the buffer is stored with other settings, another limit, another
            direction, or another value of `evict`.
        InvalidPayload: If the stored settings or the stored name of the key are corrupt.
    """
    name = require_name(name)
    key = key_name(options.get("key"))
    create = functools.partial(
        _create,
        database=database,
        settings=settings,
        max_size=max_size,
        direction=direction or DIRECTIONS[0],
        evict=evict,
        key=key,
    )
    if fresh:
        row = _create_fresh(database, name, create)
    else:
        row = database.read(functools.partial(_find, name=name)) or database.write(
            functools.partial(create, name=name)
        )
    name = row.name
    stored = _settings(row)
    _require_same(name, settings, stored)
    _require_direction(row, direction)
    if evict is not None and row.evict != evict:
        raise _other_limit(row, "evict", stored=row.evict, given=evict)
    if max_size is not None and row.max_size != max_size:
        _limit(database, row, max_size)
    if not isinstance(row.key, (str, type(None))):
        raise tampered(
            f"the key of buffer {name!r} is stored as {shown(row.key)}, which is not a name"
        )
    if row.key is not None and _are_other_keys(key, row.key):
        warnings.warn(
            f"buffer {name!r} was created with {_key_shown(row.key)}, but is opened with "
            f"{_key_shown(key)}: the two keys may disagree on which samples are equal, so give "
            "the same key= to every process.",
            stacklevel=3,
        )
    buffer = _handle(database, row, stored, key_name=key, **options)
    buffer.read(Transaction.note_ids)
    return buffer


def _require_same(name: str, settings: Settings, stored: Settings) -> None:
    """Refuse settings that differ from the stored ones."""
    for field in dataclasses.fields(Settings):
        ours, theirs = getattr(settings, field.name), getattr(stored, field.name)
        if ours != theirs:
            raise SettingsMismatch(
                f"buffer {name!r} is stored with {field.name}={theirs!r}, but was opened with "
                f"{field.name}={ours!r}: open it with the stored value, or give another name."
            )


def _require_direction(row: Any, direction: str | None) -> None:
    """Refuse a direction that was given and is not the stored one."""
    stored = _direction(row)
    if direction not in (None, stored):
        raise SettingsMismatch(
            f"buffer {row.name!r} is stored with direction={stored!r}, but was opened with "
            f"direction={direction!r}: open it without direction, which takes the stored value, or "
            "give another name."
        )


def _direction(row: Any) -> str:
    """Read the stored direction of a buffer."""
    if row.direction not in DIRECTIONS:
        raise tampered(
            f"the direction of buffer {row.name!r} is stored as {shown(row.direction)}, which is "
            "neither 'maximize' nor 'minimize'"
        )
    return str(row.direction)


def _limit(database: Database, row: Any, max_size: int) -> None:
    """Store `max_size` in a buffer without a limit, for instance one of an older release.

    Raises:
        SettingsMismatch: If the buffer has another limit.
    """
    given = {"buffer": row.id, "most": max_size}
    stored = database.write(
        lambda connection: connection.scalar(queries.buffers.limit_size(), given)
    )
    if stored not in (None, max_size):  # None: the buffer is gone, its first use raises
        raise _other_limit(row, "max_size", stored=stored, given=max_size)


def _other_limit(row: Any, name: str, *, stored: Any, given: Any) -> SettingsMismatch:
    return SettingsMismatch(
        f"buffer {row.name!r} is stored with {name}={shown(stored)}, but was opened with "
        f"{name}={given!r}: open it without {name}, which takes the stored value, or make a copy "
        f"with another one (store.copy(name, {name}={given!r}))."
    )


def key_name(key: Callable[[Any], Any] | None) -> str:
    """Return the stored name of a key function: module and name.

    It is "" without a key function, and "?" for a function without a name, such as a lambda.
    """
    if key is None:
        return ""
    name = getattr(key, "__qualname__", None)
    module = getattr(key, "__module__", None) or getattr(
        getattr(key, "__objclass__", None), "__module__", None
    )
    if not isinstance(name, str) or name.endswith("<lambda>") or not is_storable(name):
        return "?"
    if module == "__mp_main__":  # the name of the script in a spawned process
        module = "__main__"
    return f"{module}.{name}" if isinstance(module, str) and is_storable(module) else name


def _are_other_keys(ours: str, theirs: str) -> bool:
    """Tell whether two stored names belong to different key functions, as far as names show it."""
    if ours == theirs:
        return False
    if "?" in (ours, theirs):
        return "" in (ours, theirs)
    # The module of a function is __main__ in its script, and the name of the file elsewhere.
    for script, other in ((ours, theirs), (theirs, ours)):
        name = script.removeprefix("__main__.")
        if name != script and other.endswith(f".{name}"):
            return False
    return True


def _key_shown(name: str) -> str:
    return {"": "no key=", "?": "a key= without a name"}.get(name, f"key={printable(name)}")


def require_name(name: Any) -> str:
    """Return the name of a buffer.

    Raises:
        InvalidArgument: If it is empty, or cannot be stored.
    """
    if not (found := as_name(name, "the name of a buffer")):
        raise InvalidArgument("a buffer needs a name, got ''.")
    return found


def attach_existing(database: Database, name: str, **options: Any) -> BufferHandle:
    """Open a buffer with its stored settings.

    Raises:
        BufferNotFound: If the database has no buffer of this name.
        InvalidPayload: If the stored settings are corrupt.
    """
    row = database.read(functools.partial(_find, name=as_name(name, "the name of a buffer")))
    if row is None:
        names = listed(map(repr, database.read(_names)))
        raise BufferNotFound(f"no buffer {name!r} in {database.url}: it has {names}.")
    return _handle(database, row, _settings(row), **options)


def _handle(database: Database, row: Any, settings: Settings, **options: Any) -> BufferHandle:
    """Return a handle on the buffer of a row of `buffers`."""
    return BufferHandle(
        database,
        row.id,
        row.name,
        settings,
        created_at=row.created_at,
        direction=_direction(row),
        **options,
    )


def _settings(row: Any) -> Settings:
    """Read the stored settings of a buffer."""
    try:
        return Settings(row.mode, int(row.seed), weighting_from_settings(row.settings["weighting"]))
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise InvalidPayload(
            f"buffer {row.name!r} is stored with invalid settings ({shown(exc)}): its row in "
            "`buffers` is corrupt or was edited; fix the row, or restore a backup."
        ) from exc


def _create_fresh(database: Database, name: str, create: Callable[..., Any]) -> Any:
    """Create a buffer under the first free name of `name`, `name-2`, `name-3` ..."""
    row, found, wanted = None, None, name
    while row is None:
        taken = set(database.read(_names))
        if found is not None and found not in taken:
            raise no_progress("the search for a free name")
        names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
        found = name = next(each for each in names if each not in taken)
        row = database.write(functools.partial(create, name=name, only_new=True))
    log.info("created buffer %r in %s", name, printable(database.url))
    return row


def _names(connection: sa.Connection) -> Sequence[str]:
    return connection.scalars(queries.buffers.buffer_names()).all()


def _find(connection: sa.Connection, *, name: str) -> Any:
    return connection.execute(queries.buffers.buffer_named(), {"name": name}).one_or_none()


def _create(
    connection: sa.Connection,
    *,
    database: Database,
    name: str,
    settings: Settings,
    max_size: int | None,
    direction: str,
    evict: str | None,
    key: str,
    only_new: bool = False,
) -> Any:
    """Create a buffer and return its row; if another process was first, return the other row.

    With `only_new`, return None if another process was first.
    """
    new = {
        "name": name,
        "kind": settings.weighting.name,
        "mode": settings.mode,
        "seed": str(settings.seed),
        "settings": {"weighting": weighting_settings(settings.weighting)},
        "key": key,
        "max_size": max_size,
        "direction": direction,
        "evict": "lightest" if evict is None else evict,
    }
    created = connection.scalar(queries.buffers.insert_buffer(database.dialect), new)
    if created is not None:
        register(connection, database.dialect, created, worker=LEDGER)
    return None if only_new and created is None else _find(connection, name=name)

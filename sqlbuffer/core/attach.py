"""Open a buffer of a database, or create it."""

from __future__ import annotations

import functools
import itertools
import logging
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer._integrity import no_progress, tampered
from sqlbuffer._messages import listed, printable, shown
from sqlbuffer._validation import as_name, is_storable
from sqlbuffer.core import stored_settings
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import LEDGER, register
from sqlbuffer.db import queries
from sqlbuffer.db.database import Database
from sqlbuffer.errors import BufferNotFound, InvalidArgument

log = logging.getLogger(__name__)


def attach(
    database: Database,
    name: str,
    given: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    fresh: bool = False,
    create: bool = True,
    **options: Any,
) -> BufferHandle:
    """Open a buffer, or create it.

    Args:
        database: The database.
        name: Name of the buffer.
        given: The settings that were given, see `stored_settings.as_given`. A stored buffer must
            have the same values.
        defaults: Settings of a new buffer if they were not given.
        fresh: Create a new buffer, under the next free name if `name` is taken.
        create: Create a buffer that does not exist.
        options: Further fields of the handle.

    Raises:
        BufferNotFound: If the buffer does not exist, and is not to be created.
        SettingsMismatch: If a setting is stored with another value than the given one.
        InvalidPayload: If the stored settings or the stored name of the key are corrupt.
    """
    name = require_name(name)
    key = key_name(options.get("key"))
    columns = {**stored_settings.columns_of_new({**(defaults or {}), **given}), "key": key}
    new = functools.partial(_create, database=database, columns=columns)
    if fresh:
        row = _create_fresh(database, name, new)
    elif create:
        row = database.read(functools.partial(_find, name=name)) or database.write(
            functools.partial(new, name=name)
        )
    else:
        row = _existing(database, name)
    if not isinstance(row.key, (str, type(None))):
        raise tampered(
            f"the key of buffer {row.name!r} is stored as {shown(row.key)}, which is not a name"
        )
    caution = _caution(row, key)
    if database.is_read_only:  # nothing is added: only a look-up by sample needs the key
        options["key_caution"] = caution
    buffer = _handle(database, row, key_name=key, **options)
    stored_settings.reconcile(buffer, row, given)
    if caution is not None and not database.is_read_only:
        warnings.warn(caution, stacklevel=4)
    buffer.peek(Transaction.note_ids)
    return buffer


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


def _caution(row: Any, key: str) -> str | None:
    """Return the warning of a buffer that is opened with another key than its own, or without."""
    if row.key is None or not _are_other_keys(key, row.key):
        return None
    return (
        f"buffer {row.name!r} was created with {key_shown(row.key)}, but is opened with "
        f"{key_shown(key)}: the two keys may disagree on which samples are equal, so give the same "
        "key= to every process."
    )


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


def key_shown(name: str) -> str:
    """Return a stored name of a key function for a message, as the option `--key` takes it."""
    if name in _NAMELESS:
        return _NAMELESS[name]
    if "<locals>" in name:  # no option can give it
        return f"key={printable(name)}"
    module, _, function = name.rpartition(".")
    if module == "__main__":
        return f"key={printable(function)} of a script"
    package, _, last = module.rpartition(".")
    if isinstance(getattr(sys.modules.get(package), last, None), type):
        module = package  # a method, whose class is no part of the module's name
    separator = ":" if module else ""
    return f"key={printable(module + separator + name[len(module) :].removeprefix('.'))}"


_NAMELESS = {"": "no key=", "?": "a key= without a name"}


def require_name(name: Any) -> str:
    """Return the name of a buffer.

    Raises:
        InvalidArgument: If it is empty, cannot be stored, looks like a URL, or is the name of an
            unfinished copy.
    """
    if not (found := as_name(name, "the name of a buffer")):
        raise InvalidArgument("a buffer needs a name, got ''.")
    _refuse_url(found)
    _refuse_unfinished(found)
    return found


def _refuse_url(name: str) -> None:
    if found := re.match(r"\s*[A-Za-z][\w+.-]*://", name):  # the rest may hold a password
        raise InvalidArgument(
            f"{found[0].strip() + '...'!r} is the URL of a database, not the name of a buffer: "
            "give a name; `sqlbuffer copy NAME --to-url URL` and `store.copy(to_url=)` copy a "
            "buffer into another database."
        )


def _refuse_unfinished(name: str) -> None:
    if name.startswith(queries.buffers.UNFINISHED):
        raise InvalidArgument(
            f"{name!r} is the name of a copy that did not come to its end, which cannot be opened: "
            "run the copy again, which goes on with it, or delete it with `sqlbuffer rm`."
        )


def attach_existing(
    database: Database, name: str, *, may_be_unfinished: bool = False, **options: Any
) -> BufferHandle:
    """Open a buffer with its stored settings.

    Args:
        database: The database.
        name: Name of the buffer.
        may_be_unfinished: Open an unfinished copy too.
        options: Further fields of the handle.

    Raises:
        BufferNotFound: If the database has no buffer of this name.
        InvalidArgument: If it is an unfinished copy.
        InvalidPayload: If the stored settings are corrupt.
    """
    name = as_name(name, "the name of a buffer")
    if not may_be_unfinished:
        _refuse_unfinished(name)
    return _handle(database, _existing(database, name), **options)


def attach_all(database: Database, **options: Any) -> list[BufferHandle]:
    """Open all buffers with their stored settings, in the order of their creation.

    Unfinished copies are left out.

    Args:
        database: The database.
        options: Further fields of the handles.

    Raises:
        InvalidPayload: If stored settings are corrupt.
    """
    rows = database.look(lambda connection: connection.execute(queries.buffers.finished()).all())
    return [_handle(database, row, **options) for row in rows]


def _existing(database: Database, name: str) -> Any:
    """Return the row of a buffer."""
    row = database.look(functools.partial(_find, name=name))
    if row is None:
        _refuse_url(name)
        names = listed(map(repr, database.read(_names)))
        raise BufferNotFound(f"no buffer {name!r} in {database.url}: it has {names}.")
    return row


def _handle(database: Database, row: Any, **options: Any) -> BufferHandle:
    """Return a handle on the buffer of a row of `buffers`."""
    return BufferHandle(
        database,
        row.id,
        row.name,
        stored_settings.read_shape(row),
        created_at=row.created_at,
        direction=stored_settings.read_direction(row),
        keep_key=bool(row.keep_key),
        **options,
    )


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
    columns: Mapping[str, Any],
    only_new: bool = False,
) -> Any:
    """Create a buffer and return its row; if another process was first, return the other row.

    With `only_new`, return None if another process was first.
    """
    created = connection.scalar(
        queries.buffers.insert_buffer(database.dialect), {**columns, "name": name}
    )
    if created is not None:
        register(connection, database.dialect, created, worker=LEDGER)
    return None if only_new and created is None else _find(connection, name=name)

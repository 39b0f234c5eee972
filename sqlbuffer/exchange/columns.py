"""The columns of `store.table`: their names, their types, and the columns that a user asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlbuffer._messages import shown
from sqlbuffer._validation import as_list
from sqlbuffer.core.conditions import META, OLD_NAMES, key_of_meta, warn_of_old
from sqlbuffer.errors import InvalidArgument


class Column(NamedTuple):
    """A column: the name of its type, as pyarrow has it, and whether a value may be missing."""

    type: str
    may_be_missing: bool = True


COLUMNS = {
    "sample_id": Column("int64", may_be_missing=False),
    "sample": Column("string", may_be_missing=False),
    "key": Column("string"),
    "source": Column("string", may_be_missing=False),
    "state": Column("string", may_be_missing=False),
    "score": Column("float64"),
    "score_version": Column("int64"),
    "reward": Column("float64"),
    "objective": Column("string"),
    "error": Column("string"),
    "attempts": Column("int64", may_be_missing=False),
    "seconds": Column("float64"),
    "drawn": Column("int64", may_be_missing=False),
    "created_iteration": Column("int64", may_be_missing=False),
    "measured_iteration": Column("int64"),
    "worker_id": Column("string"),
    "created_at": Column("timestamp", may_be_missing=False),
    "scored_at": Column("timestamp"),
    "measured_at": Column("timestamp"),
    "meta": Column("string"),
}
"""The columns of a table if no others are asked for."""

MORE_COLUMNS = {
    "details": Column("string"),
    "queued": Column("bool_", may_be_missing=False),
    "requeues": Column("int64", may_be_missing=False),
    "hash": Column("binary", may_be_missing=False),
    "payload": Column("binary"),
    "codec": Column("string", may_be_missing=False),
}
"""Columns that a table has if they are asked for."""

JSON = ("meta", "details")
"""Columns with JSON, which readers of chunks get as values of Python."""

WITH_OLD_NAMES = (*COLUMNS, "id", "text", "rewarded_at", "queued", "requeues")
"""The columns of `to_pandas` and `to_arrow` if no others are asked for, until 1.0."""


_NAME = re.compile(r'meta\."(?:[^"]|"")+"(?=,|\Z)|[^,]*', re.DOTALL)


def column_of(name: str) -> Column:
    """Return the column of this name; one of the metas has no type yet."""
    name = OLD_NAMES.get(name, name)
    return (COLUMNS | MORE_COLUMNS).get(name, Column(""))


def as_columns(columns: Any) -> list[str]:
    """Return the names of the columns that a user asks for; all of `COLUMNS` for None.

    `meta."batch no"` is the column `meta.batch no`: a condition in SQL needs the quotes.

    Raises:
        InvalidArgument: If there is no such column, or a name comes twice.
    """
    if columns is None:
        return list(COLUMNS)
    names = as_list(columns, "columns")
    for name in names:
        _require_known(name)
    names = [META + key_of_meta(name) if name.startswith(META) else str(name) for name in names]
    if not names or len(set(names)) < len(names):
        raise InvalidArgument(
            f"columns must be names of columns, each once, or None; got {shown(names)}."
        )
    warn_of_old(names)
    return names


def names_in(text: str) -> list[str]:
    """Return the names of columns that commas separate; `meta."a,b"` is one name."""
    names: list[str] = []
    at = 0
    while at <= len(text):
        found = _NAME.match(text, at)
        name = "" if found is None else found[0]
        names.append(name)
        at += len(name) + 1
    return names


def _require_known(name: Any) -> None:
    known: Sequence[str] = [*COLUMNS, *MORE_COLUMNS]
    is_known = isinstance(name, str) and (
        name in known or name in OLD_NAMES or (len(name) > len(META) and name.startswith(META))
    )
    if not is_known:
        raise InvalidArgument(
            f"there is no column {shown(name)}: columns are {', '.join(known)}, and meta.NAME "
            "for a value of the metas."
        )

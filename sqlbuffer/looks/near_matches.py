"""Names near to one that the database does not know: tables, views and their columns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from sqlbuffer._messages import shown
from sqlbuffer.db.schema import metadata
from sqlbuffer.db.views import views

_LIST = "`sqlbuffer sql --help` and docs/schema.md list all"


def explain(kind: str, name: str, sql: str) -> str:
    """Return one sentence about a name that is unknown, with the known names near to it.

    Args:
        kind: "table" or "column".
        name: The name, with or without the name of its table.
        sql: The SQL that has used it.
    """
    name = name.rpartition(".")[2]
    relations = [*views.tables.values(), *metadata.tables.values()]
    if kind == "table" and name.lower() in {relation.name for relation in relations}:
        return (
            f"the database has no table {shown(name)} that this role may see: `sqlbuffer db "
            "upgrade` creates it, and `sqlbuffer db grants --reader ROLE` prints the rights that a "
            "role needs."
        )
    if kind == "table":
        near = _near(name, (relation.name for relation in relations))
    else:
        used = [each for each in relations if re.search(rf"\b{each.name}\b", sql, re.IGNORECASE)]
        near = _near(name, (column.name for each in used for column in each.columns))
        near = near or list(_elsewhere(name, relations))
    of_these = f" (near to it: {', '.join(near)})" if near else ""
    return f"the database has no {kind} {shown(name)}{of_these}: {_LIST}."


def _near(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name.lower(), dict.fromkeys(known))


def _elsewhere(name: str, relations: Iterable[sa.Table]) -> Iterator[str]:
    """Yield the views and tables that have the column."""
    return (f"{each.name}.{name.lower()}" for each in relations if name.lower() in each.columns)

"""Rows of a view, narrowed by (column, operator, value), sorted, a page at a time."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer._messages import shown
from sqlbuffer.core.conditions import OPERATORS, Compared, condition_on, type_of
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db.queries import pages
from sqlbuffer.db.views import views
from sqlbuffer.errors import InvalidArgument

MISSING, PRESENT = "is missing", "is there"
"""Operators without a value."""

WORDS = ("=", "!=", "<", "<=", ">", ">=", "like", "in", "not in", MISSING, PRESENT)
"""The operators of a filter."""

_FLAGS = {"true": True, "false": False, "1": True, "0": False}


@dataclasses.dataclass(frozen=True)
class Filter:
    """A condition as text, as it stands in the URL of a page."""

    column: str
    operator: str
    value: str = ""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A view as a page shows it.

    Attributes:
        view: Name of the view.
        columns: The columns that it shows, in this order; the first one identifies a row.
        is_keyed: The first column is a number that no other row of any buffer has.
    """

    view: str
    columns: Sequence[str]
    is_keyed: bool = True

    @property
    def key(self) -> str:
        """Name of the column that identifies a row."""
        return self.columns[0]


@dataclasses.dataclass(frozen=True)
class Page:
    """Rows of a view, and the SQL that returns them.

    Attributes:
        rows: The rows as dicts.
        has_more: There are rows after these.
        sql: The SQL, with its values, which `sqlbuffer sql` takes.
    """

    rows: list[dict[str, Any]]
    has_more: bool
    sql: str


def find_rows(
    tx: Transaction,
    kind: Kind,
    filters: Sequence[Filter] = (),
    *,
    sort: str | None = None,
    is_descending: bool = True,
    limit: int = 50,
    offset: int = 0,
) -> Page:
    """Return rows of a view of the buffer.

    Args:
        tx: The transaction.
        kind: The view.
        filters: Conditions, all of which hold.
        sort: The column to sort by; None for the column that identifies a row.
        is_descending: Begin with the largest value.
        limit: Most rows.
        offset: Rows to leave out before them.

    Raises:
        InvalidArgument: If a filter is no condition, or there is no such column.
    """
    view = views.tables[kind.view]
    own = pages.columns_of(view)
    known = comparable(kind)
    conditions = [as_condition(known, each) for each in filters]
    if sort is not None and sort not in known:
        raise InvalidArgument(f"rows can be sorted by {', '.join(known)}; got {shown(sort)}.")
    order = [own[name] for name in dict.fromkeys((sort or kind.key, kind.key))]
    first, *then = (each.desc() if is_descending else each.asc() for each in order)
    if sort == "reward":  # an index has the rewards that are there
        conditions.append(own["reward"].is_not(None))
    elif sort not in (None, kind.key):
        first = first.nulls_last()  # SQLite sorts NULL first, PostgreSQL last
    statement = pages.rows_of_view(
        view,
        kind.columns,
        conditions,
        [first, *then],
        buffer=tx.buffer.name,
        key=kind.key if kind.is_keyed else None,
        goes_by_key=sort in (None, kind.key),
    )
    found = tx.execute(statement, limit=limit + 1, offset=offset).mappings().all()
    return Page(
        [dict(row) for row in found[:limit]],
        len(found) > limit,
        as_sql(statement.params(limit=limit, offset=offset), tx),
    )


def comparable(kind: Kind) -> dict[str, Compared]:
    """Return the columns of a view that filters may use, by name."""
    own = pages.columns_of(views.tables[kind.view])
    found = {name: Compared(own[name], type_of(own[name].type)) for name in kind.columns}
    return {name: each for name, each in found.items() if each.type not in ("", "binary")}


def as_condition(known: dict[str, Compared], given: Filter) -> sa.ColumnElement[bool]:
    """Return a filter as a condition.

    Raises:
        InvalidArgument: If it is none.
    """
    name, word, text = given.column, given.operator, given.value
    if word in (MISSING, PRESENT):
        return condition_on(known, (name, "=" if word == MISSING else "!=", None))
    if name not in known or word not in OPERATORS:
        return condition_on(known, (name, word, text))  # raises
    kind = known[name].type
    if word in ("in", "not in"):
        return condition_on(
            known, (name, word, [_value(name, kind, each.strip()) for each in text.split(",")])
        )
    if word == "like" and kind != "string":
        raise InvalidArgument(f"{name} is no text, so like cannot compare it: use =, < or >.")
    return condition_on(known, (name, word, _value(name, kind, text)))


def _value(name: str, kind: str, text: str) -> Any:
    """Return the value that a text means for a column of a type."""
    try:
        if kind == "bool_":
            return _FLAGS[text.lower()]
        if kind == "int64":
            return int(text)
        if kind == "float64":
            return float(text)
        if kind == "timestamp":
            at = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
            return at if at.tzinfo is not None else at.replace(tzinfo=dt.timezone.utc)
    except (ValueError, KeyError) as exc:
        words = {
            "bool_": "true or false",
            "int64": "a whole number",
            "float64": "a number",
            "timestamp": "a time such as 2026-01-31 or 2026-01-31T12:00",
        }
        raise InvalidArgument(f"{name} is compared with {words[kind]}; got {shown(text)}.") from exc
    return text


def as_sql(statement: sa.Select[Any], tx: Transaction) -> str:
    """Return a statement with its values as SQL that a person can run."""
    compiled = statement.compile(
        dialect=tx.connection.dialect, compile_kwargs={"literal_binds": True}
    )
    return str(compiled)

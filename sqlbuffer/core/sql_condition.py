"""A condition that a user writes as SQL: the names in it, and the values of the metas.

The database has no column `meta.mw`, and its value has no type of SQL. The text therefore names a
column that the statement makes of the meta, of the type that the condition takes it for.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer.core.meta_values import Form, Path, value_of_meta
from sqlbuffer.core.sql_times import stored_form
from sqlbuffer.core.sql_tokens import Token, tokens_of
from sqlbuffer.core.sql_types import Types
from sqlbuffer.core.sql_values import Group, Value, shown_sql
from sqlbuffer.db.backends import Dialect
from sqlbuffer.db.backends.types import Timestamp
from sqlbuffer.db.queries.table import OF_SAMPLES, OF_VIEW
from sqlbuffer.db.schema import metadata, samples
from sqlbuffer.db.views import views
from sqlbuffer.errors import InvalidArgument

_OF_SAMPLES: dict[str, sa.ColumnElement[Any]] = dict(samples.c.items())
_NAMED = {**_OF_SAMPLES, **OF_SAMPLES, **OF_VIEW}
"""Columns that a condition may name: those of `samples`, and those of `sample_overview`."""

_KEYWORDS = ("AND", "OR", "NOT", "WHERE", "IN", "LIKE", "IS", "BETWEEN", "WHEN", "THEN", "ELSE")
"""Words behind which no alias stands."""

_OF_ALL_TABLES = {
    column.name: column
    for table in (*metadata.tables.values(), *views.tables.values())
    for column in table.columns
}
"""The columns of all tables and views by name, which subqueries may use."""

_KINDS: dict[type, type] = {
    Timestamp: dt.datetime,
    sa.Boolean: bool,
    sa.Integer: float,
    sa.Float: float,
    sa.LargeBinary: bytes,
    sa.String: str,
}


def _kind_of(column: sa.ColumnElement[Any]) -> type | None:
    return next((kind for each, kind in _KINDS.items() if isinstance(column.type, each)), None)


_TYPES: dict[str, type] = dict.fromkeys(
    ("current_timestamp", "current_date", "current_time", "localtimestamp"), dt.datetime
)
_TYPES |= {
    name: kind
    for name, column in {**_OF_ALL_TABLES, **_NAMED}.items()
    if (kind := _kind_of(column)) is not None
}


class SqlCondition:
    """A condition as SQL.

    Attributes:
        text: What the user wrote.
    """

    def __init__(self, text: str) -> None:
        tokens = list(tokens_of(text))
        _require_known(tokens)
        self.text = text
        has_values = any(token.key for token in tokens)
        words = {token.text.strip('"`').lower() for token in tokens if token.kind == "name"}
        has_times = any(_TYPES.get(word) is dt.datetime for word in words)
        types = Types(tokens, _TYPES) if has_values or has_times else None
        self._values = [] if types is None else types.values
        self._replaced = [] if types is None else list(_replaced(types))
        self._times = [] if types is None else types.times
        self._words: Mapping[str, str] = {}
        self._signs = [token.text for token in tokens if token.kind == "sign"]
        self._stored: dict[Group, type | None] = {}
        self._names = sorted(words & _NAMED.keys())
        self._is_plain = not has_values and words.isdisjoint(_NAMED.keys() - _OF_SAMPLES.keys())

    def __repr__(self) -> str:
        return repr(self.text)

    @property
    def metas(self) -> list[str]:
        """Names of values of the metas in it, each once."""
        return list(dict.fromkeys(str(value.path[0]) for value in self._values))

    @property
    def sql(self) -> str:
        """The text with names of columns in the place of values of the metas."""
        columns = self._columns
        parts = [
            (
                value.start,
                value.end,
                f'"{_column_name(columns.index(column))}"' if column else "NULL",
            )
            for value, column in zip(self._values, map(self._column, self._values), strict=True)
        ]
        parts += self._replaced
        parts += [
            (token.start, token.end, self._words[token.word])
            for token in self._times
            if token.word in self._words
        ]
        found, at = [], 0
        for start, end, name in sorted(parts):
            found += [self.text[at:start], name]
            at = end
        return "".join([*found, self.text[at:]])

    @property
    def columns(self) -> dict[str, sa.ColumnElement[Any]]:
        """The columns that it names; none if those of the table `samples` are enough."""
        if self._is_plain:
            return {}
        of_metas = {
            _column_name(i): value_of_meta(form, *path)
            for i, (form, path) in enumerate(self._columns)
        }
        # A relation needs a column.
        return {"id": samples.c.id, **{name: _NAMED[name] for name in self._names}, **of_metas}

    def look_up_types(
        self,
        kinds_of: Callable[[Path], Collection[type]],
        has_fractions: Callable[[Path], bool],
        backend: Dialect,
    ) -> None:
        """Take the types that the condition does not tell from the stored values.

        Args:
            backend: The database.
            kinds_of: Returns the types of the values that are stored at a path.
            has_fractions: Tells whether numbers are stored there that are no integers of 64 bits.

        Raises:
            InvalidArgument: If values of several types are stored, or databases write one of them
                in several ways, or if the condition has a parameter.
        """
        if sign := next((sign for sign in self._signs if sign in backend.parameter_signs), None):
            raise InvalidArgument(
                f"where must be a condition without parameters, and {shown_sql(sign)} begins one: "
                "write its value."
            )
        self._words = backend.time_words
        for value in self._values:
            group = value.group.root
            if not group.kinds and not group.may_be_any and group not in self._stored:
                paths = dict.fromkeys(each.path for each in group.values)
                stored = {kind for path in paths for kind in kinds_of(path)}
                self._stored[group] = group.kind(stored)
            if value.cast is str and not value.is_checked:
                value.require_text(has_fractions)

    def _column(self, value: Value) -> tuple[Form, Path] | None:
        """Return the form and the path of a value; None if it is NULL for each sample."""
        group = value.group.root
        kind = next(iter(group.kinds), None) or self._stored.get(group)
        if kind is not None:
            return value.form_of(kind), value.path
        return None if group in self._stored else (Form.ANY, value.path)

    @property
    def _columns(self) -> list[tuple[Form, Path]]:
        found = map(self._column, self._values)
        return list(dict.fromkeys(column for column in found if column is not None))


def _replaced(types: Types) -> Iterator[tuple[int, int, str]]:
    """Return literals that both databases take for the same, with their places in the text."""
    for token in types.integers:
        yield token.start, token.end, f"{token.text}.0"
    for first, last in types.divided:
        yield first.start, first.start, "CAST("
        yield last.end, last.end, " AS double precision)"
    for token in types.times:
        if token.text.startswith("'"):
            yield token.start, token.end, stored_form(token)


def _column_name(i: int) -> str:
    return f"meta {i}"


def _require_known(tokens: Sequence[Token]) -> None:
    """Refuse a quoted name of no column, which SQLite would take for text.

    A name behind another one is that of a column of a table, or an alias of the text's own.

    Raises:
        InvalidArgument: If there is one.
    """
    own = {
        token.text
        for before, token in itertools.pairwise(tokens)
        if before.text == "." or before.text == ")" or before.kind == "name"
        if before.text.upper() not in _KEYWORDS
    }
    has_subquery = any(token.text.upper() == "SELECT" for token in tokens)
    known = _NAMED.keys() | (_OF_ALL_TABLES.keys() if has_subquery else set())
    for token in tokens:
        if token.kind == "name" and token.text.startswith('"') and token.text not in own:
            name = token.text[1:-1].replace('""', '"')
            if name.lower() not in known:
                raise InvalidArgument(
                    f"where must be a condition in SQL, and {token.text} is the name of no column: "
                    "text has single quotes, and a value of the metas is meta.NAME, or "
                    'meta."a name" if it needs quotes.'
                )

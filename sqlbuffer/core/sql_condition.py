"""A condition that a user writes as SQL: the names in it, and the values of the metas.

The database has no column `meta.mw`, and its value has no type of SQL. The text therefore names a
column that the statement makes of the meta, of the type that the condition compares it with.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer._validation import as_name
from sqlbuffer.core.conditions import value_of_meta
from sqlbuffer.db.backends.types import Number
from sqlbuffer.db.queries.table import OF_SAMPLES, OF_VIEW
from sqlbuffer.db.schema import metadata, samples
from sqlbuffer.db.views import views
from sqlbuffer.errors import InvalidArgument

_OF_SAMPLES: dict[str, sa.ColumnElement[Any]] = dict(samples.c.items())
_NAMED = {**_OF_SAMPLES, **OF_SAMPLES, **OF_VIEW}
"""Columns that a condition may name: those of `samples`, and those of `sample_overview`."""

_CASTS: dict[type, Any] = {bool: sa.Boolean(), float: Number, str: None}
_ANY = type(None)
"""In the place of a type: a value of any type, as JSON; for IS NULL and nested values."""

_TOKEN = re.compile(
    r"""
      (?P<text> E'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<gap> \s+ | --[^\n]* )
    | (?P<comment> /\* )
    | (?P<value> (?:meta|"meta") \s*\.\s*
        (?: "(?P<quoted>(?:[^"]|"")+)" | (?P<plain>\w[\w$]*(?:\.\w[\w$]*)*) ) )
    | (?P<number> \.?\d[\w.]* )
    | (?P<name> "(?:[^"]|"")*" | `[^`]*` | [^\W\d][\w$]* )
    | (?P<sign> \|\| | ->>? | [<>=!~]+ | . )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_KEYWORDS = ("AND", "OR", "NOT", "WHERE", "IN", "LIKE", "IS", "BETWEEN", "WHEN", "THEN", "ELSE")
"""Words behind which no alias stands."""

_OF_ALL_TABLES = {
    column.name
    for table in (*metadata.tables.values(), *views.tables.values())
    for column in table.columns
}
"""Names of the columns of all tables and views, which subqueries may use."""

_COMPARED = ("=", "==", "!=", "<>", "<", "<=", ">", ">=", "IS", "BETWEEN", "IN")
_OF_TEXT = ("LIKE", "ILIKE", "GLOB", "REGEXP", "SIMILAR", "||", "~", "!~")
_OF_NUMBERS = ("+", "-", "*", "/", "%")
_OF_NESTED = ("->", "->>")


class _Token(NamedTuple):
    kind: str
    text: str
    key: str
    """Name of a value of the metas, empty for other tokens."""
    start: int
    end: int


class SqlCondition:
    """A condition as SQL.

    Attributes:
        text: What the user wrote.
        sql: The text with names of columns in the place of `meta.NAME`.
    """

    def __init__(self, text: str) -> None:
        tokens = list(_tokens(text))
        _require_known(tokens)
        values = [(i, token) for i, token in enumerate(tokens) if token.key]
        kinds = [(token.key, _kind(tokens, i)) for i, token in values]
        self.text = text
        self._values = list(dict.fromkeys(kinds))
        self.sql = _replaced(
            text,
            [token for _, token in values],
            [_column_name(self._values.index(each)) for each in kinds],
        )
        words = {token.text.strip('"`').lower() for token in tokens if token.kind == "name"}
        self._names = sorted(words & _NAMED.keys())
        self._is_plain = not values and words.isdisjoint(_NAMED.keys() - _OF_SAMPLES.keys())

    def __repr__(self) -> str:
        return repr(self.text)

    def look_up_types(self, has_kind: Callable[[str, type], bool]) -> None:
        """Take the types that the condition does not tell from the stored values.

        Args:
            has_kind: Tells whether a value of this name and this type is stored.
        """
        for i, (key, kind) in enumerate(self._values):
            if kind is None:
                stored = (each for each in (float, bool) if has_kind(key, each))
                self._values[i] = (key, next(stored, str))

    @property
    def columns(self) -> dict[str, sa.ColumnElement[Any]]:
        """The columns that it names; none if those of the table `samples` are enough."""
        if self._is_plain:
            return {}
        of_metas = {
            _column_name(i): value_of_meta(key) if kind is _ANY else _typed(key, kind)
            for i, (key, kind) in enumerate(self._values)
        }
        # A relation needs a column.
        return {"id": samples.c.id, **{name: _NAMED[name] for name in self._names}, **of_metas}


def _require_known(tokens: Sequence[_Token]) -> None:
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
    known = _NAMED.keys() | (_OF_ALL_TABLES if has_subquery else set())
    for token in tokens:
        if token.kind == "name" and token.text.startswith('"') and token.text not in own:
            name = token.text[1:-1].replace('""', '"')
            if name.lower() not in known:
                raise InvalidArgument(
                    f"where must be a condition in SQL, and {token.text} is the name of no column: "
                    "text has single quotes, and a value of the metas is meta.NAME, or "
                    'meta."a name" if it needs quotes.'
                )


def _typed(key: str, kind: type | None) -> sa.ColumnElement[Any]:
    kind = str if kind is None else kind
    return value_of_meta(key, kind, _CASTS[kind])


def _column_name(i: int) -> str:
    return f"meta {i}"


def _replaced(text: str, tokens: Sequence[_Token], names: Sequence[str]) -> str:
    """Return a text with quoted names in the place of these tokens."""
    parts, at = [], 0
    for token, name in zip(tokens, names, strict=True):
        parts += [text[at : token.start], f'"{name}"']
        at = token.end
    return "".join([*parts, text[at:]])


def _tokens(sql: str) -> Iterator[_Token]:
    """Return the tokens of SQL, without comments; of both databases, by their common rules."""
    at, last = 0, ""
    while found := _TOKEN.match(sql, at):
        at = found.end()
        kind = str(found.lastgroup)  # of groups in groups the outer one, which ends last
        if kind == "comment":
            at = _end_of_comment(sql, at)
        elif kind != "gap":
            key = "" if last == "." else _key(found)  # x.meta.y is a name of the database's own
            yield _Token(kind, found[0], key, found.start(), at)
            last = found[0]


def _key(found: re.Match[str]) -> str:
    if found["value"] is None:
        return ""
    key = found["plain"] or found["quoted"].replace('""', '"')
    return as_name(key, "a value of the metas")


def _end_of_comment(sql: str, at: int) -> int:
    """Return the end of a comment, in which comments may stand, as PostgreSQL has it."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return found.end()
    return len(sql)


def _kind(tokens: Sequence[_Token], at: int) -> type | None:
    """Return the type of the value that a token is compared with; None if that is not told."""
    after = [each for each in tokens[at + 1 : at + 6] if each.text.upper() != "NOT"]
    before = tokens[max(at - 3, 0) : at][::-1]
    for words, literals in ((after, after[1:]), (before, before[1:2])):
        word = words[0].text.upper() if words else ""
        if word in _OF_TEXT:
            return str
        if word in _OF_NUMBERS:
            return float
        if word in _OF_NESTED:
            return _ANY
        if word == "IS" and literals and literals[0].text.upper() == "NULL":
            return _ANY
        if word in _COMPARED and (kind := _of_literal(literals)):
            return kind
    return None


def _of_literal(tokens: Sequence[_Token]) -> type | None:
    """Return the type of the literal that tokens begin with, after a sign or a parenthesis."""
    first = next((each for each in tokens if each.text not in ("(", "+", "-")), None)
    if first is None:
        return None
    if first.text.upper() in ("TRUE", "FALSE"):
        return bool
    return {"text": str, "number": float}.get(first.kind)

"""Values in JSON objects, as columns of one type."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from sqlbuffer.db.backends.types import Number

_PLAIN = re.compile(r"[A-Za-z0-9_ -]+")
_LARGEST = "9223372036854775807"
_LARGEST_FLOAT = "1.7976931348623157e308"
_JSON_NUMBER = r"^[ \t\n\r]*-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?[ \t\n\r]*$"


class _of_json(sa.sql.functions.FunctionElement[Any]):
    """What a database tells of a value in a JSON object; NULL if there is none.

    Args:
        column: The object.
        keys: The key of the value, and keys of objects and places in lists within it. Characters
            that a path of SQLite does not take in every version make it look among all keys.
    """

    type: Any = sa.Text()
    inherit_cache = True
    of_path: str
    of_row: str
    of_value: str

    def __init__(self, column: sa.ColumnElement[Any], *keys: str | int) -> None:
        literals = [sa.literal(k, sa.Integer if isinstance(k, int) else sa.Text) for k in keys]
        is_plain = all(isinstance(key, int) or _PLAIN.fullmatch(key) for key in keys)
        steps = (f"[{key}]" if isinstance(key, int) else f'."{key}"' for key in keys)
        path = sa.literal(f"${''.join(steps)}", sa.Text) if is_plain else sa.null()
        super().__init__(column, *literals, path)


class json_kind(_of_json):
    """The type of a value in a JSON object, by the database's own word."""

    inherit_cache = True
    of_path, of_row, of_value = "json_type", "type", "jsonb_typeof({} -> {})"


class json_text(_of_json):
    """A value in a JSON object, as text or as SQLite has it."""

    inherit_cache = True
    of_path, of_row, of_value = "json_extract", "value", "({} ->> {})"


class json_nested(_of_json):
    """A value in a JSON object, as JSON."""

    inherit_cache = True
    of_path, of_row, of_value = "json_extract", "value", "({} -> {})"


class json_string(_of_json):
    """A text in a JSON object, in the order of its characters' numbers, as SQLite sorts."""

    inherit_cache = True
    of_path, of_row, of_value = "json_extract", "value", '(({} ->> {}) COLLATE "C")'


class json_number(_of_json):
    """A number in a JSON object; exact up to 64 bits, beyond them a float, as SQLite has it."""

    type = Number
    inherit_cache = True
    of_path, of_row, of_value = "json_extract", "value", "CAST({} ->> {} AS numeric)"


class number_of_text(sa.sql.functions.FunctionElement[Any]):
    """The number that a text is by the rules of JSON; NULL for other texts."""

    type: Any = Number
    inherit_cache = True


def whole(number: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Return an integer of 64 bits; NULL for other numbers."""
    low, high = (sa.literal_column(each, sa.BigInteger()) for each in (f"-{_LARGEST}", _LARGEST))
    integer = sa.cast(number, sa.BigInteger())
    return sa.case((number.between(low, high), sa.case((number == integer, integer))))


JSON_KINDS: dict[type, tuple[str, ...]] = {
    bool: ("true", "false", "boolean"),
    float: ("integer", "real", "number"),
    str: ("text", "string"),
    dict: ("object", "array"),
}
"""The words of `json_kind` on either database, by type."""


@compiles(json_kind, "sqlite")
@compiles(json_text, "sqlite")
@compiles(json_nested, "sqlite")
@compiles(json_string, "sqlite")
@compiles(json_number, "sqlite")
def _sqlite_of_json(element: _of_json, compiler: Any, **options: Any) -> str:
    column, *keys, path = list(element.clauses)
    found = compiler.process(column, **options)
    if not isinstance(path, sa.Null):
        return f"{element.of_path}({found}, {compiler.process(path, **options)})"
    *outer, key = (compiler.process(each, **options) for each in keys)
    for each in outer:  # json_each reads JSON alone, and no text in it
        nested = f"key = {each} AND type IN ('object', 'array')"
        found = f"(SELECT value FROM json_each({found}) WHERE {nested})"
    return f"(SELECT {element.of_row} FROM json_each({found}) WHERE key = {key})"


@compiles(json_kind, "postgresql")
@compiles(json_text, "postgresql")
@compiles(json_nested, "postgresql")
@compiles(json_string, "postgresql")
def _postgresql_of_json(element: _of_json, compiler: Any, **options: Any) -> str:
    column, *keys, _ = list(element.clauses)
    found = compiler.process(column, **options)
    for key in keys[:-1]:
        found = f"({_container(found, key)} -> {compiler.process(key, **options)})"
    last = compiler.process(keys[-1], **options)
    return element.of_value.format(_container(found, keys[-1]), last)


def _container(found: str, key: sa.ColumnElement[Any]) -> str:
    """Return JSON in which a key or a place is looked for.

    PostgreSQL has a number or a text of its own for a list of one: its place 0 is itself.
    """
    if not isinstance(key.type, sa.Integer):
        return found
    return f"CASE WHEN jsonb_typeof({found}) = 'array' THEN {found} END"


@compiles(json_number, "postgresql")
def _postgresql_json_number(element: json_number, compiler: Any, **options: Any) -> str:
    return _rounded(_postgresql_of_json(element, compiler, **options))


def _rounded(number: str) -> str:
    """Return a number of PostgreSQL that is a float if it has more than 64 bits."""
    limited = f"greatest(least({number}, {_LARGEST_FLOAT}), -{_LARGEST_FLOAT})"
    rounded = f"CAST(CAST(CAST({limited} AS double precision) AS text) AS numeric)"
    return f"CASE WHEN abs({number}) <= {_LARGEST} THEN {number} ELSE {rounded} END"


@compiles(number_of_text, "sqlite")
def _sqlite_number_of_text(element: number_of_text, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    number = f"json_extract({text}, '$')"
    is_number = f"json_type({text}) IN ('integer', 'real')"
    return f"CASE WHEN json_valid({text}) THEN CASE WHEN {is_number} THEN {number} END END"


@compiles(number_of_text, "postgresql")
def _postgresql_number_of_text(element: number_of_text, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    return f"CASE WHEN {text} ~ '{_JSON_NUMBER}' THEN {_rounded(f'CAST({text} AS numeric)')} END"

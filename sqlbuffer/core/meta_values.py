"""A value of the metas as a column: JSON has no type of SQL, so the condition gives it one."""

from __future__ import annotations

import enum
from typing import Any

import sqlalchemy as sa

from sqlbuffer.db.backends.json_values import (
    JSON_KINDS,
    json_kind,
    json_nested,
    json_number,
    json_string,
    json_text,
    number_of_text,
    whole,
)
from sqlbuffer.db.backends.types import Number
from sqlbuffer.db.schema import samples

Path = tuple[str | int, ...]
"""The name of a value, and keys and numbers of what is within it."""


class Form(enum.Enum):
    """The form in which a statement has a value; NULL for values of other types."""

    ANY = "a value of any type: it is NULL, or it is not"
    TEXT = "text"
    FLAG = "true or false, which 1 and 0 are, too"
    NESTED = "JSON as the database has it"
    NUMBER = "a number, exact up to 64 bits"
    FLOAT = "a number, as Python computes with it"
    DECIMAL = "a number, for functions that PostgreSQL has for numeric alone"
    WHOLE = "an integer"
    AS_TEXT = "text, and the digits of an integer, and true or false"
    AS_NUMBER = "a number, and text that is a number of JSON"
    AS_FLOAT = "the same, as Python computes with it"
    AS_DECIMAL = "the same, for functions that PostgreSQL has for numeric alone"


_CASTS: dict[Form, Any] = {
    Form.FLOAT: sa.Double(),
    Form.AS_FLOAT: sa.Double(),
    Form.DECIMAL: Number,
    Form.AS_DECIMAL: Number,
}
_OF_TEXTS_TOO = {Form.AS_NUMBER, Form.AS_FLOAT, Form.AS_DECIMAL}


def value_of_meta(form: Form, *path: str | int) -> sa.ColumnElement[Any]:
    """Return a value of the metas, NULL if it is missing or of another type."""
    meta, kind = samples.c.meta, json_kind(samples.c.meta, *path)
    if form is Form.ANY:
        return json_text(meta, *path)
    if form is Form.NESTED:
        return json_nested(meta, *path)
    text = (kind.in_(JSON_KINDS[str]), json_string(meta, *path))
    flag = (kind.in_(JSON_KINDS[bool]), sa.cast(json_text(meta, *path), sa.Boolean()))
    number = (kind.in_(JSON_KINDS[float]), json_number(meta, *path))
    if form is Form.TEXT:
        return sa.case(text)
    if form is Form.FLAG:
        of_number = sa.case((number[1] == 1, sa.true()), (number[1] == 0, sa.false()))
        return sa.case(flag, (number[0], of_number))
    if form is Form.AS_TEXT:
        words = sa.case((flag[1], "true"), else_="false")
        digits = sa.cast(whole(number[1]), sa.Text())
        return sa.case(text, (flag[0], words), (number[0], digits))
    if form is Form.WHOLE:
        return whole(sa.case(number))
    of_text = (text[0], number_of_text(text[1]))
    found = sa.case(number, of_text) if form in _OF_TEXTS_TOO else sa.case(number)
    return sa.cast(found, _CASTS[form]) if form in _CASTS else found

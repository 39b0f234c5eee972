"""Conditions of a table without SQL: (column, operator, value), or a list of these."""

from __future__ import annotations

import datetime as dt
import math
import numbers
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from sqlbuffer._messages import listed, shown
from sqlbuffer._validation import as_list, as_name, is_storable, plain
from sqlbuffer.core.where import Where, as_where
from sqlbuffer.db.backends.types import JSON_KINDS, is_like, json_kind
from sqlbuffer.db.queries.table import OF_SAMPLES
from sqlbuffer.db.schema import samples
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange.columns import META, column_of

Conditions = Where | tuple[str, str, Any] | list[tuple[str, str, Any]]
"""What a user gives as `where`."""

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda column, values: column.in_(values),
    "not in": lambda column, values: column.not_in(values),
    "like": is_like,
}
_NUMBER = (numbers.Real,)
_TYPES: dict[str, tuple[type, ...]] = {
    "int64": _NUMBER,
    "float64": _NUMBER,
    "string": (str,),
    "timestamp": (dt.datetime,),
    "bool_": (bool,),
    "binary": (bytes,),
}
_WORDS: dict[tuple[type, ...], str] = {
    _NUMBER: "a finite number",
    (str,): "text without NUL",
    (dt.datetime,): "a datetime with a time zone",
    (bool,): "True or False",
    (bytes,): "bytes",
}
_FOR_MISSING = ("=", "==", "!=")
_NO_CONDITION = {"meta", "payload"}
"""Columns that databases compare in different ways."""


def as_conditions(where: Any) -> Where:
    """Return a condition on `samples`.

    Args:
        where: (column, operator, value); a list of these, all of which must hold; a condition as
            `as_where` takes it.

    Raises:
        InvalidArgument: If it is no condition.
    """
    if isinstance(where, tuple):
        return _condition(where)
    if isinstance(where, list):
        return sa.and_(sa.true(), *(_condition(each) for each in where))
    return as_where(where)


def _condition(given: Any) -> sa.ColumnElement[bool]:
    if not isinstance(given, tuple) or len(given) != 3:
        raise InvalidArgument(
            "a condition must be (column, operator, value), such as ('reward', '>', 0.5); "
            f"got {shown(given)}."
        )
    name, word, value = given
    if not isinstance(word, str) or word not in _OPERATORS:
        raise InvalidArgument(
            f"the operator of a condition must be one of {listed(_OPERATORS)}; got {shown(word)}."
        )
    if value is None and word not in _FOR_MISSING:
        raise InvalidArgument(f"None can be compared by = and !=; got {shown(word)}.")
    is_list = word in ("in", "not in")
    values = as_list(value, "the values of a condition") if is_list else [value]
    column, values = _compared(name, [plain(each) for each in values])
    try:
        condition: sa.ColumnElement[bool] = _OPERATORS[word](
            column, values if is_list else values[0]
        )
    except sa.exc.ArgumentError as exc:  # True and False have no order
        raise InvalidArgument(f"{name} cannot be compared by {word}: use = or !=.") from exc
    return condition


def _compared(name: Any, values: list[Any]) -> tuple[sa.ColumnElement[Any], list[Any]]:
    """Return the column of a condition, and the values that it is compared with."""
    if isinstance(name, str) and name.startswith(META):
        return _of_meta(as_name(name.removeprefix(META), "a value of the metas"), name, values)
    known = [each for each in OF_SAMPLES if each not in _NO_CONDITION]
    if not isinstance(name, str) or name not in known:
        raise InvalidArgument(
            f"a condition must be on one of the columns {', '.join(known)}, or on meta.NAME; "
            f"got {shown(name)}."
        )
    types = _TYPES[column_of(name).type]
    return OF_SAMPLES[name], [_value(name, value, types) for value in values]


def _of_meta(key: str, name: str, values: list[Any]) -> tuple[sa.ColumnElement[Any], list[Any]]:
    """Return a value of the metas, NULL where it is of another type than those of the condition."""
    stored: Any = samples.c.meta[key]
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return stored.as_string(), values

    def of_kind(kind: type, column: Any) -> sa.ColumnElement[Any]:
        return sa.case((json_kind(samples.c.meta, key).in_(JSON_KINDS[kind]), column))

    if kinds == {bool}:
        return of_kind(bool, stored.as_boolean()), values
    if kinds <= {int, float}:
        checked = (_value(name, value, _NUMBER) for value in values)
        floats = [None if value is None else float(value) for value in checked]
        return of_kind(float, stored.as_float()), floats
    return of_kind(str, stored.as_string()), [_value(name, value, (str,)) for value in values]


def _value(name: str, value: Any, types: tuple[type, ...]) -> Any:
    """Return a value that databases compare with a column of these types."""
    if value is None:
        return None
    is_flag = isinstance(value, bool) and bool not in types
    if not is_flag and isinstance(value, types) and _fits(value):
        is_large = isinstance(value, int) and abs(value) >= 2**63
        number: Any = value
        return float(number) if is_large or isinstance(value, Fraction) else value
    raise InvalidArgument(
        f"column {name} of a condition is compared with {_WORDS[types]}; got {shown(value)}."
    )


def _fits(value: Any) -> bool:
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, dt.datetime):
        # Within a day of the first and the last year a time zone leads out of them.
        return value.tzinfo is not None and dt.MINYEAR < value.year < dt.MAXYEAR
    if isinstance(value, (bytes, bool)):
        return True
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False

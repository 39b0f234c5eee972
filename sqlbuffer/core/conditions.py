"""Conditions on samples without SQL: (column, operator, value), or a list of these."""

from __future__ import annotations

import datetime as dt
import math
import numbers
import operator
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import sqlalchemy as sa

from sqlbuffer._messages import listed, shown
from sqlbuffer._validation import as_list, as_name, is_storable, plain
from sqlbuffer.core.meta_values import Form, value_of_meta
from sqlbuffer.db.backends.types import Timestamp, is_like, is_one_of
from sqlbuffer.db.queries.table import OF_SAMPLES, OF_VIEW
from sqlbuffer.errors import InvalidArgument

META = "meta."
"""Beginning of the name of a column with one value of the metas."""

_QUOTED = re.compile(r'"(?:[^"]|"")+"', re.DOTALL)

OLD_NAMES = {
    "id": "sample_id",
    "text": "sample",
    "version": "score_version",
    "rewarded_at": "measured_at",
    "worker": "worker_id",
}
"""Names that columns of tables had before, and their names now."""

Condition = tuple[str, str, Any]
"""(column, operator, value)."""

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda column, values: _is_one_of(column, values),
    "not in": lambda column, values: ~_is_one_of(column, values),
    "like": is_like,
}
_MOST_FLOATS = 1_000
"""Floats of one condition that are compared to the last bit on every version of SQLite."""
_NUMBER = (numbers.Real,)
_NAMES: dict[type, str] = {
    Timestamp: "timestamp",
    sa.Boolean: "bool_",
    sa.Integer: "int64",
    sa.Double: "float64",
    sa.LargeBinary: "binary",
    sa.String: "string",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "timestamp": (dt.datetime,),
    "bool_": (bool,),
    "int64": _NUMBER,
    "float64": _NUMBER,
    "binary": (bytes,),
    "string": (str,),
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


def warn_of_old(names: Iterable[str]) -> None:
    """Warn the caller of this package of names that columns had before."""
    if old := sorted(OLD_NAMES.keys() & set(names)):
        now = ", ".join(f"{name} is {OLD_NAMES[name]}" for name in old)
        warnings.warn(
            f"columns have other names since sqlbuffer 0.6, and the old ones end with 1.0: {now}.",
            DeprecationWarning,
            stacklevel=_depth(),
        )


def key_of_meta(column: str) -> str:
    """Return the name of the value that a column `meta.NAME` or `meta."NAME"` has.

    SQL needs the quotes for a name that is no word, and doubles those within the name. Quotes at
    one end alone are characters of the name.
    """
    name = column.removeprefix(META)
    return name[1:-1].replace('""', '"') if _QUOTED.fullmatch(name) else name


class Compared(NamedTuple):
    """A column that conditions may use, and the name of its type."""

    column: sa.ColumnElement[Any]
    type: str


def type_of(kind: Any) -> str:
    """Return the name of a type of columns; empty for a type that conditions do not compare."""
    return next((name for each, name in _NAMES.items() if isinstance(kind, each)), "")


_OF_TABLE = {
    name: Compared(column, type_of(column.type))
    for name, column in {**OF_SAMPLES, **OF_VIEW}.items()
    if name not in _NO_CONDITION
}


def _depth() -> int:
    """Return how many frames of this package are on the stack, for a warning of the caller."""
    frame, n = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] == "sqlbuffer":
        frame, n = frame.f_back, n + 1
    return n


def all_of(conditions: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return the condition on `samples` that all conditions hold.

    Raises:
        InvalidArgument: If one is no condition.
    """
    return sa.and_(sa.true(), *map(condition_of, conditions))


def condition_of(given: Any) -> sa.ColumnElement[bool]:
    """Return a condition on `samples` from (column, operator, value).

    Raises:
        InvalidArgument: If it is no condition.
    """
    return _condition(given)


def condition_on(known: Mapping[str, Compared], given: Any) -> sa.ColumnElement[bool]:
    """Return a condition on one of these columns.

    Args:
        known: The columns that it may use, by name.
        given: (column, operator, value).

    Raises:
        InvalidArgument: If it is no condition.
    """
    return _condition(given, known)


def _condition(given: Any, known: Mapping[str, Compared] = _OF_TABLE) -> sa.ColumnElement[bool]:
    if not isinstance(given, tuple) or len(given) != 3:
        raise InvalidArgument(
            "a condition must be (column, operator, value), such as ('reward', '>', 0.5); "
            f"got {shown(given)}."
        )
    name, word, value = given
    if not isinstance(word, str) or word not in OPERATORS:
        raise InvalidArgument(
            f"the operator of a condition must be one of {listed(OPERATORS)}; got {shown(word)}."
        )
    if value is None and word not in _FOR_MISSING:
        raise InvalidArgument(f"None can be compared by = and !=; got {shown(word)}.")
    is_list = word in ("in", "not in")
    values = as_list(value, "the values of a condition") if is_list else [value]
    column, values = _compared(name, [plain(each) for each in values], known)
    try:
        condition: sa.ColumnElement[bool] = OPERATORS[word](
            column, values if is_list else values[0]
        )
    except sa.exc.ArgumentError as exc:  # True and False have no order
        raise InvalidArgument(f"{name} cannot be compared by {word}: use = or !=.") from exc
    return condition


def _is_one_of(column: Any, values: Sequence[Any]) -> sa.ColumnElement[bool]:
    has_floats = any(isinstance(value, float) for value in values)
    if has_floats and len(values) <= _MOST_FLOATS:
        return column.in_(values)  # type: ignore[no-any-return]
    return is_one_of(column, values)


def _compared(
    name: Any, values: list[Any], known: Mapping[str, Compared]
) -> tuple[sa.ColumnElement[Any], list[Any]]:
    """Return the column of a condition, and the values that it is compared with."""
    has_metas = known is _OF_TABLE
    if has_metas and isinstance(name, str) and name.startswith(META):
        return _of_meta(as_name(key_of_meta(name), "a value of the metas"), name, values)
    if known is _OF_TABLE and isinstance(name, str) and name in OLD_NAMES:
        warn_of_old([name])
        name = OLD_NAMES[name]
    if not isinstance(name, str) or name not in known:
        raise InvalidArgument(
            f"a condition must be on one of the columns {', '.join(known)}"
            f"{', or on meta.NAME' if has_metas else ''}; got {shown(name)}."
        )
    types = _TYPES[known[name].type]
    return known[name].column, [_value(name, value, types) for value in values]


def _of_meta(key: str, name: str, values: list[Any]) -> tuple[sa.ColumnElement[Any], list[Any]]:
    """Return a value of the metas, NULL where it is of another type than those of the condition."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return value_of_meta(Form.ANY, key), values
    if kinds == {bool}:
        return value_of_meta(Form.FLAG, key), values
    if kinds <= {int, float}:
        checked = (_value(name, value, _NUMBER) for value in values)
        floats = [None if value is None else float(value) for value in checked]
        return value_of_meta(Form.FLOAT, key), floats
    return value_of_meta(Form.TEXT, key), [_value(name, value, (str,)) for value in values]


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

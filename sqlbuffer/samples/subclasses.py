"""Subclasses of built-in types: which ones count as their base, and how their value is read."""

from __future__ import annotations

import collections
import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")

READ_BY: Mapping[type[Any], frozenset[str]] = {
    **dict.fromkeys(
        (
            str,
            bytearray,
            Decimal,
            dt.datetime,
            dt.date,
            dt.time,
            dt.timedelta,
            collections.OrderedDict,
        ),
        frozenset[str](),
    ),
    bytes: frozenset({"__bytes__"}),
    int: frozenset({"__int__"}),
    float: frozenset({"__float__", "__int__"}),
    complex: frozenset({"__complex__", "real", "imag"}),
    Fraction: frozenset({"numerator", "denominator"}),
    uuid.UUID: frozenset({"int", "bytes"}),
    **dict.fromkeys((tuple, list, set, frozenset), frozenset({"__iter__"})),
    dict: frozenset({"keys", "values", "__iter__", "__len__"}),
    np.ndarray: frozenset({"__array_ufunc__"}),
}
"""The built-in types whose subclasses count as them, and the members by which their value is read.

A subclass that overrides one of these members returns another value than the one that Python
compares.
"""

_PLAIN: Mapping[type[Any], Callable[[Any], Any]] = {
    **dict.fromkeys((str, np.str_), str.__str__),
    **dict.fromkeys((bytes, np.bytes_), lambda value: bytes.__getitem__(value, slice(None))),
    bytearray: lambda value: bytearray.__getitem__(value, slice(None)),
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
    Decimal: Decimal,
    dt.date: lambda value: dt.date.fromordinal(dt.date.toordinal(value)),
    dt.datetime: lambda value: dt.datetime.combine(
        dt.datetime.date(value), dt.datetime.timetz(value)
    ),
    dt.time: lambda value: dt.datetime.combine(dt.date.min, value).timetz(),
    dt.timedelta: dt.timedelta.__pos__,
}
"""Functions that read the value of a subclass by methods of its base, as Python compares it."""


def nearest(
    cls: type[Any], handlers: Mapping[type[Any], Callable[[Any, int], Result]]
) -> Callable[[Any, int], Result] | None:
    """Return the handler of the first base that has one; it reads instances as that base.

    Returns:
        None if no base has a handler, or if the class overrides `__eq__` or a member of `READ_BY`.
    """
    base = next((base for base in cls.__mro__ if base in handlers), None)
    if base is None or own_members(cls, base):
        return None
    handler, plain = handlers[base], _PLAIN.get(base)
    if plain is None and issubclass(base, np.generic):
        scalar: Any = base
        plain = lambda value: scalar(np.generic.item(value))  # noqa: E731
    return handler if plain is None else lambda value, depth: handler(plain(value), depth)


def own_members(cls: type[Any], base: type[Any]) -> list[str]:
    """Return the members a subclass overrides that make its value differ from that of its base."""
    own: set[str] = set()
    for each in cls.__mro__[: cls.__mro__.index(base)]:
        own |= each.__dict__.keys()
    return sorted(own & (READ_BY.get(base, frozenset()) | {"__eq__"}))

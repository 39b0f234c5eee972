"""Samples as CBOR: a value that cbor2 writes by itself, or tags.

A type that CBOR does not have is an object of tag 27, [kind, parts...]: ["tuple", 1, 2], or for a
registered class ["object", name, content]. `payload_reader` reads these payloads.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from cbor2 import CBORTag

from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import Entry, find, needs_entry
from sqlbuffer._validation import is_text
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.samples.arrays import NUMPY_SCALARS, Elements, flatten, is_plain_tensor
from sqlbuffer.samples.errors import too_deep, unsupported
from sqlbuffer.samples.limits import MAX_ALIKE, MAX_DEPTH, MAX_RATIO_BITS, are_too_alike
from sqlbuffer.samples.subclasses import nearest


def to_cbor(value: Any, depth: int) -> Any:
    """Return a sample as cbor2 can write it.

    Args:
        value: The sample, or a part of it.
        depth: Levels above it; 0 for a sample.

    Raises:
        UnsupportedType: If its type is neither supported nor registered.
        InvalidArgument: If it nests too deep, or would take too long to read.
    """
    cls = type(value)
    writer = _WRITERS.get(cls)
    if writer is None:
        writer = _writer_of(cls)
    return writer(value, depth)


def _each_to_cbor(values: Iterable[Any], depth: int) -> list[Any]:
    if depth >= MAX_DEPTH:
        raise too_deep()
    return [to_cbor(value, depth + 1) for value in values]


def _writer_of(cls: type[Any]) -> Writer:
    entry = find(cls)
    if entry is not None:
        return functools.partial(_registered, entry)
    if is_plain_tensor(cls):
        return lambda value, _: _array("tensor", value)
    writer = None if needs_entry(cls) else nearest(cls, _WRITERS)
    if writer is None:
        raise unsupported(cls)
    return writer


def _object(kind: str, *parts: object) -> CBORTag:
    return CBORTag(27, [kind, *parts])


def _registered(entry: Entry, value: object, depth: int) -> CBORTag:
    return _object("object", entry.name, *_each_to_cbor((entry.encode(value),), depth))


def _str(value: str, _depth: int) -> Any:
    text = str.__str__(value)  # a subclass may override str()
    return text if is_text(text) else _object("str", text.encode(errors="surrogatepass"))


def _dict(value: Mapping[Any, object], depth: int) -> Any:
    values = _each_to_cbor(value.values(), depth)
    if all(type(key) is str and is_text(key) for key in value):
        return dict(zip(value, values, strict=True))
    keys = _set(value.keys(), depth)
    return _object("dict", *(part for item in zip(keys, values, strict=True) for part in item))


def _set(value: Collection[Any], depth: int) -> list[Any]:
    if are_too_alike(value):
        raise InvalidArgument(
            f"a set or dict has more than {MAX_ALIKE} elements with the same hash() and takes too "
            "long to read: add a sorted list of them."
        )
    return _each_to_cbor(value, depth)


def _fraction(value: Fraction, _depth: int) -> CBORTag:
    parts = [value.numerator, value.denominator]
    if any(part.bit_length() > MAX_RATIO_BITS for part in parts):
        raise InvalidArgument(
            f"a Fraction with a part of more than {MAX_RATIO_BITS} bits takes too long to read: "
            "add its parts as a tuple, or fewer digits."
        )
    return CBORTag(30, parts)


def _array(kind: str, value: Any) -> CBORTag:
    elements = flatten(value)
    return _object(kind, elements.dtype, list(elements.shape), elements.data.tobytes())


def _scalar(elements: Elements) -> CBORTag:
    return _object("scalar", elements.dtype, elements.data.tobytes())


Writer = Callable[[Any, int], Any]

_WRITERS: dict[type[Any], Writer] = {
    type(None): lambda value, _: value,
    bool: lambda value, _: value,
    int: lambda value, _: int(value),
    float: lambda value, _: float(value),
    complex: lambda value, _: CBORTag(43000, [value.real, value.imag]),
    str: _str,
    np.str_: _str,
    bytes: lambda value, _: bytes(value),
    np.bytes_: lambda value, _: bytes(value),
    bytearray: lambda value, _: _object("bytearray", bytes(value)),
    Decimal: lambda value, _: _object("decimal", str(value)),
    Fraction: _fraction,
    uuid.UUID: lambda value, _: CBORTag(37, value.bytes),
    dt.date: lambda value, _: CBORTag(1004, value.isoformat()),
    dt.datetime: lambda value, _: _object("datetime", value.isoformat(), value.fold),
    dt.time: lambda value, _: _object("time", value.isoformat(), value.fold),
    dt.timedelta: lambda value, _: _object(
        "timedelta", value.days, value.seconds, value.microseconds
    ),
    tuple: lambda value, depth: _object("tuple", *_each_to_cbor(value, depth)),
    list: _each_to_cbor,
    dict: _dict,
    collections.OrderedDict: _dict,
    set: lambda value, depth: CBORTag(258, _set(value, depth)),
    frozenset: lambda value, depth: _object("frozenset", *_set(value, depth)),
    np.ndarray: lambda value, _: _array("array", value),
    **dict.fromkeys(NUMPY_SCALARS, lambda value, _: _scalar(flatten(value))),
}

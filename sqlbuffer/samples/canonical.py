"""The canonical bytes of a sample, which `hashing` hashes: equal samples have equal bytes.

The canonical bytes are deterministic CBOR (RFC 8949, section 4.2) of the value
by which samples are equal:

- A number is reduced to its exact value, as in dCBOR but without a bound: an integer, else the
  shortest float that is exact, else a ratio (tag 30). 1, 1.0, True and Decimal(1) are one; 0.1,
  Decimal("0.1") and numpy.float32(0.1) are three. Every NaN is one NaN.
- A list is an array, a dict a map sorted by its encoded keys, a set tag 258 sorted by its encoded
  elements. A type that Python distinguishes and CBOR has no tag for is an object of tag 27, [kind,
  parts...]: a tuple, a time, a registered class.
- An array or tensor is tag 40, [shape, elements], the elements little-endian and tagged by dtype as
  in RFC 8746. Arrays and tensors are one sample if dtype, shape and elements agree. A number and an
  array without dimensions are two samples.
- Aware datetimes are equal by instant (also across the hour that a zone repeats, where Python's own
  answer depends on the zone objects), naive ones by their date and time.
- A subclass of a built-in type counts as the value of its base, which Python compares. A subclass
  with an `__eq__` of its own must be registered, and so must a subclass that overrides a member by
  which its value is read (`__float__` of a float, `keys` of a dict).
- An OrderedDict is refused. It equals a dict in any order, but not an OrderedDict in another order.

If equality is not transitive, no hash can follow it, and the exact value decides: to numpy,
float32(0.1) equals the number 0.1, which equals float64(0.1), which does not equal float32(0.1);
and int64(2**53 + 1) equals 2.0**53.
"""

from __future__ import annotations

import datetime as dt
import functools
import uuid
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import Entry, find
from sqlbuffer.samples.arrays import (
    NUMPY_SCALARS,
    TYPED_ARRAY_TAGS,
    Elements,
    flatten,
    is_plain_tensor,
    normalised,
)
from sqlbuffer.samples.canonical_cbor import (
    array,
    byte_string,
    complex_number,
    decimal,
    floating,
    head,
    integer,
    ratio,
    tagged_object,
    text,
)
from sqlbuffer.samples.errors import too_deep, unsupported
from sqlbuffer.samples.limits import MAX_DEPTH
from sqlbuffer.samples.subclasses import nearest

_MICROSECOND = dt.timedelta(microseconds=1)


def encode(value: Any, depth: int) -> bytes:
    """Return the canonical bytes of a sample, or of a part of it at that depth.

    Raises:
        UnsupportedType: If the value, or a part of it, has a type without a canonical form.
        InvalidArgument: If the value nests too deep, contains itself, or is a Decimal with an
            exponent out of bounds.
    """
    cls = type(value)
    encoder = _ENCODERS.get(cls)
    if encoder is None:
        encoder = _encoder_of(cls)
    return encoder(value, depth)


def _encode_each(values: Iterable[Any], depth: int) -> list[bytes]:
    if depth >= MAX_DEPTH:
        raise too_deep()
    return [encode(value, depth + 1) for value in values]


def _encoder_of(cls: type[Any]) -> Encoder:
    entry = find(cls)
    if entry is None or entry.like_its_base:
        encoder = _array_or_tensor if is_plain_tensor(cls) else nearest(cls, _ENCODERS)
        if encoder is not None:
            return encoder
    if entry is None:
        raise unsupported(cls)
    return functools.partial(_registered, entry)


def _tuple(value: Iterable[object], depth: int) -> bytes:
    return tagged_object("tuple", *_encode_each(value, depth))


def _list(value: Iterable[object], depth: int) -> bytes:
    return array(_encode_each(value, depth))


def _dict(value: Mapping[Any, object], depth: int) -> bytes:
    items = zip(_encode_each(value.keys(), depth), _encode_each(value.values(), depth), strict=True)
    return head(5, len(value)) + b"".join(key + item for key, item in sorted(items))


def _set(value: Iterable[object], depth: int) -> bytes:
    return head(6, 258) + array(sorted(_encode_each(value, depth)))


def _datetime(value: dt.datetime, _depth: int = 0) -> bytes:
    offset = value.utcoffset()
    since_epoch = value.replace(tzinfo=None) - dt.datetime(1970, 1, 1)
    if offset is None:
        return tagged_object("datetime", integer(since_epoch // _MICROSECOND))
    return tagged_object("instant", integer((since_epoch - offset) // _MICROSECOND))


def _time(value: dt.time, _depth: int = 0) -> bytes:
    offset = value.utcoffset()
    since_midnight = dt.datetime.combine(dt.date.min, value.replace(tzinfo=None)) - dt.datetime.min
    if offset is None:
        return tagged_object("time", integer(since_midnight // _MICROSECOND))
    return tagged_object("time of instant", integer((since_midnight - offset) // _MICROSECOND))


@functools.lru_cache(maxsize=256)
def array_head(dtype: str, shape: tuple[int, ...], n_bytes: int) -> bytes:
    """Encode what stands before the normalised elements of an array."""
    tag = TYPED_ARRAY_TAGS.get(dtype)
    kind = (
        head(6, 27) + head(4, 3) + text("elements") + text(dtype) if tag is None else head(6, tag)
    )
    sizes = array([integer(size) for size in shape])
    return head(6, 40) + head(4, 2) + sizes + kind + head(2, n_bytes)


def _elements(elements: Elements) -> bytes:
    content = normalised(elements).tobytes()
    return array_head(elements.dtype, elements.shape, len(content)) + content


def _array_or_tensor(value: Any, _depth: int) -> bytes:
    return _elements(flatten(value))


def _registered(entry: Entry, value: object, depth: int) -> bytes:
    return tagged_object("object", text(entry.name), *_encode_each((entry.identity(value),), depth))


Encoder = Callable[[Any, int], bytes]

_ENCODERS: dict[type[Any], Encoder] = {
    type(None): lambda _value, _depth: b"\xf6",
    str: text,
    bytes: byte_string,
    bytearray: byte_string,
    bool: integer,
    int: integer,
    float: floating,
    complex: complex_number,
    Decimal: decimal,
    Fraction: lambda value, _depth: ratio(value.numerator, value.denominator),
    uuid.UUID: lambda value, _depth: head(6, 37) + byte_string(value.bytes),
    dt.date: lambda value, _depth: head(6, 1004) + text(value.isoformat()),
    dt.datetime: _datetime,
    dt.time: _time,
    dt.timedelta: lambda value, _depth: tagged_object("timedelta", integer(value // _MICROSECOND)),
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _set,
    np.ndarray: _array_or_tensor,
    np.str_: text,
    np.bytes_: byte_string,
    **dict.fromkeys(NUMPY_SCALARS, lambda value, depth: encode(np.generic.item(value), depth)),
}

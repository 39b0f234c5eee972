"""The hash of a sample: equal samples have equal canonical bytes and digests, other samples others.

The canonical bytes are a scheme version and deterministic CBOR (RFC 8949, section 4.2) of the value
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

import contextlib
import datetime as dt
import functools
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import Entry, find
from sqlbuffer.errors import InvalidArgument, UnsupportedType
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
from sqlbuffer.samples.errors import too_deep, unsupported, with_sample
from sqlbuffer.samples.limits import MAX_DEPTH
from sqlbuffer.samples.registry import register
from sqlbuffer.samples.subclasses import nearest

__all__ = ["SCHEME", "canonical_bytes", "digest", "digests", "register"]

SCHEME = b"\x01"
"""First of the hashed bytes. Another number would split every stored buffer."""

DIGEST_BYTES = 16

_MICROSECOND = dt.timedelta(microseconds=1)


def canonical_bytes(value: object) -> bytes:
    """Return the bytes that are hashed.

    Args:
        value: A string, number, bytes, None, tuple, list, dict, set, date, time, Decimal, Fraction,
            UUID, numpy array or scalar, torch tensor, named tuple, registered dataclass, enum or
            other class, or a nesting of these.

    Returns:
        The scheme version and deterministic CBOR.

    Raises:
        UnsupportedType: If the value, or a part of it, has a type without a canonical form.
        InvalidArgument: If the value nests too deep, contains itself, or is a Decimal with an
            exponent out of bounds.
    """
    return SCHEME + _encode(value, 0)


def digest(value: object) -> bytes:
    """Return the hash of one sample: 16 bytes of BLAKE2b of its canonical bytes.

    Args:
        value: A supported sample.

    Returns:
        16 bytes, the same in every process, on every machine and in every release with the same
        `SCHEME`.

    Raises:
        UnsupportedType: As `canonical_bytes`.
        InvalidArgument: As `canonical_bytes`.
    """
    return blake2b(SCHEME + _encode(value, 0), digest_size=DIGEST_BYTES).digest()


def digests(values: Iterable[object], numbers: Sequence[int] | None = None) -> list[bytes]:
    """Return the hashes of many samples; a list of strings takes a faster path.

    Args:
        values: (n,) supported samples.
        numbers: (n,) numbers by which an error names the samples.

    Returns:
        (n,) digests of 16 bytes, in order.

    Raises:
        UnsupportedType: As `canonical_bytes`.
        InvalidArgument: As `canonical_bytes`.
    """
    values = list(values)
    if set(map(type, values)) == {str}:
        # A lone surrogate, or a string too long for the table.
        with contextlib.suppress(UnicodeEncodeError, IndexError):
            return [
                blake2b(_STR_HEADS[len(utf8)] + utf8, digest_size=DIGEST_BYTES).digest()
                for utf8 in map(str.encode, values)  # type: ignore[arg-type]
            ]
    found: list[bytes] = []
    try:
        for value in values:
            found.append(digest(value))
    except (UnsupportedType, InvalidArgument) as exc:
        if numbers is None:
            raise
        raise with_sample(exc, numbers[len(found)], values[len(found)]) from exc
    return found


def _encode(value: Any, depth: int) -> bytes:
    cls = type(value)
    encoder = _ENCODERS.get(cls)
    if encoder is None:
        encoder = _encoder_of(cls)
    return encoder(value, depth)


def _encode_each(values: Iterable[Any], depth: int) -> list[bytes]:
    if depth >= MAX_DEPTH:
        raise too_deep()
    return [_encode(value, depth + 1) for value in values]


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


def _elements(elements: Elements) -> bytes:
    content = byte_string(normalised(elements).tobytes())
    tag = TYPED_ARRAY_TAGS.get(elements.dtype)
    typed = (
        tagged_object("elements", text(elements.dtype), content)
        if tag is None
        else head(6, tag) + content
    )
    return head(6, 40) + array((array([integer(size) for size in elements.shape]), typed))


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
    **dict.fromkeys(NUMPY_SCALARS, lambda value, depth: _encode(np.generic.item(value), depth)),
}

_STR_HEADS = tuple(SCHEME + head(3, size) for size in range(4096))

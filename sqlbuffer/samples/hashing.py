"""The canonical bytes of a sample and their digest: equal samples have equal ones, others have others.

The bytes are a scheme version and deterministic CBOR (RFC 8949, section 4.2) of what a sample is equal by:

- A number is reduced to its exact value, as in dCBOR but without a bound: an integer, else the shortest float that is
  exact, else a ratio (tag 30). 1, 1.0, True and Decimal(1) are one; 0.1, Decimal("0.1") and numpy.float32(0.1) are
  three. Every NaN is one NaN.
- A list is an array, a dict a map sorted by its encoded keys, a set tag 258 sorted likewise. Whatever Python keeps
  apart and CBOR has no tag for is an object of tag 27, [kind, parts...]: a tuple, a time, a registered class.
- An array or tensor is tag 40, [shape, elements], the elements little-endian and tagged by dtype as in RFC 8746. They
  are one sample when dtype, shape and elements agree; a number and an array of no dimensions are two.
- Aware datetimes are equal by instant (also across the hour that a zone repeats, where Python's own answer depends on
  the zone objects), naive ones by their clock.
- A subclass of a built-in type counts as the value that its base holds, which is what Python compares. One with an
  `__eq__` of its own must be registered, and so must one that gives another value away than it holds (`__float__` of
  a float, `keys` of a dict).
- An OrderedDict is refused. It equals a dict in any order, yet not an OrderedDict in another one.

Where equality is not transitive no hash can follow it, and the exact value decides: to numpy, float32(0.1) equals the
number 0.1, which equals float64(0.1), which does not equal float32(0.1); and int64(2**53 + 1) equals 2.0**53.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import struct
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlbuffer.errors import InvalidArgument, UnsupportedType, naming
from sqlbuffer.samples import registry
from sqlbuffer.samples.registry import Entry, register

__all__ = ["SCHEME", "canonical_bytes", "digest", "digests", "register"]

SCHEME = b"\x01"
"""First of the bytes hashed. Another number would split every stored buffer: it changes when the law does."""

DIGEST_BYTES = 16
MAX_DECIMAL_EXPONENT = 10_000
"""Decimals beyond 10 ** ±this are refused: their exact value takes as many digits as their exponent says."""

TYPED_ARRAY_TAGS = {
    "uint8": 64, "uint16": 69, "uint32": 70, "uint64": 71,
    "int8": 72, "int16": 77, "int32": 78, "int64": 79,
    "float16": 84, "float32": 85, "float64": 86,
}  # fmt: skip
"""Tags of RFC 8746 for little-endian elements, by dtype."""

ELEMENT_DTYPES = {name: np.dtype(name).newbyteorder("<") for name in TYPED_ARRAY_TAGS} | {
    "bool": np.dtype("bool"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
    "bfloat16": np.dtype("<u2"),
}
"""Every supported dtype, with the numpy dtype that carries its bytes."""

NUMPY_SCALARS = tuple(
    scalar
    for scalar in dict.fromkeys(np.sctypeDict.values())
    if np.dtype(scalar).name in ELEMENT_DTYPES
)

_FLOAT_LAYOUTS = {
    "float16": ("<u2", 0x7C00, 0x7E00),
    "bfloat16": ("<u2", 0x7F80, 0x7FC0),
    "float32": ("<u4", 0x7F80_0000, 0x7FC0_0000),
    "complex64": ("<u4", 0x7F80_0000, 0x7FC0_0000),
    "float64": ("<u8", 0x7FF0_0000_0000_0000, 0x7FF8_0000_0000_0000),
    "complex128": ("<u8", 0x7FF0_0000_0000_0000, 0x7FF8_0000_0000_0000),
}  # dtype: (its bits as integers, those of infinity, those of the one NaN)

_NAN = b"\xf9\x7e\x00"
_MICROSECOND = dt.timedelta(microseconds=1)


def canonical_bytes(value: object) -> bytes:
    """Return the bytes that are hashed.

    Args:
        value: A string, number, bytes, None, tuple, list, dict, set, date, time, Decimal, Fraction, UUID, numpy array
            or scalar, torch tensor, named tuple, registered dataclass, enum or other class, or a nesting of these.

    Returns:
        The scheme version and deterministic CBOR.

    Raises:
        UnsupportedType: The value has, or holds, a type without a canonical form.
        InvalidArgument: It nests too deep or contains itself, or is a Decimal with an exponent out of bounds.
    """
    return SCHEME + _encode(value, 0)


def digest(value: object) -> bytes:
    """Hash one sample: BLAKE2b, 16 bytes, of its canonical bytes.

    Args:
        value: A supported sample.

    Returns:
        16 bytes, the same in every process, on every machine and in every release with the same `SCHEME`.

    Raises:
        UnsupportedType: As `canonical_bytes`.
        InvalidArgument: As `canonical_bytes`.
    """
    return blake2b(SCHEME + _encode(value, 0), digest_size=DIGEST_BYTES).digest()


def digests(values: Iterable[object], numbers: Sequence[int] | None = None) -> list[bytes]:
    """Hash many samples; strings take a short cut.

    Args:
        values: (n,) supported samples.
        numbers: (n,) by which an error names them.

    Returns:
        (n,) digests of 16 bytes, in order.

    Raises:
        UnsupportedType: As `canonical_bytes`.
        InvalidArgument: As `canonical_bytes`.
    """
    values = list(values)
    if set(map(type, values)) == {str}:
        with contextlib.suppress(
            UnicodeEncodeError, IndexError
        ):  # a lone surrogate, or too long for the table
            return [
                blake2b(_STR_HEADS[len(utf8)] + utf8, digest_size=DIGEST_BYTES).digest()
                for utf8 in map(str.encode, values)  # type: ignore[arg-type]
            ]
    found: list[bytes] = []
    try:
        for value in values:
            found.append(digest(value))
    except (UnsupportedType, InvalidArgument):
        with naming(None if numbers is None else numbers[len(found)], values[len(found)]):
            raise
    return found


class Elements(NamedTuple):
    """An array or tensor laid flat.

    Attributes:
        dtype: A name in `ELEMENT_DTYPES`.
        shape: Its dimensions, () for none.
        data: (size,) the elements in row-major order, little-endian and contiguous.
    """

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[Any]


def flatten(value: Any) -> Elements:
    """Lay a numpy array or scalar, or a torch tensor, flat: whatever its device, layout, strides and byte order.

    Raises:
        UnsupportedType: Its dtype has no fixed meaning in bytes, or it has no data.
    """
    if is_tensor(type(value)):
        return _flatten_tensor(value)
    array = np.asarray(value)
    name = array.dtype.name
    if name not in ELEMENT_DTYPES:
        raise UnsupportedType(
            f"an array of dtype {array.dtype} is not supported: add array.tolist(), or convert it"
        )
    return Elements(
        name, array.shape, np.ascontiguousarray(array, dtype=ELEMENT_DTYPES[name]).reshape(-1)
    )


def is_tensor(cls: type[Any]) -> bool:
    """Tell whether the class is torch's Tensor or derived from it, without importing torch."""
    tensor = getattr(
        sys.modules.get("torch"), "Tensor", None
    )  # absent while torch itself is being imported
    return tensor is not None and issubclass(cls, tensor)


def is_plain_tensor(cls: type[Any]) -> bool:
    """Tell whether the class is torch's Tensor, or derived from it without operators of its own, `==` among them."""
    if not is_tensor(cls):
        return False
    torch = sys.modules["torch"]
    operators = {
        _function(kind, "__torch_function__") for kind in (torch.Tensor, torch.nn.Parameter)
    }
    return (
        cls.__eq__ is torch.Tensor.__eq__
        and _function(cls, "__torch_function__") in operators
        and _function(cls, "__torch_dispatch__") is _function(torch.Tensor, "__torch_dispatch__")
        and cls not in (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer)
    )


def _function(cls: Any, name: str) -> Any:
    """Return a function of a class, of a class method what it binds."""
    found = getattr(cls, name)
    return getattr(found, "__func__", found)


def _flatten_tensor(tensor: Any) -> Elements:
    torch = sys.modules["torch"]
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in ELEMENT_DTYPES or tensor.is_nested or tensor.is_meta:
        kind = "nested" if tensor.is_nested else "meta" if tensor.is_meta else name
        raise UnsupportedType(
            f"a {kind} tensor is not supported: convert it to a plain tensor of a common dtype"
        )
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    plain = dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data = (plain.view(torch.int16) if name == "bfloat16" else plain).numpy()
    return Elements(name, tuple(tensor.shape), data.astype(ELEMENT_DTYPES[name], copy=False))


def _encode(value: Any, depth: int) -> bytes:
    cls = type(value)
    encoder = _ENCODERS.get(cls)
    if encoder is None:
        encoder = _encoder_of(cls)
    return encoder(value, depth)


def _encode_each(values: Iterable[Any], depth: int) -> list[bytes]:
    if depth >= registry.MAX_DEPTH:
        raise registry.too_deep()
    return [_encode(value, depth + 1) for value in values]


def _encoder_of(cls: type[Any]) -> Encoder:
    entry = registry.find(cls)
    if entry is None or entry.like_its_base:
        encoder = _array_or_tensor if is_plain_tensor(cls) else registry.nearest(cls, _ENCODERS)
        if encoder is not None:
            return encoder
    if entry is None:
        raise registry.unsupported(cls)
    return functools.partial(_registered, entry)


def _head(major: int, argument: int) -> bytes:
    """Encode the head of a CBOR item in its shortest form."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << 8 * size:
            return bytes((major << 5 | info,)) + argument.to_bytes(size, "big")
    return bytes((major << 5 | 27,)) + argument.to_bytes(8, "big")


def _bytes(value: bytes | bytearray, _depth: int = 0) -> bytes:
    return _head(2, len(value)) + value


def _array(items: Sequence[bytes]) -> bytes:
    return _head(4, len(items)) + b"".join(items)


def _object(kind: str, *parts: bytes) -> bytes:
    return _head(6, 27) + _array((_str(kind), *parts))


def _str(value: str, _depth: int = 0) -> bytes:
    try:
        utf8 = str.encode(value)
    except UnicodeEncodeError:  # lone surrogates: no text to CBOR
        return _object("str", _bytes(str.encode(value, errors="surrogatepass")))
    return _head(3, len(utf8)) + utf8


def _int(value: int, _depth: int = 0) -> bytes:
    value = int(value)  # an enum or bool has operators of its own
    major, argument = (0, value) if value >= 0 else (1, -1 - value)
    if argument < 1 << 64:
        return _head(major, argument)
    return _head(6, 2 + major) + _bytes(argument.to_bytes((argument.bit_length() + 7) // 8, "big"))


def _float(value: float, _depth: int = 0) -> bytes:
    if value != value:
        return _NAN
    if value.is_integer():
        return _int(int(value))
    for initial, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return initial + packed
    return b"\xfb" + struct.pack(">d", value)


def _complex(value: complex, _depth: int = 0) -> bytes:
    if value.imag == 0:
        return _float(value.real)
    return _head(6, 43000) + _array((_float(value.real), _float(value.imag)))


def _ratio(numerator: int, denominator: int) -> bytes:
    """Encode a ratio in lowest terms."""
    if denominator == 1:
        return _int(numerator)
    if denominator & (denominator - 1) == 0:  # a power of two: perhaps a float
        try:
            nearest_float = numerator / denominator
        except OverflowError:
            nearest_float = 0.0
        if nearest_float.as_integer_ratio() == (numerator, denominator):
            return _float(nearest_float)
    return _head(6, 30) + _array((_int(numerator), _int(denominator)))


def _decimal(value: Decimal, _depth: int = 0) -> bytes:
    if value.is_nan():
        return _NAN
    if value.is_infinite() or not value:
        return _float(float(value))
    exponent = value.as_tuple().exponent
    if max(abs(int(exponent)), abs(value.adjusted())) > MAX_DECIMAL_EXPONENT:
        raise InvalidArgument(
            f"a Decimal about 10 ** {value.adjusted()} is out of bounds: exponents go to ±{MAX_DECIMAL_EXPONENT}"
        )
    return _ratio(*value.as_integer_ratio())


def _tuple(value: Iterable[object], depth: int) -> bytes:
    return _object("tuple", *_encode_each(value, depth))


def _list(value: Iterable[object], depth: int) -> bytes:
    return _array(_encode_each(value, depth))


def _dict(value: Mapping[Any, object], depth: int) -> bytes:
    items = zip(_encode_each(value.keys(), depth), _encode_each(value.values(), depth), strict=True)
    return _head(5, len(value)) + b"".join(key + item for key, item in sorted(items))


def _set(value: Iterable[object], depth: int) -> bytes:
    return _head(6, 258) + _array(sorted(_encode_each(value, depth)))


def _datetime(value: dt.datetime, _depth: int = 0) -> bytes:
    offset = value.utcoffset()
    since_epoch = value.replace(tzinfo=None) - dt.datetime(1970, 1, 1)
    if offset is None:
        return _object("datetime", _int(since_epoch // _MICROSECOND))
    return _object("instant", _int((since_epoch - offset) // _MICROSECOND))


def _time(value: dt.time, _depth: int = 0) -> bytes:
    offset = value.utcoffset()
    since_midnight = dt.datetime.combine(dt.date.min, value.replace(tzinfo=None)) - dt.datetime.min
    if offset is None:
        return _object("time", _int(since_midnight // _MICROSECOND))
    return _object("time of instant", _int((since_midnight - offset) // _MICROSECOND))


def _elements(elements: Elements) -> bytes:
    content = _bytes(_normalised(elements).tobytes())
    tag = TYPED_ARRAY_TAGS.get(elements.dtype)
    typed = (
        _object("elements", _str(elements.dtype), content)
        if tag is None
        else _head(6, tag) + content
    )
    return _head(6, 40) + _array((_array([_int(size) for size in elements.shape]), typed))


def _normalised(elements: Elements) -> NDArray[Any]:
    """Make -0.0 zero and every NaN the one NaN: on the bits, where bfloat16 is no different and no NaN signals."""
    if elements.dtype not in _FLOAT_LAYOUTS:
        return elements.data
    form, infinity, nan = _FLOAT_LAYOUTS[elements.dtype]
    bits = elements.data.view(form).copy()
    magnitude = bits & (infinity | (infinity & -infinity) - 1)
    bits[magnitude == 0] = 0
    bits[magnitude > infinity] = nan
    return bits


def _array_or_tensor(value: Any, _depth: int) -> bytes:
    return _elements(flatten(value))


def _registered(entry: Entry, value: object, depth: int) -> bytes:
    return _object("object", _str(entry.name), *_encode_each((entry.identity(value),), depth))


Encoder = Callable[[Any, int], bytes]

_ENCODERS: dict[type[Any], Encoder] = {
    type(None): lambda _value, _depth: b"\xf6",
    str: _str,
    bytes: _bytes,
    bytearray: _bytes,
    bool: _int,
    int: _int,
    float: _float,
    complex: _complex,
    Decimal: _decimal,
    Fraction: lambda value, _depth: _ratio(value.numerator, value.denominator),
    uuid.UUID: lambda value, _depth: _head(6, 37) + _bytes(value.bytes),
    dt.date: lambda value, _depth: _head(6, 1004) + _str(value.isoformat()),
    dt.datetime: _datetime,
    dt.time: _time,
    dt.timedelta: lambda value, _depth: _object("timedelta", _int(value // _MICROSECOND)),
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _set,
    np.ndarray: _array_or_tensor,
    np.str_: _str,
    np.bytes_: _bytes,
    **dict.fromkeys(NUMPY_SCALARS, lambda value, depth: _encode(np.generic.item(value), depth)),
}

_STR_HEADS = tuple(SCHEME + _head(3, size) for size in range(4096))

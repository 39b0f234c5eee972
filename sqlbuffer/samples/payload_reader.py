"""CBOR payloads to samples. cbor2 decodes, and passes the content of every tag to a reader below.

A payload may come from anywhere. Reading one imports, executes and unpickles nothing, takes no more
memory and time than the size of the payload warrants, and ends in a value or in an error.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import cbor2

from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import named
from sqlbuffer.errors import InvalidPayload
from sqlbuffer.samples.arrays import ELEMENT_DTYPES
from sqlbuffer.samples.limits import MAX_ALIKE, MAX_DEPTH, MAX_RATIO_BITS, are_too_alike

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CBOR_DEPTH = 2 * MAX_DEPTH + 8
"""Levels of CBOR: a tuple is a tag and an array."""

_MAX_DIMENSIONS, _MAX_BYTES = 1024, 1 << 62
"""Limits of the shape of an array, also of an array without elements, whose payload is small."""

_MISREAD = frozenset({type(cbor2.undefined), cbor2.CBORSimpleValue})

T = TypeVar("T")
Made = TypeVar("Made", bound=Sized)
Reader = Callable[[Any, bool], object]


class _Readers(dict[int, Reader]):
    """Readers by tag; `__missing__` keeps cbor2 from reading other tags, such as patterns."""

    def __missing__(self, tag: int) -> NoReturn:
        raise InvalidPayload(f"unknown tag {tag}")


def from_cbor(payload: bytes) -> object:
    """Return the sample of a payload.

    Raises:
        InvalidPayload: If the payload is malformed. cbor2 and `decode` functions of users raise
            other errors.
    """
    stream = io.BytesIO(payload)
    value = cbor2.CBORDecoder(
        stream,
        semantic_decoders=_READERS,
        object_hook=_read_map,
        max_depth=_CBOR_DEPTH,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,  # before it builds the map
    ).decode()
    if stream.tell() != len(payload):
        raise InvalidPayload(f"a payload of {len(payload)} bytes ends at byte {stream.tell()}")
    return _checked(value)


def _read_map(content: Mapping[Any, Any], _immutable: bool) -> Mapping[Any, Any]:
    for key in content:
        _expect(str, key)
    return content


def _read_object(content: object, _immutable: bool) -> object:
    kind, *parts = _checked(_expect(list, content))
    if _expect(str, kind) not in _KINDS:
        raise InvalidPayload(f"unknown kind {kind!r}")
    return _KINDS[kind](*parts)


def _checked(content: T) -> T:
    """Refuse CBOR's undefined and its unassigned simple values, also in lists and maps."""
    waiting: list[Iterable[Any]] = [(content,)]
    while waiting:
        items = waiting.pop()
        kinds = set(map(type, items))
        if not kinds.isdisjoint(_MISREAD):
            raise InvalidPayload("a value that is neither data nor null")
        if list in kinds or dict in kinds:
            waiting += [
                item.values() if type(item) is dict else item
                for item in items
                if type(item) in (list, dict)
            ]
    return content


def _expect(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise InvalidPayload(f"a {type(value).__name__} instead of a {kind.__name__}")
    return value


def _distinct(make: Callable[[Sequence[Any]], Made], parts: Sequence[Any]) -> Made:
    """Make a set or dict; refuse repeated elements or keys, and too many with one hash."""
    if are_too_alike(parts):
        raise InvalidPayload(f"more than {MAX_ALIKE} elements or keys with one hash")
    made = make(parts)
    if len(made) != len(parts):
        raise InvalidPayload("an element or key that occurs twice")
    return made


def _read_dict(*parts: Any) -> dict[Any, Any]:
    return _distinct(lambda keys: dict(zip(keys, parts[1::2], strict=True)), parts[::2])


def _read_fraction(content: Iterable[object], _immutable: bool) -> Fraction:
    parts = [_expect(int, part) for part in content]
    if any(part.bit_length() > MAX_RATIO_BITS for part in parts):
        raise InvalidPayload(f"a ratio with a part of more than {MAX_RATIO_BITS} bits")
    return Fraction(*parts)


def _read_elements(dtype: str, shape: Any, content: object) -> NDArray[Any]:
    """Return the elements of an array, flat, in native byte order and writable.

    Raises:
        InvalidPayload: If the number of bytes does not agree with dtype and shape, or the dtype is
            unknown.
    """
    sizes = [_expect(int, size) for size in _expect(list, shape)]
    if (
        _expect(str, dtype) not in ELEMENT_DTYPES
        or len(sizes) > _MAX_DIMENSIONS
        or min(sizes, default=0) < 0
    ):
        raise InvalidPayload(f"no array is of dtype {dtype!r} and shape {sizes}")
    stored = ELEMENT_DTYPES[dtype]
    data = np.frombuffer(bytearray(_expect(bytes, content)), np.uint8)
    extent = math.prod(filter(None, sizes)) * stored.itemsize
    if (0 if 0 in sizes else extent) != data.size or extent > _MAX_BYTES:
        raise InvalidPayload(f"{data.size} bytes for a {dtype} array of shape {sizes}")
    if dtype == "bool" and data.max(initial=0) > 1:
        raise InvalidPayload("a boolean that is neither 0 nor 1")
    return data.view(stored).astype(stored.newbyteorder("="), copy=False)


def read_array(dtype: Any, shape: Any, content: object) -> NDArray[Any]:
    """Return the array of a dtype, a shape and the bytes of its elements."""
    if dtype == "bfloat16":
        raise InvalidPayload("numpy has no bfloat16")
    return _read_elements(dtype, shape, content).reshape(shape)


def read_tensor(dtype: Any, shape: Any, content: object) -> object:
    """Return the tensor of a dtype, a shape and the bytes of its elements."""
    import torch  # a database without tensors is read without torch

    data = _read_elements(dtype, shape, content)
    if dtype == "bfloat16":
        return torch.from_numpy(data.view(np.int16)).view(torch.bfloat16).reshape(shape)
    return torch.from_numpy(data).reshape(shape)


_TAGS: dict[int, Reader] = {
    2: lambda content, _: int.from_bytes(_expect(bytes, content), "big"),
    3: lambda content, _: -1 - int.from_bytes(_expect(bytes, content), "big"),
    27: _read_object,
    30: _read_fraction,
    37: lambda content, _: uuid.UUID(bytes=_expect(bytes, content)),
    258: lambda content, _: _distinct(set, _checked(_expect(list, content))),
    1004: lambda content, _: dt.date.fromisoformat(content),
    43000: lambda content, _: complex(*(_expect(float, part) for part in content)),
}

_READERS = _Readers(_TAGS)

_KINDS: dict[str, Callable[..., object]] = {
    "str": lambda content: _expect(bytes, content).decode(errors="surrogatepass"),
    "bytearray": lambda content: bytearray(_expect(bytes, content)),
    "decimal": lambda text: Decimal(_expect(str, text)),
    "datetime": lambda text, fold: dt.datetime.fromisoformat(text).replace(fold=fold),
    "time": lambda text, fold: dt.time.fromisoformat(text).replace(fold=fold),
    "timedelta": lambda *parts: dt.timedelta(*(_expect(int, part) for part in parts)),
    "tuple": lambda *parts: parts,
    "frozenset": lambda *parts: _distinct(frozenset, parts),
    "dict": _read_dict,
    "array": read_array,
    "scalar": lambda dtype, content: read_array(dtype, [], content)[()],
    "tensor": read_tensor,
    "object": lambda name, content: named(name).decode(content),
}

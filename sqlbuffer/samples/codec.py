"""Samples to what a database stores, and back, with their exact type.

A string is stored as `text` and nothing else. Everything else is CBOR in `payload`, with a readable rendering in
`text`; so are the strings that no database takes as text, those with NUL or a lone surrogate. What CBOR has no type
for is an object of tag 27, [kind, parts...]: ["tuple", 1, 2], and for a registered class ["object", name, content].

What comes back is equal to what went in and of its type, with these exceptions: a subclass of a built-in type comes
back as that type unless it is registered, a datetime with a named zone has the offset the zone had then, an array is
in native byte order and C order, a tensor is dense, on the CPU and without gradient.

A payload is data from anywhere. Reading one imports, executes and unpickles nothing, takes no more memory and
time than the payload's size warrants, and ends in a value or in `InvalidPayload`. Pickle is for those who trust their
database and say so.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import io
import math
import pickle
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, NoReturn, TypeVar

import cbor2
import numpy as np
from cbor2 import CBORTag
from numpy.typing import NDArray

from sqlbuffer._validation import is_storable, is_text
from sqlbuffer.errors import InvalidArgument, InvalidPayload, UnsupportedType, naming
from sqlbuffer.samples import registry
from sqlbuffer.samples.hashing import (
    ELEMENT_DTYPES,
    NUMPY_SCALARS,
    Elements,
    flatten,
    is_plain_tensor,
)
from sqlbuffer.samples.preview import render

__all__ = ["Encoded", "decode_all", "encode_all"]

_WIRE_DEPTH = 2 * registry.MAX_DEPTH + 8  # a tuple is a tag and an array
_MAX_DIMENSIONS, _MAX_BYTES = 1024, 1 << 62  # of an array, one without elements included
_MAX_ALIKE = 1_000
"""The most elements of a set, or keys of a dict, that have one hash in Python, which compares each with all others."""

_MAX_RATIO_BITS = 1 << 16
"""The most bits of a numerator or denominator: a ratio is reduced in quadratic time."""

_MISREAD = frozenset({type(cbor2.undefined), cbor2.CBORSimpleValue})

T = TypeVar("T")
Made = TypeVar("Made", bound=Sized)


class Encoded(NamedTuple):
    """Samples as columns.

    Attributes:
        texts: (n,) the string itself, or a rendering for people.
        payloads: (n,) None where the text is the whole sample.
        codecs: (n,) "text", "cbor" or "pickle".
    """

    texts: list[str]
    payloads: list[bytes | None]
    codecs: list[str]


def encode_all(
    values: Iterable[object], *, allow_pickle: bool = False, numbers: Sequence[int] | None = None
) -> Encoded:
    """Encode samples for storage.

    Args:
        values: (n,) samples.
        allow_pickle: Pickle a sample of a type that nothing else supports, instead of refusing it.
        numbers: (n,) by which an error names the samples.

    Returns:
        Three columns of length n, in order.

    Raises:
        UnsupportedType: A sample is, or holds, something that is neither supported nor registered.
        InvalidArgument: A sample nests too deep, or contains itself.
    """
    texts = list(values)
    if set(map(type, texts)) == {str} and is_storable("".join(texts)):  # type: ignore[arg-type]
        return Encoded(texts, [None] * len(texts), ["text"] * len(texts))  # type: ignore[arg-type]
    rows: list[tuple[str, bytes | None, str]] = []
    try:
        for value in texts:
            is_plain = type(value) is str and is_storable(value)
            encoded = _encode(value, allow_pickle=allow_pickle) if not is_plain else None
            rows.append((value, None, "text") if encoded is None else encoded)  # type: ignore[arg-type]
    except (UnsupportedType, InvalidArgument):
        with naming(None if numbers is None else numbers[len(rows)], texts[len(rows)]):
            raise
    return Encoded(
        [text for text, _, _ in rows],
        [payload for _, payload, _ in rows],
        [codec for _, _, codec in rows],
    )


def decode_all(
    texts: Sequence[str],
    payloads: Sequence[bytes | None],
    codecs: Sequence[str],
    *,
    allow_pickle: bool = False,
) -> list[object]:
    """Decode stored samples.

    Args:
        texts: (n,) strings.
        payloads: (n,) bytes, None where the text is the whole sample.
        codecs: (n,) "text", "cbor" or "pickle".
        allow_pickle: Unpickle what was pickled. Any process that can write to the database can then run code here.

    Returns:
        (n,) samples, in order.

    Raises:
        InvalidPayload: A payload is missing, malformed, of an unknown codec or of a class that is not registered, or
            was pickled and `allow_pickle` is not set.
    """
    return [
        text if codec == "text" else _decode(payload, codec, allow_pickle=allow_pickle)
        for text, payload, codec in zip(texts, payloads, codecs, strict=True)
    ]


def _encode(value: object, *, allow_pickle: bool) -> tuple[str, bytes | None, str]:
    try:
        wire = _wire(value, 0)
    except UnsupportedType:
        if not allow_pickle:
            raise
        return render(value), _pickled(value), "pickle"
    if type(wire) is str and is_storable(wire):
        return wire, None, "text"
    return render(value), cbor2.dumps(wire), "cbor"


def _decode(payload: bytes | None, codec: str, *, allow_pickle: bool) -> object:
    if codec not in ("cbor", "pickle"):
        raise InvalidPayload(f"unknown codec {codec!r}: the codecs are text, cbor and pickle")
    if payload is None:
        raise InvalidPayload(f"a sample of codec {codec} has no payload")
    if codec == "pickle" and not allow_pickle:
        raise InvalidPayload(
            "a sample was pickled: read it with allow_pickle=True if you trust the database"
        )
    try:
        return pickle.loads(payload) if codec == "pickle" else _from_cbor(payload)
    except InvalidPayload:
        raise
    except Exception as exc:  # whatever cbor2, a reader below or a registered decode ran into
        reason: BaseException = exc
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise InvalidPayload(f"a payload of {len(payload)} bytes cannot be read: {reason}") from exc


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as exc:  # pickle raises whatever the class does
        raise UnsupportedType(f"a {type(value).__qualname__} cannot be pickled: {exc}") from exc


# --- to the wire: what cbor2 writes by itself, and tags


def _wire(value: Any, depth: int) -> Any:
    cls = type(value)
    writer = _WRITERS.get(cls)
    if writer is None:
        writer = _writer_of(cls)
    return writer(value, depth)


def _wire_each(values: Iterable[Any], depth: int) -> list[Any]:
    if depth >= registry.MAX_DEPTH:
        raise registry.too_deep()
    return [_wire(value, depth + 1) for value in values]


def _writer_of(cls: type[Any]) -> Writer:
    entry = registry.find(cls)
    if entry is not None:
        return functools.partial(_registered, entry)
    if is_plain_tensor(cls):
        return lambda value, _: _array("tensor", value)
    writer = None if registry.needs_entry(cls) else registry.nearest(cls, _WRITERS)
    if writer is None:
        raise registry.unsupported(cls)
    return writer


def _object(kind: str, *parts: object) -> CBORTag:
    return CBORTag(27, [kind, *parts])


def _registered(entry: registry.Entry, value: object, depth: int) -> CBORTag:
    return _object("object", entry.name, *_wire_each((entry.encode(value),), depth))


def _str(value: str, _depth: int) -> Any:
    text = str.__str__(value)  # a subclass may have another idea of its str()
    return text if is_text(text) else _object("str", text.encode(errors="surrogatepass"))


def _dict(value: Mapping[Any, object], depth: int) -> Any:
    values = _wire_each(value.values(), depth)
    if all(type(key) is str and is_text(key) for key in value):
        return dict(zip(value, values, strict=True))
    keys = _set(value.keys(), depth)
    return _object("dict", *(part for item in zip(keys, values, strict=True) for part in item))


def _set(value: Collection[Any], depth: int) -> list[Any]:
    if _are_too_alike(value):
        raise InvalidArgument(
            f"a set or dict has more than {_MAX_ALIKE} elements with the same hash() and takes too long to read: "
            "add a sorted list of them."
        )
    return _wire_each(value, depth)


def _are_too_alike(elements: Collection[Any]) -> bool:
    """Tell whether so many elements have one hash that a set or dict of them takes quadratic time to build."""
    if len(elements) <= _MAX_ALIKE:
        return False
    # Stops at the first hash of too many: since 3.12 Python keeps the hashes of fractions in a
    # dict, so that hashing 20,000 of them that are alike takes quadratic time itself.
    alike: dict[int, int] = {}
    for number in map(hash, elements):
        alike[number] = alike.get(number, 0) + 1
        if alike[number] > _MAX_ALIKE:
            return True
    return False


def _fraction(value: Fraction, _depth: int) -> CBORTag:
    parts = [value.numerator, value.denominator]
    if any(part.bit_length() > _MAX_RATIO_BITS for part in parts):
        raise InvalidArgument(
            f"a Fraction with a part of more than {_MAX_RATIO_BITS} bits takes too long to read: add its parts as a "
            "tuple, or fewer digits."
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
    tuple: lambda value, depth: _object("tuple", *_wire_each(value, depth)),
    list: _wire_each,
    dict: _dict,
    collections.OrderedDict: _dict,
    set: lambda value, depth: CBORTag(258, _set(value, depth)),
    frozenset: lambda value, depth: _object("frozenset", *_set(value, depth)),
    np.ndarray: lambda value, _: _array("array", value),
    **dict.fromkeys(NUMPY_SCALARS, lambda value, _: _scalar(flatten(value))),
}


# --- from the wire: cbor2 reads, and hands every tag with its decoded content to a reader below


Reader = Callable[[Any, bool], object]


class _Readers(dict[int, Reader]):
    """The readers by tag. Without `__missing__` cbor2 would read others itself: patterns, mail, shared references."""

    def __missing__(self, tag: int) -> NoReturn:
        raise InvalidPayload(f"unknown tag {tag}")


def _from_cbor(payload: bytes) -> object:
    stream = io.BytesIO(payload)
    value = cbor2.CBORDecoder(
        stream,
        semantic_decoders=_READERS,
        object_hook=_read_map,
        max_depth=_WIRE_DEPTH,
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
    """Refuse CBOR's undefined and its unassigned simple values, in lists and maps too: no sample holds them."""
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
    """Make a set or dict of elements or keys that are not too alike, and of which none comes twice."""
    if _are_too_alike(parts):
        raise InvalidPayload(f"more than {_MAX_ALIKE} elements or keys with one hash")
    made = make(parts)
    if len(made) != len(parts):
        raise InvalidPayload("an element or key that occurs twice")
    return made


def _read_dict(*parts: Any) -> dict[Any, Any]:
    return _distinct(lambda keys: dict(zip(keys, parts[1::2], strict=True)), parts[::2])


def _read_fraction(content: Iterable[object], _immutable: bool) -> Fraction:
    parts = [_expect(int, part) for part in content]
    if any(part.bit_length() > _MAX_RATIO_BITS for part in parts):
        raise InvalidPayload(f"a ratio with a part of more than {_MAX_RATIO_BITS} bits")
    return Fraction(*parts)


def _read_elements(dtype: str, shape: Any, content: object) -> NDArray[Any]:
    """Return the elements, flat, native and writable, once they agree with their dtype and shape."""
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


def _read_array(dtype: Any, shape: Any, content: object) -> NDArray[Any]:
    if dtype == "bfloat16":
        raise InvalidPayload("numpy has no bfloat16")
    return _read_elements(dtype, shape, content).reshape(shape)


def _read_tensor(dtype: Any, shape: Any, content: object) -> object:
    import torch  # only here: a database without tensors is read without torch

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
    "array": _read_array,
    "scalar": lambda dtype, content: _read_array(dtype, [], content)[()],
    "tensor": _read_tensor,
    "object": lambda name, content: registry.named(name).decode(content),
}

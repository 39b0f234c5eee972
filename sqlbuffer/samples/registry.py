"""The classes of a user's own that may be samples, by class and by the name they are stored under."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import itertools
import operator
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from sqlbuffer._validation import WHOLE
from sqlbuffer.errors import InvalidArgument, InvalidPayload, UnsupportedType, shown

MAX_DEPTH = 64
"""How deep a sample may nest. It turns a sample that contains itself into an error, and bounds the decoder."""

T = TypeVar("T")
Result = TypeVar("Result")

_READ_BY: Mapping[type[Any], frozenset[str]] = {
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
"""The built-in types whose subclasses count as them, and by which of its members one gives its value away.

A subclass with such a member of its own says another value there than the one that Python compares.
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
"""How the value of a subclass is read by the methods of its base, as Python compares it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a registered class.

    Attributes:
        cls: The class.
        name: What the database calls it.
        identity: Takes an instance to what its equality is made of: the hash is taken of this.
        encode: Takes an instance to a supported value that is all of it.
        decode: Takes that value back to an instance.
        like_its_base: Whether an instance may equal the built-in value it derives from: (1, 2) or 3 or "a".
    """

    cls: type[Any]
    name: str
    identity: Callable[[Any], object]
    encode: Callable[[Any], object]
    decode: Callable[[Any], object]
    like_its_base: bool = False


_by_class: dict[type[Any], Entry] = {}
_by_name: dict[str, Entry] = {}


def register(
    cls: type[T],
    *,
    name: str | None = None,
    encode: Callable[[T], object] | None = None,
    decode: Callable[[Any], T] | None = None,
) -> type[T]:
    """Let instances of a class be samples, in this process; works as a decorator too.

    A dataclass is equal to another by its class and its compared fields, and is restored field by field without a
    call of `__init__`. An enum is stored by the name of its member (a flag by its value), a named tuple by its
    fields. Of all of them the name and the fields are part of the hash or of the stored form: keep them stable.

    Equal samples are one, others are not. So a dataclass, named tuple or enum with an `__eq__` of its own is refused,
    and a dataclass with `eq=False`: only `encode` can say what they are equal by. A `__hash__` of its own must agree
    with `__eq__`, as Python asks of it.

    Args:
        cls: A dataclass, a named tuple, an enum, or with `encode` and `decode` any class. Subclasses are not included.
        name: What the database calls it; its qualified name, without the module, unless given.
        encode: Takes an instance to a supported value, such that equal instances give equal values and others do not.
            For a class that compares by identity these values decide what is one sample.
        decode: Takes that value back to an instance. It sees what the database holds, so it should check it. Of a
            class that was registered without functions before, the database holds a dict of the fields, for an enum
            the name, for a flag the value.

    Returns:
        The class itself.

    Raises:
        InvalidArgument: The name belongs to another class, the class has another name, it needs `encode` and
            `decode` and got none or one of them, or equal instances would not be one sample.
    """
    if not isinstance(cls, type):
        raise InvalidArgument(
            f"only a class can be registered, got {shown(cls)}: give the class, not an object of it."
        )
    name = cls.__qualname__ if name is None else name
    if not isinstance(name, str) or "\0" in name or name != name.encode(errors="replace").decode():
        raise InvalidArgument(
            f"the name of a registered class is text without NUL and lone surrogates, got {shown(name)}."
        )
    if (encode is None) != (decode is None):
        raise InvalidArgument(
            f"{cls.__qualname__} has only one of encode= and decode=: give both or neither."
        )
    if encode is not None and decode is not None:
        _require_own_equality(cls)
        entry = Entry(cls, name, identity=encode, encode=encode, decode=decode)
    else:
        entry = _entry_by_kind(cls, name)
    holder = _by_name.get(name, entry)
    if _path(holder.cls) != _path(
        cls
    ):  # a class of the same path is the same one defined again, as in a notebook
        raise InvalidArgument(
            f"the name {name!r} belongs to {holder.cls.__module__}.{holder.cls.__qualname__}: "
            f"pass name= to give {cls.__module__}.{cls.__qualname__} another one."
        )
    if _by_class.get(cls, entry).name != name:
        before = _by_class[cls].name
        raise InvalidArgument(
            f"{cls.__qualname__} is registered as {before!r}, not as {name!r}: keep one."
        )
    _by_class[cls] = _by_name[name] = entry
    return cls


def find(cls: type[Any]) -> Entry | None:
    """Look up a class, None when it is not registered."""
    return _by_class.get(cls)


def named(name: object) -> Entry:
    """Look up a stored name.

    Raises:
        InvalidPayload: Nothing is registered under it.
    """
    entry = _by_name.get(name) if isinstance(name, str) else None
    if entry is None:
        raise InvalidPayload(
            f"no class is registered as {name!r}: import it and call sqlbuffer.register({name}) before reading."
        )
    return entry


def nearest(
    cls: type[Any], handlers: Mapping[type[Any], Callable[[Any, int], Result]]
) -> Callable[[Any, int], Result] | None:
    """Find the handler of the class, or of its first base that has one; it reads instances as that base.

    None when the class has an equality of its own, or says by a method of its own that it is another value.
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
    """Return by which members of its own a subclass differs from the base that it would count as."""
    own: set[str] = set()
    for each in cls.__mro__[: cls.__mro__.index(base)]:
        own |= each.__dict__.keys()
    return sorted(own & (_READ_BY.get(base, frozenset()) | {"__eq__"}))


def needs_entry(cls: type[Any]) -> bool:
    """Tell whether the class is of a kind that can be stored once it is registered, and only then."""
    return issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls) or _is_namedtuple(cls)


def unsupported(cls: type[Any]) -> UnsupportedType:
    """Make the error for a class without a handler; it says how to register the class."""
    if needs_entry(cls):
        return UnsupportedType(
            f"{cls.__module__}.{cls.__qualname__} is not registered: call sqlbuffer.register({cls.__qualname__})."
        )
    if cls is collections.OrderedDict:
        return UnsupportedType(
            "an OrderedDict equals a dict in any order, but an OrderedDict only in its own, which no hash can follow: "
            "add dict(sample), or list(sample.items()) if the order counts."
        )
    base = next((base for base in cls.__mro__[1:] if base in _READ_BY), None)
    if base is not None and (own := own_members(cls, base)):
        return UnsupportedType(
            f"{cls.__module__}.{cls.__qualname__} has {', '.join(own)} of its own and does not count as a "
            f"{base.__name__}: add a plain {base.__name__}, or call "
            f"sqlbuffer.register({cls.__qualname__}, encode=..., decode=...) if it has an __eq__ of its own."
        )
    return UnsupportedType(
        f"{cls.__module__}.{cls.__qualname__} is not a supported type: add its parts, or call "
        f"sqlbuffer.register({cls.__qualname__}, encode=..., decode=...)."
    )


def too_deep() -> InvalidArgument:
    """Make the error for a sample that nests deeper than `MAX_DEPTH`."""
    return InvalidArgument(
        f"a sample nests deeper than {MAX_DEPTH} levels, or contains itself: flatten it."
    )


def _path(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _is_namedtuple(cls: type[Any]) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make")


def _entry_by_kind(cls: type[Any], name: str) -> Entry:
    if issubclass(cls, enum.Enum):
        return _enum_entry(cls, name)
    if _is_namedtuple(cls):
        if own := own_members(cls, tuple):
            raise _own_equality(cls, f"has {', '.join(own)} of its own", "a dict of the fields")
        return _fields_entry(
            cls, name, cls._fields, cls._fields, functools.partial(tuple.__new__, cls)
        )
    if dataclasses.is_dataclass(cls):
        fields = dataclasses.fields(cls)
        compared = tuple(field.name for field in fields if field.compare)
        make = _dataclass_maker(cls)
        if not _compares_fields(cls, compared):
            is_identity = cls.__eq__ is object.__eq__
            how = (
                "is equal to nothing but itself (eq=False)"
                if is_identity
                else "has an __eq__ of its own"
            )
            raise _own_equality(cls, how, "a dict of the fields")
        return _fields_entry(cls, name, tuple(field.name for field in fields), compared, make)
    raise InvalidArgument(
        f"{cls.__qualname__} is not a dataclass, named tuple or enum: give encode= and decode="
    )


def _enum_entry(cls: type[enum.Enum], name: str) -> Entry:
    """Return the entry of an enum: its members are equal as what they derive from, else by identity."""
    is_flag = issubclass(cls, enum.Flag)
    identity = operator.attrgetter("value" if is_flag else "name")
    decode: Callable[[Any], Any] = cls if is_flag else cls.__members__.__getitem__
    holder = _equality_holder(cls)
    if holder in _READ_BY:
        own = own_members(cls, holder)
    else:
        own = [] if holder is object or _compares_members(cls) else ["__eq__"]
    if own:
        stored = "the value" if is_flag else "the name"
        raise _own_equality(cls, f"has {', '.join(own)} of its own", f"{stored} of the member")
    for member in cls:
        try:
            is_restored = decode(identity(member)) is member
        except (LookupError, TypeError, ValueError):
            is_restored = False
        if not is_restored:
            raise InvalidArgument(
                f"{member!r} cannot be found by its {'value' if is_flag else 'name'}, "
                f"{identity(member)!r}, under which it is stored: rename the property that hides "
                "it."
            )
    return Entry(cls, name, identity, identity, decode, like_its_base=True)


def _equality_holder(cls: type[Any]) -> type[Any]:
    """Return the class that a class has its `__eq__` from."""
    return next(base for base in cls.__mro__ if "__eq__" in base.__dict__)


def _compares_members(cls: type[enum.Enum]) -> bool:
    """Tell whether members that are dataclasses, too, differ from each other by what a dataclass compares."""
    if not dataclasses.is_dataclass(cls):
        return False
    compared = tuple(field.name for field in dataclasses.fields(cls) if field.compare)
    return _compares_fields(cls, compared) and not any(
        a == b for a, b in itertools.combinations(cls, 2)
    )


def _compares_fields(cls: type[Any], compared: tuple[str, ...]) -> bool:
    """Tell whether the `__eq__` of a class is, to the last instruction, what `dataclass` makes for these fields."""
    fields: list[Any] = [(field, object) for field in compared]
    made = dataclasses.make_dataclass("Made", fields, init=False, repr=False).__eq__
    ours, theirs = (getattr(function, "__code__", None) for function in (cls.__eq__, made))
    if ours is None or theirs is None:
        return False
    return all(
        getattr(ours, part) == getattr(theirs, part)
        for part in ("co_code", "co_names", "co_consts")
    )


def _own_equality(cls: type[Any], how: str, stored: str) -> InvalidArgument:
    return InvalidArgument(
        f"{cls.__qualname__} {how}, so {stored} cannot stand for it: give encode=, which makes equal values of equal "
        f"instances, and decode=, which gets {stored} for samples stored before."
    )


def _require_own_equality(cls: type[Any]) -> None:
    """Refuse functions for a class that is equal to the built-in type it derives from: that has another hash."""
    holder = _equality_holder(cls)
    if holder in _READ_BY and holder is not np.ndarray:
        raise InvalidArgument(
            f"{cls.__qualname__} is equal to a {holder.__name__} of the same value, which has "
            "another hash: add it unregistered or without encode= and decode=, or give it an "
            "__eq__ and a __hash__ of its own."
        )


def _fields_entry(
    cls: type[Any],
    name: str,
    fields: tuple[str, ...],
    compared: tuple[str, ...],
    make: Callable[[list[Any]], object],
) -> Entry:
    def taken(value: Any, names: tuple[str, ...]) -> dict[str, object]:
        if isinstance(value, tuple):
            return dict(zip(fields, tuple.__iter__(value), strict=True))
        try:
            return {field: getattr(value, field) for field in names}
        except AttributeError as exc:
            raise UnsupportedType(
                f"a {cls.__qualname__} lacks a field ({exc}): set every field first."
            ) from exc

    def encode(value: object) -> dict[str, object]:
        return taken(value, fields)

    def identity(value: object) -> dict[str, object]:
        return taken(value, compared)

    def decode(content: object) -> object:
        if not isinstance(content, dict) or content.keys() != set(fields):
            stored = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise InvalidPayload(
                f"{name} was stored with the fields {stored}, the registered class has {list(fields)}"
            )
        return make([content[field] for field in fields])

    return Entry(cls, name, identity, encode, decode, like_its_base=issubclass(cls, tuple))


def _dataclass_maker(cls: type[Any]) -> Callable[[list[Any]], object]:
    """Return a function that sets the fields as copy and pickle do: `__post_init__` ran when the sample was made."""
    fields = [field.name for field in dataclasses.fields(cls)]
    try:
        object.__new__(cls)
        is_plain = not any(base in _READ_BY for base in cls.__mro__)
    except TypeError:
        is_plain = False
    if not is_plain:
        raise InvalidArgument(
            f"{cls.__qualname__} derives from a built-in type: give encode= and decode="
        )

    def make(values: list[Any]) -> object:
        instance = object.__new__(cls)
        for field, value in zip(fields, values, strict=True):
            object.__setattr__(instance, field, value)
        return instance

    return make


WHOLE.append(
    lambda cls: find(cls) is not None or needs_entry(cls)
)  # an argument of such a class is no list

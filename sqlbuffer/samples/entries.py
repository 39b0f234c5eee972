"""Entries of dataclasses, named tuples and enums: how each is hashed, stored and restored.

A class whose equality differs from the equality of its kind is refused: the hash would not follow
it.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import operator
from collections.abc import Callable
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import Entry, is_namedtuple
from sqlbuffer.errors import InvalidArgument, InvalidPayload, UnsupportedType
from sqlbuffer.samples.subclasses import READ_BY, own_members


def entry_by_kind(cls: type[Any], name: str) -> Entry:
    """Return the entry of a dataclass, named tuple or enum.

    Raises:
        InvalidArgument: If the class is of another kind, or has an equality of its own.
    """
    if issubclass(cls, enum.Enum):
        return _enum_entry(cls, name)
    if is_namedtuple(cls):
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
    """Return the entry of an enum.

    Its members are equal as values of the type they derive from, else by identity.
    """
    is_flag = issubclass(cls, enum.Flag)
    identity = operator.attrgetter("value" if is_flag else "name")
    decode: Callable[[Any], Any] = cls if is_flag else cls.__members__.__getitem__
    holder = _equality_holder(cls)
    if holder in READ_BY:
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
    """Return the base that defines the `__eq__` of a class."""
    return next(base for base in cls.__mro__ if "__eq__" in base.__dict__)


def _compares_members(cls: type[enum.Enum]) -> bool:
    """Tell whether members that are also dataclasses all differ in their compared fields."""
    if not dataclasses.is_dataclass(cls):
        return False
    compared = tuple(field.name for field in dataclasses.fields(cls) if field.compare)
    return _compares_fields(cls, compared) and not any(
        a == b for a, b in itertools.combinations(cls, 2)
    )


def _compares_fields(cls: type[Any], compared: tuple[str, ...]) -> bool:
    """Tell whether the `__eq__` of a class has the bytecode that `dataclass` makes for fields."""
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
        f"{cls.__qualname__} {how}, so {stored} cannot stand for it: give encode=, which makes "
        f"equal values of equal instances, and decode=, which gets {stored} for samples stored "
        "before."
    )


def require_own_equality(cls: type[Any]) -> None:
    """Refuse `encode` and `decode` for a class that inherits the equality of a built-in type.

    Its instances equal values of the built-in type, which have another hash.
    """
    holder = _equality_holder(cls)
    if holder in READ_BY and holder is not np.ndarray:
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
                f"{name} was stored with the fields {stored}, the registered class has "
                f"{list(fields)}"
            )
        return make([content[field] for field in fields])

    is_tuple = issubclass(cls, tuple)
    return Entry(cls, name, identity, encode, decode, is_tuple, fields=fields, compared=compared)


def _dataclass_maker(cls: type[Any]) -> Callable[[list[Any]], object]:
    """Return a function that makes an instance from field values, as copy and pickle do.

    It calls neither `__init__` nor `__post_init__`: they ran when the sample was made.
    """
    fields = [field.name for field in dataclasses.fields(cls)]
    try:
        object.__new__(cls)
        is_plain = not any(base in READ_BY for base in cls.__mro__)
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

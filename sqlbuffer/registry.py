"""The classes of a user's own that may be samples, by class and by the name they are stored under."""

from __future__ import annotations

import dataclasses
import enum
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlbuffer.errors import InvalidArgument, InvalidPayload, UnsupportedType, shown

MAX_DEPTH = 64
"""How deep a sample may nest. It turns a sample that contains itself into an error, and bounds the decoder."""

T = TypeVar("T")
Handler = TypeVar("Handler")


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

    Args:
        cls: A dataclass, a named tuple, an enum, or with `encode` and `decode` any class. Subclasses are not included.
        name: What the database calls it; its qualified name, without the module, unless given.
        encode: Takes an instance to a supported value, such that equal instances give equal values and others do not.
        decode: Takes that value back to an instance. It sees what the database holds, so it should check it.

    Returns:
        The class itself.

    Raises:
        InvalidArgument: The name belongs to another class, the class has another name, or it needs `encode` and
            `decode` and got none or one of them.
    """
    if not isinstance(cls, type):
        raise InvalidArgument(f"only a class can be registered, got {shown(cls)}: give the class, not an object of it.")
    name = cls.__qualname__ if name is None else name
    if not isinstance(name, str) or "\0" in name or name != name.encode(errors="replace").decode():
        raise InvalidArgument(
            f"the name of a registered class is text without NUL and lone surrogates, got {shown(name)}."
        )
    if (encode is None) != (decode is None):
        raise InvalidArgument(f"{cls.__qualname__} has only one of encode= and decode=: give both or neither.")
    if encode is not None and decode is not None:
        entry = Entry(cls, name, identity=encode, encode=encode, decode=decode)
    else:
        entry = _entry_by_kind(cls, name)
    holder = _by_name.get(name, entry)
    if _path(holder.cls) != _path(cls):  # a class of the same path is the same one defined again, as in a notebook
        raise InvalidArgument(
            f"the name {name!r} belongs to {holder.cls.__module__}.{holder.cls.__qualname__}: "
            f"pass name= to give {cls.__module__}.{cls.__qualname__} another one."
        )
    if _by_class.get(cls, entry).name != name:
        before = _by_class[cls].name
        raise InvalidArgument(f"{cls.__qualname__} is registered as {before!r}, not as {name!r}: keep one.")
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


def nearest(cls: type[Any], handlers: Mapping[type[Any], Handler]) -> Handler | None:
    """Find the handler of the class or of its first base that has one, None when it has an equality of its own."""
    for base in cls.__mro__:
        if base in handlers:
            return handlers[base]
        if "__eq__" in base.__dict__:
            break
    return None


def needs_entry(cls: type[Any]) -> bool:
    """Tell whether the class is of a kind that can be stored once it is registered, and only then."""
    return issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls) or _is_namedtuple(cls)


def unsupported(cls: type[Any]) -> UnsupportedType:
    """Make the error for a class without a handler; it says how to register the class."""
    if needs_entry(cls):
        return UnsupportedType(
            f"{cls.__module__}.{cls.__qualname__} is not registered: call sqlbuffer.register({cls.__qualname__})."
        )
    return UnsupportedType(
        f"{cls.__module__}.{cls.__qualname__} is no supported type: add what it is made of, "
        f"or call sqlbuffer.register({cls.__qualname__}, encode=..., decode=...)."
    )


def too_deep() -> InvalidArgument:
    """Make the error for a sample that nests deeper than `MAX_DEPTH`."""
    return InvalidArgument(f"a sample nests deeper than {MAX_DEPTH} levels, or contains itself: flatten it.")


def _path(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _is_namedtuple(cls: type[Any]) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make")


def _entry_by_kind(cls: type[Any], name: str) -> Entry:
    if issubclass(cls, enum.Flag):
        value_of = operator.attrgetter("value")
        return Entry(cls, name, value_of, value_of, decode=cls, like_its_base=True)
    if issubclass(cls, enum.Enum):
        name_of = operator.attrgetter("name")
        return Entry(cls, name, name_of, name_of, decode=cls.__members__.__getitem__, like_its_base=True)
    if _is_namedtuple(cls):
        return _fields_entry(cls, name, cls._fields, cls._fields, cls._make)
    if dataclasses.is_dataclass(cls):
        fields = dataclasses.fields(cls)
        compared = tuple(field.name for field in fields if field.compare)
        return _fields_entry(cls, name, tuple(field.name for field in fields), compared, _dataclass_maker(cls))
    raise InvalidArgument(f"{cls.__qualname__} is no dataclass, named tuple or enum: give encode= and decode=")


def _fields_entry(
    cls: type[Any], name: str, fields: tuple[str, ...], compared: tuple[str, ...], make: Callable[[list[Any]], object]
) -> Entry:
    def encode(value: object) -> dict[str, object]:
        return {field: getattr(value, field) for field in fields}

    def identity(value: object) -> dict[str, object]:
        return {field: getattr(value, field) for field in compared}

    def decode(content: object) -> object:
        if not isinstance(content, dict) or content.keys() != set(fields):
            stored = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise InvalidPayload(f"{name} was stored with the fields {stored}, the registered class has {list(fields)}")
        return make([content[field] for field in fields])

    return Entry(cls, name, identity, encode, decode, like_its_base=issubclass(cls, tuple))


def _dataclass_maker(cls: type[Any]) -> Callable[[list[Any]], object]:
    """Return a function that sets the fields as copy and pickle do: `__post_init__` ran when the sample was made."""
    fields = [field.name for field in dataclasses.fields(cls)]
    try:
        object.__new__(cls)
    except TypeError as exc:
        raise InvalidArgument(f"{cls.__qualname__} derives from a built-in type: give encode= and decode=") from exc

    def make(values: list[Any]) -> object:
        instance = object.__new__(cls)
        for field, value in zip(fields, values, strict=True):
            object.__setattr__(instance, field, value)
        return instance

    return make

"""Registration of a user's classes as samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlbuffer._messages import shown
from sqlbuffer._sample_classes import BY_CLASS, BY_NAME, Entry
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.samples.entries import entry_by_kind, require_own_equality

T = TypeVar("T")


def register(
    cls: type[T],
    *,
    name: str | None = None,
    encode: Callable[[T], object] | None = None,
    decode: Callable[[Any], T] | None = None,
) -> type[T]:
    """Register a class whose instances are samples, in this process; also usable as a decorator.

    Two dataclass instances are equal if they have the same class and equal compared fields. A
    dataclass is restored field by field, without a call of `__init__`. An enum is stored by the
    name of its member, a flag by its value, a named tuple by its fields. The name of the class and
    the names of the fields are part of the hash or of the stored form: keep them stable.

    A dataclass, named tuple or enum with an `__eq__` of its own is refused, and so is a dataclass
    with `eq=False`: only `encode` can tell which of their instances are equal. A `__hash__` of the
    class must agree with its `__eq__`, as Python requires.

    Args:
        cls: A dataclass, named tuple or enum; any class, if `encode` and `decode` are given.
            Subclasses are not registered with it.
        name: Name of the class in the database; by default its qualified name, without the module.
        encode: Returns a supported value for an instance. Equal instances must give equal values,
            and unequal instances unequal values. For a class that compares by identity these values
            decide which instances are the same sample.
        decode: Returns the instance for such a value. It should check the value, which comes from
            the database. If the class was registered without functions before, the database also
            has dicts of the fields (for an enum the name, for a flag the value).

    Returns:
        The class itself.

    Raises:
        InvalidArgument: If the name belongs to another class, the class has another name, only one
            of `encode` and `decode` is given, the class needs both, or equal instances would not be
            one sample.

    Examples:
        >>> import dataclasses
        >>> from sqlbuffer import register
        >>> @register
        ... @dataclasses.dataclass(frozen=True)
        ... class Reaction:
        ...     smarts: str
        ...     yields: float
        >>> store.add([Reaction("CCO>>CC=O", 0.9), Reaction("CCO>>CC=O", 0.9)]).duplicates
        1
    """
    if not isinstance(cls, type):
        raise InvalidArgument(
            f"only a class can be registered, got {shown(cls)}: give the class, not an object of "
            "it."
        )
    name = cls.__qualname__ if name is None else name
    if not isinstance(name, str) or "\0" in name or name != name.encode(errors="replace").decode():
        raise InvalidArgument(
            "the name of a registered class is text without NUL and lone surrogates, got "
            f"{shown(name)}."
        )
    if (encode is None) != (decode is None):
        raise InvalidArgument(
            f"{cls.__qualname__} has only one of encode= and decode=: give both or neither."
        )
    if encode is not None and decode is not None:
        require_own_equality(cls)
        entry = Entry(cls, name, identity=encode, encode=encode, decode=decode)
    else:
        entry = entry_by_kind(cls, name)
    holder = BY_NAME.get(name, entry)
    # A class of the same path is the same class defined again, such as in a notebook.
    if _path(holder.cls) != _path(cls):
        raise InvalidArgument(
            f"the name {name!r} belongs to {holder.cls.__module__}.{holder.cls.__qualname__}: "
            f"pass name= to give {cls.__module__}.{cls.__qualname__} another one."
        )
    if BY_CLASS.get(cls, entry).name != name:
        before = BY_CLASS[cls].name
        raise InvalidArgument(
            f"{cls.__qualname__} is registered as {before!r}, not as {name!r}: keep one."
        )
    BY_CLASS[cls] = BY_NAME[name] = entry
    return cls


def _path(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__

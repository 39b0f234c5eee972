"""The table of registered classes, and the kinds of classes that need an entry in it.

`sqlbuffer.register` (`samples/registry.py`) fills the table; the hash and the codec read it. It is
a leaf because the check of arguments (`_validation`) reads it too: it takes an instance of such a
class for one sample, not for a list.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from sqlbuffer.errors import InvalidPayload


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A registered class.

    Attributes:
        cls: The class.
        name: Its name in the database.
        identity: Returns the value by which instances are equal; the hash is computed from this
            value.
        encode: Returns a supported value that represents the whole instance.
        decode: Returns the instance for a value of `encode`.
        like_its_base: Whether an instance may equal a value of its built-in base: (1, 2), 3 or "a".
        fields: Names of the fields of a dataclass or named tuple; None for other classes.
        compared: The fields by which instances of a dataclass are equal.
    """

    cls: type[Any]
    name: str
    identity: Callable[[Any], object]
    encode: Callable[[Any], object]
    decode: Callable[[Any], object]
    like_its_base: bool = False
    fields: tuple[str, ...] | None = None
    compared: tuple[str, ...] = ()


BY_CLASS: dict[type[Any], Entry] = {}
BY_NAME: dict[str, Entry] = {}


def find(cls: type[Any]) -> Entry | None:
    """Return the entry of a class, None if the class is not registered."""
    return BY_CLASS.get(cls)


def named(name: object) -> Entry:
    """Return the entry of a stored name.

    Raises:
        InvalidPayload: If no class is registered under the name.
    """
    entry = BY_NAME.get(name) if isinstance(name, str) else None
    if entry is None:
        raise InvalidPayload(
            f"no class is registered as {name!r}: import it and call sqlbuffer.register({name}) "
            "before reading."
        )
    return entry


def needs_entry(cls: type[Any]) -> bool:
    """Tell whether instances of the class are samples only if the class is registered."""
    return issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls) or is_namedtuple(cls)


def is_namedtuple(cls: type[Any]) -> bool:
    """Tell whether the class is a named tuple."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make")


def is_sample_class(cls: type[Any]) -> bool:
    """Tell whether an instance of the class is one sample, even if it can be iterated over."""
    return find(cls) is not None or needs_entry(cls)

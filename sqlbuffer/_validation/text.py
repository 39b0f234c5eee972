"""Converters of text: valid Unicode without NUL, which both databases take."""

from __future__ import annotations

from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._validation.scalars import plain
from sqlbuffer.errors import InvalidArgument


def is_text(value: str) -> bool:
    """Tell whether a string is valid Unicode: lone surrogates have no UTF-8."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_storable(value: str) -> bool:
    """Tell whether both databases take a string; PostgreSQL takes no NUL."""
    return "\0" not in value and is_text(value)


def as_name(value: Any, what: str) -> str:
    """Return a name.

    Args:
        value: A string of Python or numpy.
        what: The name as the subject of the message, such as "the name of an agent".

    Raises:
        InvalidArgument: If the value is not a string, or has NUL or lone surrogates.
    """
    if type(value) is str and is_storable(value):
        return value
    name = plain(value)
    if not isinstance(name, str) or not is_storable(name):
        raise InvalidArgument(
            f"{what} is a string without NUL and lone surrogates, got {shown(value)}."
        )
    return str.__str__(name)

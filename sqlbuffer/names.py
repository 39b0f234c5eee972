"""Text as both databases take it: valid Unicode, without the NUL that PostgreSQL has not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sqlbuffer.errors import InvalidArgument, shown

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""The escape for NUL in JSON, which is none behind an odd backslash."""


def is_text(value: str) -> bool:
    """Tell whether the string is valid Unicode: lone surrogates have no UTF-8."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_storable(value: str) -> bool:
    """Tell whether both databases take the string."""
    return "\0" not in value and is_text(value)


def as_name(value: Any, what: str) -> str:
    """Return a name.

    Raises:
        InvalidArgument: Where it is no string, or one that no database takes. `what` says whose name it is.
    """
    if not isinstance(value, str) or not is_storable(value):
        raise InvalidArgument(f"{what} is a string without NUL and lone surrogates, got {shown(value)}.")
    return value


def as_mapping(value: Any, what: str) -> Mapping[Any, Any]:
    """Return a mapping.

    Raises:
        InvalidArgument: Where it is none.
    """
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{what} must be a mapping, got {shown(value)}.")
    return value


def as_json(value: Any, what: str) -> str:
    """Return a mapping as JSON.

    Raises:
        InvalidArgument: Where it is none, or holds what JSON, or a database, does not take.
    """
    mapping = as_mapping(value, what)
    try:
        text = json.dumps(mapping, allow_nan=False, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgument(f"{what} must be a mapping that JSON can hold: {shown(exc)}.") from exc
    if _NUL.search(text) or not is_text(text):
        raise InvalidArgument(f"{what} has text with NUL or lone surrogates: take them out.")
    return text

"""What `sqlbuffer import` checks and tells of the buffer that it imports into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlbuffer._messages import listed
from sqlbuffer.cli import output
from sqlbuffer.core.attach import key_shown
from sqlbuffer.errors import InvalidArgument

_DIRECTIONS = ("maximize", "minimize")
_WITH_KEY = "--key MODULE:FUNCTION"


def require_same_key(stored: Any, *, has_key: bool) -> None:
    """Refuse a key for a buffer without one, and the reverse: equal samples would be two.

    Args:
        stored: The row of the buffer; None for a new one.
        has_key: Whether a key function was given.

    Raises:
        InvalidArgument: If only one of the two has a key.
    """
    if stored is None:
        return
    if stored.key and not has_key:
        raise InvalidArgument(
            f"buffer {stored.name!r} was created with {_named(stored.key)}, which tells equal "
            f"samples and refuses others: give that function with {_option(stored.key)}."
        )
    if stored.key == "" and has_key:
        raise InvalidArgument(
            f"buffer {stored.name!r} was created without a key, so that each of its samples would "
            "be stored again under its key: `sqlbuffer export all.parquet --name "
            f"{stored.name}`, and import that file with --key and another --name, which makes a "
            "new buffer."
        )


def tell_of_key(about: Mapping[str, str], stored: Any, name: str, *, has_key: bool) -> None:
    """Warn if the file is of a buffer with a key, and the new buffer has none."""
    if stored is None and not has_key and (key := about.get("key")):
        output.line(
            f"warning: the file is of a buffer with {_named(key)}, and {name} is made without a "
            f"key, so that two spellings are two samples: {_option(key)} makes them one",
            stderr=True,
        )


def direction_of_new(
    about: Mapping[str, str], stored: Any, name: str, given: str | None
) -> str | None:
    """Return the direction of a new buffer as the file tells it; None if it does not.

    Say so if the user gave none, and if the buffer has another direction than the file.

    Args:
        about: What the file tells of its buffer.
        stored: The row of the buffer; None for a new one.
        name: Name of the buffer.
        given: The direction that the user gave.
    """
    told = about.get("direction")
    told = told if told in _DIRECTIONS else None
    has = given if stored is None else stored.direction
    if has is None and told is not None:
        of = listed([about.get("name", "its buffer")])
        output.line(f"{name} is to {told}, as the file tells of {of}", stderr=True)
    elif has is not None and told not in (None, has):
        output.line(f"{name} is to {has}, but the rewards of the file are to {told}", stderr=True)
    return told


def tell_that_it_maximizes(name: str) -> None:
    """Say which direction a new buffer has if neither the user nor the file told one."""
    output.line(
        f"{name} is new and maximizes: give --direction minimize if a lower reward is better",
        stderr=True,
    )


def _named(key: str) -> str:
    return "a key function without a name" if key == "?" else key_shown(key)


def _option(key: str) -> str:
    """Return the option that gives a key function by its stored name, as far as one can."""
    named = key_shown(key)
    return named.replace("key=", "--key ") if ":" in named else _WITH_KEY

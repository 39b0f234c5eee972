"""Errors about one sample: an unsupported type, too deep nesting, and the number of the sample."""

from __future__ import annotations

import collections
from typing import Any

from sqlbuffer._messages import shown_sample
from sqlbuffer._sample_classes import needs_entry
from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.samples.limits import MAX_DEPTH
from sqlbuffer.samples.subclasses import READ_BY, own_members


def unsupported(cls: type[Any]) -> UnsupportedType:
    """Return the error for a class without hash or codec; it tells how to register the class."""
    if needs_entry(cls):
        return UnsupportedType(
            f"{cls.__module__}.{cls.__qualname__} is not registered: call "
            f"sqlbuffer.register({cls.__qualname__})."
        )
    if cls is collections.OrderedDict:
        return UnsupportedType(
            "an OrderedDict equals a dict in any order, but an OrderedDict only in its own, which "
            "no hash can follow: add dict(sample), or list(sample.items()) if the order counts."
        )
    base = next((base for base in cls.__mro__[1:] if base in READ_BY), None)
    if base is not None and (own := own_members(cls, base)):
        return UnsupportedType(
            f"{cls.__module__}.{cls.__qualname__} has {', '.join(own)} of its own and does not "
            f"count as a {base.__name__}: add a plain {base.__name__}, or call "
            f"sqlbuffer.register({cls.__qualname__}, encode=..., decode=...) if it has an __eq__ "
            "of its own."
        )
    return UnsupportedType(
        f"{cls.__module__}.{cls.__qualname__} is not a supported type: add its parts, or call "
        f"sqlbuffer.register({cls.__qualname__}, encode=..., decode=...)."
    )


def too_deep() -> InvalidArgument:
    """Return the error for a sample that nests deeper than `MAX_DEPTH`."""
    return InvalidArgument(
        f"a sample nests deeper than {MAX_DEPTH} levels, or contains itself: flatten it."
    )


def with_sample(
    error: UnsupportedType | InvalidArgument, number: int, sample: object
) -> UnsupportedType | InvalidArgument:
    """Return the error with the number and the repr of the sample before its message."""
    return type(error)(f"sample {number}, {shown_sample(sample)}: {error}")

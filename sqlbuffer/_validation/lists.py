"""Converters of lists and mappings.

A list may be a list, a pandas Series, or an array or tensor of one dimension.
"""

from __future__ import annotations

import io
from collections import UserString
from collections.abc import Iterable, Mapping, Set
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._sample_classes import is_sample_class
from sqlbuffer._validation.scalars import plain
from sqlbuffer._validation.text import as_name
from sqlbuffer.errors import InvalidArgument


def as_list(samples: Any, what: str = "samples") -> list[Any]:
    """Return samples as a list.

    Args:
        samples: A list, tuple or Series, an array or tensor of one dimension, or an iterable of
            samples.
        what: The argument, for the message.

    Raises:
        InvalidArgument: If the value is one sample, such as a string, or iterates over something
            other than samples, such as a table or an image.
    """
    if type(samples) is list:
        return list(samples)
    require_list(samples, what)
    # The items of an Arrow array are Arrow scalars, which are not samples.
    return list(samples.to_pylist() if hasattr(samples, "to_pylist") else samples)


def require_list(samples: Any, what: str = "samples") -> None:
    """Refuse a value that `as_list` refuses.

    Raises:
        InvalidArgument: As `as_list`.
    """
    kind = type(samples)
    n_dimensions = getattr(samples, "ndim", 1)
    if _has_columns(samples):
        raise InvalidArgument(
            f"{what} must be a list, got a {kind.__name__}, which is a table: give one column, "
            "such as table['smiles'], or its rows, such as table.to_dict('records'); `add` takes a "
            "table with sample='smiles'."
        )
    if isinstance(n_dimensions, int) and n_dimensions > 1 and not isinstance(samples, type):
        shape = tuple(getattr(samples, "shape", ()))
        raise InvalidArgument(
            f"{what} must be a list, got one {kind.__name__} of shape {shape}: put it into a list, "
            "or use add_one, if it is one sample; give list(...) of it if it is "
            f"{shape[0] if shape else 'many'} samples."
        )
    if isinstance(samples, io.IOBase):
        raise InvalidArgument(
            f"{what} must be a list, got a file: give its lines, such as file.read().splitlines()."
        )
    is_iterable = isinstance(samples, Iterable) or _is_sequence(samples)
    if _is_one(samples) or n_dimensions == 0 or not is_iterable:
        raise InvalidArgument(
            f"{what} must be a list, got one {kind.__name__}: put it into a list."
        )


def _is_one(value: Any) -> bool:
    """Tell whether a value is one sample although it can be iterated over."""
    one = (str, bytes, bytearray, memoryview, UserString, Mapping, Set)
    return isinstance(value, one) or is_sample_class(type(value))


def _is_sequence(value: Any) -> bool:
    return (
        not isinstance(value, type) and hasattr(value, "__getitem__") and hasattr(value, "__len__")
    )


def _has_columns(value: Any) -> bool:
    """Tell whether a value is a table of pandas, polars or Arrow: it iterates over columns."""
    # A Series may have an index entry "columns".
    columns = None if getattr(value, "ndim", 2) == 1 else getattr(value, "columns", None)
    return columns is not None and not callable(columns) and hasattr(value, "shape")


def as_names(names: Any, n: int, what: str) -> list[str]:
    """Return n names.

    Args:
        names: One name for all samples, or a list of n names.
        n: The number of samples.
        what: The kind of name, for the message, such as "source".

    Raises:
        InvalidArgument: If a value is not a name, or the list does not have n names.
    """
    one = plain(names)
    if isinstance(one, str):
        return [as_name(one, f"a {what}")] * n
    if not isinstance(one, Iterable):
        raise InvalidArgument(
            f"{what} must be a name, or a list of one name for each sample; got {shown(names)}."
        )
    given = as_list(names, f"{what}s")
    if len(given) != n:
        raise InvalidArgument(
            f"{n} samples came with {len(given)} {what}s: give one name, or one for each sample."
        )
    return [as_name(name, f"a {what}") for name in given]


def as_mapping(value: Any, what: str) -> Mapping[Any, Any]:
    """Return a mapping.

    Raises:
        InvalidArgument: If the value is not a mapping. The message begins with `what`.
    """
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{what} must be a mapping, got {shown(value)}.")
    return value

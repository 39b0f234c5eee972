"""Samples of one structure as one value: their container, with leaves of shape (n, ...)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import find
from sqlbuffer.errors import InvalidArgument, StructureMismatch
from sqlbuffer.samples.arrays import is_tensor

_INT64 = np.iinfo(np.int64)


def stack(samples: Sequence[Any]) -> Any:
    """Return the container of n samples, with leaves of shape (n, ...).

    Raises:
        StructureMismatch: If a sample has another structure than the first; it names the position.
        InvalidArgument: If there is no sample, or an integer is beyond int64.
    """
    if not len(samples):
        raise InvalidArgument("no samples cannot be stacked: draw a batch that is not empty.")
    return _stack(list(samples), "")


def _stack(values: list[Any], path: str) -> Any:
    if all(map(_is_number, values)):
        return _numbers(values, path)
    cls = type(values[0])
    _require_alike(values, _kind, str, path)
    if issubclass(cls, np.ndarray):
        _require_alike(values, np.shape, lambda shape: f"shape {shape}", path)
        return np.stack(values)
    if is_tensor(cls):
        torch = sys.modules["torch"]
        _require_alike(values, lambda value: tuple(value.shape), lambda s: f"shape {s}", path)
        common = values[0].dtype
        for value in values:
            common = torch.promote_types(common, value.dtype)
        return torch.stack([value.to(common) for value in values])
    if cls is dict:
        _require_alike(
            values, frozenset, lambda keys: f"the keys {shown(sorted(keys, key=repr))}", path
        )
        return {key: _stack([v[key] for v in values], f"{path}[{key!r}]") for key in values[0]}
    if cls is list or cls is tuple:
        _require_alike(values, len, lambda size: f"{size} elements", path)
        columns = zip(*values, strict=True)
        return cls(_stack(list(column), f"{path}[{i}]") for i, column in enumerate(columns))
    entry = find(cls)
    if entry is None or entry.fields is None:
        return values
    rows: list[Any] = list(map(entry.encode, values))  # dicts of the fields
    return entry.decode(
        {field: _stack([row[field] for row in rows], f"{path}.{field}") for field in entry.fields}
    )


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number of Python or numpy; an enum's member is none."""
    return type(value) in (bool, int, float, complex) or isinstance(value, (np.number, np.bool_))


def _numbers(values: list[Any], path: str) -> Any:
    for position, value in enumerate(values):
        if type(value) is int and not _INT64.min <= value <= _INT64.max:
            raise InvalidArgument(
                f"sample {position} has {shown(value)}{_at(path)}, which is no int64: add it as a "
                "float or a string to stack it."
            )
    return np.array(values, dtype=np.result_type(*set(map(_dtype, values))))


def _dtype(value: Any) -> Any:
    return value.dtype if isinstance(value, np.generic) else np.dtype(type(value))


def _kind(value: Any) -> str:
    if value is None or _is_number(value):
        return "None" if value is None else "a number"
    return f"a {type(value).__name__}"


def _require_alike(
    values: list[Any], kind: Callable[[Any], Any], name: Callable[[Any], str], path: str
) -> None:
    first = kind(values[0])
    for position, value in enumerate(values):
        if (other := kind(value)) != first:
            raise StructureMismatch(
                f"sample {position} has {name(other)}{_at(path)}, and sample 0 has {name(first)}: "
                "only samples of one structure can be stacked; read batch.samples."
            )


def _at(path: str) -> str:
    return f" at {path}" if path else ""

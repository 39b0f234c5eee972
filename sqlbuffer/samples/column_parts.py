"""Columns of encoded values: what each value of a column adds to the bytes and text of its sample.

A part of a column is constant, or has one piece for each value. The parts of a whole sample are
joined once, so that no piece is copied from level to level.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

Piece = TypeVar("Piece", bytes, str)
Bytes = list["bytes | list[bytes]"]
Texts = list["str | list[str]"]


class Column(NamedTuple):
    """n encoded values.

    Attributes:
        canonical: Parts of their canonical bytes.
        payload: Parts of their CBOR.
        text: Parts of their renderings; without text if none was asked for.
    """

    canonical: Bytes
    payload: Bytes
    text: Texts


Encode = Callable[[list[Any], int, "int | None"], Column]
"""Encodes n values, given their depth and the level of their text (None for no text)."""


def joined(parts: Sequence[Piece | list[Piece]], n: int, empty: Piece) -> list[Piece]:
    """Return n joined values."""
    return list(each_joined(parts, n, empty))


def each_joined(parts: Sequence[Piece | list[Piece]], n: int, empty: Piece) -> Iterable[Piece]:
    """Join n values, one after the other: a value that is used at once is still in the cache."""
    merged: list[Piece | list[Piece]] = []
    for part in parts:
        if merged and type(part) is not list and type(merged[-1]) is not list:
            merged[-1] += part  # type: ignore[operator]
        else:
            merged.append(part)
    if len(merged) == 1 and type(merged[0]) is list:
        return merged[0]
    if not any(type(part) is list for part in merged):
        return [empty.join(merged)] * n  # type: ignore[arg-type]
    columns = (part if type(part) is list else [part] * n for part in merged)
    return map(empty.join, zip(*columns, strict=True))


def by_group(
    values: list[Any],
    depth: int,
    level: int | None,
    *,
    key: Callable[[Any], Hashable],
    encode: Callable[[Any, list[Any], int, int | None], Column],
) -> Column:
    """Encode each group of values with one key, and put the pieces where the values stood."""
    keys = set(map(key, values))  # a list of all keys would keep the garbage collector busy
    if len(keys) == 1:
        return encode(keys.pop(), values, depth, level)
    groups: dict[Hashable, list[int]] = {}
    for position, value in enumerate(values):
        groups.setdefault(key(value), []).append(position)
    n = len(values)
    canonical, payload, text = [b""] * n, [b""] * n, [""] * n
    for each, positions in groups.items():
        column = encode(each, [values[i] for i in positions], depth, level)
        put(canonical, positions, joined(column.canonical, len(positions), b""))
        put(payload, positions, joined(column.payload, len(positions), b""))
        put(text, positions, joined(column.text, len(positions), ""))
    return Column([canonical], [payload], [text])


def put(column: list[Piece], positions: Sequence[int], pieces: Sequence[Piece]) -> None:
    """Put pieces at positions of a column."""
    for position, piece in zip(positions, pieces, strict=True):
        column[position] = piece


def by_table(values: list[Any], make: Callable[[Any], Piece]) -> list[Piece] | None:
    """Return a piece for each value, each made once; None if most values differ."""
    distinct = set(values)
    if 4 * len(distinct) > len(values):
        return None
    table = {value: make(value) for value in distinct}
    return list(map(table.__getitem__, values))

"""Many samples at once: a column of values is encoded by the structure that its values share.

A column of dicts with the same keys is a column for each key, and so on down to columns of numbers
and arrays, which numpy encodes. Values of several structures are encoded group by group, and a
value that has no column is encoded alone, by `canonical` and `payload_writer`: these define the
bytes, and `tests/unit/test_columns.py` compares.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import cbor2

from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import Entry, find, is_namedtuple
from sqlbuffer._validation import is_text
from sqlbuffer.samples import canonical
from sqlbuffer.samples.arrays import is_tensor
from sqlbuffer.samples.canonical_cbor import byte_string, head, text
from sqlbuffer.samples.column_arrays import SCALARS, arrays, scalars, tensors
from sqlbuffer.samples.column_numbers import booleans, floats, integers, nulls, strings
from sqlbuffer.samples.column_parts import Bytes, Column, Texts, by_group, joined
from sqlbuffer.samples.payload_writer import to_cbor
from sqlbuffer.samples.preview import MAX_PARTS, rendered, repr_fields

FEW = 8
"""Fewer values of one structure are encoded one by one."""

MAX_WIDTH = 32
"""Longer lists and tuples are no structure: their elements are one column."""

MAX_COLUMN_DEPTH = 16
"""Deeper values are encoded one by one."""


def encode_column(values: list[Any], depth: int, level: int | None) -> Column:
    """Encode values, those of one type together.

    Args:
        values: n values, one or more.
        depth: Levels above them; 0 for samples.
        level: Level of their text, None for no text.

    Raises:
        UnsupportedType: As `canonical.encode` and `payload_writer.to_cbor`.
        InvalidArgument: As these.
    """
    if len(values) < FEW or depth > MAX_COLUMN_DEPTH:
        return _one_by_one(values, depth, level)
    return by_group(values, depth, level, key=type, encode=_of_type)


def _of_type(cls: Any, values: list[Any], depth: int, level: int | None) -> Column:
    column = None
    if len(values) >= FEW and depth <= MAX_COLUMN_DEPTH:
        column = _encoded(cls, values, depth, level)
    return _one_by_one(values, depth, level) if column is None else column


def _encoded(cls: type[Any], values: list[Any], depth: int, level: int | None) -> Column | None:
    """Encode values of one class; None if the class has no columns."""
    if (encode := _ENCODERS.get(cls)) is not None:
        return encode(values, depth, level)
    if cls in SCALARS:
        return scalars(cls, values, level)
    if is_tensor(cls):
        return tensors(values, depth, level)
    entry = find(cls)
    return None if entry is None else _registered(entry, values, depth, level)


def _one_by_one(values: list[Any], depth: int, level: int | None) -> Column:
    return Column(
        [[canonical.encode(value, depth) for value in values]],
        [[cbor2.dumps(to_cbor(value, depth)) for value in values]],
        [] if level is None else [[rendered(value, level) for value in values]],
    )


def _bytes(values: list[bytes], _depth: int, level: int | None) -> Column:
    pieces = list(map(byte_string, values))
    texts: Texts = [] if level is None else [[rendered(value, level) for value in values]]
    return Column([pieces], [pieces], texts)


def _dicts(values: list[Any], depth: int, level: int | None) -> Column | None:
    if set(map(type, itertools.chain.from_iterable(values))) - {str}:
        return None
    return by_group(values, depth, level, key=tuple, encode=_dicts_alike)


def _dicts_alike(keys: Any, values: list[Any], depth: int, level: int | None) -> Column:
    """Encode dicts with the same keys in the same order."""
    if len(values) < FEW or not is_text("".join(keys)):
        return _one_by_one(values, depth, level)
    shown = sorted(keys)[:MAX_PARTS]
    levels = [_inner(level) if key in shown else None for key in keys]
    columns = _each([list(map(operator.itemgetter(key), values)) for key in keys], depth, levels)
    texts: Texts = []
    if level is not None:
        before = [f"{', ' if i else ''}{rendered(key, level - 1)}: " for i, key in enumerate(shown)]
        more = ", ...}" if len(keys) > MAX_PARTS else "}"
        by_key = dict(zip(keys, columns, strict=True))
        texts = _text("{", before, [by_key[key] for key in shown], more, level)
    return Column(_sorted_map(keys, columns), _map(keys, columns), texts)


def _inner(level: int | None) -> int | None:
    """Return the level of the parts of a value; None if they are not rendered."""
    return None if level is None or level <= 0 else level - 1


def _each(columns: Sequence[list[Any]], depth: int, levels: Sequence[int | None]) -> list[Column]:
    return [
        encode_column(column, depth + 1, level)
        for column, level in zip(columns, levels, strict=True)
    ]


def _sorted_map(keys: Sequence[str], columns: Sequence[Column]) -> Bytes:
    """Return the canonical bytes of a map: sorted by its encoded keys."""
    items = sorted(
        ((text(key), column.canonical) for key, column in zip(keys, columns, strict=True)),
        key=lambda item: item[0],
    )
    return [head(5, len(keys)), *(part for key, parts in items for part in (key, *parts))]


def _map(keys: Sequence[str], columns: Sequence[Column]) -> Bytes:
    """Return the payload of a map."""
    items = zip(keys, columns, strict=True)
    return [
        head(5, len(keys)),
        *(part for key, column in items for part in (text(key), *column.payload)),
    ]


def _text(
    start: str, before: Sequence[str], columns: Sequence[Column], end: str, level: int
) -> Texts:
    """Return the text of a container: what stands before each part, and the parts."""
    if level <= 0 and columns:
        return [f"{start}...{end[-1]}"]
    items = zip(before, columns, strict=True)
    return [start, *(part for head, column in items for part in (head, *column.text)), end]


def _lists(values: list[Any], depth: int, level: int | None) -> Column:
    return _sequences(_LIST, values, depth, level)


def _tuples(values: list[Any], depth: int, level: int | None) -> Column:
    return _sequences(_TUPLE, values, depth, level)


def _list_head(size: int) -> bytes:
    return head(4, size)


def _tuple_head(size: int) -> bytes:
    return head(6, 27) + head(4, 1 + size) + text("tuple")


_LIST = _list_head, "[", "]", "]"
_TUPLE = _tuple_head, "(", ")", ",)"


def _sequences(kind: Any, values: list[Any], depth: int, level: int | None) -> Column:
    """Encode lists or tuples: short ones of one length by position, others by elements."""
    sizes = list(map(len, values))
    if len(set(sizes)) > 1 or sizes[0] > MAX_WIDTH:
        return _flat(kind[0], values, sizes, depth, level)
    before, start, end, end_of_one = kind
    width = sizes[0]
    levels = [_inner(level) if i < MAX_PARTS else None for i in range(width)]
    columns = _each([list(column) for column in zip(*values, strict=True)], depth, levels)
    texts: Texts = []
    if level is not None:
        shown = columns[:MAX_PARTS]
        commas = ["" if i == 0 else ", " for i in range(len(shown))]
        last = f", ...{end}" if width > MAX_PARTS else end_of_one if width == 1 else end
        texts = _text(start, commas, shown, last, level)
    return Column(
        [before(width), *(part for column in columns for part in column.canonical)],
        [before(width), *(part for column in columns for part in column.payload)],
        texts,
    )


def _flat(
    before: Callable[[int], bytes],
    values: list[Any],
    sizes: list[int],
    depth: int,
    level: int | None,
) -> Column:
    """Encode lists or tuples of many elements, or of different lengths."""
    column = encode_column(list(itertools.chain.from_iterable(values)), depth + 1, None)
    total, ends = sum(sizes), list(itertools.accumulate(sizes))
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    heads = {size: before(size) for size in set(sizes)}
    whole = [
        [heads[size] + b"".join(pieces[of]) for size, of in zip(sizes, slices, strict=True)]
        for pieces in (joined(parts, total, b"") for parts in (column.canonical, column.payload))
    ]
    texts: Texts = [] if level is None else [[rendered(value, level) for value in values]]
    return Column([whole[0]], [whole[1]], texts)


def _registered(entry: Entry, values: list[Any], depth: int, level: int | None) -> Column | None:
    """Encode instances of a registered class."""
    if entry.fields is not None:
        return _records(entry, entry.fields, values, depth, level)
    if entry.like_its_base:
        return None
    before = _object_head(entry)
    column = encode_column(list(map(entry.encode, values)), depth + 1, None)
    texts: Texts = [] if level is None else [[rendered(value, level) for value in values]]
    return Column([before, *column.canonical], [before, *column.payload], texts)


def _object_head(entry: Entry) -> bytes:
    return head(6, 27) + head(4, 3) + text("object") + text(entry.name)


def _records(
    entry: Entry, fields: tuple[str, ...], values: list[Any], depth: int, level: int | None
) -> Column:
    """Encode instances of a dataclass or named tuple."""
    cls: Any = entry.cls
    shown = repr_fields(cls)
    first = () if shown is None else shown.fields[:MAX_PARTS]
    levels = [_inner(level) if field in first else None for field in fields]
    if is_namedtuple(cls):
        parts = [list(column) for column in zip(*map(tuple.__iter__, values), strict=True)]
    else:
        parts = [list(map(operator.attrgetter(field), values)) for field in fields]
    columns = dict(zip(fields, _each(parts, depth + 1, levels), strict=True))
    payload = [_object_head(entry), *_map(fields, list(columns.values()))]
    if is_namedtuple(cls):  # equal to a tuple of its fields
        hashed = [_tuple_head(len(fields)), *(p for c in columns.values() for p in c.canonical)]
    else:
        compared = [columns[field] for field in entry.compared]
        hashed = [_object_head(entry), *_sorted_map(entry.compared, compared)]
    if level is None:
        return Column(hashed, payload, [])
    if shown is None:
        return Column(hashed, payload, [[rendered(value, level) for value in values]])
    texts = [columns[field].text for field in first] if level > 0 else []
    before = shown.before(level)
    items = zip(before, [*texts, *[[]] * (len(before) - len(texts))], strict=True)
    return Column(hashed, payload, [part for head, text in items for part in (head, *text)])


_ENCODERS: dict[type[Any], Callable[[list[Any], int, int | None], Column | None]] = {
    type(None): nulls,
    bool: booleans,
    int: integers,
    float: floats,
    str: strings,
    bytes: _bytes,
    dict: _dicts,
    list: _lists,
    tuple: _tuples,
    np.ndarray: arrays,
}

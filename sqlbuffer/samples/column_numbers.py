"""Columns of numbers, strings and None, encoded with numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cbor2

from sqlbuffer._numpy import np
from sqlbuffer._validation import is_text
from sqlbuffer.samples.canonical_cbor import floating, head, integer
from sqlbuffer.samples.column_parts import Column, Texts, by_table, put
from sqlbuffer.samples.preview import MAX_STRING, rendered

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADS = tuple(head(3, size) for size in range(256))
_FALSE_TRUE_CANONICAL = integer(0), integer(1)
_FALSE_TRUE_PAYLOAD = b"\xf4", b"\xf5"
_MAX_TEXT_INTEGER = 1 << 399
"""Larger integers are rendered by their number of bits."""

_SIZES = ((24, "u1"), (25, ">u2"), (26, ">u4"), (27, ">u8"))
"""The additional information of a CBOR head, and the integer behind it."""


def nulls(values: list[None], _depth: int, level: int | None) -> Column:
    """Encode None."""
    return Column([b"\xf6"], [b"\xf6"], [] if level is None else ["None"])


def booleans(values: list[bool], _depth: int, level: int | None) -> Column:
    """Encode bools."""
    return Column(
        [list(map(_FALSE_TRUE_CANONICAL.__getitem__, values))],
        [list(map(_FALSE_TRUE_PAYLOAD.__getitem__, values))],
        _texts(values, level),
    )


def integers(values: list[int], _depth: int, level: int | None) -> Column:
    """Encode integers; the canonical bytes are also what cbor2 writes."""
    pieces = integer_pieces(values)
    if level is None:
        return Column([pieces], [pieces], [])
    if max(values) < _MAX_TEXT_INTEGER and min(values) > -_MAX_TEXT_INTEGER:
        return Column([pieces], [pieces], [by_table(values, str) or list(map(str, values))])
    return Column([pieces], [pieces], [[rendered(value, level) for value in values]])


def integer_pieces(values: list[int]) -> list[bytes]:
    """Return the canonical bytes of integers."""
    if (pieces := by_table(values, integer)) is not None:
        return pieces
    try:
        numbers = np.fromiter(values, np.int64, len(values))
    except OverflowError:
        return list(map(integer, values))
    is_negative = numbers < 0
    arguments = np.where(is_negative, ~numbers, numbers)
    majors = is_negative.astype("u1") << 5
    pieces = _records(majors | arguments.astype("u1"))  # of arguments below 24
    least = 24
    for info, form in _SIZES:
        found = np.flatnonzero(arguments >= least)
        put(pieces, found.tolist(), _records(majors[found] | info, arguments[found].astype(form)))
        least = 1 << 8 * np.dtype(form).itemsize if info < 27 else least
    return pieces


def floats(values: list[float], _depth: int, level: int | None) -> Column:
    """Encode floats: in the payload with eight bytes, in the hash in the shortest exact form."""
    numbers = np.fromiter(values, np.float64, len(values))
    doubles = _records(_constant(numbers, 0xFB), numbers.astype(">f8"))
    payload = doubles
    is_finite = np.isfinite(numbers)
    if not is_finite.all():
        others = np.flatnonzero(~is_finite).tolist()
        put(payload := doubles.copy(), others, [cbor2.dumps(values[i]) for i in others])
    with np.errstate(all="ignore"):
        is_whole = is_finite & (np.floor(numbers) == numbers)
        is_short = is_whole | (numbers.astype("f4") == numbers) | np.isnan(numbers)
    canonical = doubles
    if is_short.any():
        short = np.flatnonzero(is_short)
        put(canonical := doubles.copy(), short.tolist(), _short_floats(numbers[short]))
    return Column([canonical], [payload], _texts(values, level))


def _short_floats(numbers: NDArray[Any]) -> list[bytes]:
    """Return the canonical bytes of floats, fast for those that need less than eight bytes."""
    values = numbers.tolist()
    if (pieces := by_table(values, floating)) is not None:
        return pieces
    with np.errstate(all="ignore"):
        is_integral = np.floor(numbers) == numbers
        is_whole = is_integral & (np.abs(numbers) < 2.0**63)
        is_half = numbers.astype("f2") == numbers
        is_single = (numbers.astype("f4") == numbers) & ~is_integral
    pieces = [b""] * len(values)
    wholes = np.flatnonzero(is_whole)
    put(pieces, wholes.tolist(), integer_pieces(numbers[wholes].astype(np.int64).tolist()))
    for found, byte, form in (
        (np.flatnonzero(is_single & is_half), 0xF9, ">f2"),
        (np.flatnonzero(is_single & ~is_half), 0xFA, ">f4"),
    ):
        kind = numbers[found]
        put(pieces, found.tolist(), _records(_constant(kind, byte), kind.astype(form)))
    rest = np.flatnonzero(~is_whole & ~is_single).tolist()  # huge, infinite or NaN
    put(pieces, rest, [floating(values[i]) for i in rest])
    return pieces


def strings(values: list[str], _depth: int, level: int | None) -> Column | None:
    """Encode strings; None if some have lone surrogates."""
    if not is_text("".join(values)):
        return None
    pieces = by_table(values, _string) or list(map(_string, values))
    if level is None:
        return Column([pieces], [pieces], [])
    if max(map(len, values)) > MAX_STRING:
        return Column([pieces], [pieces], [[rendered(value, level) for value in values]])
    texts = by_table(values, repr) or list(map(repr, values))
    if max(map(len, texts)) > MAX_STRING:
        texts = [rendered(value, level) for value in values]
    return Column([pieces], [pieces], [texts])


def _string(value: str) -> bytes:
    utf8 = value.encode()
    size = len(utf8)
    return (_HEADS[size] if size < 256 else head(3, size)) + utf8


def _texts(values: list[Any], level: int | None) -> Texts:
    return [] if level is None else [list(map(repr, values))]


def _constant(like: NDArray[Any], byte: int) -> NDArray[Any]:
    return np.full(len(like), byte, "u1")


def _records(*fields: NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row of columns."""
    rows = np.empty(len(fields[0]), [(f"f{i}", field.dtype) for i, field in enumerate(fields)])
    for i, field in enumerate(fields):
        rows[f"f{i}"] = field
    return rows_of(rows)


def rows_of(rows: NDArray[Any]) -> list[bytes]:
    """Return the bytes of each row of a contiguous array."""
    size = rows.nbytes // len(rows) if len(rows) else 0
    if not size:
        return [b""] * len(rows)
    return rows.reshape(-1).view(f"V{size}").tolist()

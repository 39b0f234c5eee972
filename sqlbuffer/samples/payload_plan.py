"""Payloads of one structure, read by columns.

A plan is made from one payload: what stands between its numbers, texts and elements. A payload
fits the plan if the same bytes stand there, so that it can be read if the first one can.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer._sample_classes import BY_NAME
from sqlbuffer.samples.payload_reader import read_array, read_tensor

Column = list[Any]
Make = Callable[[list[Column], int], Any]
"""Makes the value of n samples from the columns."""


_MAX_PARTS = 256
"""Payloads with more parts are decoded one by one."""


class _NoPlan(Exception):
    """The payload has a value that has no column, or does not fit."""


class Columns:
    """The columns of n payloads of one structure."""

    def __init__(self, columns: list[Column], make: Make, n: int) -> None:
        self._columns, self._make, self._n = columns, make, n

    def stacked(self) -> Any:
        """Return the container of the samples, with leaves of shape (n, ...).

        Raises:
            OverflowError: If an integer is beyond int64.
        """
        return self._make(self._columns, self._n)


def columns_of(payloads: Sequence[bytes]) -> Columns | None:
    """Return the columns of payloads, the first of which can be read; None if they have none."""
    plan = _Plan(payloads[0])
    try:
        make = plan.read()
        columns: list[Column] = [[] for _ in plan.parts]
        for payload in payloads:
            plan.take(payload, columns)
        for part, column in zip(plan.parts, columns, strict=True):
            if part.is_bool and not set(b"".join(column)) <= {0, 1}:
                return None
    except (_NoPlan, UnicodeDecodeError, IndexError):
        return None
    return Columns(columns, make, len(payloads))


@dataclasses.dataclass(frozen=True)
class _Part:
    """A part of a payload that differs between samples, and the constant bytes before it."""

    before: bytes
    take: Callable[[bytes, int], tuple[Any, int]]
    """Returns the value at a position, and the position behind it."""
    is_bool: bool = False
    """The part is an array of bools: each byte is 0 or 1."""


class _Plan:
    """Reads a payload, and notes its parts."""

    def __init__(self, payload: bytes) -> None:
        self.parts: list[_Part] = []
        self._payload = payload
        self._at = self._start = 0
        self._end = b""

    def read(self) -> Make:
        """Return what makes the value of many samples."""
        make = self._value()
        self._end = self._payload[self._start :]
        return make

    def take(self, payload: bytes, columns: list[Column]) -> None:
        """Append the parts of a payload to the columns."""
        position = 0
        for part, column in zip(self.parts, columns, strict=True):
            if not payload.startswith(part.before, position):
                raise _NoPlan
            value, position = part.take(payload, position + len(part.before))
            column.append(value)
        if payload[position:] != self._end:
            raise _NoPlan

    def _part(self, take: Callable[[bytes, int], tuple[Any, int]], *, is_bool: bool = False) -> int:
        """Note that a part begins here; return its number."""
        if len(self.parts) == _MAX_PARTS:
            raise _NoPlan
        self.parts.append(_Part(self._payload[self._start : self._at], take, is_bool))
        _, self._at = take(self._payload, self._at)
        self._start = self._at
        return len(self.parts) - 1

    def _head(self) -> tuple[int, int]:
        major, argument, self._at = _head(self._payload, self._at)
        return major, argument

    def _value(self) -> Make:
        major = self._payload[self._at] >> 5
        if major < 2:
            return _numbers(self._part(_take_integer), np.int64)
        if major == 3:
            return _list_of(self._part(_take_text))
        if major == 7:
            return self._simple()
        major, argument = self._head()
        if major == 4:
            return _sequence(list, [self._value() for _ in range(argument)])
        if major == 5:
            return self._map(argument)
        if major == 6 and argument == 27:
            return self._object()
        raise _NoPlan

    def _simple(self) -> Make:
        byte = self._payload[self._at]
        if byte in (0xF4, 0xF5):
            return _numbers(self._part(_take_bool), np.bool_)
        self._at += 1
        if byte == 0xF6:
            return lambda _, n: [None] * n
        if byte == 0xFB:
            return _floats(self._part(_taking(8)))
        raise _NoPlan

    def _map(self, n: int) -> Make:
        items: dict[str, Make] = {}
        for _ in range(n):
            key = self._constant_text()
            items[key] = self._value()
        return lambda columns, n: {key: make(columns, n) for key, make in items.items()}

    def _constant_text(self) -> str:
        major, size = self._head()
        if major != 3:
            raise _NoPlan
        self._at += size
        return self._payload[self._at - size : self._at].decode()

    def _object(self) -> Make:
        _, n = self._head()
        kind = self._constant_text()
        if kind == "tuple":
            return _sequence(tuple, [self._value() for _ in range(n - 1)])
        if kind == "object":
            return self._registered(self._constant_text())
        if kind not in ("array", "tensor", "scalar"):
            raise _NoPlan
        dtype = self._constant_text()
        shape = [] if kind == "scalar" else [self._head()[1] for _ in range(self._head()[1])]
        _, size = self._head()
        number = self._part(_taking(size), is_bool=dtype == "bool")
        read = read_tensor if kind == "tensor" else read_array
        return lambda columns, n: read(dtype, [n, *shape], b"".join(columns[number]))

    def _registered(self, name: str) -> Make:
        entry = BY_NAME.get(name)
        major, n = self._head()
        if entry is None or entry.fields is None or major != 5:
            raise _NoPlan
        make = self._map(n)
        return lambda columns, n: entry.decode(make(columns, n))


def _head(payload: bytes, at: int) -> tuple[int, int, int]:
    """Return major type, argument and the position behind a head of CBOR."""
    major, info = payload[at] >> 5, payload[at] & 31
    if info < 24:
        return major, info, at + 1
    if info > 27:
        raise _NoPlan
    end = at + 1 + (1 << info - 24)
    if end > len(payload):
        raise _NoPlan
    return major, int.from_bytes(payload[at + 1 : end], "big"), end


def _take_integer(payload: bytes, at: int) -> tuple[int, int]:
    major, argument, end = _head(payload, at)
    if major > 1:
        raise _NoPlan
    return (-1 - argument if major else argument), end


def _take_text(payload: bytes, at: int) -> tuple[str, int]:
    major, size, start = _head(payload, at)
    if major != 3 or start + size > len(payload):
        raise _NoPlan
    return payload[start : start + size].decode(), start + size


def _take_bool(payload: bytes, at: int) -> tuple[bool, int]:
    if payload[at] not in (0xF4, 0xF5):
        raise _NoPlan
    return payload[at] == 0xF5, at + 1


def _taking(size: int) -> Callable[[bytes, int], tuple[bytes, int]]:
    def take(payload: bytes, at: int) -> tuple[bytes, int]:
        if at + size > len(payload):
            raise _NoPlan
        return payload[at : at + size], at + size

    return take


def _numbers(number: int, dtype: Any) -> Make:
    return lambda columns, n: np.fromiter(columns[number], dtype, n)


def _floats(number: int) -> Make:
    return lambda columns, _: np.frombuffer(b"".join(columns[number]), ">f8").astype(np.float64)


def _list_of(number: int) -> Make:
    return lambda columns, _: list(columns[number])


def _sequence(cls: Any, makes: list[Make]) -> Make:
    return lambda columns, n: cls(make(columns, n) for make in makes)

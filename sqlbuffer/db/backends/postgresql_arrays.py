"""Rows that travel to PostgreSQL with a statement: one array for each column."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from sqlbuffer.db.backends.values import Rows
from sqlbuffer.errors import TooLarge

LARGEST = 500_000_000
"""Bytes of a value: a message of the protocol has 1 GB at most, and a value is read back in
hexadecimal digits."""


class _Packed(bytes):
    """An array of numbers in the format of the protocol."""


_NUMBERS = {
    sa.Integer: (23, ">i4"),
    sa.BigInteger: (20, ">i8"),
    sa.Double: (701, ">f8"),
    sa.Boolean: (16, "?"),
}
"""Types that are packed at once instead of element by element: OID, and format of an element."""


def as_array(values: Sequence[Any], kind: Any) -> list[Any] | _Packed:
    """Return a column in the form that the driver sends."""
    oid, sent = _NUMBERS.get(type(kind), (0, ""))
    if not sent or not len(values) or (oid == 701 and None in values):
        return list(values)
    size = np.dtype(sent).itemsize
    packed = np.empty(len(values), dtype=[("size", ">i4"), ("value", sent)])
    packed["size"], packed["value"] = size, values
    return _Packed(struct.pack("!5i", 1, 0, oid, len(values), 1) + packed.tobytes())


@functools.cache
def dumpers() -> dict[type[Any], type[Any]]:
    """Return the classes that send arrays in binary; as text, each element is escaped by itself."""
    from psycopg.adapt import Dumper  # an extra: known to be there by now
    from psycopg.pq import Format
    from psycopg.types.array import ListBinaryDumper

    class PackedDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: bytes) -> bytes:
            return obj

    class BoundedDumper(ListBinaryDumper):
        def dump(self, obj: list[Any]) -> Any:
            sent = super().dump(obj)
            # The server would close the connection without a message.
            if sent is not None and len(sent) > LARGEST:
                raise TooLarge(
                    f"the values of one statement take {len(sent) / 1e6:,.0f} MB, and PostgreSQL "
                    f"takes {LARGEST / 1e6:,.0f} MB at most: give fewer or smaller samples at a "
                    "time."
                )
            return sent

    return {list: BoundedDumper, _Packed: PackedDumper}


@functools.cache
def unnest(rows: Rows) -> sa.FromClause:
    """Return the relation of the rows: `unnest(:a, :b) AS rows(a, b)`."""
    arrays = (
        sa.cast(sa.bindparam(rows.parameter(name), type_=sa.types.NullType()), ARRAY(kind))
        for name, kind in rows.columns
    )
    columns = (sa.column(name, kind) for name, kind in rows.columns)
    return (
        sa.func.unnest(*arrays)
        .table_valued(*columns, name=rows.name)
        .render_derived(name=rows.name)
    )

"""Rows that travel with a statement arrive as they were sent, to the last bit."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from sqlbuffer.db.backends import BigId, Rows
from sqlbuffer.db.database import Database

SHAPE = Rows(
    "incoming_things",
    (
        ("number", sa.Integer()),
        ("big", BigId),
        ("real", sa.Double()),
        ("maybe", sa.Double()),
        ("flag", sa.Boolean()),
        ("text", sa.Text()),
        ("blob", sa.LargeBinary()),
    ),
)

THINGS: dict[str, Any] = {
    "number": range(4),
    "big": (-(2**63), 2**63 - 1, 0, -1),
    "real": [math.inf, -math.inf, 5e-324, 0.1 + 0.2],
    "maybe": [None, 1.5, None, -0.0],
    "flag": [True, False, False, True],
    "text": ['"', "{a,b}", "", "NULL"],
    "blob": [b"", b"\x00\xff", b'"', b"\\"],
}


@pytest.mark.parametrize("n", [4, 1, 0])
def test_rows_arrive_as_they_were_sent(store_url: str, n: int) -> None:
    columns = {name: values[:n] for name, values in THINGS.items()}
    database = Database(store_url)
    relation = database.dialect.relation(SHAPE)

    def read(connection: sa.Connection) -> Sequence[Any]:
        rows = database.dialect.load(connection, SHAPE, columns)
        return connection.execute(sa.select(relation), rows).all()

    found = database.read(read)
    database.close()
    assert [tuple(row) for row in found] == list(zip(*columns.values(), strict=True))

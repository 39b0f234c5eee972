"""SQL that copies a buffer into another database: the rows as they are, under a buffer of there.

The same statements read the rows of the original, and those of the copy to compare the two.
"""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, now
from sqlbuffer.db.queries.buffers import UPDATE_BUFFER
from sqlbuffer.db.queries.params import BUFFER
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    draws,
    measurements,
    metrics,
    pool,
    predictors,
    samples,
)

ORDERS: dict[sa.Table, tuple[str, ...]] = {
    samples: ("id",),
    batches: ("id",),
    draws: ("batch_id", "position"),
    measurements: ("id",),
    pool: ("race_key", "sample_id"),
    predictors: ("version",),
    checkpoints: ("name", "iteration"),
    metrics: ("iteration", "name"),
}
"""The tables that are copied, in this order, each with the order of its rows."""


def _of_buffer(statement: sa.Select[Any], table: sa.Table) -> sa.Select[Any]:
    if table is draws:
        its_batch = batches.c.id == draws.c.batch_id
        return statement.join_from(batches, draws, its_batch).where(batches.c.buffer_id == BUFFER)
    if "id" not in table.c:
        return statement.where(table.c.buffer_id == BUFFER)
    # `+ zero`: in the order of the numbers, not by an index and a sort of whole rows in memory.
    zero: sa.BindParameter[int] = bindparam("zero", 0, type_=sa.Integer)
    return statement.where(table.c.buffer_id + zero == BUFFER)


@functools.cache
def rows_of(table: sa.Table) -> sa.Select[Any]:
    """The rows that a buffer has in a table, in order, without the number of the buffer."""
    columns = [column for column in table.c if column.name != "buffer_id"]
    order = [table.c[name] for name in ORDERS[table]]
    if table is draws:  # the order of the join: no sort
        order[0] = batches.c.id
    return _of_buffer(select(*columns), table).order_by(*order)


@functools.cache
def count_rows(table: sa.Table) -> sa.Select[Any]:
    """The number of rows that a buffer has in a table."""
    return _of_buffer(select(sa.func.count().label("rows")).select_from(table), table)


@functools.cache
def insert_row(table: sa.Table) -> sa.Insert:
    """Insert a row of another database; a row with a number gets a new one."""
    values: dict[str, Any] = {
        column.name: bindparam(column.name, type_=column.type)
        for column in table.c
        if column.name not in ("id", "buffer_id")
    }
    if "buffer_id" in table.c:
        values["buffer_id"] = BUFFER
    return sa.insert(table).values(values)


@functools.cache
def begin_copy(dialect: Dialect) -> Any:
    """Insert the row of an unfinished copy; return its id, or no row if there is one."""
    values: dict[str, Any] = {
        column.name: bindparam(column.name, type_=column.type)
        for column in buffers.c
        if column.name not in ("id", "created_at")
    }
    insert = dialect.upsert(buffers).values(**values, created_at=now())
    return insert.on_conflict_do_nothing(index_elements=["name"]).returning(buffers.c.id)


@functools.cache
def own_copy() -> sa.Update:
    """Note in the settings of an unfinished copy which process goes on with it."""
    return UPDATE_BUFFER.values(settings=bindparam("noted", type_=buffers.c.settings.type))


@functools.cache
def finish_copy() -> sa.Update:
    """Give an unfinished copy its name and settings."""
    given = {
        "name": bindparam("new", type_=sa.Text),
        "settings": bindparam("given", type_=buffers.c.settings.type),
        "pruned_batch": bindparam("bound", type_=BigId),
    }
    return UPDATE_BUFFER.values(given)

"""SQL of pages: the pace of a buffer, and rows of a view that a user has narrowed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, right_now
from sqlbuffer.db.queries.params import BUFFER, IS_OPEN, mean
from sqlbuffer.db.schema import batches, draws, measurements, samples

_LIMIT: sa.BindParameter[int] = bindparam("limit", type_=BigId)


@functools.cache
def pace() -> sa.Select[Any]:
    """The oldest and newest times of the `limit` newest measurements, their number, and the time.

    `at_first` counts those of the oldest time: a loop stores a whole batch at one time. `moments`
    is the number of different times.
    """
    newest = (
        select(measurements.c.measured_at)
        .where(measurements.c.buffer_id == BUFFER)
        .order_by(measurements.c.id.desc())
        .limit(_LIMIT)
        .cte("newest")
    )
    at = newest.c.measured_at
    first = select(sa.func.min(at)).scalar_subquery()
    columns: Any = [
        sa.func.min(at).label("first_at"),
        sa.func.max(at).label("last_at"),
        sa.func.count().label("n"),
        sa.func.count().filter(at == first).label("at_first"),
        sa.func.count(at.distinct()).label("moments"),
        right_now().label("now"),
    ]
    return select(*columns)


@functools.cache
def measured_draws() -> sa.Select[Any]:
    """How many measurements were of draws, of these how many in open batches; their mean seconds.

    Reads all measurements of the buffer.
    """
    reported = (
        select(sa.func.count())
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == BUFFER, IS_OPEN, batches.c.worker_id > "")
        .where(draws.c.reported)
    )
    columns: Any = [
        sa.func.count(measurements.c.batch_id).label("drawn"),
        reported.scalar_subquery().label("reported"),
        mean(measurements.c.seconds).label("seconds"),
    ]
    return select(*columns).where(measurements.c.buffer_id == BUFFER)


@functools.cache
def sample_content() -> sa.Select[Any]:
    """Text, payload and codec of a sample."""
    wanted: sa.BindParameter[int] = bindparam("sample", type_=BigId)
    return select(samples.c.text, samples.c.payload, samples.c.codec).where(
        samples.c.buffer_id == BUFFER, samples.c.id == wanted
    )


def columns_of(view: sa.Table) -> dict[str, sa.ColumnClause[Any]]:
    """Return the columns of a view by their names alone, as a person would write them."""
    return {column.name: sa.column(column.name, column.type) for column in view.c}


def rows_of_view(
    view: sa.Table,
    columns: Sequence[str],
    conditions: Sequence[sa.ColumnElement[bool]],
    order: Sequence[sa.ColumnElement[Any]],
    *,
    buffer: str,
    key: str | None = None,
    goes_by_key: bool = False,
) -> sa.Select[Any]:
    """Rows of a view of one buffer: `limit` of them after `offset`.

    With a key the rows are found first, by as few columns as possible: means over the draws of all
    batches took seconds, those of one page take milliseconds.

    If the order goes by the key, the name of the buffer is compared so that SQLite reads the table
    in that order, and ends when it has the page; by the index of the names it would read and sort
    the whole buffer, a million samples in a second.
    """
    own = columns_of(view)
    name: Any = own["buffer"].concat("") if goes_by_key else own["buffer"]
    limit: Any = bindparam("limit", type_=BigId)
    offset: Any = bindparam("offset", type_=BigId)

    def page(*names: str) -> sa.Select[Any]:
        found = select(*(own[name] for name in names)).select_from(view)
        found = found.where(name == sa.literal(buffer, sa.Text), *conditions)
        return found.order_by(*order).limit(limit).offset(offset)

    if key is None:
        return page(*columns)
    of_page = own[key].in_(page(key))
    return (
        select(*(own[name] for name in columns)).select_from(view).where(of_page).order_by(*order)
    )

"""Checkpoints: states to resume from, by name and number of settled batches."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import Dialect, now
from sqlbuffer.db.queries.params import BUFFER
from sqlbuffer.db.schema import checkpoints

_NAME: sa.BindParameter[str] = bindparam("checkpoint", type_=sa.Text)
_ITERATION: sa.BindParameter[int] = bindparam("at_iteration", type_=sa.Integer)
_OF_NAME = sa.and_(checkpoints.c.buffer_id == BUFFER, checkpoints.c.name == _NAME)


@functools.cache
def upsert_checkpoint(dialect: Dialect) -> Any:
    """Store a checkpoint, or replace the one that another process has just stored."""
    insert = dialect.upsert(checkpoints).values(
        buffer_id=BUFFER,
        name=_NAME,
        iteration=_ITERATION,
        data=bindparam("state", type_=sa.LargeBinary),
        created_at=now(),
    )
    return insert.on_conflict_do_update(
        index_elements=[checkpoints.c.buffer_id, checkpoints.c.name, checkpoints.c.iteration],
        set_={"data": insert.excluded.data, "created_at": insert.excluded.created_at},
    )


@functools.cache
def delete_checkpoints() -> sa.Delete:
    """Delete all checkpoints of a name."""
    return sa.delete(checkpoints).where(_OF_NAME)


@functools.cache
def delete_outdated_checkpoints() -> sa.Delete:
    """Delete the checkpoints of a name that are as old as `oldest` or older, or of this iteration.

    Batches of other workers may have been settled out of their order: a later checkpoint stays.
    """
    oldest: sa.BindParameter[int] = bindparam("oldest", type_=sa.Integer)
    is_outdated = checkpoints.c.iteration <= oldest
    is_replaced = checkpoints.c.iteration == _ITERATION
    return sa.delete(checkpoints).where(_OF_NAME, sa.or_(is_outdated, is_replaced))


@functools.cache
def checkpoints_of_name() -> sa.Select[Any]:
    """Return `iteration, data` of all checkpoints of a name, the oldest first."""
    return (
        select(checkpoints.c.iteration, checkpoints.c.data)
        .where(_OF_NAME)
        .order_by(checkpoints.c.iteration)
    )


@functools.cache
def newest_checkpoint() -> sa.Select[Any]:
    """Return `iteration, data` of the newest checkpoint of a name."""
    return (
        select(checkpoints.c.iteration, checkpoints.c.data)
        .where(_OF_NAME)
        .order_by(checkpoints.c.iteration.desc())
        .limit(1)
    )

"""How far a refresh has come: the versions in the row of the buffer."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.queries.params import BUFFER
from sqlbuffer.db.schema import buffers

_THIS = buffers.c.id == BUFFER
_REFRESH: sa.BindParameter[int] = bindparam("refresh", type_=sa.Integer)


@functools.cache
def begin_refresh() -> sa.Update:
    """Begin a refresh; return its `score_version`, or no row if `known` is another version.

    `step` is 1 for a new version and 0 for the newest. A refresh that is not full has no version of
    its own to finish. `known` of NULL fits every version.
    """
    known: sa.BindParameter[int] = bindparam("known", type_=sa.Integer)
    is_full: sa.BindParameter[bool] = bindparam("is_full", type_=sa.Boolean)
    version = buffers.c.score_version + bindparam("step", type_=sa.Integer)
    return (
        sa.update(buffers)
        .where(_THIS, buffers.c.score_version == sa.func.coalesce(known, buffers.c.score_version))
        .values(
            score_version=version,
            refresh_version=sa.case((is_full, version), else_=buffers.c.refresh_version),
        )
        .returning(buffers.c.score_version)
    )


@functools.cache
def is_refresh_finished() -> sa.Select[Any]:
    """Return whether the newest full refresh that was begun is finished."""
    return select(
        (buffers.c.refreshed_version == buffers.c.refresh_version).label("is_finished")
    ).where(_THIS)


@functools.cache
def finish_refresh() -> sa.Update:
    """Note that a full refresh is finished, unless a newer one is.

    `reached` is the oldest version of a waiting score, at most that of the refresh. The epoch moves
    on: a sample with an older score that comes back from now on tells no other refresh that is
    under way, so that each has to look for such samples when it ends.
    """
    reached: sa.BindParameter[int] = bindparam("reached", type_=sa.Integer)
    is_newest = buffers.c.refresh_version <= _REFRESH
    return (
        sa.update(buffers)
        .where(_THIS, buffers.c.refreshed_version < _REFRESH)
        .values(
            refreshed_version=reached,
            refresh_version=sa.case((is_newest, reached), else_=buffers.c.refresh_version),
            epoch=buffers.c.epoch + 1,
        )
    )


@functools.cache
def unfinish_refresh() -> sa.Update:
    """Note that a full refresh is not finished, even if it found no stale sample."""
    return (
        sa.update(buffers)
        .where(_THIS, buffers.c.refreshed_version >= _REFRESH)
        .values(refreshed_version=_REFRESH - 1)
    )


@functools.cache
def finish_refresh_in_steps() -> sa.Update:
    """Note that a refresh with a budget is finished, unless a newer or a full one is under way."""
    return (
        sa.update(buffers)
        .where(_THIS, buffers.c.score_version == _REFRESH)
        .where(buffers.c.refresh_version == buffers.c.refreshed_version)
        .values(refresh_version=_REFRESH, refreshed_version=_REFRESH)
    )

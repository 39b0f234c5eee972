"""Kinds of errors of PostgreSQL, and advice for each."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

_TOO_MANY = (
    "end sessions that are idle, or raise the limit on connections that the message is about, and "
    "run again"
)
_PREPARED = (
    "a pooler shares the session with other clients: put ?prepare_threshold=none into the URL"
)
_RAISE = "raise it for this role or database (ALTER ROLE ... SET), and run again"
_CLOSED = (
    "the server or its pooler stopped the statement or ended the session: see their logs and run "
    "again"
)
_WAYS_OUT_BY_STATE = {
    "08P01": "look into the logs of the server, and of its pooler if there is one",
    "25P03": "a transaction was idle for longer than idle_in_transaction_session_timeout: "
    f"{_RAISE}",
    "25P04": f"a transaction took longer than transaction_timeout: {_RAISE}",
    "26000": _PREPARED,
    "42P05": _PREPARED,
    "53200": "the server has too little memory: give it more, or do less at a time",
    "53100": "free space on the disk of the server and run again; committed data is safe",
    "53300": _TOO_MANY,
    "55P03": "another session holds a lock for longer than lock_timeout: end it, or raise the "
    "timeout, and run again",
    "57P01": _CLOSED,
    "57P02": _CLOSED,
    "57P05": f"a connection was idle for longer than idle_session_timeout: {_RAISE}",
    "57014": "the statement was ended from outside: if statement_timeout ended it, raise "
    "statement_timeout, and run again",
}
"""By the SQLSTATE of the error."""

_WAYS_OUT_BY_MESSAGE = {
    "password": "check user and password in the URL",
    "does not exist": "create it first, or correct the URL",
    "permission denied": "grant the missing rights (`sqlbuffer db grants` prints them), or use "
    "another role: a command that writes needs the role of workers",
    "too many": _TOO_MANY,  # refused connections have no SQLSTATE
    "connection slots": _TOO_MANY,
    "startup parameter": "the pooler does not forward this option: remove it from the URL, and set "
    "it for the role",
    "invalid ": "correct this option of the URL",  # from libpq, before it connects
    "closed": _CLOSED,
    "the connection is lost": _CLOSED,
    "read-only": "this server or connection is read-only: use the primary",
}
"""By a part of the message; the first that fits."""


def way_out(error: Any) -> str:
    """Return how to solve an error of the driver."""
    state, message = getattr(error, "sqlstate", None), str(error).lower()
    if "query_wait_timeout" in message:  # of PgBouncer, whose every message has the same code
        return (
            "the pooler had no session left for this process, which uses several: raise its "
            "default_pool_size"
        )
    if state in _WAYS_OUT_BY_STATE:
        return _WAYS_OUT_BY_STATE[state]
    found = (text for part, text in _WAYS_OUT_BY_MESSAGE.items() if part in message)
    return next(found, "check that the server runs and that host and port in the URL are right")


def state_of(error: sa.exc.DBAPIError) -> str | None:
    """Return the SQLSTATE of an error, None if the server has sent none."""
    return getattr(error.orig, "sqlstate", None)


_UNKNOWN = re.compile(r"(relation|column) \"?(.+?)\"? does not exist")


def unknown_name(error: sa.exc.DBAPIError) -> tuple[str, str] | None:
    """See `Dialect.unknown_name`; None if the server's messages are not in English."""
    found = _UNKNOWN.match(str(error.orig))
    if found is None or state_of(error) not in ("42703", "42P01"):
        return None
    return ("table" if found[1] == "relation" else "column", found[2])


def is_conflict(error: sa.exc.DBAPIError) -> bool:
    """See `Dialect.is_conflict`: a deadlock, or a serialization failure."""
    return state_of(error) in ("40P01", "40001")


def is_overdue(error: sa.exc.DBAPIError) -> bool:
    """See `Dialect.is_overdue`."""
    return state_of(error) in ("25P03", "25P04")


def is_lost(error: sa.exc.DBAPIError) -> bool:
    """See `Dialect.is_lost`."""
    state = state_of(error)
    if state is None:  # the server could send no answer
        return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)
    if is_overdue(error):
        return False
    return (
        error.connection_invalidated
        or state.startswith("08")
        or state in ("57P01", "57P02", "57P03", "57P05")
    )

"""SQL that a person types, on PostgreSQL: it runs as a role with few rights.

A read-only transaction alone does not stop functions that write files or run programs.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from sqlbuffer._messages import shown
from sqlbuffer.db.backends.values import quoted
from sqlbuffer.errors import InvalidArgument

READER = "pg_read_all_data"
"""A predefined role that may read every table, also the hashes of passwords, and nothing else.

A superuser takes it for a condition of its own program; no message recommends it.
"""

# Roles that reach files and processes of the server through functions, which a read-only
# transaction may call.
_POWERS = (
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_signal_backend",
    "pg_write_server_files",
)

_HARMLESS = (
    *(
        "random",
        "random_normal",
        "gen_random_uuid",
        "uuidv4",
        "uuidv7",
        "array_sample",
        "array_shuffle",
    ),
    *("clock_timestamp", "timeofday", "pg_relation_size", "pg_table_size", "pg_indexes_size"),
    *("pg_total_relation_size", "pg_database_size", "pg_is_in_recovery"),
)
"""Functions that PostgreSQL calls volatile though they only read."""

_SUSPECT = """
SELECT DISTINCT proname
FROM pg_catalog.pg_proc
WHERE provolatile = 'v'
   OR provolatile = 's'
      AND pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
ORDER BY proname
"""
"""Functions that may do more than read: volatile ones, and those of extensions that execute text,
such as `crosstab`, which are stable."""

_POWERFUL = """
SELECT rolname, rolsuper, rolname = current_user AS is_own
FROM pg_catalog.pg_roles
WHERE pg_catalog.pg_has_role(current_user, oid, 'MEMBER')
  AND (rolsuper OR rolname = ANY (:powers))
ORDER BY rolname = current_user DESC, rolsuper DESC, rolname
LIMIT 1
"""
"""The role itself if it is a superuser, else a powerful role of which it is a member."""


def guard(connection: sa.Connection, sql: str, *, role: str | None, may_step_down: bool) -> None:
    """Make sure that SQL, run in this transaction, can only read. See `Dialect.guarded`."""
    if calls := _side_effects(connection, sql):
        raise InvalidArgument(
            f"{', '.join(calls)} may do more than read: leave it out of this SQL."
        )
    power = None if role is not None else _power(connection)
    if power is not None and may_step_down and _can_step_down(connection):
        role, power = READER, None
    if role is not None:
        _take(connection, role)
        power = _power(connection)
    if power is None:
        return
    name = str(connection.scalar(sa.text("SELECT current_user")))
    raise InvalidArgument(
        f"role {shown(name)} is {power}, and SQL could run programs or reach files of the server "
        "through it: log in as a role that only reads, or name one with --role R; "
        "`sqlbuffer db grants --reader R` prints the rights that it needs."
    )


def _power(connection: sa.Connection) -> str | None:
    """Return the reason why the role has too many rights, None if it has few."""
    found = connection.execute(sa.text(_POWERFUL), {"powers": list(_POWERS)}).one_or_none()
    if found is None:
        return None
    if found.is_own:
        return "a superuser" if found.rolsuper else "a role that reaches the server itself"
    return f"a member of {found.rolname}"


def _can_step_down(connection: sa.Connection) -> bool:
    return bool(
        connection.scalar(
            sa.text("SELECT pg_catalog.pg_has_role(:role, 'MEMBER')"), {"role": READER}
        )
    )


def _take(connection: sa.Connection, role: str) -> None:
    """Take another role until the transaction ends."""
    connection.exec_driver_sql(
        f"SET LOCAL ROLE {quoted(role)}", execution_options={"stream_results": False}
    )


def _side_effects(connection: sa.Connection, sql: str) -> list[str]:
    """Return the functions called in SQL that, by their names, may do more than read."""
    disguised = sorted(set(re.findall(r'u&"', sql, re.IGNORECASE)))  # a name in Unicode escapes
    if not re.search(r"\(|--|/\*", sql):  # no call, so that the server need not list its functions
        return disguised
    suspects = connection.scalars(sa.text(_SUSPECT))
    names = "|".join(re.escape(name) for name in suspects if name not in _HARMLESS)
    calls = re.finditer(rf"(?<!\w)({names})\"?\s*(?:\(|--|/\*)", sql, re.IGNORECASE)
    return sorted({f"{call[1]}()" for call in calls} | set(disguised))

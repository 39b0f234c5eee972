"""SQL of persons that fails at a long row: a driver reads a whole row, however large it is."""

from __future__ import annotations

import re

LONGEST_ROW = 1_000_000
"""Most bytes of the text of a row."""

_ROW = "sqlbuffer_row"
_COMMENTS = re.compile(r"(\s|--[^\n]*(\n|$)|/\*.*?\*/)*", re.DOTALL)
_QUERIES = ("select", "with", "values", "table", "(")


def bounded(sql: str) -> str:
    """Return a query around a query that has its rows, and fails at one of more than 1 MB.

    The message stands in a text that is no boolean: PostgreSQL has no function that raises. Other
    statements, such as SHOW and EXPLAIN, have no long rows, and cannot stand in a query.
    """
    begin = sql[len(_COMMENTS.match(sql)[0]) :].lower()  # type: ignore[index]
    if not begin.startswith(_QUERIES):
        return sql
    size = f"octet_length({_ROW}::text)"
    fault = f"('a row has ' || {size} || ' bytes, more than the page shows ({LONGEST_ROW})')"
    return (
        f"SELECT * FROM (\n{sql}\n) AS {_ROW}\n"
        f"WHERE CASE WHEN {size} > {LONGEST_ROW} THEN {fault}::boolean ELSE true END"
    )

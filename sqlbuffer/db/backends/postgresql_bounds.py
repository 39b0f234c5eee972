"""SQL of persons that fails at a long row: a driver reads a whole row, however large it is."""

from __future__ import annotations

LONGEST_ROW = 1_000_000
"""Most bytes of the text of a row."""

_ROW = "sqlbuffer_row"


def bounded(sql: str) -> str:
    """Return a query around a query that has its rows, and fails at one of more than 1 MB.

    SQL with brackets that do not match cannot get past the bound: the query has no name for its
    rows but that of WITH, which stands before them. A subquery has its name behind it, and takes
    `SELECT 1) AS a UNION SELECT * FROM (SELECT 2`.

    The message stands in a text that is no boolean: PostgreSQL has no function that raises.
    """
    size = f"octet_length({_ROW}::text)"
    fault = f"('a row has ' || {size} || ' bytes, more than the page shows ({LONGEST_ROW})')"
    return (
        f"WITH {_ROW} AS (\n{sql}\n)\nSELECT * FROM {_ROW}\n"
        f"WHERE CASE WHEN {size} > {LONGEST_ROW} THEN {fault}::boolean ELSE true END"
    )

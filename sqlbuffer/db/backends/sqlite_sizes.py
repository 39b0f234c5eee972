"""The sizes of an SQLite file: of its tables, and of the pages that new rows will use."""

from __future__ import annotations

import sqlalchemy as sa

_HAS_DBSTAT = "SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'"

_OF_TABLES = """
SELECT objects.tbl_name AS name, sum(pages.pgsize) AS size_bytes
FROM dbstat('main', 1) AS pages
JOIN sqlite_schema AS objects ON objects.name = pages.name
GROUP BY objects.tbl_name
"""


def table_bytes(connection: sa.Connection) -> dict[str, int]:
    """Return the bytes of each table with its indexes; empty if the library has no dbstat."""
    if not _has_dbstat(connection):
        return {}
    rows = connection.exec_driver_sql(_OF_TABLES)
    return {str(row.name): int(row.size_bytes) for row in rows}


def about_size(connection: sa.Connection) -> str:
    """Return the size of the file in words."""
    page, pages, free = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_size", "page_count", "freelist_count")
    )
    words = f"the file has {page * pages / 1e6:,.1f} MB, of which {page * free / 1e6:,.1f} are free"
    if _has_dbstat(connection):
        return words
    return f"{words}; this SQLite library has no dbstat, which tells the sizes of tables"


def _has_dbstat(connection: sa.Connection) -> bool:
    return bool(connection.exec_driver_sql(_HAS_DBSTAT).scalar_one())

"""Times in a condition in SQL: SQLite compares them as the texts that it stores."""

from __future__ import annotations

import datetime as dt
import re

from sqlbuffer.core.sql_tokens import Token
from sqlbuffer.core.sql_values import shown_sql
from sqlbuffer.db.backends.types import as_text
from sqlbuffer.errors import InvalidArgument

WORDS = {"DATETIME(", "DATETIME()", "CURRENT_TIMESTAMP"}
"""What gives a time as a text of another form on SQLite."""

_TIME = re.compile(
    r"""
    \s* (?P<date> \d{4}-\d\d-\d\d )
    (?: [T\s]\s* (?P<minute> \d\d:\d\d ) (?: : (?P<second> \d\d ) (?: \.(?P<part> \d+) )? )? )?
    \s* (?: (?P<utc> Z | UTC ) | (?P<hours> [+-]\d\d ) :? (?P<minutes> \d\d )? )? \s*
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


def stored_form(literal: Token) -> str:
    """Return a literal that is compared with a time, as SQLite stores times; in UTC if no zone
    stands in it.

    Raises:
        InvalidArgument: If it is no time.
    """
    try:
        return f"'{as_text(_time(literal.text[1:-1]))}'"
    except (ValueError, OverflowError) as exc:
        raise InvalidArgument(
            f"where compares a time with {shown_sql(literal.text)}, which is none: write "
            "'2026-12-31', or '2026-12-31 23:59:00' for a time in UTC, or '2026-12-31 "
            "23:59:00+01:00'."
        ) from exc


def _time(text: str) -> dt.datetime:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("no time")
    second = f"{found['second'] or '00'}.{(found['part'] or '')[:6]:0<6}"
    zone = f"{found['hours']}:{found['minutes'] or '00'}" if found["hours"] else "+00:00"
    return dt.datetime.fromisoformat(f"{found['date']}T{found['minute'] or '00:00'}:{second}{zone}")

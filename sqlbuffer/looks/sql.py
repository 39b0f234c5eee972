"""Any SELECT that a person types, run unchanged on a connection that can only read."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer.core.sql_tokens import tokens_of
from sqlbuffer.db.backends import first_line, parse_url, unavailable
from sqlbuffer.errors import InvalidArgument

_LONGEST_TYPED = 10_000
_RULE = "give one SELECT, which cannot write"


@dataclasses.dataclass(frozen=True)
class Found:
    """The rows of a SELECT.

    Attributes:
        columns: Names of the columns, each different.
        rows: The rows; each is read from the database when the iterator reaches it.
    """

    columns: list[str]
    rows: Iterator[Sequence[Any]]


@contextlib.contextmanager
def ask(
    url: str | sa.URL, sql: str, *, role: str | None = None, timeout_s: float | None = None
) -> Iterator[Found]:
    """Run one SELECT, unchanged up to its semicolon, on a connection that can only read.

    Args:
        url: URL of the database.
        sql: One SELECT.
        role: PostgreSQL role that runs it; None for the role that logs in.
        timeout_s: Seconds that it may take; None for any time. With it no row may have more than
            1 MB, nor a value on SQLite.

    Raises:
        InvalidArgument: If the database refuses the SQL, if it takes too long, or if the role may
            do more than read. The message is one line.
        DatabaseUnavailable: If the database cannot be opened, or changed under the statement.
    """
    _require_text(sql)
    sql = _without_end(sql)
    location, dialect = parse_url(url)
    engine = dialect.inspector(location, timeout_s=timeout_s)
    began = time.monotonic()
    try:
        with (
            engine.connect() as connection,
            dialect.guarded(connection, sql, role=role),
            connection.exec_driver_sql(
                sql if timeout_s is None else dialect.bounded(sql)
            ) as result,
        ):
            if not (columns := _unique(result.keys()) if result.returns_rows else []):
                raise InvalidArgument(f"this SQL returns no columns: {_RULE}.")
            yield Found(columns, iter(result))
    except dialect.sql_errors as exc:
        if timeout_s is not None and time.monotonic() - began > timeout_s:
            raise InvalidArgument(
                f"this SQL took more than {timeout_s:g} s and was ended: narrow it, or run it with "
                "`sqlbuffer sql`, which has no limit."
            ) from exc
        if isinstance(exc, sa.exc.DBAPIError) and dialect.is_conflict(exc):
            raise unavailable(exc, location, dialect) from exc
        if isinstance(exc, sa.exc.DBAPIError) and (unknown := dialect.unknown_name(exc)):
            from sqlbuffer.looks import near_matches  # only errors need it

            raise InvalidArgument(near_matches.explain(*unknown, sql)) from exc
        reason = first_line(str(getattr(exc, "orig", exc)))
        limits = "" if timeout_s is None else "; `sqlbuffer sql` takes longer values"
        raise InvalidArgument(f"{reason.rstrip('.')}: {_RULE}{limits}.") from exc
    finally:
        engine.dispose()


def _require_text(sql: str) -> None:
    """Refuse characters at which a driver would cut the SQL off, or which it cannot encode."""
    if "\0" in sql or sql.encode(errors="replace").decode() != sql:
        raise InvalidArgument(f"this SQL has characters that are not text: {_RULE}.")


def _without_end(sql: str) -> str:
    """Return SQL without semicolons and comments at its end, which no query around it can have.

    Only of a text that a person types: tokens of a longer one take more time than a page has.
    """
    text = sql.rstrip().rstrip(";")
    if ";" not in text or len(text) > _LONGEST_TYPED:
        return text or sql
    tokens = list(tokens_of(text))
    kept = list(itertools.dropwhile(lambda token: token.text == ";", reversed(tokens)))
    return text[: kept[0].end] if kept and len(kept) < len(tokens) else text


def _unique(columns: Iterable[str]) -> list[str]:
    """Return the names with repeats numbered: `n`, `n:1`, `n:2`."""
    names: list[str] = []
    for column in columns:
        again = sum(name == column or name.startswith(f"{column}:") for name in names)
        names.append(f"{column}:{again}" if again else column)
    return names

"""What the command line asks a database: the best samples as text, and any SELECT that a person types."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import first_line, parse_url
from sqlbuffer.db.schema import samples
from sqlbuffer.errors import InvalidArgument

_RULE = "give one SELECT, which cannot write"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The rows of a SELECT.

    Attributes:
        columns: Names of the columns, each different.
        rows: The rows, read from the database as they are asked for.
    """

    columns: list[str]
    rows: Iterator[Sequence[Any]]


def top(tx: Transaction, n: int, *, by: str) -> list[dict[str, Any]]:
    """Return the n best samples by "reward" or "score", the best first, each as it can be read.

    The stored text, and not the decoded sample: it is there for types that only the user's program knows.
    """
    names = "id reward score source created_iteration created_at rewarded_at meta".split()
    columns = [*(samples.c[name] for name in names), samples.c.text.label("sample")]
    return [
        dict(row)
        for row in tx.execute(queries.best(by, *columns), limit=min(n, LARGEST_INT)).mappings()
    ]


@contextlib.contextmanager
def ask(url: str, sql: str, *, role: str | None = None) -> Iterator[Answer]:
    """Run a person's SELECT, passed on as it is, on a connection that can do nothing else.

    Args:
        url: The database.
        sql: One SELECT.
        role: The role of PostgreSQL that runs it, None for the one that logs in.

    Raises:
        InvalidArgument: Where the database refuses it, or the role may do more than read: what is wrong, in one line.
    """
    _require_text(sql)
    location, dialect = parse_url(url)
    engine = dialect.inspector(location)
    try:
        with (
            engine.connect() as connection,
            dialect.guarded(connection, sql, role=role),
            connection.exec_driver_sql(sql) as result,
        ):
            if not (columns := _unique(result.keys()) if result.returns_rows else []):
                raise InvalidArgument(f"this SQL returns no columns: {_RULE}.")
            yield Answer(columns, iter(result))
    except sa.exc.DBAPIError as exc:
        raise InvalidArgument(f"{first_line(str(exc.orig)).rstrip('.')}: {_RULE}.") from exc
    finally:
        engine.dispose()


def _require_text(sql: str) -> None:
    """Refuse what a driver would cut off or choke on."""
    if "\0" in sql or sql.encode(errors="replace").decode() != sql:
        raise InvalidArgument(f"this SQL has characters that are not text: {_RULE}.")


def _unique(columns: Iterable[str]) -> list[str]:
    """Tell columns of one name apart: `n`, `n:1`, `n:2`."""
    names: list[str] = []
    for column in columns:
        again = sum(name == column or name.startswith(f"{column}:") for name in names)
        names.append(f"{column}:{again}" if again else column)
    return names

"""Hot statements: built once, compiled once for each dialect, and executed by the driver's cursor.

`hot` marks the builder of a statement. `execute` executes any statement; one that is not hot, or of
a transaction that the program watches, goes SQLAlchemy's own way.
"""

from __future__ import annotations

import collections
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from sqlbuffer.db.backends import driver

F = TypeVar("F", bound=Callable[..., Any])

_WITH_ROWCOUNT = {"preserve_rowcount": True}

_hot: set[Any] = set()


def hot(build: F) -> F:
    """Build each statement once, and let `execute` know it.

    Its parameters have one value each: a list would be expanded at each execution.
    """

    @functools.cache
    @functools.wraps(build)
    def built(*given: Any, **named: Any) -> Any:
        statement = build(*given, **named)
        _hot.add(statement)
        return statement

    return built  # type: ignore[return-value]


def is_hot(statement: Any) -> bool:
    """Return True for a statement of a builder that is marked `hot`."""
    return statement in _hot


def execute(
    connection: sa.Connection,
    statement: Any,
    parameters: Mapping[str, Any],
    cursors: driver.Cursors | None = None,
) -> Any:
    """Execute a statement; return SQLAlchemy's result, or `Found` with the same methods.

    `cursors` are those of the transaction, which take as long to find as a short statement.
    """
    compiled = _compiled.get((statement, connection.dialect))
    if compiled is None:
        if not is_hot(statement):
            return connection.execute(statement, parameters)
        compiled = _compiled[statement, connection.dialect] = _Compiled(statement, connection)
    return compiled.execute(connection, parameters, cursors or driver.cursors(connection))


def n_changed(connection: sa.Connection, statement: Any, parameters: Mapping[str, Any]) -> int:
    """Execute a statement; return how many rows it has changed."""
    if is_hot(statement):
        return int(execute(connection, statement, parameters).rowcount)
    return connection.execute(statement, parameters, execution_options=_WITH_ROWCOUNT).rowcount


class Found:
    """The answer to a hot statement, with the methods of SQLAlchemy's results that are used."""

    __slots__ = ("_as_row", "_rows", "rowcount")

    def __init__(
        self, rows: Sequence[tuple[Any, ...]], rowcount: int, as_row: Callable[[Any], Any]
    ) -> None:
        self._rows = rows
        self.rowcount = rowcount
        self._as_row = as_row

    def __iter__(self) -> Iterator[Any]:
        return map(self._as_row, self._rows)

    def all(self) -> list[Any]:
        """Return all rows, with their columns as attributes."""
        return list(self)

    def tuples(self) -> Sequence[tuple[Any, ...]]:
        """Return all rows without names of columns, at no cost."""
        return self._rows

    def one(self) -> Any:
        """Return the only row."""
        (row,) = self._rows
        return self._as_row(row)

    def one_or_none(self) -> Any:
        """Return the only row, or None."""
        return self.one() if self._rows else None

    def scalars(self) -> Iterator[Any]:
        """Return the first column."""
        return map(operator.itemgetter(0), self._rows)

    def scalar_one(self) -> Any:
        """Return the first value of the only row."""
        return self.one()[0]


class _Compiled:
    """A statement as text, and the conversions of its values."""

    def __init__(self, statement: Any, connection: sa.Connection) -> None:
        self._statement = statement
        self._dialect = connection.dialect
        names = connection.get_execution_options().get("schema_translate_map")
        compiled = statement.compile(
            dialect=self._dialect,
            schema_translate_map=names,
            render_schema_translate=names is not None,
        )
        self._sql = str(compiled)
        self._order = compiled.positiontup
        binds = {name: bind for bind, name in compiled.bind_names.items()}
        processes = [
            (name, self._of(bind.type).bind_processor(self._dialect))
            for name, bind in binds.items()
        ]
        fixed = {name: bind.value for name, bind in binds.items() if not bind.required}
        self._fixed = fixed | {
            name: process(fixed[name]) for name, process in processes if process and name in fixed
        }
        self._to_sql = [each for each in processes if each[1] and each[0] not in fixed]
        columns = (
            statement.column_descriptions
            if isinstance(statement, sa.Select)
            else statement.returning_column_descriptions
        )
        self._types = [column["type"] for column in columns]
        row = collections.namedtuple("Row", [column["name"] for column in columns])  # type: ignore[misc]
        self._as_row = row._make
        self._from_sql: list[tuple[int, Any]] | None = None

    def _of(self, kind: Any) -> Any:
        return kind.dialect_impl(self._dialect)

    def execute(
        self, connection: sa.Connection, parameters: Mapping[str, Any], cursors: driver.Cursors
    ) -> Found:
        """Execute it."""
        make = cursors.fetching
        if make is None:
            return self._execute_watched(connection, parameters)
        values: Any = {**self._fixed, **parameters}
        for name, process in self._to_sql:
            values[name] = process(values[name])
        if self._order is not None:
            values = tuple(map(values.__getitem__, self._order))
        answer = driver.fetch(connection, make, self._sql, values)
        return Found(self._read(answer), answer.rowcount, self._as_row)

    def _execute_watched(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> Found:
        found = connection.execute(self._statement, parameters, execution_options=_WITH_ROWCOUNT)
        rows = list(map(tuple, found)) if found.returns_rows else []
        return Found(rows, found.rowcount, self._as_row)

    def _read(self, answer: driver.Answer) -> Sequence[tuple[Any, ...]]:
        """Return the rows with the values that the types of their columns say."""
        if self._from_sql is None:
            described = zip(self._types, answer.description, strict=True)
            found = [
                self._of(kind).result_processor(self._dialect, each[1]) for kind, each in described
            ]
            self._from_sql = [(i, process) for i, process in enumerate(found) if process]
        return list(map(self._converted, answer.rows)) if self._from_sql else answer.rows

    def _converted(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for place, process in self._from_sql or ():
            values[place] = process(values[place])
        return tuple(values)


_compiled: dict[tuple[Any, sa.Dialect], _Compiled] = {}

"""Answers of the commands that read: a table for people, JSON, CSV or a file for programs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
import pathlib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from sqlbuffer._messages import n_of
from sqlbuffer.cli import output
from sqlbuffer.cli.common import command
from sqlbuffer.cli.files import complete, require_file

SUFFIXES = (".csv", ".json", ".parquet")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command has read.

    Attributes:
        columns: Columns of the table that people see; files and JSON show all that a row has.
        rows: The rows, all with the same keys.
        is_one: The answer is one row, which a table shows as a list of its fields.
        part: Name of a field that holds further rows, which a table shows below.
        part_columns: Columns of that table.
        most: Most rows in a table; None for all.
        shown: For columns that people see otherwise than programs, what they see of a row.
        opened: Closed once the rows are written.
    """

    columns: Sequence[str]
    rows: Iterable[output.Named]
    is_one: bool = False
    part: str | None = None
    part_columns: Sequence[str] = ()
    most: int | None = None
    shown: Mapping[str, Callable[[output.Named], Any]] = dataclasses.field(default_factory=dict)
    opened: contextlib.AbstractContextManager[Any] = dataclasses.field(
        default_factory=contextlib.nullcontext
    )


def tell_of_more(shown: int, n: int, count: Callable[[], int], things: str) -> None:
    """Say on stderr how many things there are if a command has shown the first n of more.

    Args:
        shown: Number of things that it shows.
        n: Most that it shows, by its option -n.
        count: Counts all of them; called if there may be more.
        things: Their name in the plural.
    """
    if shown == n and (stored := count()) > n:
        output.line(f"{n:,} of {stored:,} {things}; -n {stored} shows all", stderr=True)


AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, floats to the last bit, times in UTC.")
]
AsCsv = Annotated[
    bool, typer.Option("--csv", help="Print CSV, floats to the last bit, times in UTC.")
]
Out = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write to a file: .csv, .json or .parquet.",
    ),
]
_FORMATS = {"as_json": (AsJson, False), "as_csv": (AsCsv, False), "out": (Out, None)}
"""The options of every command that reads, with their defaults."""


def reading(*commands: str, **settings: Any) -> Callable[[Callable[..., Answer]], Any]:
    """Return a decorator that makes a command of a function that returns an answer.

    The command has the options of the function, and --json, --csv and --out.

    Args:
        *commands: Examples, for the last lines of its help.
        **settings: Keywords of `typer.Typer.command`.
    """

    def decorate(find: Callable[..., Answer]) -> Any:
        @functools.wraps(find)
        def read(*, as_json: bool, as_csv: bool, out: pathlib.Path | None, **given: Any) -> None:
            write = _writer(as_json, as_csv, out)
            answer = find(**given)
            with answer.opened:
                write(answer)

        hints = typing.get_type_hints(find, include_extras=True)
        own = inspect.signature(find).parameters.values()
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, (annotation, default) in _FORMATS.items()
        ]
        parameters = [each.replace(annotation=hints[each.name]) for each in own] + added
        read.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        read.__annotations__ = {each.name: each.annotation for each in parameters}
        return command(*commands, **settings)(read)

    return decorate


def _writer(as_json: bool, as_csv: bool, out: pathlib.Path | None) -> Callable[[Answer], None]:
    """Return the function that writes an answer as the options ask for it."""
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both.")
    if out is not None:
        suffix = ".json" if as_json else ".csv" if as_csv else out.suffix.lower()
        require_file(out, () if as_json or as_csv else SUFFIXES)
        return functools.partial(_write_file, out=out, suffix=suffix)
    if as_json or as_csv:
        return functools.partial(
            _write_text, suffix=".json" if as_json else ".csv", file=output.console().file
        )
    return _write_table


def _write_text(answer: Answer, suffix: str, file: typing.IO[str]) -> None:
    columns, rows = _opened(answer)
    if suffix == ".csv":
        output.write_csv(columns, rows, file)
    elif answer.is_one:
        output.write_json(next(rows), file)
    else:
        output.write_json_rows(rows, file)


def _opened(answer: Answer) -> tuple[Sequence[str], Iterator[output.Named]]:
    """Return all columns and the rows, of which the first is read: an error comes before output."""
    rows = iter(answer.rows)
    first = next(rows, None)
    if first is None:
        return answer.columns, iter(())
    return list(first), itertools.chain([first], rows)


def _write_file(answer: Answer, out: pathlib.Path, suffix: str) -> None:
    """Write a file; it appears under its name when it is complete."""
    with complete(out) as part:
        if suffix == ".parquet":
            with part.open("wb") as binary:
                output.write_parquet(*_opened(answer), binary)
        else:
            with part.open("w", encoding="utf-8", newline="") as text:
                _write_text(answer, suffix, text)
    output.line(f"written to {out}", stderr=True)


def _for_people(row: output.Named, answer: Answer) -> output.Named:
    return {**row, **{name: of_row(row) for name, of_row in answer.shown.items()}}


def _write_table(answer: Answer) -> None:
    rows = iter(answer.rows)
    shown = [_for_people(row, answer) for row in itertools.islice(rows, answer.most)]
    if answer.is_one:
        (row,) = shown
        values = [[name, None if row[name] == "" else row[name]] for name in answer.columns]
        output.table(["field", "value"], [[name, output.cell(value)] for name, value in values])
    else:
        output.table(answer.columns, [[row[name] for name in answer.columns] for row in shown])
    if answer.part is not None:
        parts = [part for row in shown for part in row[answer.part]]
        output.line("")
        output.table(
            answer.part_columns, [[part[name] for name in answer.part_columns] for part in parts]
        )
    if answer.most is not None and next(rows, None) is not None:
        output.line(
            f"the first {n_of(answer.most, 'row')}: --limit, --json, --csv or --out show more.",
            stderr=True,
        )

"""`sqlbuffer import`: the rows of a file as samples of a buffer."""

from __future__ import annotations

import contextlib
import enum
import functools
import os
from collections.abc import Callable, Mapping
from typing import IO, Annotated, Any

import sqlalchemy as sa
import typer

from sqlbuffer._messages import n_of, printable
from sqlbuffer._validation import as_name
from sqlbuffer.cli import output
from sqlbuffer.cli.common import Durabilities, Durability, OneBuffer, Url, command
from sqlbuffer.cli.copy import WEIGHTINGS, Weightings
from sqlbuffer.cli.export import Delimiter, Format
from sqlbuffer.cli.import_notes import (
    direction_of_new,
    require_same_key,
    tell_of_key,
    tell_that_it_maximizes,
)
from sqlbuffer.cli.progress import progress
from sqlbuffer.cli.refusals import SHOWN, refusals
from sqlbuffer.cli.workers import unregister
from sqlbuffer.core.attach import attach
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.stored_settings import as_given
from sqlbuffer.db.database import DEFAULT_URL, Database
from sqlbuffer.db.queries.buffers import buffer_named
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange.formats import delimiter_of, format_of, opened
from sqlbuffer.exchange.import_ import ImportResult, import_rows
from sqlbuffer.exchange.mapping import Columns, Reader
from sqlbuffer.exchange.rows import rows_of
from sqlbuffer.measuring.functions import function_from


class Directions(str, enum.Enum):
    """Which rewards are better."""

    maximize = "maximize"
    minimize = "minimize"


_COLUMNS = "Columns of the file"
_BUFFER = "The buffer"


@command(
    "sqlbuffer import library.smi --source library",
    "sqlbuffer import vendor.csv --sample smiles --meta mw,logp",
    "sqlbuffer import measured.csv --sample smiles --reward score",
    "sqlbuffer import vendor.tsv --sample smiles --refused wrong.tsv",
)
def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File to read; - for standard input.")
    ],
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    form: Format = None,
    sample: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", rich_help_panel=_COLUMNS, help="Column of the samples."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", rich_help_panel=_COLUMNS, help="Column of rewards."),
    ] = None,
    meta: Annotated[
        str,
        typer.Option(
            metavar="COLUMNS",
            rich_help_panel=_COLUMNS,
            help="Columns to store with the samples, separated by commas.",
        ),
    ] = "",
    source_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", rich_help_panel=_COLUMNS, help="Column of the names of generators."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(metavar="TEXT", help="Name of the generator if no column has it.")
    ] = "",
    refused: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File for all refused rows with their reasons, to be mended and imported.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            rich_help_panel=_BUFFER,
            help="The key of the buffer, such as lab.mols:canonical; a buffer with a key needs it.",
        ),
    ] = None,
    keep_key: Annotated[
        bool,
        typer.Option(
            "--keep-key",
            rich_help_panel=_BUFFER,
            help="Store the key of each sample of a new buffer as text.",
        ),
    ] = False,
    weighting: Annotated[
        Weightings | None,
        typer.Option(
            metavar="WEIGHTING",
            rich_help_panel=_BUFFER,
            help=f"Weighting of a new buffer: {WEIGHTINGS}; by default uniform, which needs no "
            "scores.",
        ),
    ] = None,
    direction: Annotated[
        Directions | None,
        typer.Option(
            rich_help_panel=_BUFFER,
            help="Whether a higher reward is better in a new buffer, by default maximize.",
        ),
    ] = None,
    delimiter: Delimiter = None,
    durability: Durability = Durabilities.normal,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle", help="Read pickled samples of a Parquet file: they may run any code."
        ),
    ] = False,
) -> None:
    """Store the rows of a file: CSV with a header, JSON lines, Parquet, or SMILES.

    A sample without a reward waits, unless it is stored already. A reward is recorded: a new sample
    with a reward does not wait. A sample that is stored keeps its metas. Without options for
    columns the file is one of `sqlbuffer export`: its columns sample, source, reward, error,
    seconds and meta are read. A .smi file has the columns sample and name.

    An import that was killed is begun again with the same command: rows that are stored change
    nothing. Rows that cannot be stored are shown with their numbers and reasons, and the others are
    stored. --refused FILE has these rows with two columns more, "line" and "reason": mend the file,
    and import it with the same options.

    The buffer and the database are created if they do not exist. Only Parquet of `sqlbuffer export`
    tells whether a lower reward is better, and the name of the key: else give --direction minimize,
    and --key, for such a buffer.
    """
    try:
        chosen = format_of(file, None if form is None else form.value)
        character = delimiter_of(file, chosen, delimiter)
        with contextlib.ExitStack() as stack:
            given = stack.enter_context(opened(file))
            size = _size(given)
            rows = rows_of(given, chosen, delimiter=character)
            metas = [each for each in meta.split(",") if each]
            columns = Columns.of(
                rows.columns, sample=sample, reward=reward, source=source_column, metas=metas
            )
            if keep_key and key is None:
                raise InvalidArgument(
                    "--keep-key stores the key of each sample: give --key MODULE:FUNCTION, too."
                )
            settings = as_given(
                {
                    "weighting": None if weighting is None else weighting.value,
                    "direction": None if direction is None else direction.value,
                    "keep_key": True if keep_key else None,
                }
            )
            refuse = stack.enter_context(
                refusals(refused, rows.columns, is_csv=chosen in ("csv", "smi"), of=file)
            )
            # The lines of .smi have a name or none: it is no column that was forgotten.
            in_file = () if rows.columns is None or chosen == "smi" else rows.columns
            unused = sorted(set(in_file) - set(columns.given()))
            made = None if key is None else function_from(key, example="lab.mols:canonical")
            reader = Reader(
                columns,
                source=as_name(source, "--source"),
                are_texts=chosen == "csv",
                allow_pickle=allow_pickle,
            )
            at = None if rows.total is not None or size is None else given.tell
            total = size if rows.total is None else rows.total
            with (
                contextlib.closing(Database(url, durability=durability.value)) as database,
                progress(f"importing into {name}", total, at) as advance,
            ):
                buffer, is_undirected = _target(
                    database, name, rows.about, settings, key=made, allow_pickle=allow_pickle
                )
                found = rows.read(columns.given())
                done = import_rows(buffer, found, reader, refuse=refuse, advance=advance, key=key)
                buffer.write(unregister)
    except InvalidArgument as exc:
        raise typer.BadParameter(printable(str(exc))) from exc
    if unused:
        output.line(f"columns that were not imported: {', '.join(unused)}", stderr=True)
    if is_undirected and done.measured:
        tell_that_it_maximizes(name)
    _report(done, refused)


def _target(
    database: Database,
    name: str,
    about: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    key: Callable[[Any], Any] | None,
    allow_pickle: bool,
) -> tuple[BufferHandle, bool]:
    """Return the buffer, made if there is none, and True if nothing told a new one's direction."""
    stored = database.read(functools.partial(_stored, name=name))
    require_same_key(stored, has_key=key is not None)
    tell_of_key(about, stored, name, has_key=key is not None)
    option = settings.get("direction")
    told = direction_of_new(about, stored, name, option)
    defaults = as_given({"weighting": "uniform", **({} if told is None else {"direction": told})})
    buffer = attach(database, name, settings, defaults=defaults, key=key, allow_pickle=allow_pickle)
    return buffer, stored is None and option is None and told is None


def _stored(connection: sa.Connection, *, name: str) -> Any:
    """Return the row of a buffer, None if there is none."""
    return connection.execute(buffer_named(), {"name": name}).one_or_none()


def _size(file: IO[bytes]) -> int | None:
    """Return the bytes of a file, None for a pipe."""
    if not file.seekable():
        return None
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _report(done: ImportResult, refused: str | None) -> None:
    if done.nan:
        rows = n_of(done.nan, "row has", "rows have")
        output.line(f"{rows} NaN, which JSON has not: it became null", stderr=True)
    if done.dropped:
        rows = n_of(done.dropped, "row has", "rows have")
        output.line(
            f"{rows} metas that were not stored: known and repeated samples keep the metas that "
            "they have",
            stderr=True,
        )
    if done.refused > SHOWN:
        more = "--refused FILE writes all of them" if refused is None else f"see {refused}"
        rest = n_of(done.refused - SHOWN, "more refused row")
        output.line(f"... and {rest}; {more}.", stderr=True)
    output.line(
        f"{n_of(done.rows, 'row')}: {n_of(done.added, 'sample')} added, {done.known:,} known, "
        f"{done.repeats:,} repeated, "
        f"{n_of(done.measured, 'reward')} and {n_of(done.failed, 'failure')} stored, "
        f"{done.refused:,} refused"
    )
    if done.refused == done.rows > 0:
        raise typer.Exit(1)

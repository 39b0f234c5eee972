"""`sqlbuffer export`: the samples of a buffer as a file."""

from __future__ import annotations

import contextlib
import enum
from typing import Annotated

import typer

from sqlbuffer._messages import n_of, printable
from sqlbuffer.cli import output
from sqlbuffer.cli.common import OneBuffer, Url, Where, command, handles, open_existing
from sqlbuffer.cli.missing import tell_missing_metas
from sqlbuffer.cli.progress import progress
from sqlbuffer.core import counts
from sqlbuffer.core.where import as_where
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange import export as exchange
from sqlbuffer.exchange.columns import as_columns, names_in
from sqlbuffer.exchange.formats import delimiter_of, format_of, written


class Formats(str, enum.Enum):
    """Formats of files."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"
    smi = "smi"


Format = Annotated[
    Formats | None,
    typer.Option("--format", help="Format of the file; by default the ending of its name."),
]


Delimiter = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help="Between the fields of CSV: a comma, in .tsv a tab; tab, semicolon, '|'.",
    ),
]


@command(
    "sqlbuffer export all.parquet",
    "sqlbuffer export all.csv --delimiter semicolon",
    "sqlbuffer export best.csv --columns sample,meta.mw --where 'meta.mw > 40'",
    "sqlbuffer export - --format smi --where 'reward IS NOT NULL'",
)
def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File to write; - for standard output.")
    ],
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    form: Format = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help='Columns, separated by commas, such as sample,reward,meta.mw,meta."batch no".',
        ),
    ] = None,
    where: Where = None,
    delimiter: Delimiter = None,
) -> None:
    """Write the samples of a buffer into a file: CSV, JSON lines, Parquet, or SMILES.

    The columns are sample_id, sample, key, source, state, score, score_version, reward, objective,
    error, attempts, seconds, drawn, created_iteration, measured_iteration, worker_id, created_at,
    scored_at, measured_at and meta. --columns chooses some of them, and also takes details (of the
    measurement, as JSON) and meta.NAME for a value of the metas. "attempts" counts the deaths of
    workers, and failures under --on-error retry. A .smi file has one sample a line, and after it
    the other columns asked for.

    The file can be imported again, see `sqlbuffer import`. Parquet and JSON lines hold samples of
    any type; the other formats hold samples that are text, and of others a text for people. Parquet
    needs pyarrow.

    Text is written as it is stored. A spreadsheet takes a text that begins with = for a formula:
    import such a file there with all columns as text.
    """
    try:
        chosen = format_of(file, None if form is None else form.value)
        names = None if columns is None else as_columns(names_in(columns))
        with contextlib.closing(open_existing(url)) as database:
            (buffer,) = handles(database, name)
            total = None if where is not None else buffer.look(counts.stats).stored
            with (
                written(file) as out,
                progress(f"exporting {name}", total) as advance,
            ):
                found = exchange.export(
                    buffer,
                    out,
                    chosen,
                    columns=names,
                    where=as_where(where),
                    delimiter=delimiter_of(file, chosen, delimiter),
                    advance=advance,
                )
            if not found.rows:
                tell_missing_metas(buffer, as_where(where))
    except InvalidArgument as exc:
        raise typer.BadParameter(printable(str(exc))) from exc
    output.line(n_of(found.rows, "sample was exported", "samples were exported"), stderr=True)
    is_whole = chosen == "parquet" or (chosen == "jsonl" and columns is None)
    if found.other and not is_whole:
        output.line(
            f"{n_of(found.other, 'of them is', 'of them are')} no text, and only Parquet, and JSON "
            "lines without --columns, hold them whole: this file has a text for people.",
            stderr=True,
        )
    if found.empty and chosen == "csv":
        output.line(
            f"{n_of(found.empty, 'of them is', 'of them are')} the empty text, which an import of "
            "CSV takes for a missing sample: JSON lines and Parquet hold it.",
            stderr=True,
        )

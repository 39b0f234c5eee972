"""`sqlbuffer report`: one page of a buffer in one file."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Annotated

import typer

from sqlbuffer.cli import output
from sqlbuffer.cli.common import Url, command, handles, open_existing
from sqlbuffer.cli.files import complete, require_file
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import MissingExtra


@command(
    "sqlbuffer report default",
    "sqlbuffer report qed -o monday.html --no-check",
)
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the buffer.")],
    out: Annotated[
        pathlib.Path, typer.Option("--out", "-o", metavar="FILE", help="HTML file to write.")
    ] = pathlib.Path("report.html"),
    url: Url = DEFAULT_URL,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Audit the stored data, which reads every row."),
    ] = True,
) -> None:
    r"""Write a report of a buffer: one HTML page that needs no network.

    It shows the best so far, the best samples, pictures of scores, predictions, sources, failures
    and times, and the health and settings of the buffer, all of one moment. Molecules are drawn if
    rdkit is installed, and arrays that have the shape of an image.

    The page asks no other host for anything, and any browser opens it: it can be mailed.
    The right to read the database is enough. It needs: pip install "sqlbuffer\[web]".
    """
    try:
        from sqlbuffer.web import report as web
    except ImportError as exc:
        raise MissingExtra(f"a report needs {exc.name}: pip install 'sqlbuffer[web]'.") from exc
    require_file(out)
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        with output.status(f"reading {name}") as tell:
            found = buffer.read(web.read, with_check=check, tell=tell)
            tell("writing the page")
            page, left_out = web.write(found)
    with complete(out) as part:
        part.write_text(page, encoding="utf-8")
    for kind, reason in left_out.items():
        output.line(f"the picture {kind} could not be drawn: {reason}", stderr=True)
    output.line(f"{name} in {out}")

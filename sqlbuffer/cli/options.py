"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from sqlbuffer.db.database import URL_VARIABLE


def examples(*commands: str) -> str:
    """Return the last lines of a help page."""
    return "\n\n".join(["Examples:", *commands])


Url = Annotated[
    str,
    typer.Option(
        envvar=URL_VARIABLE,
        help="Database: sqlite:///FILE or postgresql://USER@HOST/DATABASE. Keep the password in "
        "~/.pgpass or PGPASSWORD: other users of this host can see the arguments of a "
        "command.",
    ),
]
OneBuffer = Annotated[str, typer.Option("--name", help="Name of the buffer.")]
AnyBuffer = Annotated[
    str | None, typer.Option("--name", help="Name of one buffer; all buffers if not given.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, floats to the last bit, times in UTC.")
]
AsCsv = Annotated[
    bool, typer.Option("--csv", help="Print CSV, floats to the last bit, times in UTC.")
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace",
        min=0.0,
        help="Seconds of silence after which a worker of another host counts as dead.",
    ),
]

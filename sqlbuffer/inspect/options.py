"""What many commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from sqlbuffer.database import URL_VARIABLE

Url = Annotated[
    str,
    typer.Option(
        envvar=URL_VARIABLE,
        help="Database: sqlite:///FILE or postgresql://USER@HOST/DATABASE. The password is best left to ~/.pgpass or "
        "PGPASSWORD: other users of this host can see the arguments of a command.",
    ),
]


def examples(*commands: str) -> str:
    """Return the end of a command's help."""
    return "\n\n".join(["Examples:", *commands])

"""`sqlbuffer serve`: the pages of a database."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Annotated

import typer

from sqlbuffer.cli import output
from sqlbuffer.cli.common import Url, command, explained
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument, MissingExtra

TOKEN_VARIABLE = "SQLBUFFER_TOKEN"


@command(
    "sqlbuffer serve",
    "sqlbuffer serve --port 0 --metrics",
    "sqlbuffer serve --host 0.0.0.0 --token-file ~/.sqlbuffer-token",
)
def serve(
    url: Url = DEFAULT_URL,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 for a free one.")
    ] = 8765,
    token_file: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="F",
            help=f"File with the token that readers give; by default ${TOKEN_VARIABLE}.",
        ),
    ] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Answer at /metrics for Prometheus.")
    ] = False,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="R",
            help="PostgreSQL role that runs the SQL of readers, such as the reader of "
            "`sqlbuffer db grants`.",
        ),
    ] = None,
) -> None:
    """Show the buffers of a database as pages that update themselves.

    A page shows the best samples so far, samples by state, workers, predictors, sources, failures
    and the time left. Every page has a .json twin and shows its SQL. The database is opened to
    read only.

    On 127.0.0.1 no token is needed: every user of this machine can read the pages. On another
    address a token of 16 characters or more is: readers give it once, and programs send it as
    "Authorization: Bearer TOKEN". The pages are not encrypted: put a proxy with TLS before them, or
    use an SSH tunnel.

    Ctrl-C ends it.
    """
    try:
        from sqlbuffer.web import app, security, serving
        from sqlbuffer.web.source import Source
    except ModuleNotFoundError as exc:
        raise MissingExtra(f"pages need {exc.name}: pip install 'sqlbuffer[web]'.") from exc
    token = explained(lambda: security.as_token(_token(token_file)))
    if token is None and not serving.is_loopback(host):
        raise typer.BadParameter(
            f"other machines can reach {host}: give --token-file, or set {TOKEN_VARIABLE}."
        )
    source = Source.open(url, role=role, has_metrics=metrics)
    with contextlib.closing(source.database):
        bound = serving.listen(host, port)
        pages = app.create_app(source, token=token, hosts=serving.allowed_hosts(host))
        output.line(f"{serving.address(bound)} shows {source.database.url}; Ctrl-C ends it")
        serving.run(pages, bound)


def _token(file: pathlib.Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE)
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidArgument(f"cannot read the token from {file}: {exc}.") from exc

"""`sqlbuffer db`: version, upgrade, audit and rights of a database."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Annotated

import typer

from sqlbuffer._files import part_of
from sqlbuffer.cli import output
from sqlbuffer.cli.commands import Group, examples
from sqlbuffer.cli.common import AnyBuffer, Url, handles, open_existing
from sqlbuffer.cli.workers import unregister
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db.backends import backups, parse_url
from sqlbuffer.db.database import DEFAULT_URL, Database
from sqlbuffer.db.migrate import require_schema
from sqlbuffer.db.schema import REVISION
from sqlbuffer.maintenance import audit
from sqlbuffer.maintenance.repair import repair

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,  # the top level offers it
    rich_markup_mode="rich",
    epilog=examples("sqlbuffer db version"),
)


@app.command("version", epilog=examples("sqlbuffer db version --url sqlite:///run.db"))
def version_command(url: Url = DEFAULT_URL) -> None:
    """Show the schema revision of the database, and the one that this release of sqlbuffer needs.

    A second line shows the version of SQLite or of the PostgreSQL server. For SQLite it also tells
    whether this version has the WAL-reset race, and how sqlbuffer guards against it. The exit code
    is 0 if the revisions match, else 1.
    """
    with contextlib.closing(open_existing(url, any_revision=True)) as database:
        output.table(["database", "release"], [[database.revision(), REVISION]])
        output.line(database.read(database.dialect.about))
    open_existing(url).close()  # raises SchemaMismatch, whose message tells the way out


@app.command(epilog=examples("sqlbuffer db upgrade --url sqlite:///run.db"))
def upgrade(url: Url = DEFAULT_URL) -> None:
    """Create the schema in an empty database, or upgrade the schema of an older release.

    The upgrade is one transaction: a failed upgrade changes nothing. Stop all workers and back up
    the database first.
    """
    with contextlib.closing(Database(url, create=False, any_revision=True)) as database:
        found = database.revision()
        if found == REVISION:
            output.line(f"{database.url} is already at revision {REVISION}")
            return
        database.upgrade()
        output.line(f"{database.url}: from {'nothing' if found is None else found} to {REVISION}")


@app.command(
    epilog=examples(
        "sqlbuffer db backup monday.backup", "sqlbuffer db backup monday.db --url sqlite:///run.db"
    )
)
def backup(
    file: Annotated[
        pathlib.Path, typer.Argument(metavar="FILE", help="File to write, which must be new.")
    ],
    url: Url = DEFAULT_URL,
) -> None:
    """Write a backup of the database into a file, at any time, also during a run.

    The backup holds the state of one moment, at any revision of the schema. Of an SQLite file it
    is an SQLite file, which can be opened as it is. Of PostgreSQL it is an archive of the schema
    sqlbuffer; `pg_restore --dbname=DATABASE FILE` restores it, and pg_dump must be on PATH, of the
    version of the server or a newer one. Back up as the role that ran `db upgrade`.
    """
    location, dialect = parse_url(url)
    with contextlib.closing(open_existing(url, any_revision=True)) as database:
        require_schema(database.revision(), database.url)
    backups.require_new(file)
    part = part_of(file)
    try:
        with output.status(f"writing {file}"):
            dialect.backup(location, part)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    output.line(f"{file} has {file.stat().st_size / 1e6:,.1f} MB")


@app.command(
    epilog=examples(
        "sqlbuffer db check", "sqlbuffer db check --name qed", "sqlbuffer db check --repair"
    )
)
def check(
    url: Url = DEFAULT_URL,
    name: AnyBuffer = None,
    mend: Annotated[
        bool, typer.Option("--repair", help="Repair the findings, and list the repairs.")
    ] = False,
) -> None:
    """Audit the stored data of one buffer or of all buffers.

    The audit compares counters, pool, batches and rewards with each other, and prints a line for
    each problem, or "sound". It reads every row. Back up the database before --repair.

    The exit code is 0 if no problem is found, or if --repair leaves none, else 1.
    """
    with contextlib.closing(open_existing(url)) as database:
        output.line(database.read(database.dialect.about))
        buffers = handles(database, name)
        with output.status("checking the storage"):
            # Once for all buffers: it reads the whole file.
            damage = database.read(functools.partial(audit.damage, database=database))
        for problem in damage:
            output.line(f"{database.url}: {problem}", style="red")
        found = len(damage)
        for i, buffer in enumerate(buffers, 1):
            about = f"checking {buffer.name} ({i} of {len(buffers)})"
            with output.status(about) as tell:
                done = buffer.write(_repair) if mend else []
                problems = buffer.read(audit.check_buffer, tell=_telling(tell, about))
            for each in done:
                output.line(f"{buffer.name}: {each}")
            for problem in problems:
                output.line(f"{buffer.name}: {problem}", style="red")
            if not problems:
                output.line(f"{buffer.name}: sound")
            found += len(problems)
    if not buffers:
        output.line("no buffers yet")
    if found:
        raise typer.Exit(1)


def _telling(tell: Callable[[str], None], about: str) -> Callable[[str], None]:
    """Return a function that tells of a part of an audit."""
    return lambda part: tell(f"{about}: {part}")


def _repair(tx: Transaction) -> list[str]:
    """Repair a buffer; return the repairs in words."""
    done = repair(tx)
    unregister(tx)
    return done


@app.command(
    epilog=examples(
        "sqlbuffer db grants --url postgresql://ann@server/lab",
        "sqlbuffer db grants --url postgresql://ann@server/lab --reader cat",
    )
)
def grants(
    url: Url = DEFAULT_URL,
    reader: Annotated[str | None, typer.Option(help="Role that may read.")] = None,
    worker: Annotated[str | None, typer.Option(help="Role that may add, draw and settle.")] = None,
) -> None:
    """Print the SQL that grants PostgreSQL roles exactly the rights that they need.

    The roles are sqlbuffer_reader and sqlbuffer_worker, or only those that --reader and --worker
    name. The command executes no SQL. Run the printed SQL as the role that ran `db upgrade`, after
    each upgrade.
    """
    if reader is None and worker is None:
        reader, worker = "sqlbuffer_reader", "sqlbuffer_worker"
    location, dialect = parse_url(url)
    for statement in dialect.grants(location, reader=reader, worker=worker):
        output.line(f"{statement};")

"""The command line. It only reads, but for `worker`, `copy`, `db upgrade`, `db check --repair`, `claims release`."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import importlib.metadata
import itertools
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sqlbuffer._validation import LARGEST_INT
from sqlbuffer.cli import output
from sqlbuffer.cli import plot as cli_plot
from sqlbuffer.cli import sql as cli_sql
from sqlbuffer.cli import workers as cli_workers
from sqlbuffer.cli.common import handles, open_existing
from sqlbuffer.cli.copy import copy
from sqlbuffer.cli.options import AnyBuffer, AsCsv, AsJson, Grace, OneBuffer, Url, examples
from sqlbuffer.cli.worker import WORKER_EXAMPLES, worker
from sqlbuffer.core import read
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.backends import parse_url
from sqlbuffer.db.database import DEFAULT_URL, Database
from sqlbuffer.db.schema import REVISION
from sqlbuffer.errors import EXITS
from sqlbuffer.maintenance import audit

TABLE_ROWS = 1000
"""Rows that `sqlbuffer sql` shows as a table when it is given no limit."""


class _Group(TyperGroup):
    """Commands whose errors are one line on stderr and exit code 1; `--debug` shows the rest."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Abort, BrokenPipeError):  # Ctrl-C, and `| head` that has seen enough
            raise
        except Exception as exc:
            if hasattr(exc, "exit_code"):  # a wrong option, which Typer explains
                raise
            output.error(exc, debug=ctx.params["debug"])
            raise typer.Exit(1) from exc
        except EXITS as exc:  # an agent's code has called sys.exit: that is no success
            output.error(exc, debug=ctx.params["debug"])
            raise typer.Exit(1) from exc


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # they may hold a password
)
db = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
claims = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
app.command("worker", epilog=WORKER_EXAMPLES)(worker)


app.add_typer(
    db,
    name="db",
    help="Version, upgrade, integrity, roles.",
    epilog=examples("sqlbuffer db version"),
)
app.add_typer(
    claims,
    name="claims",
    help="List and release claimed batches.",
    epilog=examples("sqlbuffer claims list"),
)


class By(str, enum.Enum):
    """The order of the best samples."""

    reward = "reward"
    score = "score"


def _version(wanted: bool) -> None:
    if wanted:
        output.line(f"sqlbuffer {_release()}, schema {REVISION}")
        raise typer.Exit


def _release() -> str:
    try:
        return importlib.metadata.version("sqlbuffer")
    except importlib.metadata.PackageNotFoundError:
        return "from a checkout"


@app.callback(epilog=examples("sqlbuffer --version", "sqlbuffer stats --url sqlite:///run.db"))
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Inspect training buffers in a SQL database, during a run or after it.

    All commands but `worker`, `copy`, `db upgrade`, `db check --repair` and `claims release` only read.
    COMMAND --help shows examples of each command.
    """


@db.command("version", epilog=examples("sqlbuffer db version --url sqlite:///run.db"))
def version_command(url: Url = DEFAULT_URL) -> None:
    """Show the revision in the database, the one that this release needs, and the version of the database itself.

    On SQLite the output also tells whether this version has the WAL-reset race, and how sqlbuffer guards against it.
    The exit code is 0 if the revisions match, else 1.
    """
    with contextlib.closing(open_existing(url, any_revision=True)) as database:
        output.table(["database", "release"], [[database.revision(), REVISION]])
        output.line(database.read(database.dialect.about))
    open_existing(url).close()  # says what to do where they do not fit


@db.command(epilog=examples("sqlbuffer db upgrade --url sqlite:///run.db"))
def upgrade(url: Url = DEFAULT_URL) -> None:
    """Create the schema, or upgrade the schema of an older release.

    The upgrade is one transaction: a failed upgrade changes nothing. Stop the workers and back up the database first.
    """
    with contextlib.closing(Database(url, create=False, any_revision=True)) as database:
        found = database.revision()
        if found == REVISION:
            output.line(f"{database.url} is already at revision {REVISION}")
            return
        database.upgrade()
        output.line(f"{database.url}: from {'nothing' if found is None else found} to {REVISION}")


@db.command(
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
    """Audit the integrity of one buffer or of all buffers.

    The audit reads every row. The exit code is 0 if it finds no fault, or if --repair leaves none, else 1.
    """
    with contextlib.closing(open_existing(url)) as database:
        output.line(database.read(database.dialect.about))
        buffers = handles(database, name)
        with output.status("checking the storage"):
            damage = database.read(
                functools.partial(audit.damage, database=database)
            )  # once: it reads the whole file
        for problem in damage:
            output.line(f"{database.url}: {problem}", style="red")
        found = len(damage)
        for i, buffer in enumerate(buffers, 1):
            with output.status(f"checking {buffer.name} ({i} of {len(buffers)})"):
                done = buffer.write(cli_workers.mend) if mend else []
                problems = buffer.read(audit.check_buffer)
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


@db.command(
    epilog=examples("sqlbuffer db grants --url postgresql://ann@server/lab --worker lab_members")
)
def grants(
    url: Url = DEFAULT_URL,
    reader: Annotated[str, typer.Option(help="Role that may read.")] = "sqlbuffer_reader",
    worker: Annotated[
        str, typer.Option(help="Role that may add, draw and settle.")
    ] = "sqlbuffer_worker",
) -> None:
    """Print the SQL that grants roles of PostgreSQL exactly the rights that they need.

    The command executes no SQL. Run the printed SQL as the role that ran `db upgrade`, after each upgrade.
    """
    location, dialect = parse_url(url)
    for statement in dialect.grants(location, reader=reader, worker=worker):
        output.line(f"{statement};")


_OVERVIEW = ("name", "iteration", "waiting", "claimed", "stored", "measured", "best_reward")


_STALENESS = ("name", "score_version", "waiting", "oldest")


@app.command(
    epilog=examples(
        "sqlbuffer stats",
        "sqlbuffer stats --name qed",
        "sqlbuffer stats --stale",
        "sqlbuffer stats --json",
    )
)
def stats(
    url: Url = DEFAULT_URL,
    name: AnyBuffer = None,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale",
            help="Count waiting samples by the version of their score; reads the whole pool.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the counters of buffers: waiting, claimed and measured samples.

    --name or --json shows all counters of a buffer. The cost is the same at any size, except for --stale.
    If refreshed_version is behind score_version, some waiting samples have scores of an older predictor.
    """
    with contextlib.closing(open_existing(url)) as database:
        found = [_numbers(database, buffer, stale=stale) for buffer in handles(database, name)]
    if as_json:
        output.write_json(found if name is None else found[0])
        return
    waiting = [
        {"name": numbers["name"], **row}
        for numbers in found
        for row in numbers.pop("staleness", [])
    ]
    if name is None:
        output.table(_OVERVIEW, [[numbers[column] for column in _OVERVIEW] for numbers in found])
    else:
        output.table(
            ["what", "value"],
            [
                [what, output.cell(None if value == "" else value)]
                for what, value in found[0].items()
            ],
        )
    if stale:
        output.line("")
        output.table(_STALENESS, [[row[column] for column in _STALENESS] for row in waiting])


def _numbers(database: Database, buffer: BufferHandle, *, stale: bool) -> dict[str, Any]:
    numbers = dataclasses.asdict(buffer.read(read.stats))
    if stale:
        rows = buffer.read(read.staleness)
        numbers["staleness"] = [dataclasses.asdict(row) for row in rows]
    return numbers


app.command(
    epilog=examples(
        "sqlbuffer copy default again",
        "sqlbuffer copy default greedy --at-iteration 0 --weighting softmax --seed 1",
    )
)(copy)


_WORKERS = (
    "buffer",
    "worker",
    "pid",
    "state",
    "heartbeat_at",
    "claims",
    "added",
    "drawn",
    "settled",
)


@app.command(epilog=examples("sqlbuffer workers", "sqlbuffer workers --name qed --json"))
def workers(
    url: Url = DEFAULT_URL, name: AnyBuffer = None, grace: Grace = GRACE_S, as_json: AsJson = False
) -> None:
    """Show the workers of buffers: their states (running, finished, died, silent) and their counters.

    A worker is "finished" if it has closed the buffer or exited, and "died" if its process is gone without that. Both
    leave the list when another process opens the buffer. A worker of another host is "silent" if its last heartbeat is
    older than --grace seconds by the database's clock. A silent worker may have died, or a clock was set:
    `claims release --dead` watches silent workers.
    """
    _show(_WORKERS, cli_workers.workers, url, name, grace, as_json=as_json)


_JOBS = (
    *("buffer", "job", "state", "owner", "lease_until", "last_started_at", "last_finished_at"),
    *("runs", "new", "schedule", "last_error"),
)


@app.command(epilog=examples("sqlbuffer jobs", "sqlbuffer jobs --name qed --json"))
def jobs(
    url: Url = DEFAULT_URL, name: AnyBuffer = None, grace: Grace = GRACE_S, as_json: AsJson = False
) -> None:
    """Show the jobs of buffers, such as retraining: owner, start, and result of the last run.

    A job is running while its owner holds the lease, idle if its last run has ended, and broken off if that run has
    not ended. A job that is broken off is due at once. "new" counts the samples measured since the last start.
    """
    _show(_JOBS, cli_workers.jobs, url, name, grace, as_json=as_json)


_CLAIMS = ("buffer", "batch", "worker", "state", "iteration", "size", "reported", "drawn_at")


@claims.command(
    "list", epilog=examples("sqlbuffer claims list", "sqlbuffer claims list --name qed --json")
)
def list_claims(
    url: Url = DEFAULT_URL, name: AnyBuffer = None, grace: Grace = GRACE_S, as_json: AsJson = False
) -> None:
    """Show the claimed batches, and the state of their workers, like `sqlbuffer workers`."""
    _show(_CLAIMS, cli_workers.claims, url, name, grace, as_json=as_json)


def _show(
    columns: tuple[str, ...],
    find: Callable[..., list[dict[str, Any]]],
    url: str,
    name: str | None,
    grace: float,
    *,
    as_json: bool,
) -> None:
    with contextlib.closing(open_existing(url)) as database:
        buffers = handles(database, name, grace_s=grace)
        rows = [row for each in buffers for row in each.read(find)]
    if as_json:
        output.write_json(rows)
    else:
        output.table(columns, [[row[column] for column in columns] for row in rows])


@claims.command(
    "release", epilog=examples("sqlbuffer claims release --dead", "sqlbuffer claims list")
)
def release_claims(
    batches: Annotated[
        list[int] | None,
        typer.Argument(metavar="BATCH...", help="Numbers of the batches to release."),
    ] = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Release all batches of dead workers.")
    ] = False,
    url: Url = DEFAULT_URL,
    name: AnyBuffer = None,
    grace: Grace = GRACE_S,
) -> None:
    """Release batches: their samples return to the front of the pool.

    Reported samples keep their rewards. A worker that still lives gets `ClaimLost`. --dead watches workers of other
    hosts for a heartbeat, at most --grace seconds, to see whether they have died.
    """
    if dead == bool(batches):
        raise typer.BadParameter("give the numbers of batches, or --dead.")
    with contextlib.closing(open_existing(url)) as database:
        buffers = handles(database, name, grace_s=grace)
        say = functools.partial(output.line, stderr=True)
        n_released = (
            cli_workers.release_all_dead(buffers, say)
            if dead
            else cli_workers.release_batches(buffers, batches or [])
        )
        output.line(f"{n_released} released")


_BEST = ("reward", "score", "source", "created_iteration", "sample")


@app.command(
    epilog=examples(
        "sqlbuffer top -n 5", "sqlbuffer top --by score --name qed", "sqlbuffer top --json"
    )
)
def top(
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples.")] = 20,
    by: Annotated[
        By, typer.Option(help="Order by measured reward, or by predicted score.")
    ] = By.reward,
    as_json: AsJson = False,
) -> None:
    """Show the best samples of a buffer, the best first."""
    with contextlib.closing(open_existing(url)) as database:
        best = _best(database, name, n, by=by.value)
    if as_json:
        output.write_json(best)
    else:
        output.table(_BEST, [[row[column] for column in _BEST] for row in best])


def _best(database: Database, name: str, n: int, *, by: str) -> list[dict[str, Any]]:
    (buffer,) = handles(database, name)
    return buffer.read(cli_sql.top, n, by=by)


@app.command(
    epilog=examples(
        'sqlbuffer sql "SELECT * FROM buffer_overview"',
        'sqlbuffer sql "SELECT source, max(reward) FROM samples GROUP BY source"',
        'sqlbuffer sql --csv "SELECT * FROM draw_overview WHERE iteration = 812"',
    ),
    context_settings={
        "ignore_unknown_options": True
    },  # SQL may begin with a comment, -- as this one
)
def sql(
    statement: Annotated[
        str, typer.Argument(metavar="SELECT", help="One SELECT, which is run unchanged.")
    ],
    url: Url = DEFAULT_URL,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=f"{TABLE_ROWS:,} in a table, else all",
            help="Largest number of rows.",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="R", help="PostgreSQL role that runs the SQL, such as pg_read_all_data."
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Run a SELECT on the tables and views of the database.

    The SQL cannot write. A superuser of PostgreSQL, and roles that may reach files and programs of the server, are
    refused unless --role names a role that only reads. Views for people: buffer_overview, sample_overview,
    batch_overview, draw_overview.
    """
    if as_json and as_csv:
        raise typer.BadParameter("give --json or --csv, not both.")
    limit = limit and min(limit, LARGEST_INT)
    with contextlib.closing(open_existing(url)), cli_sql.ask(url, statement, role=role) as answer:
        if as_json or as_csv:
            write = output.write_json_rows if as_json else output.write_csv
            write(answer.columns, itertools.islice(answer.rows, limit))
            return
        output.table(
            answer.columns, itertools.islice(answer.rows, TABLE_ROWS if limit is None else limit)
        )
        if limit is None and next(answer.rows, None) is not None:
            output.line(
                f"the first {TABLE_ROWS:,} rows: --limit, --json or --csv show more.", stderr=True
            )


@app.command(
    epilog=examples(
        "sqlbuffer plot --out metrics.png", "sqlbuffer plot rewards loss --out metrics.svg"
    )
)
def plot(
    metrics: Annotated[
        list[str] | None,
        typer.Argument(metavar="METRIC...", help="Names of metrics; all metrics if none is given."),
    ] = None,
    out: Annotated[
        pathlib.Path, typer.Option(help="File to write: .png, .svg or .pdf.")
    ] = pathlib.Path("metrics.png"),
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
) -> None:
    """Plot the metrics of a run over its iterations into a file."""
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        output.line(f"{cli_plot.plot_metrics(buffer, metrics or None, out)} metrics in {out}")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few characters
    app(prog_name="sqlbuffer")

"""The command line: the app, its commands, and how it reports errors."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated, Any

import typer

from sqlbuffer.cli import claims, db, output
from sqlbuffer.cli.buffers import rename, rm
from sqlbuffer.cli.common import CHANGE, LOOK, PROCESSES, Group, examples
from sqlbuffer.cli.copy import copy
from sqlbuffer.cli.failures import budget, failed, retry
from sqlbuffer.cli.jobs import jobs
from sqlbuffer.cli.measure import MEASURE_EXAMPLES, measure
from sqlbuffer.cli.plot import plot
from sqlbuffer.cli.sql import sql
from sqlbuffer.cli.stats import stats
from sqlbuffer.cli.top import top
from sqlbuffer.cli.worker import WORKER_EXAMPLES, worker
from sqlbuffer.cli.workers import workers
from sqlbuffer.db.schema import REVISION
from sqlbuffer.errors import EXITS


class _Group(Group):
    """Commands whose errors are one line on stderr and exit code 1; `--debug` shows more."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Abort, BrokenPipeError):  # Ctrl-C, and a pipe whose reader has closed it
            raise
        except Exception as exc:
            if hasattr(exc, "exit_code"):  # a wrong option, which Typer explains
                raise
            output.error(exc, debug=ctx.params["debug"])
            raise typer.Exit(1) from exc
        except EXITS as exc:  # code of an agent has called sys.exit: the command has failed
            if isinstance(exc.__context__, BrokenPipeError):  # rich exits when a pipe is closed
                raise
            output.error(exc, debug=ctx.params["debug"])
            raise typer.Exit(1) from exc


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # locals may hold a password
)


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

    A buffer holds distinct samples. Samples wait in its pool, workers draw them in batches and
    store their rewards. The option --url of each command, or the environment variable
    SQLBUFFER_URL, names the database.

    `measure`, `retry`, `budget`, `worker`, `copy`, `rename`, `rm`, `claims release`, `db upgrade`
    and `db check --repair` write. All other commands only read, and may be used during a run.
    COMMAND --help shows examples.
    """


app.command(
    "stats",
    rich_help_panel=LOOK,
    epilog=examples(
        "sqlbuffer stats",
        "sqlbuffer stats --name qed",
        "sqlbuffer stats --stale",
        "sqlbuffer stats --json",
    ),
)(stats)
app.command(
    "top",
    rich_help_panel=LOOK,
    epilog=examples(
        "sqlbuffer top -n 5", "sqlbuffer top --by score --name qed", "sqlbuffer top --json"
    ),
)(top)
app.command(
    "sql",
    rich_help_panel=LOOK,
    epilog=examples(
        'sqlbuffer sql "SELECT * FROM buffer_overview"',
        'sqlbuffer sql "SELECT source, max(reward) FROM samples GROUP BY source"',
        'sqlbuffer sql --csv "SELECT * FROM draw_overview WHERE iteration = 812"',
    ),
    context_settings={"ignore_unknown_options": True},  # SQL may begin with a comment: -- text
)(sql)
app.command(
    "plot",
    rich_help_panel=LOOK,
    epilog=examples(
        "sqlbuffer plot --out metrics.png", "sqlbuffer plot rewards loss --out metrics.svg"
    ),
)(plot)
app.command(
    "failed",
    rich_help_panel=LOOK,
    epilog=examples(
        "sqlbuffer failed -n 5",
        "sqlbuffer failed --name qed --where \"error LIKE 'timed out%'\"",
    ),
)(failed)
app.command("measure", rich_help_panel=PROCESSES, epilog=MEASURE_EXAMPLES)(measure)
app.command(
    "retry",
    rich_help_panel=PROCESSES,
    epilog=examples(
        "sqlbuffer retry 17 23",
        "sqlbuffer retry --all --name qed",
        "sqlbuffer retry --where \"error LIKE 'timed out%'\"",
    ),
)(retry)
app.command(
    "budget",
    rich_help_panel=PROCESSES,
    epilog=examples("sqlbuffer budget", "sqlbuffer budget 1500 --name qed"),
)(budget)
app.command("worker", rich_help_panel=PROCESSES, epilog=WORKER_EXAMPLES)(worker)
app.command(
    "workers",
    rich_help_panel=PROCESSES,
    epilog=examples("sqlbuffer workers", "sqlbuffer workers --name qed --json"),
)(workers)
app.command(
    "jobs",
    rich_help_panel=PROCESSES,
    epilog=examples("sqlbuffer jobs", "sqlbuffer jobs --name qed --json"),
)(jobs)
app.add_typer(
    claims.app,
    name="claims",
    rich_help_panel=PROCESSES,
    help="List and release claimed batches.",
    epilog=examples("sqlbuffer claims list"),
)
app.command(
    "copy",
    rich_help_panel=CHANGE,
    epilog=examples(
        "sqlbuffer copy default again",
        "sqlbuffer copy default greedy --at-iteration 0 --weighting softmax --seed 1",
    ),
)(copy)
app.command(
    "rename", rich_help_panel=CHANGE, epilog=examples("sqlbuffer rename default first-try")
)(rename)
app.command(
    "rm",
    rich_help_panel=CHANGE,
    epilog=examples("sqlbuffer rm qed --yes", "sqlbuffer rm default --force --yes"),
)(rm)
app.add_typer(
    db.app,
    name="db",
    rich_help_panel=CHANGE,
    help="Show the version of a database, upgrade it, audit it, and print its rights.",
    epilog=examples("sqlbuffer db version"),
)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for a terminal without Unicode
    app(prog_name="sqlbuffer")

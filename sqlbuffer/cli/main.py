"""The command line: the app, and how it reports errors."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import sqlbuffer
from sqlbuffer._messages import shortened
from sqlbuffer.cli.commands import Commands, examples
from sqlbuffer.db import REVISION
from sqlbuffer.errors import EXITS


class _Group(Commands):
    """Commands whose errors are one line on stderr and exit code 1; `--debug` shows more."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _shortened():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _shortened():
                return super().invoke(ctx)
        except (typer.Abort, BrokenPipeError):  # Ctrl-C, and a pipe whose reader has closed it
            raise
        except Exception as exc:
            if hasattr(exc, "exit_code"):  # a wrong option, which Typer explains
                raise
            _fail(exc, ctx)
        except EXITS as exc:  # code of an agent has called sys.exit: the command has failed
            if isinstance(exc.__context__, BrokenPipeError):  # rich exits when a pipe is closed
                raise
            _fail(exc, ctx)


@contextlib.contextmanager
def _shortened() -> Iterator[None]:
    """Shorten the messages of Typer, which quote what was typed, and say how a buffer is named."""
    try:
        yield
    except Exception as exc:
        if isinstance(message := getattr(exc, "message", None), str):
            exc.message = shortened(message) + _naming(exc)  # type: ignore[attr-defined]
        raise


def _naming(exc: Any) -> str:
    """Return how the command names a buffer if --name was given and is none of its options.

    Or if a name was given, and the command has that option.
    """
    if (context := getattr(exc, "ctx", None)) is None:
        return ""
    command = context.command
    has_option = any("--name" in parameter.opts for parameter in command.params)
    if has_option and exc.message.startswith("Got unexpected extra argument"):
        return f": a buffer is named by --name, as in `{context.command_path} --name NAME`"
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    is_name = bool(arguments) and "buffer" in (getattr(arguments[0], "help", None) or "")
    if getattr(exc, "option_name", None) == "--name" and is_name:
        exc.possibilities = None
        words = " ".join(each.metavar for each in arguments if each.required)
        return f": buffers are named without it, as in `{context.command_path} {words}`"
    return ""


def _fail(exc: BaseException, ctx: Any) -> None:
    from sqlbuffer.cli import output

    output.error(exc, debug=ctx.params["debug"])
    raise typer.Exit(1) from exc


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # locals may hold a password
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sqlbuffer {sqlbuffer.__version__}, schema {REVISION}")
        raise typer.Exit


@app.callback(epilog=examples("sqlbuffer --version", "sqlbuffer ls --url sqlite:///run.db"))
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

    `import`, `measure`, `retry`, `remeasure`, `budget`, `worker`, `copy`, `prune`, `rename`, `rm`,
    `claims release`, `db upgrade` and `db check --repair` write. All other commands only read, and
    may be used during a run. Data goes to stdout, everything else to stderr. COMMAND --help shows
    examples.
    """


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as a line: where the code stands that warned is of no use to a user."""
    from sqlbuffer.cli import output

    output.line(f"warning: {message}", stderr=True)


def main() -> None:
    """Run the command line."""
    warnings.showwarning = _warn
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for a terminal without Unicode
    app(prog_name="sqlbuffer")

"""The commands by name; the module of a command is imported when the command is called.

`sqlbuffer --help` then imports neither SQLAlchemy nor numpy, and takes a fifth of the time.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_LOOK = "Look at buffers"
_PROCESSES = "Workers, jobs and claims"
_CHANGE = "Make and maintain"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A command, or a group of commands.

    Attributes:
        place: Module below `sqlbuffer.cli`, and the function or the app in it.
        panel: Heading under which `sqlbuffer --help` lists it.
        summary: The first sentence of its help.
    """

    place: str
    panel: str
    summary: str

    def load(self, name: str) -> Any:
        """Import the command."""
        return _loaded(self, name)


@functools.cache  # Typer reads the types of all options again each time
def _loaded(entry: Entry, name: str) -> Any:
    module, _, attribute = entry.place.partition(":")
    found = getattr(importlib.import_module(f"sqlbuffer.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        app = typer.Typer(rich_markup_mode="rich", add_completion=False)
        register(app, name, found)
        found = app
    command = typer.main.get_command(found)
    command.name = name
    command.help = unwrapped(command.help or entry.summary)
    return command


def register(app: typer.Typer, name: str, function: Any) -> None:
    """Add a function that `command` or `reading` has decorated to an app."""
    app.command(name, **function.settings)(function)


ENTRIES = {
    "ls": Entry("ls:ls", _LOOK, "List the buffers of a database."),
    "stats": Entry("stats:stats", _LOOK, "Show buffers in numbers."),
    "watch": Entry(
        "watch:watch", _LOOK, "Show a buffer at a glance, again every two seconds, until Ctrl-C."
    ),
    "top": Entry("top:top", _LOOK, "Show the best samples of a buffer, the best first."),
    "show": Entry("show:show", _LOOK, "Show one sample and its whole story."),
    "failed": Entry(
        "failures:failed",
        _LOOK,
        "Show the samples whose measurement failed, the newest failure first.",
    ),
    "batches": Entry("batches:batches", _LOOK, "Show the batches of a buffer, the newest first."),
    "history": Entry("history:history", _LOOK, "Show the metrics of a run by iteration."),
    "predictors": Entry(
        "predictors:predictors", _LOOK, "Show the versions of a buffer's predictor."
    ),
    "compare": Entry("compare:compare", _LOOK, "Show two buffers side by side."),
    "plot": Entry("plot:plot", _LOOK, "Draw a picture of one or several buffers into a file."),
    "report": Entry(
        "report:report",
        _LOOK,
        "Write a report of a buffer: one HTML page that needs no network.",
    ),
    "sql": Entry("sql:sql", _LOOK, "Run a SELECT on the tables and views of the database."),
    "export": Entry(
        "export:export",
        _LOOK,
        "Write the samples of a buffer into a file: CSV, JSON lines, Parquet, or SMILES.",
    ),
    "serve": Entry(
        "serve:serve", _LOOK, "Show the buffers of a database as pages that update themselves."
    ),
    "measure": Entry(
        "measure:measure",
        _PROCESSES,
        "Measure the waiting samples of a buffer, and store each reward as it comes.",
    ),
    "retry": Entry(
        "failures:retry",
        _PROCESSES,
        "Let failed samples wait for another measurement, first in line.",
    ),
    "remeasure": Entry(
        "remeasure:remeasure",
        _PROCESSES,
        "Begin to measure the samples by another reward function.",
    ),
    "budget": Entry(
        "failures:budget", _PROCESSES, "Show how many samples may be measured, or set it."
    ),
    "worker": Entry(
        "worker:worker",
        _PROCESSES,
        "Retrain a buffer's predictor on a schedule, and rescore the waiting samples.",
    ),
    "workers": Entry(
        "workers:workers",
        _PROCESSES,
        "Show the workers of buffers, with their states and counters.",
    ),
    "jobs": Entry(
        "jobs:jobs",
        _PROCESSES,
        "Show the jobs of buffers, such as retraining: owner, schedule, and result of the last "
        "run.",
    ),
    "claims": Entry("claims:app", _PROCESSES, "List and release claimed batches."),
    "import": Entry(
        "import_:import_",
        _CHANGE,
        "Store the rows of a file: CSV with a header, JSON lines, Parquet, or SMILES.",
    ),
    "copy": Entry(
        "copy:copy",
        _CHANGE,
        "Copy a buffer, to try another setting from the same point, or into another database.",
    ),
    "prune": Entry(
        "prune:prune",
        _CHANGE,
        "Drop old draws, metrics, checkpoints and states of predictors of a buffer.",
    ),
    "rename": Entry("buffers:rename", _CHANGE, "Give a buffer another name."),
    "rm": Entry(
        "buffers:rm",
        _CHANGE,
        "Delete a buffer with all that it holds: samples, rewards, predictors, checkpoints.",
    ),
    "db": Entry(
        "db:app",
        _CHANGE,
        "Show the version of a database, upgrade it, back it up, audit it, and print its rights.",
    ),
}


class Commands(TyperGroup):
    """The group of all commands; it imports only the one that is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.help = unwrapped(self.help or "")
        self.commands = {
            name: TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel)
            for name, entry in ENTRIES.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name and the command that the arguments call, and the arguments left."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, ENTRIES[name].load(name) if name in ENTRIES else found, rest


class Group(TyperGroup):
    """A group of commands whose help texts are their docstrings, wrapped to the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for command in self.commands.values():
            command.help = unwrapped(command.help or "")


def unwrapped(text: str) -> str:
    """Return a text with each paragraph and list item on one line, for a terminal to wrap.

    Typer keeps the line breaks of a docstring. Lines that are indented by four spaces are code and
    stay as they are.
    """
    lines: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        begins = not lines or not lines[-1] or not line or line.startswith(("- ", "    "))
        if begins:
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
    return "\n".join(lines)


def examples(*commands: str) -> str:
    """Return the last lines of a help page."""
    return "\n\n".join(["Examples:", *commands])

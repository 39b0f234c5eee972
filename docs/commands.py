"""Write docs/commands.md and docs/commands/*.md from the help of the commands:
`python docs/commands.py`.

A test finds pages that are out of date.
"""

import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))  # the checkout, if it is not installed

from sqlbuffer.cli.commands import ENTRIES  # noqa: E402

GROUPS = {
    "look": (
        "Look at a buffer",
        ("ls", "stats", "watch", "top", "show", "batches", "history", "predictors", "compare"),
    ),
    "pages": ("SQL, pages and pictures", ("sql", "serve", "report", "plot")),
    "measure": ("Measure, and failures", ("measure", "failed", "retry", "remeasure", "budget")),
    "workers": ("Workers, jobs and claims", ("worker", "workers", "jobs", "claims")),
    "files": ("In, out and copies", ("import", "export", "copy")),
    "maintain": ("Maintain buffers and databases", ("prune", "rename", "rm", "db")),
}
"""The title and the commands of each page; a new command needs a place."""

HEAD = """# The commands

`--url URL`, or the environment variable SQLBUFFER_URL, names the database.
These commands also have `--json`, `--csv` and `--out FILE` (.csv, .json or .parquet): {listing}.
Data goes to stdout, everything else to stderr.
The exit code is 0 after success, 1 after an error, and 2 if an argument is wrong.
`sqlbuffer --install-completion` lets the shell complete commands and options.

These pages are written by `python docs/commands.py` from what `sqlbuffer COMMAND --help` says.

## Words

- *The race* is the order of draws, which the weights have made by chance: \
[the race](explanation/race.md).
  A copy that begins a new race draws other batches than the original.
- *Its key, if the buffer keeps keys*: `open_store(key=..., keep_key=True)` also stores the \
canonical form of each sample, by which equal samples are found: \
[keys](how-to/samples.md#a-meaning-of-equal-of-your-own).
- *The WAL-reset race* is a fault of SQLite up to 3.51.2 that can corrupt a file, against which \
a lock protects sqlbuffer: [SQLite files](sqlite.md#the-wal-reset-race).
"""
ABOUT = "[All commands](../commands.md) have the options that are explained there.\n"
SAID_ABOVE = ("url", "as_json", "as_csv", "help")


def commands(
    loaded: dict[str, Any], words: tuple[str, ...] = ("sqlbuffer",)
) -> Iterator[tuple[str, Any]]:
    """Return each command with its name, those of a group after the group."""
    for name, command in loaded.items():
        yield " ".join((*words, name)), command
        yield from commands(getattr(command, "commands", {}), (*words, name))


def pages() -> dict[str, str]:
    """Return the text of each page, by its path in the folder of this file."""
    placed = [name for _, names in GROUPS.values() for name in names]
    if sorted(placed) != sorted(ENTRIES):
        raise ValueError(f"GROUPS has other commands: {sorted(set(placed) ^ set(ENTRIES))}")
    groups = {f"commands/{page}.md": group for page, group in GROUPS.items()}
    return {
        "commands.md": "\n".join([head(), *(overview(path, *groups[path]) for path in groups)]),
        **{path: group_page(*group) for path, group in groups.items()},
    }


def head() -> str:
    """Return the head of the first page, with the names of the commands that list rows."""
    loaded = {name: entry.load(name) for name, entry in ENTRIES.items()}
    listing = [
        f"`{name.removeprefix('sqlbuffer ')}`"
        for name, command in sorted(commands(loaded))
        if any(option.name == "as_json" for option in command.params)
    ]
    return HEAD.format(listing=f"{', '.join(listing[:-1])} and {listing[-1]}")


def overview(path: str, title: str, names: tuple[str, ...]) -> str:
    """Return the table of a page's commands."""
    rows = [f"| [{name}]({path}#sqlbuffer-{name}) | {ENTRIES[name].summary} |" for name in names]
    return "\n".join([f"## {title}\n", "| command | what it does |", "|---|---|", *rows, ""])


def group_page(title: str, names: tuple[str, ...]) -> str:
    """Return the page of some commands."""
    loaded = {name: ENTRIES[name].load(name) for name in names}
    head = f"# Commands: {title[0].lower() + title[1:]}\n\n{ABOUT}"
    return "\n".join([head, *(section(name, command) for name, command in commands(loaded))])


def section(name: str, command: Any) -> str:
    """Return heading, help, options and examples of a command."""
    parts = [f"## {name}", *map(sentences, command.help.split("\n\n"))]
    if items := [item for option in command.params if (item := item_of(option))]:
        parts.append("\n".join(items))
    lines = [line for line in command.epilog.splitlines() if line.startswith("sqlbuffer ")]
    return "\n\n".join([*parts, "\n".join(["```", *lines, "```"])]) + "\n"


def sentences(paragraph: str) -> str:
    """Return a paragraph with one sentence a line."""
    if paragraph.startswith("    "):
        return f"```\n{re.sub('^    ', '', paragraph, flags=re.MULTILINE)}\n```"
    paragraph = paragraph.replace("\\[", "[")
    indent = "  " if paragraph.startswith("- ") else ""
    return re.sub(r"""([.!?]["')]*) (?=[("'`A-Z-])""", rf"\1\n{indent}", paragraph)


def item_of(option: Any) -> str | None:
    """Return the item of an argument or option in a list."""
    if option.name in SAID_ABOVE or not getattr(option, "help", None):
        return None
    names = [name for name in (*option.opts, *option.secondary_opts) if name.startswith("-")]
    shown = ", ".join(f"`{name}`" for name in names) or f"`{option.metavar or option.name}`"
    return sentences(f"- {shown}: {option.help}")


if __name__ == "__main__":
    (FOLDER / "commands").mkdir(exist_ok=True)
    for path, text in pages().items():
        (FOLDER / path).write_text(text)

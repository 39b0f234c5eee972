"""The cost of `durability="full"`: a draw of 64 and its settling, with durability normal and full.

    python -m benchmarks.durability --repeats 200

Both work on copies of one database, call by call in turn. PostgreSQL runs with its own default,
under which both wait for the disk, and with `synchronous_commit = off`, which "normal" follows and
"full" overrules.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import Annotated

import typer

from benchmarks.databases import Databases, SqliteFiles, place, postgres_server
from benchmarks.measure import Task, alternate, markdown
from sqlbuffer import SampleStore, open_store

BATCH = 64
WAYS = ("normal", "full")


def _task(way: str, store: SampleStore) -> Task:
    """Return a task that draws a batch and settles it: two transactions."""

    def call() -> None:
        with store.sample(BATCH) as batch:
            batch.settle([1.0] * len(batch))

    return Task(way, call)


def medians(databases: Databases, repeats: int, options: str = "") -> list[float]:
    """Return the median milliseconds of a draw and its settling, normal and full."""
    filled = databases.blank()
    with open_store(filled, weighting="uniform") as store:
        store.add([f"sample {i}" for i in range(BATCH * (repeats + 10))])
    with contextlib.ExitStack() as stack:
        tasks = []
        for way in WAYS:
            url = databases.copy(filled) + options
            store = open_store(url, durability=way, weighting="uniform")
            tasks.append(_task(way, stack.enter_context(store)))
        seconds = alternate(tasks, repeats=repeats)
    return [statistics.median(seconds[way]) * 1000 for way in WAYS]


def run(repeats: Annotated[int, typer.Option(help="Iterations of each.")] = 200) -> None:
    """Print a Markdown table."""
    rows = []
    with place() as folder, postgres_server(None, folder) as server:
        for title, databases, options in (
            ("SQLite", SqliteFiles(folder), ""),
            ("PostgreSQL, `synchronous_commit = on`", server, ""),
            (
                *("PostgreSQL, `synchronous_commit = off`", server),
                "&options=-csynchronous_commit%3Doff",
            ),
        ):
            normal, full = medians(databases, repeats, options)
            rows.append([title, f"{normal:.1f}", f"{full:.1f}", f"{full / normal:.2f} x"])
    typer.echo(markdown(["ms", *WAYS, "full over normal"], rows))


if __name__ == "__main__":
    typer.run(run)

"""What it costs that no COMMIT is lost in a power cut: a draw of 64 and its settling, with durability normal and full.

    python -m benchmarks.durability --repeats 200

Both work on copies of one database, call by call in turn. PostgreSQL is asked with its own default, under which both
wait for the disk, and with `synchronous_commit = off`, which "normal" follows and "full" overrules.
"""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Annotated

import typer

from benchmarks.databases import Databases, SqliteFiles, postgres_server
from benchmarks.measure import Task, alternate
from sqlbuffer import SampleStore, open_store

BATCH = 64
WAYS = ("normal", "full")


def iteration(store: SampleStore) -> Callable[[], object]:
    """Return what draws a batch and settles it: two transactions."""

    def run() -> None:
        with store.sample(BATCH) as batch:
            batch.settle([1.0] * len(batch))

    return run


def medians(databases: Databases, repeats: int, options: str = "") -> list[float]:
    """Return the milliseconds that a draw and its settling take in the median, normal and full."""
    filled = databases.blank()
    with open_store(filled, weighting="uniform") as store:
        store.add([f"sample {i}" for i in range(BATCH * (repeats + 10))])
    with contextlib.ExitStack() as stack:
        urls = {way: databases.copy(filled) + options for way in WAYS}
        stores = {
            way: stack.enter_context(open_store(url, durability=way, weighting="uniform")) for way, url in urls.items()
        }
        tasks = [Task(way, iteration(store)) for way, store in stores.items()]
        seconds = alternate(tasks, repeats=repeats)
    return [statistics.median(seconds[way]) * 1000 for way in WAYS]


def run(repeats: Annotated[int, typer.Option(help="Iterations of each.")] = 200) -> None:
    """Print a Markdown table."""
    with (
        tempfile.TemporaryDirectory(prefix="sb", ignore_cleanup_errors=True) as place,
        postgres_server(None, pathlib.Path(place)) as server,
    ):
        print("| ms | normal | full | full over normal |\n|---|---|---|---|")
        for title, databases, options in (
            ("SQLite", SqliteFiles(pathlib.Path(place)), ""),
            ("PostgreSQL, `synchronous_commit = on`", server, ""),
            ("PostgreSQL, `synchronous_commit = off`", server, "&options=-csynchronous_commit%3Doff"),
        ):
            normal, full = medians(databases, repeats, options)
            print(f"| {title} | {normal:.1f} | {full:.1f} | {full / normal:.2f} x |", flush=True)


if __name__ == "__main__":
    typer.run(run)

"""Samples with structure: transitions of a replay buffer and trajectories, against strings.

    python -m benchmarks.structured [--n 20000] [--repeats 10]

Each is added in one call to an empty buffer, in turns. The floor is an INSERT of the same rows by
hand, through sqlite3 alone, hashes and encoding for nothing. Processor time is that of this
process and of the server together.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.databases import BUFFER, Databases, SqliteFiles, place, postgres_server
from benchmarks.measure import Clock, Task, alternate, markdown
from sqlbuffer import open_store

rng = np.random.default_rng(0)


def strings(n: int) -> list[Any]:
    """Return n strings of some 40 characters."""
    return [
        f"molecule number {number} of {i}" for i, number in enumerate(rng.integers(1 << 60, size=n))
    ]


def transitions(n: int) -> list[Any]:
    """Return n dicts of two arrays and three numbers."""
    return [
        {
            "obs": rng.random(4, dtype=np.float32),
            "action": int(rng.integers(4)),
            "reward": float(rng.random()),
            "next": rng.random(4, dtype=np.float32),
            "done": bool(rng.random() < 0.1),
        }
        for _ in range(n)
    ]


def trajectories(n: int) -> list[Any]:
    """Return n dicts of two arrays of 1,000 elements."""
    return [{"states": rng.random(1000), "actions": rng.random(1000)} for _ in range(n)]


KINDS: dict[str, tuple[Callable[[int], list[Any]], float]] = {
    "strings": (strings, 1.0),
    "transitions": (transitions, 1.0),
    "trajectories": (trajectories, 0.05),
    "trajectories x 3": (trajectories, 0.15),
}
"""What makes the samples, and their share of `n`.

By default 1,000 trajectories fit into SQLite's write-ahead log. The COMMIT of three times as many
writes the log back into the file, as that of every few calls of a run that goes on adding.
"""

PRAGMAS = (
    "synchronous = NORMAL",
    "cache_size = -65536",
    "mmap_size = 2147418112",
    "wal_autocheckpoint = 8000",
)
"""Those of the library."""


def adding(databases: Databases, name: str, samples: list[Any]) -> Task:
    """Return a task that adds samples to an empty buffer."""
    opened: list[Any] = []

    def begin() -> None:
        url = databases.empty()
        opened.append((url, open_store(url, name=BUFFER)))

    def end() -> None:
        url, store = opened.pop()
        store.close()
        databases.drop(url)

    return Task(name, lambda: opened[-1][1].add(samples, source=BUFFER), begin, end)


def floor(files: SqliteFiles, name: str, samples: list[Any]) -> Task:
    """Return a task that inserts the same rows by hand."""
    url = files.empty()
    with open_store(url, name=BUFFER) as store:
        store.add(samples, source=BUFFER)
    rows: dict[str, list[tuple[Any, ...]]] = {}
    with contextlib.closing(sqlite3.connect(files.file(url))) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
            found = connection.execute(f"SELECT * FROM {table}").fetchall()
            if len(found) >= len(samples):
                rows[table] = found
    opened: list[Any] = []

    def begin() -> None:
        empty = files.empty()
        opened.append((empty, sqlite3.connect(files.file(empty), isolation_level=None)))
        for pragma in PRAGMAS:
            opened[-1][1].execute(f"PRAGMA {pragma}")

    def insert() -> None:
        connection = opened[-1][1]
        connection.execute("BEGIN IMMEDIATE")
        for table, content in rows.items():
            marks = ", ".join("?" * len(content[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", content)
        connection.execute("COMMIT")

    def end() -> None:
        empty, connection = opened.pop()
        connection.close()
        files.drop(empty)

    return Task(name, insert, begin, end)


def server_s(postmaster: int) -> float:
    """Return the processor time of all processes of a server."""
    seconds = 0.0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == postmaster:
                seconds += int((folder / "schedstat").read_text().split()[0]) / 1e9
    return seconds


def rates(databases: Databases, n: int, repeats: int, clock: Clock) -> dict[str, float]:
    """Return the median rate of each kind, in samples a second."""
    made = {kind: make(int(n * share)) for kind, (make, share) in KINDS.items()}
    tasks = [adding(databases, kind, samples) for kind, samples in made.items()]
    if isinstance(databases, SqliteFiles):
        tasks += [floor(databases, f"{kind}, by hand", samples) for kind, samples in made.items()]
    found = alternate(tasks, repeats=repeats, warm_ups=1, clock=clock)
    return {
        name: len(made[name.split(",")[0]]) / statistics.median(seconds)
        for name, seconds in found.items()
    }


def reading(databases: Databases, n: int, repeats: int) -> dict[str, float]:
    """Return the median milliseconds of a draw of 32 of n, and of reading it in two ways."""
    ways = {
        "draw": lambda batch: None,
        "draw, stacked": lambda batch: batch.stacked(),
        "draw, one by one": lambda batch: batch.samples,
    }
    with open_store(databases.blank(), mode="replay") as store:
        store.add(transitions(n))
        store.score(lambda samples: rng.random(len(samples)))
        held: list[Any] = []

        def settle() -> None:
            held.pop().settle()

        def task(way: str) -> Task:
            return Task(
                way, lambda: ways[way](held.append(store.sample(32)) or held[-1]), after=settle
            )

        found = alternate(list(map(task, ways)), repeats=20 * repeats, clock=time.process_time)
    return {way: statistics.median(seconds) * 1000 for way, seconds in found.items()}


def run(
    n: Annotated[int, typer.Option(help="Strings and transitions in a call.")] = 20_000,
    repeats: Annotated[int, typer.Option(help="Calls of each.")] = 10,
) -> None:
    """Print the milliseconds of a draw from 5 n transitions, and a Markdown table."""
    rows = []
    with place() as folder, postgres_server(None, folder) as server:
        postmaster = int((folder / "pg" / "postmaster.pid").read_text().split()[0])
        files = SqliteFiles(folder)
        cases: list[tuple[str, Databases, Clock]] = [
            ("SQLite", files, time.process_time),
            ("PostgreSQL", server, lambda: time.process_time() + server_s(postmaster)),
        ]
        read = reading(files, 5 * n, repeats)
        for title, databases, clock in cases:
            found = rates(databases, n, repeats, clock)
            for name, rate in found.items():
                by_hand = found.get(f"{name}, by hand")
                rows.append(
                    [
                        f"{title}: {name}",
                        f"{rate:,.0f}",
                        f"{rate / found['strings']:.2f} x",
                        "" if by_hand is None else f"{rate / by_hand:.2f} x",
                    ]
                )
    typer.echo(", ".join(f"{way}: {ms:.2f} ms" for way, ms in read.items()))
    typer.echo(markdown(["samples a second", "added", "of strings", "of the floor"], rows))


if __name__ == "__main__":
    typer.run(run)

"""The cost of a batch of `store.stream`, against claims of the same size by hand.

    python -m benchmarks.streams --repeats 40

A call is 32 batches of 32 samples, or one `store.sample(1024)` that is settled. In mode "consume"
each takes other samples of its copy of one database; in mode "replay" the samples stay. The figures
are processor time of this process, medians; a server's is not in them.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
from typing import Annotated, Any

import typer

from benchmarks.data import scores, texts
from benchmarks.databases import BUFFER, Databases, SqliteFiles, place, postgres_server
from benchmarks.measure import CLOCKS, WARM_UPS, Task, alternate, markdown
from sqlbuffer import SampleStore, open_store

BATCH, N_BATCHES = 32, 32
CLAIM = BATCH * N_BATCHES


def _by_hand(store: SampleStore) -> Task:
    """Return a task that draws a claim and settles it."""

    def call() -> None:
        with store.sample(CLAIM) as batch:
            batch.settle()

    return Task("by hand", call)


def _stream(store: SampleStore, stack: contextlib.ExitStack) -> Task:
    """Return a task that takes the batches of a claim."""
    stream = store.stream(BATCH, commit_every=N_BATCHES)
    loop = iter(stream)
    stack.callback(stream.commit)  # gives the rest of the last claim back, after the loop
    stack.callback(loop.close)  # type: ignore[attr-defined]

    def call() -> None:
        for _ in itertools.islice(loop, N_BATCHES):
            pass

    return Task("stream", call)


def medians(databases: Databases, mode: str, n: int, repeats: int) -> dict[str, float]:
    """Return the milliseconds of a call of each contender."""
    filled = databases.empty()
    with open_store(filled, name=BUFFER) as store:
        store.add(texts(0, n))
        store.score(scores)
    with contextlib.ExitStack() as stack:
        copied = databases.copy if mode == "consume" else databases.replaying

        def opened() -> SampleStore:
            return stack.enter_context(open_store(copied(filled), name=BUFFER))

        tasks = [_by_hand(opened()), _stream(opened(), stack)]
        seconds = alternate(tasks, repeats=repeats, clock=CLOCKS["cpu"])
    return {name: statistics.median(found) * 1000 for name, found in seconds.items()}


def run(
    n: Annotated[int, typer.Option("--n", help="Samples of the buffer.")] = 100_000,
    repeats: Annotated[int, typer.Option(help="Claims of each.")] = 40,
) -> None:
    """Print a Markdown table."""
    if (repeats + WARM_UPS) * CLAIM > n:
        raise typer.BadParameter(f"{repeats} claims of {CLAIM} need more than {n} samples.")
    rows: list[list[Any]] = []
    with place() as folder, postgres_server(None, folder) as server:
        for title, databases in (("SQLite", SqliteFiles(folder)), ("PostgreSQL", server)):
            for mode in ("consume", "replay"):
                found = medians(databases, mode, n, repeats)
                hand, stream = found["by hand"], found["stream"]
                each = f"{stream / N_BATCHES:.2f}"
                rows.append([title, mode, f"{hand:.1f}", f"{stream:.1f}", f"{stream / hand:.2f} x"])
                rows[-1].append(each)
    heads = ("database", "mode", "claim of 1,024, ms", "32 batches, ms", "ratio", "a batch, ms")
    typer.echo(markdown(heads, rows))


if __name__ == "__main__":
    typer.run(run)

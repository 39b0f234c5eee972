"""Does looking disturb those who work? Four writers, and a process that runs every command once a
second.

    python -m benchmarks.looks [--url postgresql://...] --pairs 20 [--serve | --floor]

The writers draw, settle and add the whole time. In every second window, in a random order within
each pair, another process runs all commands that read. With --serve it asks `sqlbuffer serve` for
the first page instead, as often as a browser does that shows it. With --floor it opens a connection
of the driver and asks `SELECT 1` in the place of each command: no program on this machine can look
for less. The figure is the median of the paired ratios of a draw's latency (looked at / not looked
at), with the 95 % interval of its bootstrap. An error of a writer or of a command ends the
benchmark. `benchmarks.look_costs` has the processor time of each command.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import random
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measure import interval

COMMANDS = (
    *("ls", "stats", "stats --name default", "stats --stale", "top", "top --by score", "show 1"),
    *("failed", "batches", "batches --open", "history", "predictors", "compare default other"),
    *("workers", "jobs", "claims list", "export - --format csv --where 'reward > 0.999'"),
    "sql 'SELECT * FROM buffer_overview'",
)
WRITERS = 4


def write(url: str, seed: int, is_over: Any, moments: Any) -> None:
    """Draw, settle and add until the end; send when each draw began and how long it took."""
    from sqlbuffer import open_store

    rng = random.Random(seed)
    found = []
    with open_store(url) as store:
        moments.put(None)  # it has begun
        while not is_over.is_set():
            began = time.perf_counter()
            batch = store.sample(32)
            found.append((time.monotonic(), time.perf_counter() - began))
            batch.settle([rng.random() for _ in batch.samples])
            store.add([f"{seed}-{rng.random()}" for _ in range(32)])
            store.score(lambda samples: [rng.random() for _ in samples])
            time.sleep(0.1)
    moments.put(found)


def run_command(url: str, command: str) -> None:
    """Run a command in this process; an error ends the process."""
    from typer.testing import CliRunner

    from sqlbuffer.cli.main import app

    words = shlex.split(command)
    if words[0] == "sql" and url.startswith("postgresql"):
        words += ["--role", "pg_read_all_data"]  # a superuser is refused
    done = CliRunner().invoke(app, words, env={"SQLBUFFER_URL": url})
    if done.exit_code:
        raise SystemExit(f"{command}: {done.output}{done.stderr}")


def plain_look(url: str) -> None:
    """Open a connection of the driver, ask `SELECT 1`, and close it."""
    connection: Any
    if url.startswith("postgresql"):
        import psycopg

        connection = psycopg.connect(url)
    else:
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with contextlib.closing(connection):
        connection.execute("SELECT 1").fetchone()


def look(url: str, is_on: Any, is_over: Any, looks: Any, *, is_floor: bool = False) -> None:
    """Run every command once a second while `is_on`; send how often that was."""
    n = 0
    while not is_over.is_set():
        if not is_on.wait(0.1):
            continue
        began = time.monotonic()
        for command in COMMANDS:
            if is_floor:
                plain_look(url)
            else:
                run_command(url, command)
        n += 1
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
    looks.put(n)


PAGE_S, CHARTS_S = 3.0, 6.0
"""How often a browser asks for the page, and for its charts: see sqlbuffer/web/static/page.js."""


def look_at_page(url: str, is_on: Any, is_over: Any, looks: Any) -> None:
    """Ask for the first page and its charts while `is_on`; send how often that was."""
    command = [sys.executable, "-m", "sqlbuffer", "serve", "--url", url, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[0].rstrip("/")

    def ask(path: str) -> str:
        with urllib.request.urlopen(f"{address}{path}") as answer:
            return str(answer.read().decode())

    n, charts_at = 0, 0.0
    while not is_over.is_set():
        if not is_on.wait(0.1):
            continue
        began = time.monotonic()
        charts = re.findall(r'data-chart="([^"]+)"', ask("/b/default"))
        if began - charts_at > CHARTS_S:
            charts_at = began
            for chart in charts:
                ask(chart)
        n += 1
        time.sleep(max(0.0, PAGE_S - (time.monotonic() - began)))
    server.terminate()
    server.wait()
    looks.put(n)


def windows(pairs: int, seconds: float, is_on: Any, processes: list[Any]) -> list[Any]:
    """Let time pass; return when each window began and ended, and whether it was looked at."""
    found = []
    for _ in range(pairs):
        for is_looked_at in random.sample([True, False], 2):
            (is_on.set if is_looked_at else is_on.clear)()
            time.sleep(1.0)  # the end of what the other window began
            began = time.monotonic()
            time.sleep(seconds)
            found.append((began, time.monotonic(), is_looked_at))
            if dead := [process.name for process in processes if not process.is_alive()]:
                raise SystemExit(f"{dead[0]} ended: its error stands above.")
    return found


def run(
    url: Annotated[str | None, typer.Option(help="Database; by default a temporary file.")] = None,
    pairs: Annotated[int, typer.Option(min=2, help="Windows with and without looking.")] = 20,
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 4.0,
    n: Annotated[int, typer.Option(help="Samples in the buffer at the beginning.")] = 100_000,
    serve: Annotated[
        bool, typer.Option("--serve", help="Look at the first page of `sqlbuffer serve` instead.")
    ] = False,
    floor: Annotated[
        bool, typer.Option("--floor", help="Only connect and ask `SELECT 1` for each command.")
    ] = False,
) -> None:
    """Measure how much longer a draw takes while another process looks."""
    from sqlbuffer import open_store

    with contextlib.ExitStack() as stack:
        if url is None:
            url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/looks.db"
        for name in ("default", "other"):
            with open_store(url, name=name) as store:
                store.add([f"s{i}" for i in range(n)])
                store.score(lambda samples: np.random.default_rng(0).random(len(samples)))
        context = multiprocessing.get_context("spawn")
        is_on, is_over, answers = context.Event(), context.Event(), context.Queue()
        processes = [
            context.Process(target=write, args=(url, i, is_over, answers), name=f"writer {i}")
            for i in range(WRITERS)
        ]
        looks = context.Queue()
        looking = look_at_page if serve else functools.partial(look, is_floor=floor)
        looker = context.Process(target=looking, args=(url, is_on, is_over, looks), name="looker")
        for process in (*processes, looker):
            process.start()
        for _ in range(WRITERS):
            answers.get(timeout=60)  # until all have begun
        found = windows(pairs, seconds, is_on, [*processes, looker])
        is_over.set()
        draws = np.array([draw for _ in processes for draw in answers.get()])
        n_looks = looks.get()
        for process in (*processes, looker):
            process.join()
    things = "connections" if floor else "commands"
    report(draws, found, f"{n_looks} {'pages' if serve else f'rounds of {len(COMMANDS)} {things}'}")


def report(draws: Any, found: list[Any], looks: str) -> None:
    """Print the median ratio and its interval."""
    medians: dict[bool, list[float]] = {True: [], False: []}
    for began, ended, is_looked_at in found:
        inside = (draws[:, 0] > began) & (draws[:, 0] < ended)
        medians[is_looked_at].append(float(np.median(draws[inside, 1])))
    ratios = np.array(medians[True]) / np.array(medians[False])
    ratio, low, high = interval(ratios)
    typer.echo(
        f"{len(draws):,} draws of 32 by {WRITERS} writers, {looks}: "
        f"median {np.median(medians[False]) * 1e3:.2f} ms without, "
        f"{np.median(medians[True]) * 1e3:.2f} ms with; "
        f"ratio {ratio:.3f} ({low:.3f} to {high:.3f})"
    )


if __name__ == "__main__":
    typer.run(run)

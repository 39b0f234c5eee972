"""What does a round of the commands of `benchmarks.looks` cost the client and the server?

    python -m benchmarks.look_costs --url postgresql://... [--n 50000] [--rounds 20]

Processor time is measured. Every command runs several times in one process against an idle
PostgreSQL server of this host, so that neither the start of Python nor those who work count. The
time of the server is that of all its processes that have ended in between, which the server's first
process knows: the connection of a command, and processes that helped it. The first line is the
floor: a new connection and `SELECT 1` in the place of each command.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from benchmarks.looks import COMMANDS, plain_look, run_command

BATCHES, BATCH = 150, 32
"""Batches that are drawn and settled before the measurement, and the samples in each."""


def fill(url: str, n: int) -> None:
    """Store two buffers of n samples with scores, and draw and settle batches of one of them."""
    from sqlbuffer import open_store

    rng = random.Random(0)
    for name in ("default", "other"):
        with open_store(url, name=name) as store:
            store.add([f"s{i}" for i in range(n)])
            store.score(lambda samples: np.random.default_rng(0).random(len(samples)))
    with open_store(url) as store:
        for i in range(BATCHES):
            batch = store.sample(BATCH)
            batch.settle([rng.random() for _ in batch.samples])
            store.add([f"{i}-{rng.random()}" for _ in range(BATCH)])
            store.score(lambda samples: [rng.random() for _ in samples])


class Server:
    """The processor time of a server's processes that have ended."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url, autocommit=True)
        own = psutil.Process(self._connection.info.backend_pid)
        self._first = psutil.Process(own.ppid())

    def execute(self, sql: str) -> Any:
        """Return the first value of a statement."""
        cursor = self._connection.execute(sql)  # type: ignore[call-overload]
        return cursor.fetchone()[0] if cursor.description else None

    def seconds(self) -> float:
        """Wait until no other client is connected; return the time of all that have ended."""
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type IN ('client backend', 'parallel worker')"
        )
        while self.execute(others):
            time.sleep(0.02)
        time.sleep(0.05)  # the first process is told of the last one's end
        found = self._first.cpu_times()
        return float(found.children_user + found.children_system)


def measure(server: Server, look: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the milliseconds of one look, of the client and of the server."""
    look()
    before, began = server.seconds(), time.process_time()
    for _ in range(rounds):
        look()
    client = time.process_time() - began
    return client / rounds * 1e3, (server.seconds() - before) / rounds * 1e3


def run(
    url: Annotated[str, typer.Option(help="PostgreSQL database of this host, without buffers.")],
    n: Annotated[int, typer.Option(help="Samples in each of two buffers.")] = 50_000,
    rounds: Annotated[int, typer.Option(help="How often each command runs.")] = 20,
) -> None:
    """Measure the processor time of each command that reads."""
    fill(url, n)
    server = Server(url)
    server.execute("VACUUM ANALYZE")
    plain = measure(server, functools.partial(plain_look, url), rounds)
    costs = {"floor": np.array(plain) * len(COMMANDS)}
    for command in COMMANDS:
        look = functools.partial(run_command, url, command)
        costs[command] = np.array(measure(server, look, rounds))
    costs["all commands"] = np.sum([costs[command] for command in COMMANDS], axis=0)
    typer.echo(f"{'ms of one round':48} {'client':>7} {'server':>7}")
    for name, (client, of_server) in costs.items():
        typer.echo(f"{name:48} {client:7.1f} {of_server:7.1f}")


if __name__ == "__main__":
    typer.run(run)

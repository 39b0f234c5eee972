"""Three generators, two reward workers and a trainer: six independent processes share one buffer.

    python examples/shared_buffer/run.py --url sqlite:///shared.db --calls 200
    python examples/shared_buffer/run.py --url postgresql://user@host/database --calls 200

Kill any process with `kill -9` and the pid that it prints: a new process replaces it, and no reward
is lost. More processes may join from other terminals, or with PostgreSQL from other machines:

    python examples/shared_buffer/run.py --url ... --role reward
"""

import enum
import os
import subprocess
import sys
import time
from typing import Annotated

import roles
import typer

from sqlbuffer import SampleStore, SqlBufferError, open_store


class Role(str, enum.Enum):
    """The role of one process."""

    generator = "generator"
    reward = "reward"
    trainer = "trainer"


PROCESSES = [Role.generator] * 3 + [Role.reward] * 2 + [Role.trainer]


def main(
    url: Annotated[str, typer.Option(help="URL of the database.")] = "sqlite:///shared.db",
    calls: Annotated[
        int, typer.Option(help="Measurements after which all processes end.", min=1)
    ] = 200,
    role: Annotated[
        Role | None, typer.Option(help="Role of this process; without it, start all six processes.")
    ] = None,
) -> None:
    """Start all processes, or run one role."""
    with open_store(url, name="shared") as store:
        if role is not None:
            roles.ROLES[role.value](store, speaker(role), lambda: store.stats().measured >= calls)
        else:
            supervise(store, url, calls)


def speaker(role: Role) -> roles.Say:
    """Return a function that prints a line with role and pid."""
    return lambda text: print(f"{role.value:>9} {os.getpid()}: {text}", flush=True)


def supervise(store: SampleStore, url: str, calls: int) -> None:
    """Restart processes that die until all calls are made; then print the result."""
    started = [start(role, url, calls) for role in PROCESSES]
    try:
        while store.stats().measured < calls:
            for i, (role, process) in enumerate(zip(PROCESSES, started, strict=True)):
                if process.poll() is not None and process.returncode != 0:
                    print(
                        f"{role.value:>9} {process.pid}: died; starting a new process", flush=True
                    )
                    started[i] = start(role, url, calls)
            time.sleep(0.2)
        for process in started:
            process.wait()
    finally:
        for process in started:
            process.kill()
            process.wait()
    best = store.top(1)[0]
    print(
        f"measured {store.stats().measured}; the best is {best['sample']} with {best['reward']:.4f}"
    )
    print(f"integrity: {store.check() or 'sound'}")


def start(role: Role, url: str, calls: int) -> subprocess.Popen[bytes]:
    """Start a process with a role."""
    return subprocess.Popen(
        [sys.executable, __file__, "--url", url, "--calls", str(calls), "--role", role.value]
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except SqlBufferError as exc:
        sys.exit(f"{exc}")

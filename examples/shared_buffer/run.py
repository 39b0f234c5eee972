"""Three generators, two reward workers and a trainer: six processes on one buffer, which know nothing of each other.

    python examples/shared_buffer/run.py --url sqlite:///shared.db --calls 200
    python examples/shared_buffer/run.py --url postgresql://user@host/database --calls 200

Kill any of them, with `kill -9` and the pid that it says: another one takes its place, and nothing measured is lost.
More may join from other terminals, or with PostgreSQL from other machines:

    python examples/shared_buffer/run.py --url ... --role reward
"""

import enum
import os
import subprocess
import sys
import time
from typing import Annotated

import crew
import typer

from sqlbuffer import SampleStore, SqlBufferError, open_store


class Role(str, enum.Enum):
    """What one of the crew does."""

    generator = "generator"
    reward = "reward"
    trainer = "trainer"


CREW = [Role.generator] * 3 + [Role.reward] * 2 + [Role.trainer]


def main(
    url: Annotated[str, typer.Option(help="The database.")] = "sqlite:///shared.db",
    calls: Annotated[int, typer.Option(help="Measurements after which all go home.", min=1)] = 200,
    role: Annotated[Role | None, typer.Option(help="Be one of the crew.")] = None,
) -> None:
    """Start the crew, or join it."""
    with open_store(url, name="shared") as store:
        if role is not None:
            crew.ROLES[role.value](store, speaker(role), lambda: store.stats().measured >= calls)
        else:
            supervise(store, url, calls)


def speaker(role: Role) -> crew.Say:
    """Return what prints who does what."""
    return lambda text: print(f"{role.value:>9} {os.getpid()}: {text}", flush=True)


def supervise(store: SampleStore, url: str, calls: int) -> None:
    """Keep every place of the crew filled until all is measured; then say what came of it."""
    hired = [hire(role, url, calls) for role in CREW]
    try:
        while store.stats().measured < calls:
            for i, (role, process) in enumerate(zip(CREW, hired, strict=True)):
                if process.poll() is not None and process.returncode != 0:
                    print(f"{role.value:>9} {process.pid}: died, and is replaced", flush=True)
                    hired[i] = hire(role, url, calls)
            time.sleep(0.2)
        for process in hired:
            process.wait()
    finally:
        for process in hired:
            process.kill()
            process.wait()
    best = store.top(1)[0]
    print(f"measured {store.stats().measured}; the best is {best['sample']} with {best['reward']:.4f}")
    print(f"integrity: {store.check() or 'sound'}")


def hire(role: Role, url: str, calls: int) -> subprocess.Popen[bytes]:
    """Start one of the crew."""
    return subprocess.Popen([sys.executable, __file__, "--url", url, "--calls", str(calls), "--role", role.value])


if __name__ == "__main__":
    try:
        typer.run(main)
    except SqlBufferError as exc:
        sys.exit(f"{exc}")

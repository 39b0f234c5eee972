"""The agent of `examples/dqn_cartpole.py`, small, in a process that is killed between two steps."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import sqlalchemy as sa
from rich.console import Console

from helpers import inside
from helpers.forked import EXAMPLES
from helpers.pool import places
from sqlbuffer.db import database
from sqlbuffer.db.schema import batches, draws
from sqlbuffer.store import SampleStore

MOMENTS = ("added", "drawn", "learned", "before COMMIT", "after COMMIT")
"""Where a process is killed; the last two are those of the transaction that settles."""
STEPS, STEPS_EACH, BATCH, PART, MAX_SIZE = 35, 5, 12, 6, 25


def live(url: str, fatal: str | None) -> None:
    """Run the agent; the process is killed at a moment of its second iteration."""
    sys.path.insert(0, str(EXAMPLES))
    import dqn_cartpole as example

    n_passed = 0

    def come_by(moment: str) -> None:
        nonlocal n_passed
        n_passed += moment == fatal
        if n_passed == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def watched() -> Iterator[None]:
        def boundary(moment: str) -> None:
            if threading.current_thread() is threading.main_thread():  # not the heartbeat
                come_by(f"{moment} COMMIT")

        database.boundary = boundary
        yield
        database.boundary = lambda moment: None

    class Replay(example.SqlReplay):
        def add(self, transitions, priority):  # type: ignore[no-untyped-def]
            super().add(transitions, priority)
            come_by("added")

        def sample(self, n):  # type: ignore[no-untyped-def]
            batch = super().sample(n)
            come_by("drawn")
            return batch

        def settle(self, *given):  # type: ignore[no-untyped-def]
            come_by("learned")
            with watched():
                super().settle(*given)

    example.SqlReplay = Replay
    example.STEPS_EACH, example.BATCH, example.PART = STEPS_EACH, BATCH, PART
    with open(os.devnull, "w") as nowhere:
        example.run(url, steps=STEPS, max_size=MAX_SIZE, seed=0, console=Console(file=nowhere))


def story(store: SampleStore) -> dict[str, object]:
    """Return what a run has come to, with the transitions by their steps."""
    settled = (
        sa.select(draws.c.sample_id, draws.c.race_key, draws.c.weight)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .where(batches.c.buffer_id == inside.buffer_id(store), batches.c.settled_at.is_not(None))
        .order_by(batches.c.id, draws.c.position)
    )
    drawn = inside.rows(store, settled)
    standing, waiting = places(store), store.waiting()
    ids = {row.sample_id for row in drawn} | set(standing)
    step_of = {i: sample["step"] for i, sample in store.samples_of(sorted(ids)).items()}
    return {
        "draws": [(step_of[row.sample_id], row.race_key, row.weight) for row in drawn],
        "pool": {step_of[i]: place for i, place in standing.items()},
        "priorities": dict(
            zip(map(step_of.get, waiting.ids.tolist()), waiting.scores.tolist(), strict=True)
        ),
        "history": [(row["iteration"], row["name"], row["value"]) for row in store.history()],
    }

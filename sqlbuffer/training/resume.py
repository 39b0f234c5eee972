"""The checkpoints that a loop resumes from: callbacks, and jobs that are still to be done."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

from sqlbuffer._messages import shown
from sqlbuffer.core.metrics_and_checkpoints import LOOP as LOOP
from sqlbuffer.errors import InvalidArgument, InvalidPayload
from sqlbuffer.training.callback import Callback

if TYPE_CHECKING:
    from sqlbuffer.core.batch import Batch
    from sqlbuffer.store import SampleStore

CHECKPOINT = "checkpoint"
"""Name of the checkpoint with agents and random states, which a `Checkpoint` stores."""


def write_loop(size: int, jobs: list[str]) -> bytes:
    """Return the loop's own state as bytes.

    Args:
        size: Number of waiting samples.
        jobs: The jobs to do once the batch is settled, in their order.
    """
    return json.dumps({"size": size, "jobs": jobs}).encode()


def read_loop(
    stored: bytes, known_jobs: Set[str], *, stored_by: type, buffer: str
) -> dict[str, Any]:
    """Return `size` and `jobs` of bytes that `write_loop` made.

    Args:
        stored: The bytes.
        known_jobs: The jobs that the resuming class can do.
        stored_by: The resuming class, for the error.
        buffer: Name of the buffer, for the error.

    Raises:
        InvalidPayload: If the bytes are no such state, or a job in it is unknown.
    """
    try:
        loop: dict[str, Any] = json.loads(stored)
        size, jobs = loop["size"], loop["jobs"]
        is_ours = isinstance(size, int) and isinstance(jobs, list) and known_jobs >= set(jobs)
    except (ValueError, TypeError, LookupError, RecursionError):
        is_ours = False
    if not is_ours:
        raise InvalidPayload(
            f"the checkpoint {LOOP!r} of buffer {buffer!r} is {shown(stored)}, from "
            f"which a {stored_by.__name__} cannot resume: resume with the class that stored "
            "it, or restore a backup."
        )
    return loop


def stored_loop(
    store: SampleStore, known_jobs: Set[str], *, stored_by: type
) -> dict[str, Any] | None:
    """Return the loop's state of the last settled batch; None if another loop settled it."""
    found = store.checkpoint(LOOP)
    if found is None or found[0] != store.iteration:
        return None
    loop = read_loop(found[1], known_jobs, stored_by=stored_by, buffer=store.name)
    return {**loop, "iteration": found[0]}


def checkpoints(
    store: SampleStore, callbacks: Sequence[Callback], jobs: list[str]
) -> dict[str, bytes]:
    """Return the states to store with a batch, by name: the loop's own, and the callbacks'."""
    states = {cb.name: state for cb in callbacks if (state := cb.checkpoint()) is not None}
    return {LOOP: write_loop(len(store), jobs), **states}


def restore(store: SampleStore, callbacks: Sequence[Callback]) -> None:
    """Load the stored state of each callback.

    Raises:
        InvalidArgument: If a `Checkpoint` has stored states, and none of the callbacks is one.
    """
    if CHECKPOINT not in [cb.name for cb in callbacks] and store.checkpoint(CHECKPOINT) is not None:
        raise InvalidArgument(
            f"buffer {store.name!r} holds the agents and random states of a run with a "
            "Checkpoint, but this run has no Checkpoint: add Checkpoint(...) to cbs, or "
            "begin a new run with fresh=True."
        )
    for cb in callbacks:
        stored = store.checkpoint(cb.name)
        if stored is not None:
            cb.restore(stored[1])


def is_settled(store: SampleStore, batch: Batch) -> bool:
    """Tell whether a batch of a loop was settled; an empty one, of which nothing is stored, too."""
    if batch._claim is None:
        return store.iteration > batch.iteration
    return store._buffer.peek(batch._claim.is_settled)


def mark(job: str, iteration: int) -> dict[str, bytes]:
    """Return the checkpoint that marks a job of an iteration as done, to be stored with its result.

    The results alone are no proof: another process may store predictors and begin refreshes at any
    time.
    """
    return {f"{job} done": str(iteration).encode()}


def jobs_left(store: SampleStore, jobs: list[str], iteration: int) -> list[str]:
    """Return the jobs of an iteration that come after the last one that is marked as done."""
    done = [i for i, job in enumerate(jobs) if _is_done(store, job, iteration)]
    return jobs[max(done, default=-1) + 1 :]


def _is_done(store: SampleStore, job: str, iteration: int) -> bool:
    ((name, data),) = mark(job, iteration).items()
    found = store.checkpoint(name)
    return found is not None and found[1] == data

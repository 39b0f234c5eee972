"""What a run keeps next to its samples: predictors, jobs, metrics and checkpoints, as methods of a store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from sqlbuffer import batches, leases, progress
from sqlbuffer.attachment import Attachment
from sqlbuffer.names import as_name, require_count

P = ParamSpec("P")
T = TypeVar("T")


class RunRecords:
    """A buffer as one process has opened it, and what a run keeps with it."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    # -- predictors ---------------------------------------------------------------------------------------------------

    def save_predictor(
        self,
        state: bytes,
        *,
        rows_trained: int,
        rows_held_out: int = 0,
        metrics: Mapping[str, Any] | None = None,
        keep: int | None = None,
        lease: leases.Lease | None = None,
        checkpoint: Mapping[str, bytes] | None = None,
    ) -> int:
        """Store a trained predictor; return its version, which the scores made from now on carry.

        Args:
            state: Its weights, as safetensors or as the agent reads them.
            rows_trained: Labelled samples it was trained on.
            rows_held_out: Labelled samples it never saw.
            metrics: What JSON can hold, NaN and infinities as well; `train_loss`, `valid_loss`, `rank_correlation` and
                `r2` have columns.
            keep: Drop the states of all but so many of the newest versions, though never of one whose scores are still
                in use; their metrics stay. None keeps all.
            lease: The lease under which it was trained.
            checkpoint: States to resume from, by name, to be stored in the same transaction.

        Raises:
            LeaseLost: Where the lease is not held any more. Nothing is stored.
        """
        return self._write(
            progress.write_predictor,
            state=state,
            rows_trained=rows_trained,
            rows_held_out=rows_held_out,
            measures={} if metrics is None else metrics,
            keep=keep,
            lease=lease,
            states=progress.states_from(checkpoint),
        )

    def predictors(self) -> list[progress.PredictorVersion]:
        """Return all predictor versions with their measures, the oldest first."""
        return self._read(progress.read_predictors)

    def newest_predictor(self) -> progress.PredictorVersion | None:
        """Return the newest predictor version, None before the first."""
        return self._read(progress.newest_predictor)

    def predictor_state(self, version: int | None = None) -> bytes | None:
        """Return the state of a stored predictor, by default of the newest; None before the first.

        Raises:
            InvalidArgument: There is no such version, or its state was dropped.
        """
        found = self._read(progress.read_state, version=version)
        return None if found is None else found[1]

    def load_predictor(self, agent: Any, version: int | None = None) -> int | None:
        """Give an agent the weights of a stored predictor, by default of the newest; return its version.

        Args:
            agent: A `PredictiveAgent`, or what has a `state_dict`, itself or as its `model`.
            version: One of `predictors()`.

        Returns:
            The version; None where no predictor was stored yet.

        Raises:
            InvalidArgument: There is no such version, or its state was dropped, or it does not fit the model.
        """
        found = self._read(progress.read_state, version=version)
        if found is None:
            return None
        from sqlbuffer.state import load_state  # imports torch

        load_state(agent, found[1])
        return found[0]

    def newest_version(self) -> int | None:
        """Return the version of the newest stored predictor, None before the first."""
        return self._read(progress.newest_version)

    def _newer(self, held: progress.Mark | None) -> progress.Newer:
        """Return the newest predictor, and its state for who holds another one."""
        return self._read(progress.newer, held=held)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def jobs(self) -> list[leases.Job]:
        """Return where each job stands: who has it, when it last ran, what went wrong."""
        return self._read(leases.find)

    def announce_job(self, name: str, schedule: str) -> None:
        """Say in words when a job is due, for people to read."""
        self._write(leases.announce, as_name(name, "the name of a job"), as_name(schedule, "a schedule"))
        self._attachment.heartbeat.start()  # it watches those that have the job

    def leased(self, job: str, seen: int | None = None) -> contextlib.AbstractContextManager[leases.Lease | None]:
        """Take a job for the block, so that of any number of processes one does it at a time.

        The block is given the lease, or None where another process has it. The lease is renewed in the background;
        others may take it when they have seen for `grace_s` that it is not, and at once where the process has died on
        their host. An
        error is stored with the job before it is raised; what is interrupted counts as not done.

        Args:
            job: Name of the job.
            seen: Only where it has been taken this often so far.
        """
        job = as_name(job, "the name of a job")
        seen = None if seen is None else require_count(seen, "seen must be the job's number of runs, or None")
        batches.release_dead(self._attachment)
        return leases.leased(self._attachment, job, seen)

    # -- metrics and checkpoints --------------------------------------------------------------------------------------

    def log_metrics(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Store metrics of an iteration; a later value takes the place of an earlier one."""
        self._write(progress.write_metrics, iteration=iteration, values=metrics)

    def history(self) -> list[dict[str, Any]]:
        """Return all metrics as `{"iteration", "name", "value"}`, in the order of the run."""
        return self._read(progress.history)

    def checkpoint(self, name: str) -> tuple[int, bytes] | None:
        """Return the newest checkpoint of a name as (batches settled when it was written, state)."""
        return self._read(progress.read_checkpoint, name=name)

    def checkpoints(self, name: str) -> list[tuple[int, bytes]]:
        """Return all checkpoints that are kept of a name, each as `checkpoint` does, the oldest first."""
        return self._read(progress.read_checkpoints, name=name)

    def save_checkpoints(
        self, states: Mapping[str, bytes], *, iteration: int, kept: Mapping[str, int | None] | None = None
    ) -> None:
        """Store states to resume from next to a batch; `Batch.settle` stores them with it.

        Args:
            states: By name.
            iteration: Batches settled by then.
            kept: How many states of a name stay stored, None for all; where it says nothing, the newest alone.
        """
        self._write(progress.write_checkpoints, iteration=iteration, states=states, kept=kept)

    # -- transactions --------------------------------------------------------------------------------------------------

    def _read(
        self, work: Callable[Concatenate[sa.Connection, Attachment, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return self._attachment.database.read(lambda connection: work(connection, self._attachment, *args, **kwargs))

    def _look(self, work: Callable[[sa.Connection, Attachment], T]) -> T:
        return self._attachment.database.look(lambda connection: work(connection, self._attachment))

    def _write(
        self, work: Callable[Concatenate[sa.Connection, Attachment, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def write(connection: sa.Connection) -> T:
            self._attachment.race_state(connection)  # or say that the buffer is another one by now
            return work(connection, self._attachment, *args, **kwargs)

        return self._attachment.database.write(write)

"""Settle a batch: store its measurements and end its claim, in one transaction."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlbuffer._numpy import np
from sqlbuffer._typing import Ints
from sqlbuffer.core import pool, priorities
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.measured import Origin
from sqlbuffer.core.metrics_and_checkpoints import (
    states_from,
    write_checkpoints,
    write_metrics,
    write_new_metrics,
)
from sqlbuffer.core.priorities import Given, Updated
from sqlbuffer.core.record import Recorded, record
from sqlbuffer.core.report import Reported
from sqlbuffer.core.rewards import store_measured
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries


@dataclasses.dataclass(frozen=True)
class Settlement:
    """What is stored when a batch is settled."""

    reported: Reported
    """Measurements of samples of the batch."""
    recorded: Recorded | None
    """Measurements of samples that were not drawn."""
    metrics: Mapping[str, float] | None
    kept: Mapping[str, int | None] | None
    """How many states of a name stay stored."""
    iteration: int
    """Its number."""
    n_iterations: int
    """Iterations by which the buffer advances."""
    priorities: Given | None = None
    """New scores of the samples, in mode "replay"."""
    states: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """States to resume from, by name."""


class Settled(NamedTuple):
    """What a transaction has done."""

    is_ours: bool
    """False if the batch was closed before, or belongs to another process; then only the
    measurements are stored."""
    updated: Updated | None = None
    """The new priorities."""


class IterationTaken(Exception):
    """Another process has settled an iteration of this number.

    Raised, so that the transaction is rolled back.

    Attributes:
        following: Number of the next iteration.
    """

    def __init__(self, following: int) -> None:
        super().__init__(following)
        self.following = following


def settle_as_next(
    buffer: BufferHandle,
    settlement: Settlement,
    checkpoint: Mapping[str, bytes] | Callable[[int], Mapping[str, bytes]] | None,
    **given: Any,
) -> tuple[bool, int]:
    """`settle` under the next number, if another process has settled one of the same number.

    Args:
        buffer: The buffer.
        settlement: What is stored.
        checkpoint: See `Batch.settle`.
        given: Other arguments of `settle`.

    Returns:
        Whether the batch was settled, and the number of the iteration.
    """
    iteration = settlement.iteration
    while True:
        states = states_from(checkpoint(iteration) if callable(checkpoint) else checkpoint)
        stored = dataclasses.replace(settlement, iteration=iteration, states=states)
        try:
            settled = buffer.write(settle, settlement=stored, **given)
        except IterationTaken as exc:
            iteration = exc.following
            continue
        if settled.updated is not None:
            priorities.remember(buffer, settled.updated)
        return settled.is_ours, iteration


def settle(
    tx: Transaction,
    *,
    claim: Claim | None,
    origin: Origin,
    settlement: Settlement,
    has_reports: bool,
) -> Settled:
    """Store measurements of a batch, and end its claim.

    Args:
        tx: A writing transaction.
        claim: The claim of the batch; None for an empty batch.
        origin: The batch as the process knows it.
        settlement: What is stored.
        has_reports: True if samples may have been reported before.

    Raises:
        IterationTaken: If the metrics are of an iteration that another process has settled.
    """
    # Every transaction locks the race before rows.
    state = None if settlement.priorities is None else tx.lock_race(exclusive=True)
    if claim is not None and origin.is_open:
        origin = origin._replace(is_open=claim.close(tx, "settled_at") is not None)
    is_ours = origin.is_open
    if not is_ours:
        tx.lock_race()  # for samples that stop waiting; raises if the buffer is gone
    elif settlement.metrics is not None:
        _write_metrics(tx, settlement, settlement.metrics)
    known = settlement.reported.known
    leaves = is_ours and tx.buffer.consumes
    # Samples reported earlier may have been added again since.
    early = _reported(tx, origin.batch) if is_ours and has_reports else []
    deltas = _store(tx, settlement.reported, origin, early, leaves=leaves)
    if leaves:
        is_done = np.isin(known.ids, early)
        is_done[settlement.reported.places] = True
        places = np.flatnonzero(~is_done)
        pool.dequeue_known(tx, known.ids[places], [known.hash[i] for i in places.tolist()])
    updated, touched = None, None
    if is_ours and state is not None and settlement.priorities is not None:
        updated = priorities.apply(tx, state, given=settlement.priorities)
        touched = updated.counts.pop("touched")
        deltas.update(updated.counts)
    if settlement.recorded is not None:  # last, because it calls `tx.count`
        record(tx, settlement.recorded)
    if not is_ours:
        tx.count(**deltas)
        return Settled(False)
    deltas.update(settled=len(known.ids) - len(early), iterations=settlement.n_iterations)
    tx.count(touched=touched, **deltas)
    _write_state(tx, settlement)
    return Settled(True, updated)


def _store(
    tx: Transaction, reported: Reported, origin: Origin, early: list[int], *, leaves: bool
) -> Counter[str]:
    is_early = np.isin(reported.ids, early)
    deltas: Counter[str] = Counter()
    for part, stay_queued in ((~is_early, not leaves), (is_early, True)):
        some = reported.take(_places(part))
        deltas.update(
            store_measured(
                tx,
                known=some.known,
                places=some.places,
                measured=some.measured,
                origin=origin,
                stay_queued=stay_queued,
            )
        )
    return deltas


def _places(part: np.ndarray) -> Ints:
    places: Ints = np.flatnonzero(part)
    return places


def _reported(tx: Transaction, batch: int | None) -> list[int]:
    """Return the ids of reported samples, including reports of other threads and processes."""
    if batch is None:
        return []
    return list(tx.execute(queries.batches.reported_samples(), batch=batch).scalars())


def _write_metrics(tx: Transaction, settlement: Settlement, values: Mapping[str, float]) -> None:
    """Store the metrics first, so that little is lost if they are of another process's iteration.

    The number of a batch is known when it is drawn. The primary key of the metrics tells whether
    another process has settled one of this number since, without a statement of its own.
    """
    iteration = settlement.iteration
    if settlement.n_iterations and write_new_metrics(tx, iteration=iteration, values=values):
        return
    if settlement.n_iterations and (following := tx.race_state().iteration) > iteration:
        raise IterationTaken(following)
    write_metrics(tx, iteration=iteration, values=values)


def _write_state(tx: Transaction, settlement: Settlement) -> None:
    if settlement.states or settlement.kept is not None:
        settled = settlement.iteration + settlement.n_iterations
        write_checkpoints(tx, iteration=settled, states=settlement.states, kept=settlement.kept)

"""Predictor versions: each training stores one, with its state and its measures."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlbuffer import _html
from sqlbuffer._integrity import tampered
from sqlbuffer._json import as_measures, measures_from
from sqlbuffer._messages import shown
from sqlbuffer._validation import require_count, require_int
from sqlbuffer.core import leases
from sqlbuffer.core.metrics_and_checkpoints import number_from, state_from, write_checkpoints
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True)
class PredictorVersion:
    """One trained state of the predictor, in numbers.

    Attributes:
        version: Score version from which it is in force.
        iteration: Batches settled when it was trained.
        rows_trained: Labelled samples it was trained on.
        rows_held_out: Labelled samples it never saw, on which it was measured.
        train_loss: Loss on the training rows.
        valid_loss: Loss on the rows by which the best epoch was chosen.
        rank_correlation: Spearman's, of predictions and rewards of the held-out rows; None if
            undefined.
        r2: Share of the variance of the held-out rewards that it explains; None if undefined.
        metrics: Other measures of its training, such as `calibration`. The database stores the
            texts "NaN", "Infinity" and "-Infinity" for these numbers, as PostgreSQL reads them.
        trained_at: When it was stored, UTC.
        worker_id: The worker that trained it.
        size_bytes: Size of its stored state; 0 if the state has been dropped (`keep`).

    Examples:
        >>> store.save_predictor(b"weights", rows_trained=2, metrics={"rank_correlation": 0.8})
        1
        >>> newest = store.newest_predictor()
        >>> newest.rows_trained, newest.rank_correlation, newest.size_bytes
        (2, 0.8, 7)
    """

    version: int
    iteration: int
    rows_trained: int
    rows_held_out: int
    train_loss: float | None
    valid_loss: float | None
    rank_correlation: float | None
    r2: float | None
    metrics: dict[str, Any]
    trained_at: dt.datetime
    worker_id: str
    size_bytes: int

    @property
    def mark(self) -> Mark:
        """The identity of this version; no other version has it, even under the same number."""
        return Mark(self.version, self.trained_at, self.worker_id)

    def _repr_html_(self) -> str | None:
        return _html.or_none(_html.fields, self)


class PredictorVersions(list[PredictorVersion]):
    """Predictor versions, the oldest first; a notebook shows them as one table."""

    def _repr_html_(self) -> str | None:
        return _html.or_none(_table, self)


def _table(versions: PredictorVersions) -> str:
    names = ("version", "iteration", "rows_trained", "rows_held_out", *_MEASURES, "trained_at")
    return _html.table(names, [[getattr(each, name) for name in names] for each in versions])


class Mark(NamedTuple):
    """The identity of a predictor version.

    A database that is set back to an earlier state gives the number of a lost version to another.
    """

    version: int
    trained_at: dt.datetime
    worker_id: str


_MEASURES = ("train_loss", "valid_loss", "rank_correlation", "r2")
"""The measures that have a column."""


def write_predictor(
    tx: Transaction,
    *,
    state: bytes,
    rows_trained: int,
    rows_held_out: int = 0,
    measures: Mapping[str, Any],
    keep: int | None = None,
    lease: leases.Lease | None = None,
    states: Mapping[str, bytes] | None = None,
) -> int:
    """Store a predictor and return its version; scores made from now on carry it.

    Args:
        tx: A writing transaction.
        state: Its weights.
        rows_trained: Labelled samples it was trained on.
        rows_held_out: Labelled samples it never saw.
        measures: Numbers that tell how good it is; some have a column of their own.
        keep: Number of newest states to keep, None for all. A state whose scores are still in use
            is never dropped.
        lease: The lease under which it was trained.
        states: Checkpoints, by name, that are stored with it.

    Raises:
        LeaseLost: If the lease is no longer held. Nothing is stored.
    """
    state = state_from(state, "the state of a predictor")
    tx.backend.require_fits("the state of this predictor", len(state))
    found = as_measures(measures, "metrics")
    in_columns = {
        name: number_from(measures_from(found.pop(name, None)), name) for name in _MEASURES
    }
    rows_trained, rows_held_out = (
        require_int(n, f"{name} must be a number of samples", least=0)
        for name, n in {"rows_trained": rows_trained, "rows_held_out": rows_held_out}.items()
    )
    if keep is not None:
        keep = require_count(keep, "keep must be 1 or more versions, or None for all", least=1)
    if lease is not None:
        leases.require(tx, lease)
    version = int(tx.execute(queries.predictors.begin_predictor_version()).scalar_one())
    newest = newest_version(tx)
    if newest is not None and version <= newest:
        raise tampered(
            f"scores of buffer {tx.buffer.name!r} have version {version - 1}, a predictor has "
            f"{newest}"
        )
    iteration = tx.execute(queries.buffers.totals()).one().iterations
    write_checkpoints(tx, iteration=iteration, states=states or {})
    tx.execute(
        queries.predictors.insert_predictor(),
        version=version,
        iteration=iteration,
        state=state,
        rows_trained=rows_trained,
        rows_held_out=rows_held_out,
        tick=tx.tick(),
        worker_id=worker_id(),
        **in_columns,
        metrics=found,
    )
    if keep is not None:
        _drop_states(tx, keep=keep)
    tx.count()
    return version


def read_predictors(tx: Transaction) -> PredictorVersions:
    """Return all predictor versions, the oldest first."""
    return PredictorVersions(map(_version, tx.execute(queries.predictors.predictor_versions())))


def newest_predictor(tx: Transaction) -> PredictorVersion | None:
    """Return the newest predictor, None before the first."""
    row = tx.execute(queries.predictors.newest_predictor()).one_or_none()
    return None if row is None else _version(row)


def _version(row: Any) -> PredictorVersion:
    return PredictorVersion(**{**row._mapping, "metrics": measures_from(row.metrics)})


def newest_version(tx: Transaction) -> int | None:
    """Return the version of the newest predictor, None before the first. Reads one index entry."""
    version: int | None = tx.execute(queries.predictors.newest_predictor_version()).scalar()
    if not isinstance(version, (int, type(None))):
        raise tampered(f"the version of a predictor is stored as {shown(version)}, no integer")
    return version


class Newer(NamedTuple):
    """The newest predictor, as one transaction has seen it.

    Attributes:
        mark: Its identity; None before the first predictor.
        version: Version of the scores that it makes now: later than its own if a refresh has begun
            since.
        state: Its weights; None if the caller holds them already.
    """

    mark: Mark | None
    version: int
    state: bytes | None


def newer(tx: Transaction, *, held: Mark | None) -> Newer:
    """Return the newest predictor, with its state unless it is the one that is held.

    Reads one index entry if the newest predictor is held.
    """
    mark, version = _newest_mark(tx)
    found = None if mark in (None, held) else read_state(tx, version=None)
    return Newer(mark, version, None if found is None else found[1])


def _newest_mark(tx: Transaction) -> tuple[Mark | None, int]:
    row = tx.execute(queries.predictors.newest_predictor_mark()).one_or_none()
    if row is None:  # `race_state` raises if the buffer is gone
        return None, tx.race_state().version
    *mark, version = row
    return None if mark[0] is None else Mark(*mark), int(version)


def read_state(tx: Transaction, *, version: int | None) -> tuple[int, bytes] | None:
    """Return version and state of a predictor, by default of the newest; None before the first.

    Raises:
        InvalidArgument: There is no such version, or its state has been dropped.
    """
    if version is None:
        row = tx.execute(queries.predictors.newest_predictor_state()).one_or_none()
        if row is None:
            return None
    else:
        rule = "version must be the version of a predictor, or None for the newest"
        version = require_int(version, rule, least=0)
        row = tx.execute(queries.predictors.predictor_state(), wanted=version).one_or_none()
    if row is None or not row.state:
        kept = [str(found.version) for found in read_predictors(tx) if found.size_bytes]
        raise InvalidArgument(
            f"buffer {tx.buffer.name!r} has no state of predictor {version!r}: "
            f"it has {', '.join(kept) or 'none'}."
        )
    return row.version, row.state


def _drop_states(tx: Transaction, *, keep: int) -> None:
    """Empty the states that are no longer needed; their measures stay.

    Reads all samples if there is a state to drop.
    """
    stored = tx.execute(queries.predictors.versions_with_state()).scalars().all()
    if len(stored) <= max(keep, 1):
        return
    gone = unused_states(tx, stored, oldest_kept=stored[max(keep, 1) - 1])
    tx.execute(queries.predictors.drop_predictor_states(), versions=gone)


def unused_states(tx: Transaction, stored: Sequence[int], *, oldest_kept: int) -> list[int]:
    """Return the versions before `oldest_kept` whose scores no waiting or claimed sample has.

    Reads all samples if there is an earlier version.

    Args:
        tx: A transaction.
        stored: The versions whose states are stored.
        oldest_kept: A version.
    """
    candidates = [version for version in stored if version < oldest_kept]
    if not candidates:
        return []
    scored = (
        tx.execute(queries.predictors.score_versions_below(), bound=oldest_kept).scalars().all()
    )
    # A score belongs to the newest predictor that is not newer than the score: refreshes have
    # versions between those of predictors.
    in_use = {
        max((version for version in stored if version <= score), default=0) for score in scored
    }
    return [version for version in candidates if version not in in_use]

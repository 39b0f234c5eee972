"""One sample and its story."""

from __future__ import annotations

import bisect
import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.looks.batches import state_of
from sqlbuffer.looks.values import cell

STORY = ("at", "event", "batch", "iteration", "worker", "detail")
"""Fields of an event."""

_ORDER = ("added", "scored", "drawn", "failed", "measured", "released", "settled")
_OUTCOMES = ("failed", "measured")


MOST_EQUAL = 10
"""Samples of one text that are named."""


def find_samples(tx: Transaction, given: str) -> list[int]:
    """Return the ids of the samples that a user may mean; the first kind that fits counts.

    Of a text they are one more than `MOST_EQUAL` at most, which tells that there are more.
    """
    if given.isdecimal() and int(given) <= 2**63 - 1:
        row = tx.execute(queries.looks.one_sample(), sample=int(given)).one_or_none()
        if row is not None:
            return [row.id]
    with contextlib.suppress(ValueError):
        if len(given) == 32 and (found := find_by_hash(tx, bytes.fromhex(given))):
            return found
    return list(
        tx.execute(queries.looks.samples_by_text(), text=given, limit=MOST_EQUAL + 1).scalars()
    )


def find_by_hash(tx: Transaction, digest: bytes) -> list[int]:
    """Return the id of the sample with a hash, if there is one."""
    return list(tx.execute(queries.looks.sample_by_hash(), hash=digest).scalars())


def tell(tx: Transaction, number: int) -> dict[str, Any]:
    """Return what is known of a sample, with its events as `story`."""
    row = dict(tx.execute(queries.looks.one_sample(), sample=number).mappings().one())
    ticks = [field for field in row if field.endswith("_tick")]
    for field in ticks:
        del row[field]
    trained = [each.version for each in tx.execute(queries.predictors.predictor_versions())]
    events = [*_of_sample(row, trained), *_of_draws(tx, number), *_of_measurements(tx, number)]
    measured = {event["batch"]: event["at"] for event in events if event["event"] in _OUTCOMES}

    def moment(event: dict[str, Any]) -> tuple[Any, ...]:
        at = event["at"]
        if event["event"] == "settled":  # in one transaction with the last of its measurements
            at = max(at, measured.get(event["batch"], at))
        return at, event["batch"] or 0, _ORDER.index(event["event"])

    return {**row, "story": sorted(events, key=moment)}


def _event(at: dt.datetime, event: str, **more: Any) -> dict[str, Any]:
    return {**dict.fromkeys(STORY), "at": at, "event": event, **more}


def _scored_by(version: int, trained: Sequence[int]) -> str:
    """Return which predictor made a score of a version; scores of a buffer without one name none.

    Args:
        version: Version of the score.
        trained: Versions of the predictors, ascending: each is the first of its scores.
    """
    place = bisect.bisect_right(trained, version)
    if not trained:
        return f"score version {version}"
    by = f"predictor {trained[place - 1]}" if place else "the untrained predictor"
    return f"by {by} (score version {version})"


def _of_sample(row: dict[str, Any], trained: Sequence[int]) -> Iterator[dict[str, Any]]:
    added = f"by {row['source']}" if row["source"] else None
    yield _event(row["created_at"], "added", iteration=row["created_iteration"], detail=added)
    if None not in (row["scored_at"], row["score_version"]):
        by = _scored_by(row["score_version"], trained)
        scored = f"{cell(row['score'])}{' ' if trained else ', '}{by}"
        yield _event(row["scored_at"], "scored", detail=scored)


def _of_draws(tx: Transaction, number: int) -> Iterator[dict[str, Any]]:
    for row in tx.execute(queries.looks.draws_of_sample(), sample=number):
        of_batch = {"batch": row.id, "iteration": row.iteration, "worker": row.worker_id}
        is_argmax = row.n_argmax is not None and row.position < row.n_argmax
        how = "argmax share" if is_argmax else f"weight {cell(row.weight)}"
        yield _event(row.drawn_at, "drawn", **of_batch, detail=f"position {row.position}, {how}")
        if (ended := row.settled_at or row.released_at) is not None:
            yield _event(ended, state_of(row), **of_batch)


def _of_measurements(tx: Transaction, number: int) -> Iterator[dict[str, Any]]:
    for row in tx.execute(queries.looks.measurements_of_sample(), sample=number):
        what = row.error if row.error is not None else f"{row.objective} {cell(row.reward)}"
        took = "" if row.seconds is None else f" in {row.seconds:.3g} s"
        more = "" if row.details is None else f", {cell(row.details)}"
        yield _event(
            row.measured_at,
            "measured" if row.error is None else "failed",
            batch=row.batch_id,
            worker=row.worker_id or None,
            detail=f"{what}{took}{more}",
        )

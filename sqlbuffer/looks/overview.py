"""A buffer at a glance: its states, its best samples, its workers, its pace and the time left."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlbuffer._messages import n_of
from sqlbuffer.core import counts
from sqlbuffer.core.means import mean
from sqlbuffer.core.metrics_and_checkpoints import LOOP
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.looks.top import find_best
from sqlbuffer.looks.words import duration, number
from sqlbuffer.looks.workers import find_workers
from sqlbuffer.records import Stats

STATES = ("waiting", "claimed", "measured", "failed", "out")

BEST = 10
"""Number of best samples."""

PACE_OF = (1_000, 50_000)
"""Number of newest measurements that tell the pace, and the number if those have one time."""

_SLOW, _SLOW_S = 10, 60.0
"""The pace is not known after so many usual distances without a measurement, and so many seconds.
"""

_SETTINGS = ("name", "kind", "mode", "direction", "iteration", "created_at", "max_size")


def overview(tx: Transaction) -> dict[str, Any]:
    """Return what a look at a buffer begins with, at the same cost for a buffer of any size.

    `states` are samples by state, from the counters of the workers: "out" are samples that neither
    wait nor are claimed, measured or failed, None if samples were put back, which are counted
    twice otherwise. `pace` has the measurements per hour, from the newest 1,000; `seconds_left`
    until the budget is used up, without a budget until the pool is empty, and claimed samples are
    measured. `standstill` says why the time left is not known: without a budget a loop refills the
    pool, and ends with its iterations, which are not stored; a pool in mode "replay" stays full.
    """
    found = counts.stats(tx)
    budget = tx.own_row(queries.budget.used())
    used = int(budget.used)  # a sum of counters, of another type on PostgreSQL
    pace = find_pace(tx)
    left = None if budget.budget is None else max(0, budget.budget - used)
    best = find_best(tx, BEST, by="reward")
    workers = [_with_ages(row, pace["now"]) for row in find_workers(tx)]
    to_measure = found.claimed + (found.waiting if left is None else left)
    why = standstill(pace, workers) if to_measure else None
    if why is None and left is None and found.mode == "replay":
        why = "drawn samples wait again"
    if why is None and left is None and _is_of_loop(tx):
        why = "a loop refills the pool"
    return {
        **{name: getattr(found, name) for name in _SETTINGS},
        "objective": tx.execute(queries.buffers.objective()).scalar_one(),
        "stored": found.stored,
        "states": states_of(found),
        "best_reward": found.best_reward,
        "mean_of_best": mean([row["reward"] for row in best]) if best else None,
        "budget": budget.budget,
        "budget_used": used,
        "budget_left": left,
        "score_version": found.score_version,
        "has_stale_scores": found.refreshed_version != found.score_version,
        "unscored": found.unscored,
        "pace": pace,
        "seconds_left": None if why else seconds_left(to_measure, pace),
        "standstill": why,
        "newest": newest(found.claimed, pace),
        "best": best,
        "workers": workers,
    }


def _is_of_loop(tx: Transaction) -> bool:
    """Tell whether a training loop has worked on a buffer."""
    found = tx.execute(queries.checkpoints.newest_checkpoint(), checkpoint=LOOP)
    return found.first() is not None


def states_of(found: Stats) -> dict[str, int | None]:
    """Return the number of samples in each state, as far as counters tell."""
    numbers: dict[str, int | None] = {name: getattr(found, name) for name in STATES[:-1]}
    out = found.stored - sum(number or 0 for number in numbers.values())
    was_put_back = found.requeued or found.mode == "replay" or out < 0
    return {**numbers, "out": None if was_put_back else out}


def find_pace(tx: Transaction) -> dict[str, Any]:
    """Return the measurements per hour, and the seconds since the newest one.

    Measurements that were stored at one time, such as those of a batch, end the time before it.
    There is no pace if the newest one is much older than usual, which `is_old` tells.
    """
    for limit in PACE_OF:
        row = tx.execute(queries.pages.pace(), limit=limit).one()
        if row.n < limit or row.at_first < row.n:
            break
    found = {"per_hour": None, "last_at": row.last_at, "seconds_ago": None, "now": row.now}
    found["is_old"] = False
    if row.last_at is None:
        return found
    span_s = (row.last_at - row.first_at).total_seconds()
    ago_s = max(0.0, (row.now - row.last_at).total_seconds())
    found["seconds_ago"] = ago_s
    if span_s <= 0:
        return found
    if ago_s > max(_SLOW_S, _SLOW * span_s / (row.moments - 1)):
        return {**found, "is_old": True}
    return {**found, "per_hour": (row.n - row.at_first) / span_s * 3600}


def standstill(pace: dict[str, Any], workers: list[dict[str, Any]]) -> str | None:
    """Return why the time left is not known, as far as workers and the age of the pace tell."""
    if not any(row["state"] == "running" for row in workers):
        return "no worker runs"
    return f"none measured for {duration(pace['seconds_ago'])}" if pace["is_old"] else None


def newest(claimed: int, pace: dict[str, Any]) -> str:
    """Return a sentence on the newest measurement and the pace, or on the wait for the next one."""
    if pace["last_at"] is None:
        return "Nothing is measured yet."
    age = f"newest measurement is {duration(pace['seconds_ago'])} old"
    if pace["is_old"] and claimed:
        return f"{n_of(claimed, 'sample is', 'samples are')} claimed; the {age}."
    if pace["per_hour"] is None:
        return f"The {age}."
    return f"The {age}. The pace is {number(pace['per_hour'])} measurements an hour."


def seconds_left(samples: int, pace: dict[str, Any]) -> float | None:
    """Return how long so many measurements take; None if the pace is not known."""
    return None if not pace["per_hour"] else samples / pace["per_hour"] * 3600


def _with_ages(row: dict[str, Any], now: dt.datetime) -> dict[str, Any]:
    """Return a worker with the seconds since its heartbeat, and the samples it settles per hour."""
    alive_s = (row["heartbeat_at"] - row["created_at"]).total_seconds()
    return {
        **row,
        "silent_s": max(0.0, (now - row["heartbeat_at"]).total_seconds()),
        "per_hour": row["settled"] / alive_s * 3600 if alive_s > 1 and row["settled"] else None,
    }


def saved_by_duplicates(tx: Transaction) -> dict[str, Any]:
    """Return how many settled draws reused an earlier reward, and the seconds that this saved.

    Reads all measurements of the buffer.
    """
    found = counts.stats(tx)
    settled = found.drawn - found.claimed
    row = tx.execute(queries.pages.measured_draws()).one()
    n = max(0, settled - (row.drawn - row.reported))
    if tx.buffer.consumes:  # only a sample that was put back is drawn twice
        n = min(n, found.requeued)
    return {"samples": n, "seconds": None if row.seconds is None else n * row.seconds}

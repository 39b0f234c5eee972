"""What the raw floors of both databases have in common: the arithmetic of the race, without its bookkeeping."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ABILITIES = frozenset(
    "add add-duplicates add-more score draw draw-argmax replay iteration refresh len stats open memory "
    "processes-1 processes-2 processes-4".split()
)

ADD_CHUNK, SCORE_CHUNK, SWAP_CHUNK = 20_000, 10_000, 5_000
"""Samples in one transaction, as in the library."""

FLOOR = 1e-8
LEAST_TOP = 10_000

COUNTERS = (
    *("batches", "iterations", "added", "recorded", "requeued", "drawn", "settled", "released"),
    *("removed", "refused", "unscored", "unscorable", "measured", "failed"),
)

DRAWN = "p.sample_id, p.race_key, p.weight, s.source, p.score, s.reward, s.hash, s.requeues, s.text, s.payload, s.codec"
SAMPLE_ID, RACE_KEY, WEIGHT, RANKED, REWARD, TEXT = 0, 1, 2, 4, 5, 8
"""Where some of these columns stand."""


class Race(NamedTuple):
    """Where the race stands."""

    clock: float
    turn: int
    base: float | None
    top_score: float | None
    version: int
    iteration: int


def shift_sql(base: str) -> str:
    """Return the SQL of `shifted`, for one row of the pool."""
    return f"CASE WHEN score > {base} THEN score - {base} + {FLOOR} ELSE {FLOOR} END"


def race_sql(prefix: str, mark: str) -> str:
    """Return the query whose row is a `Race`."""
    return f"""
        SELECT max(w.clock), sum(w.batches), b.base_score, b.top_score, b.score_version, sum(w.iterations)
        FROM {prefix}buffers AS b JOIN {prefix}workers AS w ON w.buffer_id = b.id
        WHERE b.id = {mark}
        GROUP BY b.id
    """


def worker_row() -> dict[str, Any]:
    """Return the row of this process among the workers; its host is no real one, so that nobody buries it."""
    row: dict[str, Any] = {"id": f"raw-{os.getpid()}-{secrets.token_hex(4)}", "host": "raw", "pid": os.getpid()}
    return row | {"process_started_at": time.time(), "clock": 0.0} | dict.fromkeys(COUNTERS, 0)


def shifted(scores: NDArray[np.float64], base: float | None) -> NDArray[np.float64]:
    """Return weights, which count from the lowest score."""
    weights: NDArray[np.float64] = np.maximum(scores - (0.0 if base is None else base), 0.0) + FLOOR
    return weights


def arrivals(clock: float, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the keys of samples that join the race now."""
    keys: NDArray[np.float64] = clock + np.random.default_rng().standard_exponential(len(weights)) / weights
    return keys


def rescaled(
    keys: NDArray[np.float64], clock: float, old: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the keys after a change of weights."""
    return np.where(keys > clock, clock + (keys - clock) * (old / new), keys)


def top_flags(race: Race, scores: NDArray[np.float64]) -> list[bool]:
    """Tell which samples belong to those marked as top."""
    least = np.inf if race.top_score is None else race.top_score
    flags: list[bool] = (scores >= least).tolist()
    return flags


def top_rank(waiting: int, n: int) -> int:
    """Return how many samples are to be marked as top where n are wanted."""
    return min(max(LEAST_TOP, 20 * n, waiting // 50) - 1, waiting)


def waiting(totals: dict[str, int], *, consumes: bool) -> int:
    """Return the size of the pool from the sums of the counters."""
    size = totals["added"] + totals["requeued"] - totals["removed"]
    return size - (totals["drawn"] - totals["released"]) if consumes else size

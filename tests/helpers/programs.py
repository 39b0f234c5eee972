"""Programs of other processes, which import no torch: small ones, and random ones.

Of the random ones it is measured how far the totals that their draws estimate are from the truth.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import sqlalchemy as sa

from helpers import inside
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.weighting import Power, Softmax, Weighting
from sqlbuffer.core.workers import worker_id
from sqlbuffer.errors import ClaimLost
from sqlbuffer.store import SampleStore, open_store

WEIGHTINGS: tuple[str | Weighting, ...] = ("shift", "uniform", Softmax(2.0), Power(1.5))
SHARES = (0.0, 0.0, 0.3)
FEWEST = 8
"""Samples that must have come by chance; how many do is known before they are drawn."""


def lower(sample: str) -> str:
    """A key that can be pickled."""
    return sample.lower()


def work(store: SampleStore, results: Any) -> None:
    """Draw, settle, and say who this is."""
    with store:
        batch = store.sample(3)
        batch.settle([1.0] * 3)
        results.put((worker_id(), batch.samples))


@dataclasses.dataclass
class Totals:
    """Sums over draws of what 1/p estimates less the truth, and of its variance: a martingale and
    its size.

    Two attributes of the samples are summed up: whether a weight is at least a quarter, and weight
    / (weight + 1). A plain number would hang on samples of weight 1e-8: each is seen in one of 1e8
    batches, and counts for 1e8 there.

    The variance of a draw is the larger of two. That which is estimated from the draw itself is too
    small if rare samples are missing, and the error then below 0; that of all that wait, by the
    length of the draw, is too small if there is a rare one.
    """

    error: Any = dataclasses.field(default_factory=lambda: np.zeros(2))
    variance: Any = dataclasses.field(default_factory=lambda: np.zeros(2))
    n_draws: int = 0
    n_unknown: int = 0

    def see(self, batch: Batch, waiting: np.ndarray) -> None:
        """Take in a draw, and the weights of all that could have been in it."""
        p = batch.info.probability
        if np.isnan(p).any():
            self.n_unknown += 1
            return
        if (
            0 < (p < 1).sum() < FEWEST
        ):  # after what was certain, so few that 1/p has hardly a variance
            return
        self.n_draws += 1
        drawn = attributes(batch.weights)
        self.error += (drawn / p).sum(axis=1) - attributes(waiting).sum(axis=1)
        estimated = (drawn**2 * (1 - p) / p**2).sum(axis=1)
        self.variance += np.maximum(estimated, variance_of(waiting, batch.weights, p))

    def misses(self) -> float:
        """The larger of the two errors, in standard errors."""
        return float(np.max(np.abs(self.error) / np.sqrt(self.variance + 1e-12)))


def variance_of(waiting: np.ndarray, drawn: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the variance of the sums of 1/p, (2,), over all samples of these weights.

    An arrival by chance has p = 1 - exp(-weight * length), which tells the length of the draw.
    """
    by_chance = p < 1
    if not by_chance.any():
        return np.zeros(2)
    length = np.median(-np.log1p(-p[by_chance]) / drawn[by_chance])
    of_all = np.maximum(-np.expm1(-waiting * length), 1e-300)
    return (attributes(waiting) ** 2 * (1 - of_all) / of_all).sum(axis=1)


def attributes(weights: np.ndarray) -> np.ndarray:
    return np.array([weights >= 0.25, weights / (weights + 1.0)], dtype=np.float64)


class Player:
    """Does one thing after another at random."""

    def __init__(self, store: SampleStore, seed: int, number: int = 0) -> None:
        self.store, self.number = store, number
        self.rng = np.random.default_rng([seed, number])
        self.names = (f"{number}-{i}" for i in itertools.count())
        self.open: list[Batch] = []
        self.lowest = 0.0

    def scores(self, samples: list[Any]) -> np.ndarray:
        found = self.lowest + self.rng.exponential(2.0, len(samples))
        if self.rng.random() < 0.2:  # a new lowest score
            self.lowest -= self.rng.exponential(1.0)
            found[0] = self.lowest
        return found

    def add(self) -> None:
        names = [next(self.names) for _ in range(self.rng.integers(20, 100))]
        self.store.add(names, requeue=True)
        self.store.score(self.scores)

    def again(self) -> None:
        """What was settled or removed waits again; what waits is a duplicate."""
        names = [f"{self.number}-{i}" for i in self.rng.integers(0, 100, 10).tolist()]
        self.store.add(names, requeue=True)
        self.store.score(self.scores)

    def remove(self) -> None:
        ids = self.store.waiting().ids
        self.store.remove(self.rng.choice(ids, min(len(ids), 3), replace=False).tolist())

    def refresh(self) -> None:
        self.store.score(self.scores, only="all", chunk=20)

    def refresh_some(self) -> None:
        self.store.score(self.scores, only="all" if self.rng.random() < 0.5 else "stale", budget=10)

    def prioritise(self) -> None:
        """What is drawn gets priorities by what it was, and so do some that wait."""
        if self.store_draws_uniformly:
            return
        for batch in self.open[-1:]:
            batch.update_priorities(self.priorities(len(batch)) * (batch.weights > 1.0))
        ids = self.store.waiting().ids
        chosen = self.rng.choice(ids, min(len(ids), 12), replace=False)
        self.store.update_priorities(chosen, self.priorities(len(chosen)))

    def priorities_of(self, batch: Batch) -> np.ndarray | None:
        """Priorities with which the samples of a batch wait again once it is settled; or None."""
        if inside.handle_of(self.store).consumes or self.store_draws_uniformly:
            return None
        return self.priorities(len(batch)) if self.rng.random() < 0.5 else None

    def priorities(self, n: int) -> np.ndarray:
        found = max(self.lowest, 0.0) + self.rng.exponential(2.0, n)
        return found * (self.rng.random(n) > 0.05)

    @property
    def store_draws_uniformly(self) -> bool:
        return inside.handle_of(self.store).settings.weighting.name == "uniform"

    def draw(self) -> Batch:
        """Draw some dozens: of a handful 1/p is so skewed that its own standard error misses 4 in
        0.6 % of programs.
        """
        batch = self.store.sample(int(self.rng.integers(12, 40)), float(self.rng.choice(SHARES)))
        self.open.append(batch)
        return batch

    def end(self) -> None:
        """Settle or release one of the open batches."""
        if self.open:
            batch = self.open.pop(int(self.rng.integers(len(self.open))))
            if self.rng.random() < 0.5:
                batch.settle([1.0] * len(batch), priorities=self.priorities_of(batch))
            elif len(batch):
                batch.release()

    def close(self) -> None:
        for batch in self.open:
            batch.settle()

    def next_act(self) -> str:
        acts = {
            "draw": 8,
            "end": 6,
            "add": 4,
            "again": 1,
            "remove": 1,
            "refresh": 0.5,
            "refresh_some": 0.5,
            "prioritise": 2,
        }
        weights = np.array(list(acts.values()))
        return str(self.rng.choice(list(acts), p=weights / weights.sum()))


def play_alone(url: str, seed: int, n_acts: int = 40) -> Totals:
    """Run a program of one process; what waits before a draw is read."""
    totals = Totals()
    with open_store(
        url, name=f"alone {seed}", seed=seed, weighting=WEIGHTINGS[seed % 4], mode=mode_of(seed)
    ) as store:
        player = Player(store, seed)
        player.add()
        for _ in range(n_acts):
            act = player.next_act()
            if act != "draw":
                getattr(player, act)()
                continue
            weights = store.waiting().weights
            batch = player.draw()
            if len(batch):
                totals.see(batch, weights[weights > 0])
        player.close()
        assert store.check() == []
    return totals


def mode_of(seed: int) -> str:
    return "replay" if seed % 3 == 2 else "consume"


# -- three processes on a server -------------------------------------------------------------------

SEQUENCE = "public.order_of_commits"


@dataclasses.dataclass
class Event:
    """What a transaction has done, with its place among all: taken before its COMMIT, when it still
    has its locks.
    """

    place: int
    written: list[tuple[int, float]]
    """Scored samples that it has put into the pool or moved there, with their weights."""
    removed: list[int] = dataclasses.field(default_factory=list)
    draw: tuple[list[int], list[float], list[float], float, bool] | None = None
    """Ids, weights and probabilities, the clock after it, and whether it was by itself."""


class Journal:
    """Notes the events of one process."""

    def __init__(self, buffer: int) -> None:
        self.events: list[Event] = []
        self._written = (
            f"SELECT nextval('{SEQUENCE}'), sample_id, weight FROM (SELECT 1) AS one LEFT "
            f"JOIN sqlbuffer.pool "
            f"ON buffer_id = {buffer} AND pool.weight IS NOT NULL AND pool.xmin = "
            f"pg_current_xact_id()::xid"
        )

    def before_commit(self, connection: sa.Connection) -> None:
        if "number" in connection.info:  # one that writes
            rows = connection.connection.cursor().execute(self._written).fetchall()  # type: ignore[attr-defined]
            self.events.append(
                Event(rows[-1][0], [(row[1], row[2]) for row in rows if row[1] is not None])
            )


def play_together(
    url: str, number: int, seeds: Iterable[int], barrier: Barrier, n_acts: int, results: Any
) -> None:
    """Run programs as one of several processes; put the events of each into a queue."""
    for seed in seeds:
        with open_store(
            url, name=f"together {seed}", seed=seed, weighting=WEIGHTINGS[seed % 4]
        ) as store:
            player = Player(store, seed, number + 1)
            journal = Journal(inside.buffer_id(store))
            engine = inside.engine_of(store, "writer")
            sa.event.listen(engine, "commit", journal.before_commit)
            barrier.wait(120)
            player.add()
            for _ in range(n_acts):
                act = player.next_act()
                if act == "remove":
                    ids = player.rng.choice(
                        waiting := store.waiting().ids, min(len(waiting), 3), replace=False
                    )
                    store.remove(ids.tolist())
                    journal.events[-1].removed = ids.tolist()
                elif act == "draw":
                    n_before = len(journal.events)
                    batch = player.draw()
                    if len(batch):
                        columns = (batch.ids, batch.weights, batch.info.probability)
                        ids, weights, p = (column.tolist() for column in columns)
                        # A share by argmax may have widened the top first, which writes rows of the
                        # pool too.
                        assert len(journal.events) > n_before
                        journal.events[-1].draw = (
                            ids,
                            weights,
                            p,
                            batch.clock,
                            bool(batch.info.argmax.any()),
                        )
                else:
                    try:
                        getattr(player, act)()
                    except ClaimLost as exc:
                        raise AssertionError("no other process ends a batch here") from exc
            barrier.wait(120)
            player.close()
            results.put((seed, journal.events))
            barrier.wait(120)


def totals_of(events: list[Event]) -> Totals:
    """Go through what all have done, in the order of the locks; draws that overlap in the order of
    the race.
    """
    totals, waiting = Totals(), dict[int, float]()
    moving = (event for event in events if event.draw is not None or event.written or event.removed)
    events = sorted(
        moving, key=lambda event: event.place
    )  # a settlement is no end of what overlaps
    for overlaps, group in itertools.groupby(
        events, key=lambda event: event.draw is not None and not event.draw[4]
    ):
        acts = list(group)
        draws = [event.draw for event in acts if event.draw is not None]
        if overlaps:
            draws.sort(key=lambda draw: draw[3])
            is_known = not any(math.isnan(p) for draw in draws for p in draw[2])
            for draw in draws:
                _see(totals, waiting, draw, is_known=is_known)
            continue
        for event in acts:
            for i in event.removed:
                waiting.pop(i, None)
            if event.draw is not None:
                _see(totals, waiting, event.draw, is_known=True)
            waiting.update(event.written)
            waiting = {i: weight for i, weight in waiting.items() if weight > 0.0}
    return totals


def _see(totals: Totals, waiting: dict[int, float], draw: Any, *, is_known: bool) -> None:
    ids, weights, p, _, _ = draw
    batch: Any = _Seen(
        np.array(weights), _Chances(np.array(p if is_known else [math.nan] * len(p)))
    )
    assert set(ids) <= set(waiting), "what is drawn has waited"
    totals.see(batch, np.array(list(waiting.values())))
    for i in ids:
        del waiting[i]


@dataclasses.dataclass
class _Chances:
    probability: np.ndarray


@dataclasses.dataclass
class _Seen:
    weights: np.ndarray
    info: _Chances

"""No two waiting samples have one key: the clock is turned back before new keys would tie."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.samples import scores_of
from sqlbuffer import race
from sqlbuffer.db.schema import batches, draws, workers
from sqlbuffer.db.schema import pool as pool_table
from sqlbuffer.store import SampleStore, open_store

NewStore = Callable[..., SampleStore]

WEIGHTINGS = {
    "shift": race.Shift(),
    "softmax": race.Softmax(),
    "power": race.Power(),
    "uniform": race.Uniform(),
}
SCORES = [-1e300, -1e17, -400.0, -1.0, 0.0, 1e-300, 1.0, 3.0, 345.0, 1e17, 1e150, 1e300]
CLOCKS = [1e9, 1e150]
"""At the first, float64 has 1e-7 between two numbers, and one sample of weight 1 may join."""


def clock_of(store: SampleStore) -> float:
    return float(inside.handle_of(store).read(lambda tx: tx.race_state().clock))


def begin_at(store: SampleStore, clock: float) -> None:
    """Let the race stand at a clock, before all keys."""
    inside.execute(
        store,
        sa.update(workers)
        .where(workers.c.buffer_id == inside.buffer_id(store))
        .values(clock=clock, touched=clock),
    )
    assert clock_of(store) == clock


def assert_no_ties(store: SampleStore, act: str) -> None:
    own = pool_table.c.buffer_id == inside.buffer_id(store)
    drawable = sa.select(pool_table.c.race_key).where(own, pool_table.c.weight > 0)
    keys = inside.scalars(store, drawable)
    assert len(keys) == len(set(keys)), f"keys tie after {act}"


class Scorer:
    """Gives scores of all sizes in a random order."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)

    def __call__(self, samples: list[str]) -> np.ndarray:
        fewest = int(self.rng.integers(0, 3))  # so that the lowest score changes
        return self.rng.permutation(np.resize(SCORES[fewest:], len(samples)))


def acts(store: SampleStore) -> dict[str, Callable[[], Any]]:
    """All that makes keys or moves them, in the order in which it is done."""
    score, numbers = Scorer(), itertools.count()
    open_ones: list[Any] = []

    def add(n: int) -> None:
        store.add([f"s{next(numbers)}" for _ in range(n)])
        store.score(score, chunk=25)

    def replace() -> None:
        ids = store.waiting().ids[:3].tolist()
        store.replace(ids, [f"r{next(numbers)}" for _ in ids])
        store.score(score)

    return {
        "add": lambda: add(40),
        "draw": lambda: open_ones.append(store.sample(9)),
        "draw the best": lambda: open_ones.append(store.sample(6, pct_argmax=1.0)),
        "add one": lambda: add(1),
        "refresh": lambda: store.score(score, only="all"),
        "release the best": lambda: open_ones.pop().release(),
        "refresh with a budget": lambda: store.score(score, only="all", budget=7),
        "release": lambda: open_ones.pop().release(),
        "replace": replace,
        "draw all": lambda: store.sample(-1).settle(),
        "add to what is left": lambda: add(12),
    }


@pytest.mark.parametrize(
    ("kind", "weighting", "mode"),
    [
        *(("sqlite", *cell) for cell in itertools.product(WEIGHTINGS, ("consume", "replay"))),
        ("postgresql", "shift", "replay"),
        ("postgresql", "uniform", "consume"),
    ],
)
@pytest.mark.slow
def test_no_act_makes_keys_tie(
    request: pytest.FixtureRequest, kind: str, weighting: str, mode: str
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    settings: dict[str, Any] = {"weighting": WEIGHTINGS[weighting], "mode": mode, "seed": 3}
    for clock in CLOCKS if kind == "sqlite" else CLOCKS[:1]:
        with open_store(url, name=f"{clock}", **settings) as store:
            store.add([])  # from here on the worker has a row
            begin_at(store, clock)
            for name, act in acts(store).items():
                act()
                assert_no_ties(store, name)
            assert store.check() == []


def put_forward(store: SampleStore, clock: float) -> None:
    """Put the race forward: its clock, and the keys of all that waits, or is drawn beyond it."""
    number, now = inside.buffer_id(store), clock_of(store)
    its = sa.select(batches.c.id).where(batches.c.buffer_id == number)
    for table, own in (
        (pool_table, sa.and_(pool_table.c.buffer_id == number, pool_table.c.weight > 0)),
        (draws, sa.and_(draws.c.batch_id.in_(its), draws.c.race_key > now)),
    ):
        moved = sa.update(table).where(own).values(race_key=table.c.race_key + clock)
        inside.execute(store, moved)
    begin_at(store, now + clock)


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_released_share_by_argmax_asks_too(new_store: NewStore, mode: str) -> None:
    """Its keys lie beyond the clock, and stretch: to a millionth where the lowest score falls."""
    store = new_store(mode=mode, seed=3)
    store.add([f"s{i}" for i in range(60)])
    store.score(lambda samples: 1e-3 * np.arange(len(samples)))
    batch = store.sample(30, pct_argmax=1.0)
    store.add(["low"])
    store.score(lambda samples: np.full(len(samples), -1e3))
    put_forward(store, 1e9)
    batch.release()
    assert clock_of(store) == 0.0
    assert_no_ties(store, "release")
    assert store.check() == []


def test_released_batches_keep_their_order_where_a_release_turns_the_clock_back(
    new_store: NewStore,
) -> None:
    """Keys of two batches are 1e-9 apart behind a clock of 1e8. The clock is turned back by the
    release of the second one, whose keys are neither in the pool nor in an open batch then.
    """
    store = new_store(seed=6)

    def add(*scores: float) -> None:
        store.add([f"s{score}" for score in scores])
        store.score(scores_of)

    add(-2e9, -1e9, *(1e9 + i for i in range(12)))
    early, late, lightest = store.sample(6), store.sample(7), store.sample(1)
    assert min(early.scores) > 0 > min(late.scores) > lightest.scores[0]
    lightest.settle()
    add(0.1, 0.2, 0.3)
    store.score(scores_of, only="all")  # counts from 0.1
    store.sample(3).settle()
    put_forward(store, 1e9 - clock_of(store))
    add(*(0.4 + i / 10 for i in range(5)))
    early.release()
    assert clock_of(store) == 1e9
    late.release()
    assert clock_of(store) == 0.0
    assert_no_ties(store, "release")
    n = len(early) + len(late)
    assert hold(store.sample(n)).samples == [*early.samples, *late.samples]
    assert store.check() == []

"""The budget: a draw takes all that it allows, and a killed loop draws the same batches again."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.loops import environment, named, number
from helpers.samples import scores_of
from sqlbuffer.core.batch import Batch
from sqlbuffer.db import queries
from sqlbuffer.db.schema import batches, draws, measurements, samples
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import FunctionSampler
from sqlbuffer.training.weighted_buffer import WeightedBuffer

OpenStore = Callable[..., SampleStore]


def used(store: SampleStore) -> int:
    handle = inside.handle_of(store)
    return int(handle.read(lambda tx: tx.own_row(queries.budget.used()).used))


def costs(store: SampleStore, ids: Any) -> int:
    """How many of some waiting samples have no reward, and are in no open batch."""
    measured = sa.select(samples.c.id).where(samples.c.rewarded_at.is_not(None))
    claimed = (
        sa.select(draws.c.sample_id)
        .join(batches, batches.c.id == draws.c.batch_id)
        .where(queries.params.IS_OPEN, ~draws.c.reported)
    )
    free = {row[0] for row in inside.rows(store, sa.union(measured, claimed))}
    return len(set(ids.tolist()) - free)


def drawn_without_budget(store: SampleStore, n: int, pct_argmax: float) -> np.ndarray[Any, Any]:
    with store.sample(n, pct_argmax=pct_argmax) as batch:
        return batch.ids


def check_longest(store: SampleStore, budget: int, n: int, pct_argmax: float) -> None:
    """A batch is the longest one of at most n samples for which the budget is enough."""
    left = store.budget_left
    assert left is not None
    with store.sample(n, pct_argmax=pct_argmax) as batch:
        found = batch.ids
        assert used(store) <= max(budget, budget - left)
    store.set_budget(None)
    most = len(store) if n == -1 else n
    whole = drawn_without_budget(store, n, pct_argmax)
    if costs(store, whole) <= left:
        assert sorted(found) == sorted(whole)
    else:
        longest = drawn_without_budget(store, len(found), pct_argmax)
        assert found.tolist() == longest.tolist()
        assert costs(store, found) <= left
        longer = drawn_without_budget(store, min(len(found) + 1, most), pct_argmax)
        assert costs(store, longer) > left or len(longer) == len(found)
    store.set_budget(max(budget, used(store)))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "weighting"), [("consume", "shift"), ("replay", "uniform")])
def test_a_batch_is_the_longest_that_the_budget_allows(
    new_store: OpenStore, mode: str, weighting: str
) -> None:
    """After any history of draws, reports, releases, failures, retries and requeues."""
    rng = np.random.default_rng(1)
    store = new_store(mode=mode, weighting=weighting)
    names = [f"s{i}" for i in range(24)]
    store.add(names)
    store.score(scores_of)
    budget = 9
    store.set_budget(budget)
    held: list[Batch] = []
    for _ in range(8):
        n, share = int(rng.choice([1, 3, 8, 30, -1])), float(rng.choice([0, 0.3, 0.5, 1.0]))
        check_longest(store, budget, n, share)
        act = rng.integers(5)
        if act == 0 and held:
            held.pop(int(rng.integers(len(held)))).release()
        elif act == 1:
            store.retry()
        elif act == 2:
            store.add(rng.choice(names, 4).tolist(), requeue=True)
            store.score(scores_of)
        elif act == 3:
            store.record(rng.choice(names, 1).tolist(), [1.0])
            budget = max(budget, used(store))
        else:
            batch = hold(store.sample(n if n > 0 else 2, pct_argmax=share))
            some = batch.ids[: int(rng.integers(0, len(batch) + 1))]
            rewards = rng.choice([1.0, math.nan], len(some))
            settle = bool(rng.integers(2))
            if not settle or batch.report(some, rewards, settle=settle):
                held.append(batch)
        assert used(store) <= budget
        store.set_budget(budget)
    for batch in held:
        if batch._is_open:
            batch.release()
    assert store.check() == []


def test_samples_with_a_reward_cost_nothing(new_store: OpenStore) -> None:
    store = new_store(weighting="uniform")
    store.add(named(*range(10)))
    store.set_budget(6)
    with store.sample(6) as batch:
        before = batch.samples
        batch.report(batch.ids[2:5], [1.0, math.nan, 3.0], settle=False)
    assert store.budget_left == 3
    with store.sample(6) as batch:
        assert batch.samples == before
        batch.report(batch.ids, np.ones(6), settle=False)
    assert (store.budget_left, store.sample(1).samples) == (0, before[:1])


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("options", [{}, {"each": True}], ids=["plain", "each"])
def test_own_samples_of_samplers_meet_the_budget(
    store_url: str, share: float, options: dict[str, Any]
) -> None:
    """Exactly, also in a run that is killed and resumed; known samples cost nothing."""

    def fn(sample: Any) -> Any:
        calls.append(sample)
        if len(calls) == 6 and options:
            raise Killed
        return number(sample) if options else [number(each) for each in sample]

    calls: list[Any] = []
    own = FunctionSampler(
        lambda n, rng: ["s1", *named(*rng.integers(100, 1000, n))], "own", 0, 1.0 - share
    )
    while True:
        buffer = Buffer(share, url=store_url)
        buffer.store.set_budget(13)
        env = environment(
            buffer, waiting=20, rewards=[RewardCallback(fn, **options)], samplers=[own]
        )
        try:
            env.fit(4, iters=20, report=0)
        except Killed:
            continue
        finally:
            found = buffer.store.stats()
            buffer.close()
        break
    assert (found.measured, found.failed) == (13, 0)


class Killed(BaseException):
    pass


class ByNumber(WeightedBuffer):
    def compute_weights(self, samples: list[str]) -> Any:
        return scores_of(samples)


class Moments(Callback):
    """Raises at some of the numbered calls: of the reward function, and before each settling."""

    def __init__(self, kills: set[int]) -> None:
        super().__init__(name="moments", order=90)
        self.kills, self.n, self.n_killed = kills, 0, 0

    def pass_one(self) -> None:
        self.n += 1
        if self.n in self.kills:
            self.n_killed += 1
            raise Killed

    def measure(self, sample: str) -> float:
        self.pass_one()
        return number(sample)

    def compute_loss(self) -> None:
        self.pass_one()


def loop_of(url: str, name: str, kind: str, moments: Moments) -> Any:
    options: dict[str, Any] = {"url": url, "name": name, "seed": 3, "requeue": False}
    if kind == "argmax":
        buffer: Buffer = ByNumber(1.0, 1, pct_argmax=0.4, **options)
    else:
        buffer = Buffer(1.0, mode=kind, **options)
    rewards = [RewardCallback(moments.measure, each=True)]
    return environment(buffer, waiting=20, rewards=rewards, cbs=[moments])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "kind"), [("sqlite", "consume"), ("sqlite", "argmax"), ("postgresql", "replay")]
)
def test_a_killed_loop_with_a_budget_draws_the_same_batches(
    request: pytest.FixtureRequest, database: str, kind: str
) -> None:
    """Killed in the middle of batches, and when the whole budget was just used."""
    url = request.getfixturevalue(f"{database}_url")
    drawn: dict[str, list[Any]] = {}
    for name, kills in {"whole": set[int](), "killed": {4, 17, 20}}.items():
        moments = Moments(kills)
        for _ in range(len(kills) + 1):
            env = loop_of(url, name, kind, moments)
            env.buffer.store.set_budget(15)
            with contextlib.suppress(Killed):
                env.fit(6, iters=8, report=0)
            env.buffer.close()
        assert moments.n_killed == len(kills)
        with open_store(url, name=name) as store:
            assert (used(store), len(measured(store)), store.check()) == (15, 15, [])
            drawn[name] = settled(store)
    assert drawn["killed"] == drawn["whole"]
    assert len(drawn["whole"]) >= 15


def measured(store: SampleStore) -> Any:
    own = measurements.c.buffer_id == inside.buffer_id(store)
    return inside.rows(store, sa.select(measurements.c.id).where(own))


def settled(store: SampleStore) -> list[Any]:
    """Texts of the samples of all settled batches, in their order."""
    query = (
        sa.select(batches.c.iteration, draws.c.position, samples.c.text)
        .join(draws, draws.c.batch_id == batches.c.id)
        .join(samples, samples.c.id == draws.c.sample_id)
        .where(batches.c.settled_at.is_not(None))
        .where(samples.c.buffer_id == inside.buffer_id(store))
        .order_by(batches.c.id, draws.c.position)
    )
    return [tuple(row) for row in inside.rows(store, query)]
